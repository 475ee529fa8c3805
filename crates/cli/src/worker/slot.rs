//! A kernel on tensors that stay in memory, so that calls of it can be timed again and again.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use regard::{Inputs, Kernel, Outputs, Pool, Problem, Schedule, Spec, View, Workspace};
use regard_ir::inputs;
use regard_ir::operands::{Operand, Rows};
use regard_ir::variant::InputType;
use regard_oracle::random::CapturedBuffer;

use super::Refusal;
use super::request::{BadRequest, Request};
use crate::execute::{key_rows, query_rows};
use crate::failure::Failure;
use crate::memory;
use crate::storage::elements;
use crate::tensors::signature::Layout;
use crate::tensors::stored::Stored;

/// The order of axes in the files of the protocol.
const LAYOUT: Layout = Layout::Bhnd;

/// What can be timed.
pub(super) trait Timed {
    /// Runs the kernel once.
    fn call(&mut self, pool: &Pool) -> Result<(), Failure>;

    /// What it gave last, as the bytes of f32.
    fn output(&self) -> Vec<u8>;
}

/// A kernel, its tensors, and where its output goes.
struct Slot {
    kernel: Kernel,
    schedule: Schedule,
    workspace: Workspace,
    /// Queries and matrices.
    queries: Vec<Stored<'static>>,
    keys: Vec<Stored<'static>>,
    captured: Vec<CapturedBuffer>,
    o: Stored<'static>,
}

/// Reads a kernel's tensors from the folder that `request` names: its operands, as q, k and v, as raw f32
/// `[head, token, channel]`, which are rounded to the kernel's storage, and each declared input as raw i32 or f32.
///
/// # Errors
/// If a file is missing or has another length, the spec declares inputs of another type, or the problem cannot be
/// scheduled for so many threads.
pub(super) fn set_up(
    kernel: Kernel,
    request: &Request<'_>,
    threads: usize,
) -> Result<Box<dyn Timed>, Refusal> {
    let dir = Path::new(request.field("dir")?);
    let tokens: usize = request.number("tokens")?;
    let problem = Problem::prefill(kernel.spec().source, 1, tokens, tokens).map_err(Failure::from)?;
    let (heads, dtype) = (kernel.variant().heads, kernel.plan().dtype);
    let (mut queries, mut keys) = (Vec::new(), Vec::new());
    for Operand { name, heads, rows, width } in kernel.variant().operands() {
        let tokens = if let Rows::Matrix(rows) = rows { rows as usize } else { tokens };
        let shape = [1, heads.unwrap_or(1) as usize, tokens, width as usize];
        let numbers = read(&dir.join(format!("{name}.f32")), elements(shape), f32::from_le_bytes)?;
        let stored = Stored::nearest(dtype, numbers, shape, LAYOUT);
        if rows == Rows::Keys { keys.push(stored) } else { queries.push(stored) }
    }
    let captured = captured(kernel.spec(), &problem, dir)?;
    let data: Vec<_> = captured.iter().map(CapturedBuffer::data).collect();
    let schedule = kernel
        .schedule(&problem, &data, threads)
        .map_err(|error| Failure::Schedule { spec: kernel.spec().name.clone(), error })?;
    let mut workspace = Workspace::default();
    workspace.try_grow(&schedule).map_err(|_| memory::OutOfMemory {
        what: "the workspace",
        bytes: schedule.workspace_bytes() as u128,
    })?;
    let o_shape = [1, kernel.variant().output_heads() as usize, tokens, heads.value_dim as usize];
    let o = Stored::zeroed("the output", dtype, o_shape, LAYOUT).map_err(Failure::from)?;
    Ok(Box::new(Slot { kernel, schedule, workspace, queries, keys, captured, o }))
}

impl Timed for Slot {
    fn call(&mut self, pool: &Pool) -> Result<(), Failure> {
        let captured: Vec<_> = self.captured.iter().map(CapturedBuffer::data).collect();
        let q = query_rows(&self.kernel, &views(&self.queries)?)?;
        let inputs = Inputs::of(q, key_rows(&self.kernel, &views(&self.keys)?)?).captured(&captured);
        let outputs = Outputs { o: self.o.rows_mut()?, lse: None };
        self.kernel.run(&self.schedule, pool, inputs, outputs, &mut self.workspace).map_err(|error| {
            let spec = self.kernel.spec().name.clone();
            Failure::Run { spec, error }
        })
    }

    fn output(&self) -> Vec<u8> {
        self.o.elements.floats().flat_map(f32::to_le_bytes).collect()
    }
}

fn captured(spec: &Spec, problem: &Problem<'_>, dir: &Path) -> Result<Vec<CapturedBuffer>, Refusal> {
    let lens = inputs::lens(&spec.inputs.shapes, &spec.heads, spec.source, problem);
    let declared = spec.inputs.names.iter().zip(&spec.inputs.shapes).zip(lens);
    declared
        .map(|((name, shape), len)| {
            let (file, len) = (|ending: &str| dir.join(format!("{name}.{ending}")), len as u128);
            Ok(match shape.dtype {
                InputType::F32 => CapturedBuffer::F32(read(&file("f32"), len, f32::from_le_bytes)?),
                InputType::I32 => CapturedBuffer::I32(read(&file("i32"), len, i32::from_le_bytes)?),
                InputType::Bool => {
                    let found = format!("{:?}", shape.dtype);
                    let expected = "inputs of i32 or f32".to_owned();
                    return Err(BadRequest::Value { key: "spec", found, expected }.into());
                }
            })
        })
        .collect()
}

/// The numbers of a file that has nothing else.
pub(super) fn read<N>(path: &Path, expected: u128, number: fn([u8; 4]) -> N) -> Result<Vec<N>, BadRequest> {
    let fail = |error: std::io::Error| BadRequest::File {
        path: path.display().to_string(),
        error: error.to_string(),
    };
    let bytes: Cow<'_, [u8]> = fs::read(path).map_err(fail)?.into();
    let (words, rest) = bytes.as_chunks::<4>();
    if words.len() as u128 != expected || !rest.is_empty() {
        return Err(BadRequest::Length {
            path: path.display().to_string(),
            found_bytes: bytes.len(),
            expected_bytes: expected.saturating_mul(4),
        });
    }
    Ok(words.iter().copied().map(number).collect())
}

/// Views of stored tensors.
///
/// # Errors
/// As [`Stored::rows`].
pub(super) fn views<'a>(stored: &'a [Stored<'_>]) -> Result<Vec<View<'a>>, Failure> {
    stored.iter().map(Stored::rows).collect()
}
