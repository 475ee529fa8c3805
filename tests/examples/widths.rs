//! Times heads of every width from 16 to 576 in steps of 8, each in turn with the next: no width may take longer than a
//! larger one.
//!
//! `cargo run --release -p regard-tests --example widths`; a minute.

use std::error::Error;

use regard::Pool;
use regard_oracle::random;
use regard_tests::specs;
use regard_tests::timed::Call;

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
    let mut common = call(COMMON)?;
    println!("width   GFLOP/s   of width {COMMON}   time by that of the next   quartiles");
    for width in (2 * STEP..=WIDEST).step_by(STEP) {
        let (mut this, mut next) = (call(width)?, call(width + STEP)?);
        for call in [&mut this, &mut next, &mut common] {
            call.run(&pool, &rows, &mut o)?;
        }
        let (mut rates, mut by_common, mut by_next) = (vec![], vec![], vec![]);
        for _ in 0..RUNS {
            let [ours, larger, common] = [
                this.run(&pool, &rows, &mut o)?,
                next.run(&pool, &rows, &mut o)?,
                common.run(&pool, &rows, &mut o)?,
            ];
            rates.push(flops(width) / ours / 1e9);
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

/// Causal attention by heads of a width.
fn call(width: usize) -> Result<Call<'static>, Box<dyn Error>> {
    let spec = specs::parse(&format!("heads = {{ query = {HEADS}, dim = {width} }}\nmask = 'causal'"));
    Call::new(&spec, [1, TOKENS], &[], THREADS)
}

/// Multiplications and additions of a run.
fn flops(width: usize) -> f64 {
    (HEADS * TOKENS * (TOKENS + 1) / 2 * 4 * width) as f64
}
