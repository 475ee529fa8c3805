//! Times heads of every width from 16 to 576 in steps of 8, each in turn with the next: no width may take longer than a
//! larger one.
//!
//! `cargo run --release -p regard-tests --example widths`; a minute.

use std::error::Error;
use std::time::Instant;

use regard::{Inputs, Kernel, Outputs, Pool, Problem, Schedule, View, ViewMut, Workspace, machine};
use regard_oracle::random;
use regard_tests::specs;

const TOKENS: usize = 1024;
const HEADS: usize = 4;
const WIDEST: usize = 576;
const STEP: usize = 8;
const THREADS: usize = 2;
const RUNS: usize = 15;

/// The width that rates are told by.
const COMMON: usize = 128;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(THREADS)?;
    let rows: Vec<f32> = random::normal(1).take(HEADS * TOKENS * (WIDEST + STEP)).collect();
    let mut o = vec![0.0; rows.len()];
    let mut common = Call::new(COMMON)?;
    println!("width   GFLOP/s   of width {COMMON}   time by that of the next   quartiles");
    for width in (2 * STEP..=WIDEST).step_by(STEP) {
        let (mut call, mut next) = (Call::new(width)?, Call::new(width + STEP)?);
        for call in [&mut call, &mut next, &mut common] {
            call.run(&pool, &rows, &mut o)?;
        }
        let (mut rates, mut by_common, mut by_next) = (vec![], vec![], vec![]);
        for _ in 0..RUNS {
            let [ours, larger, common] = [
                call.run(&pool, &rows, &mut o)?,
                next.run(&pool, &rows, &mut o)?,
                common.run(&pool, &rows, &mut o)?,
            ];
            rates.push(call.flops() / ours / 1e9);
            by_common.push(common / ours * width as f64 / COMMON as f64);
            by_next.push(ours / larger);
        }
        let [rates, by_common, by_next] = [rates, by_common, by_next].map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            samples
        });
        println!(
            "{width:5} {:9.1} {:10.1} % {:18.3} {:>21.3} to {:.3}{}",
            rates[RUNS / 2],
            100.0 * by_common[RUNS / 2],
            by_next[RUNS / 2],
            by_next[RUNS / 4],
            by_next[RUNS * 3 / 4],
            if by_next[RUNS / 2] > 1.05 { "   longer" } else { "" },
        );
    }
    Ok(())
}

/// A kernel and what it runs with.
struct Call {
    width: usize,
    kernel: Kernel,
    schedule: Schedule,
    workspace: Workspace,
}

impl Call {
    fn new(width: usize) -> Result<Self, Box<dyn Error>> {
        let spec = specs::parse(&format!("heads = {{ query = {HEADS}, dim = {width} }}\nmask = 'causal'"));
        let kernel = Kernel::compile(&spec, &machine::host())?;
        let problem = Problem::prefill(spec.source, 1, TOKENS, TOKENS)?;
        let schedule = kernel.schedule(&problem, &[], THREADS)?;
        let workspace = Workspace::new(&schedule);
        Ok(Self { width, kernel, schedule, workspace })
    }

    /// Multiplications and additions of a run.
    fn flops(&self) -> f64 {
        (HEADS * TOKENS * (TOKENS + 1) / 2 * 4 * self.width) as f64
    }

    /// The time of one run, in seconds.
    fn run(&mut self, pool: &Pool, rows: &[f32], o: &mut [f32]) -> Result<f64, Box<dyn Error>> {
        let shape = [1, HEADS, TOKENS];
        let view = || View::contiguous(&rows[..HEADS * TOKENS * self.width], shape, self.width);
        let o = &mut o[..HEADS * TOKENS * self.width];
        let outputs = Outputs { o: ViewMut::contiguous(o, shape, self.width)?, lse: None };
        let start = Instant::now();
        let inputs = Inputs::new(view()?, view()?, view()?);
        self.kernel.run(&self.schedule, pool, inputs, outputs, &mut self.workspace)?;
        Ok(start.elapsed().as_secs_f64())
    }
}
