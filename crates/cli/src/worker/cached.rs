//! A kernel on a cache that was filled beforehand, so that calls of it can be timed again and again.

use std::path::Path;

use regard::{Kernel, Outputs, Pool, Queries};
use regard_ir::operands::{Operand, Rows};
use regard_ir::problem::Phase;

use super::Refusal;
use super::request::{BadRequest, Request};
use super::slot::{Timed, read, views};
use crate::cached::{self, Contents, Filled};
use crate::execute::{key_rows, query_rows, run_failure};
use crate::failure::Failure;
use crate::storage::elements;
use crate::tensors::signature::Layout;
use crate::tensors::stored::Stored;
use crate::verify::problem::Size;

/// The order of q and o that calls on a cache have; files have heads before the tokens of a sequence.
const LAYOUT: Layout = Layout::Packed;

/// A kernel, its cache, its queries, and where its output goes.
struct Slot {
    kernel: Kernel,
    filled: Filled,
    /// Queries of a sequence.
    queries: usize,
    /// They, and matrices.
    q: Vec<Stored<'static>>,
    o: Stored<'static>,
}

/// Reads a kernel's tensors from the folder that `request` names, raw f32 `[sequence, head, token, channel]`: queries of each
/// sequence, and its keys and values, which are rounded to the kernel's storage and appended to a cache. What all sequences begin
/// with comes first in files of keys and values, `[head, token, channel]`; the sequences are forked from it.
///
/// # Errors
/// If a file is missing or has another length, the spec declares inputs, a number is not what the phase has, or the library has no
/// such cache.
pub(super) fn set_up(
    kernel: Kernel,
    phase: Phase,
    request: &Request<'_>,
    threads: usize,
) -> Result<Box<dyn Timed>, Refusal> {
    let queries = match phase {
        Phase::Few => request.number("queries")?,
        _ => 1,
    };
    let size = Size { batch: request.number("batch")?, queries, keys: request.number("tokens")? };
    let shared = request.optional("shared").map_or(Ok(0), |_| request.number("shared"))?;
    if shared > size.keys {
        let expected = format!("at most the {} tokens of a sequence", size.keys);
        return Err(BadRequest::Value { key: "shared", found: shared.to_string(), expected }.into());
    }
    Slot::of(kernel, request, Sizes { phase, size, shared, threads })
}

/// What a slot is for.
struct Sizes {
    phase: Phase,
    size: Size,
    /// Tokens that all sequences begin with.
    shared: usize,
    threads: usize,
}

impl Slot {
    fn of(kernel: Kernel, request: &Request<'_>, sizes: Sizes) -> Result<Box<dyn Timed>, Refusal> {
        let inputs = &kernel.spec().inputs.names;
        if !inputs.is_empty() {
            let (found, expected) = (inputs.join(", "), "no inputs where keys are cached".to_owned());
            return Err(BadRequest::Value { key: "spec", found, expected }.into());
        }
        let dir = Path::new(request.field("dir")?);
        let Sizes { phase, size, shared, threads } = sizes;
        let problem = cached::problem(kernel.spec(), phase, size).map_err(Failure::from)?;
        let (heads, dtype) = (kernel.variant().heads, kernel.plan().dtype);
        let numbers = |name: &str, len: u128| read(&dir.join(format!("{name}.f32")), len, f32::from_le_bytes);
        let stored = |numbers, shape, layout| Stored::nearest(dtype, numbers, shape, layout);
        let packed = |n_heads: u32, width: u32| {
            [1, n_heads as usize, size.batch.saturating_mul(size.queries), width as usize]
        };
        let (mut q, mut common, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for Operand { name, heads: n_heads, rows, width } in kernel.variant().operands() {
            let n_heads = n_heads.unwrap_or(1);
            let heads_of = |batch: usize, rows: usize| [batch, n_heads as usize, rows, width as usize];
            match rows {
                Rows::Queries => {
                    let shape = packed(n_heads, width);
                    let of_each = [n_heads as usize, size.queries, width as usize];
                    q.push(stored(swapped(&numbers(name, elements(shape))?, of_each), shape, LAYOUT));
                }
                Rows::Matrix(rows) => {
                    let shape = heads_of(1, rows as usize);
                    q.push(stored(numbers(name, elements(shape))?, shape, Layout::Bhnd));
                }
                Rows::Keys => {
                    let (first, rest) = (heads_of(1, shared), heads_of(size.batch, size.keys - shared));
                    let mut all = numbers(name, elements(first).saturating_add(elements(rest)))?;
                    let others = all.split_off(elements(first) as usize);
                    common.push(stored(all, first, Layout::Bhnd));
                    own.push(stored(others, rest, Layout::Bhnd));
                }
            }
        }
        let own = key_rows(&kernel, &views(&own)?)?;
        let contents = Contents {
            shared: key_rows(&kernel, &views(&common)?)?,
            own: |sequence| own.sequence(sequence),
            captured: &[],
        };
        let filled = Filled::new(&kernel, &problem.view(), contents, threads)?;
        let o_shape = packed(kernel.variant().output_heads(), heads.value_dim);
        let o = Stored::zeroed("the output", dtype, o_shape, LAYOUT).map_err(Failure::from)?;
        Ok(Box::new(Self { kernel, filled, queries: size.queries, q, o }))
    }
}

/// Of each sequence rows `[outer][inner]`, as `[inner][outer]`.
fn swapped(data: &[f32], [outer, inner, width]: [usize; 3]) -> Vec<f32> {
    let mut swapped = Vec::with_capacity(data.len());
    for sequence in data.chunks((outer * inner * width).max(1)) {
        for (i, o) in (0..inner).flat_map(|i| (0..outer).map(move |o| (i, o))) {
            swapped.extend_from_slice(&sequence[(o * inner + i) * width..][..width]);
        }
    }
    swapped
}

impl Timed for Slot {
    fn call(&mut self, pool: &Pool) -> Result<(), Failure> {
        let Self { kernel, filled, q, o, .. } = self;
        let queries = Queries::of(query_rows(kernel, &views(q)?)?);
        let outputs = Outputs { o: o.rows_mut()?, lse: None };
        filled.decode(kernel, pool, queries, outputs).map_err(|error| run_failure(kernel.spec(), error))
    }

    fn output(&self) -> Vec<u8> {
        let [_, heads, _, width] = self.o.shape;
        let o: Vec<f32> = self.o.elements.floats().collect();
        swapped(&o, [self.queries, heads, width]).into_iter().flat_map(f32::to_le_bytes).collect()
    }
}
