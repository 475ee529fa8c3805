//! The call of the README: what stands between its two marks is there, word for word.

use std::error::Error;
use std::path::Path;

/// Sequences, queries and keys of the call.
pub const TOKENS: usize = 512;

/// What the call reads, heads before tokens.
pub struct Tensors {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub doc: Vec<i32>,
    pub bias: Vec<f32>,
}

/// Computes `my_variant` as the README does.
pub fn attend(path: &Path, tensors: &Tensors, o: &mut [f32], lse: &mut [f32]) -> Result<(), Box<dyn Error>> {
    let Tensors { q, k, v, doc, bias } = tensors;
    // README: from here
    use regard::{
        InputData, Inputs, Kernel, Outputs, Pool, Problem, Threads, View, ViewMut, Workspace, machine,
    };

    // Once: the plan for this machine; `kernel.report()` says why it is as it is.
    let spec = regard::from_file(path)?.spec;
    let kernel = Kernel::compile(&spec, &machine::host())?;
    let pool = Pool::new(2)?;

    // For each problem: 1 sequence of 512 queries over 512 keys, and the tensors that the spec declares, in its order.
    let problem = Problem::prefill(spec.source, 1, 512, 512)?;
    let captured = [InputData::I32(doc), InputData::F32(bias)];
    let schedule = kernel.schedule(&problem, &captured, pool.count())?;
    let mut workspace = Workspace::new(&schedule);

    // Often: no allocation, no copies. A view is sequences, heads and tokens, then the width of a row; any strides.
    kernel.run(
        &schedule,
        &pool,
        Inputs::new(
            View::contiguous(q, [1, 8, 512], 64)?,
            View::contiguous(k, [1, 2, 512], 64)?,
            View::contiguous(v, [1, 2, 512], 64)?,
        )
        .captured(&captured),
        Outputs {
            o: ViewMut::contiguous(o, [1, 8, 512], 64)?,
            lse: Some(ViewMut::contiguous(lse, [1, 8, 512], 1)?),
        },
        &mut workspace,
    )?;
    // README: to here
    Ok(())
}
