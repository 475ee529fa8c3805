//! Times 2^20 keys in 1,000 packed documents: how long they take to schedule, and how fast the live pairs are beside those
//! of plain causal attention over 1,024 keys.
//!
//! `cargo run --release -p regard-tests --example documents`; it needs 2 GB.

use std::error::Error;

use regard::{InputData, Pool, Spec};
use regard_oracle::random;
use regard_tests::specs;
use regard_tests::timed::Call;

const KEYS: usize = 1 << 20;
const DOCUMENTS: usize = 1000;
const DIM: usize = 64;
const THREADS: usize = 2;
const RUNS: usize = 15;

/// Keys of each sequence of the plain problem, which has as many keys in all.
const PLAIN: usize = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let documents = spec("inputs = { doc = 'i32[b, k]' }\nmask = 'causal & same(doc)'");
    let plain = spec("mask = 'causal'");
    let lengths = lengths();
    let doc: Vec<i32> = (0..).zip(&lengths).flat_map(|(id, &len)| std::iter::repeat_n(id, len)).collect();
    let captured = [InputData::I32(&doc)];
    let pairs = |len: usize| (len * (len + 1) / 2) as f64;
    let (ours, theirs): (f64, f64) =
        (lengths.iter().map(|&len| pairs(len)).sum(), pairs(PLAIN) * (KEYS / PLAIN) as f64);

    let mut packed = Call::new(&documents, [1, KEYS], &captured, THREADS)?;
    let mut scheduling =
        (0..RUNS).map(|_| Ok(packed.schedule(THREADS)? * 1e3)).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    scheduling.sort_by(f64::total_cmp);
    println!(
        "scheduled in {:.2} ms, {:.2} to {:.2}",
        scheduling[RUNS / 2],
        scheduling[0],
        scheduling[RUNS - 1]
    );

    let mut plain = Call::new(&plain, [KEYS / PLAIN, PLAIN], &[], THREADS)?;
    let pool = Pool::new(THREADS)?;
    let rows: Vec<f32> = random::normal(1).take(KEYS * DIM).collect();
    let mut o = vec![0.0; KEYS * DIM];
    let mut ratios = vec![];
    for _ in 0..RUNS {
        let rate = ours / packed.run(&pool, &rows, &mut o)?;
        let plain_rate = theirs / plain.run(&pool, &rows, &mut o)?;
        ratios.push(rate / plain_rate);
        let gflops = |rate: f64| rate * (4 * DIM) as f64 / 1e9;
        println!("documents {:.1}, plain causal {:.1} GFLOP/s", gflops(rate), gflops(plain_rate));
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "ratio {:.3}, quartiles {:.3} to {:.3}",
        ratios[RUNS / 2],
        ratios[RUNS / 4],
        ratios[RUNS * 3 / 4]
    );
    Ok(())
}

fn spec(rest: &str) -> Spec {
    specs::parse(&format!("heads = {{ query = 1, dim = {DIM} }}\n{rest}"))
}

/// Lengths that add up to all keys, between 200 and 1,900: pairs about the mean, shuffled by a stride.
fn lengths() -> Vec<usize> {
    let mean = KEYS / DOCUMENTS;
    let spread = |i: usize| (i * 37 % 501) * 848 / 500;
    let mut lengths: Vec<usize> =
        (0..DOCUMENTS / 2).flat_map(|i| [mean - spread(i), mean + spread(i)]).collect();
    for i in 0..DOCUMENTS {
        lengths.swap(i, i * 389 % DOCUMENTS);
    }
    let left = KEYS - lengths.iter().sum::<usize>();
    lengths.iter_mut().take(left).for_each(|len| *len += 1);
    lengths
}
