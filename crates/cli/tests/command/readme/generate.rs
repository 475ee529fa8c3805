//! The second call of the README: what stands between its two marks is there, word for word.

use std::error::Error;
use std::path::Path;

/// Tokens of the sequence, and those of its prompt.
pub const TOKENS: usize = 400;
pub const PROMPT: usize = 100;

/// What the call reads, heads before tokens.
pub struct Tensors {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

/// Takes a sequence through `chat` as the README does: the outputs of its prompt, and of the last token.
pub fn generate(path: &Path, tensors: &Tensors) -> Result<[Vec<f32>; 2], Box<dyn Error>> {
    let Tensors { q, k, v } = tensors;
    let (mut prompt_o, mut o) = (vec![f32::NAN; 8 * PROMPT * 64], vec![f32::NAN; 8 * 64]);
    // README: from here
    use regard::{CacheLimits, Inputs, Kernel, Outputs, Pool, Threads, View, ViewMut, Workspace, machine};

    let spec = regard::from_file(path)?.spec;
    let kernel = Kernel::compile(&spec, &machine::host())?;
    let pool = Pool::new(2)?;
    let q = View::contiguous(q, [1, 8, 400], 64)?;
    let (k, v) = (View::contiguous(k, [1, 2, 400], 64)?, View::contiguous(v, [1, 2, 400], 64)?);

    // Room for one sequence of up to a million tokens, of which the ring holds those that the mask can still reach.
    let mut cache = kernel.cache(CacheLimits { at_once: 100, ..CacheLimits::new(1, 1_000_000) })?;
    let sequence = cache.open()?;

    // The prompt: its keys are turned and rounded to 8 bits once, then its 100 queries attend to them.
    let schedule = kernel.schedule_next(&cache, sequence, 100, &[], pool.count())?;
    kernel.prefill_next(
        &schedule,
        &pool,
        (&mut cache, sequence),
        Inputs::new(q.tokens(0..100), k.tokens(0..100), v.tokens(0..100)),
        Outputs { o: ViewMut::contiguous(&mut prompt_o, [1, 8, 100], 64)?, lse: None },
        &mut Workspace::new(&schedule),
    )?;

    // Each further token is appended and attends to what the cache holds. Nothing is allocated from here on.
    let mut step = kernel.step(&cache, 1, pool.count())?;
    for at in 100..400 {
        let now = at..at + 1;
        let inputs = Inputs::new(q.tokens(now.clone()), k.tokens(now.clone()), v.tokens(now));
        let outputs = Outputs { o: ViewMut::contiguous(&mut o, [1, 8, 1], 64)?, lse: None };
        kernel.decode_next(&mut step, &pool, (&mut cache, &[sequence]), inputs, outputs)?;
    }
    // README: to here
    Ok([prompt_o, o])
}
