//! A kernel on a cache that was filled beforehand, so that calls of it can be timed again and again.

use std::path::Path;

use half::{bf16, f16};
use regard::{Dtype, Kernel, Outputs, Pool, Queries};
use regard_ir::problem::Phase;

use super::Refusal;
use super::request::{BadRequest, Request};
use super::slot::{Timed, elements, read};
use crate::cached::{self, Contents, Filled};
use crate::execute::{run_failure, view, view_mut};
use crate::failure::Failure;
use crate::memory;
use crate::storage::Storage;
use crate::tensors::signature::{Layout, Stored};
use crate::verify::problem::Size;

/// One query of each sequence: files have the order that packed tensors have too.
const LAYOUT: Layout = Layout::Packed;

/// A kernel, its cache, its queries, and where its output goes.
struct Slot<T> {
    kernel: Kernel,
    filled: Filled,
    q: Stored<'static>,
    o: Vec<T>,
    o_shape: [usize; 4],
}

/// Reads a kernel's tensors from the folder that `request` names, raw f32 `[sequence, head, token, channel]`: one query of each
/// sequence, and its keys and values, which are rounded to the kernel's storage and appended to a cache.
///
/// # Errors
/// If a file is missing or has another length, the spec declares inputs, or the library has no such cache.
pub(super) fn set_up(
    kernel: Kernel,
    request: &Request<'_>,
    threads: usize,
) -> Result<Box<dyn Timed>, Refusal> {
    match kernel.plan().dtype {
        Dtype::F32 => Slot::<f32>::of(kernel, request, threads, |x| x),
        Dtype::F16 => Slot::<f16>::of(kernel, request, threads, f16::from_f32),
        Dtype::Bf16 => Slot::<bf16>::of(kernel, request, threads, bf16::from_f32),
    }
}

impl<T: Storage + Copy + Into<f32>> Slot<T> {
    fn of(
        kernel: Kernel,
        request: &Request<'_>,
        threads: usize,
        round: fn(f32) -> T,
    ) -> Result<Box<dyn Timed>, Refusal> {
        let inputs = &kernel.spec().inputs.names;
        if !inputs.is_empty() {
            let (found, expected) = (inputs.join(", "), "no inputs where keys are cached".to_owned());
            return Err(BadRequest::Value { key: "spec", found, expected }.into());
        }
        let dir = Path::new(request.field("dir")?);
        let size = Size { batch: request.number("batch")?, queries: 1, keys: request.number("tokens")? };
        let problem = cached::problem(kernel.spec(), Phase::Decode, size).map_err(Failure::from)?;
        let heads = kernel.variant().heads;
        let numbers = |name: &str, shape| -> Result<Vec<T>, Refusal> {
            let numbers = read(&dir.join(format!("{name}.f32")), elements(shape), f32::from_le_bytes)?;
            Ok(numbers.into_iter().map(round).collect())
        };
        let rows = |name: &str, n_heads: u32, width: u32| -> Result<Stored<'static>, Refusal> {
            let shape = [size.batch, n_heads as usize, size.keys, width as usize];
            let elements = T::store(numbers(name, shape)?);
            Ok(Stored { elements, shape, strides: Layout::Bhnd.strides(shape) })
        };
        let packed = |n_heads: u32, width: u32| [1, n_heads as usize, size.batch, width as usize];
        let shape = packed(heads.query, heads.dim);
        let q = Stored { elements: T::store(numbers("q", shape)?), shape, strides: LAYOUT.strides(shape) };
        let (k, v) = (rows("k", heads.kv, heads.dim)?, rows("v", heads.value, heads.value_dim)?);
        let (k, v) = (view::<T>(&k)?, view::<T>(&v)?);
        let contents = Contents {
            shared: [k, v].map(|rows| rows.tokens(0..0)),
            own: |sequence| [k.sequence(sequence), v.sequence(sequence)],
            captured: &[],
        };
        let filled = Filled::new(&kernel, &problem.view(), contents, threads)?;
        let o_shape = packed(kernel.variant().output_heads(), heads.value_dim);
        let o = memory::zeroed("the output", elements(o_shape))?;
        Ok(Box::new(Self { kernel, filled, q, o, o_shape }))
    }
}

impl<T: Storage + Copy + Into<f32>> Timed for Slot<T> {
    fn call(&mut self, pool: &Pool) -> Result<(), Failure> {
        let Self { kernel, filled, q, o, o_shape } = self;
        let queries = Queries { q: view::<T>(q)?, captured: &[], gate: None };
        let outputs = Outputs { o: view_mut(o, *o_shape, LAYOUT)?, lse: None };
        filled.decode(kernel, pool, queries, outputs).map_err(|error| run_failure(kernel.spec(), error))
    }

    fn output(&self) -> Vec<u8> {
        self.o.iter().flat_map(|&x| Into::<f32>::into(x).to_le_bytes()).collect()
    }
}
