//! The tensors of a workload, and what the formula makes of them in f64.
//!
//! The truth about a storage type is that of its rounded tensors. Sampled rows of each head are computed once, and hold
//! for everyone's answer.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use half::bf16;
use regard_ir::bounds::{self, Quantity};
use regard_ir::cache::Codec;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::plan::{Dtype, Precision as Bounds};
use regard_ir::problem::Problem;
use regard_oracle::sample::Sample;

use regard_oracle::{Buffer, Oracle, Tensor4, TensorError, Tensors, random};
use regard_spec::{NoFiles, parse};

use super::workload::{Kind, Precision, Rows, Workload};
use crate::error::Error;

/// What tensors are drawn from; each adds its place.
const SEED: u64 = 7;

/// The same of a recurrence's gates.
const GATE_SEED: u64 = 107;

/// What rows are drawn from.
const SAMPLE_SEED: u64 = 3;

/// Positions on whose edges rows are looked at too: the largest power of two that a query block is likely to be cut at.
const EDGE: u32 = 64;

/// An error that is not a number is written as this.
const NOT_FINITE: f64 = 1e30;

/// Of how many sequences the truth is computed; of more some at equal distances, the first and the last among them.
const SEQUENCES: usize = 8;

/// The tensors of a workload: N(0, 1), the same on every machine; of matrices so small that what they make is as large as what
/// they make it of.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Of keys, the tokens that all sequences begin with, then the others of each.
    tensors: Vec<(Rows, Vec<f32>)>,
    documents: Option<Vec<i32>>,
    /// Of a recurrence, `[head, token]`, by their names.
    gates: Vec<(&'static str, Vec<f32>)>,
}

/// What a recurrence reads of each head and token: decays are logs of numbers near 1, strengths lie between 0 and 1 and are numbers of
/// bf16, as others have them in the storage type.
fn gate(workload: &Workload, seed: u64, name: &'static str) -> (&'static str, Vec<f32>) {
    let draws = random::normal(seed).take(workload.heads as usize * workload.tokens as usize);
    let of = |x: f32| match name {
        "decay" => -0.1 * x.exp().ln_1p(),
        _ => bf16::from_f32(1.0 / (1.0 + (-x).exp())).to_f32(),
    };
    (name, draws.map(of).collect())
}

impl Inputs {
    /// Draws them.
    pub fn new(workload: &Workload) -> Self {
        let tensor = |(seed, tensor): (u64, Rows)| {
            let [heads, width] = [tensor.heads, tensor.width].map(|n| n as usize);
            let [common, own] = tokens(workload, tensor.of);
            let sequences = if let Kind::Matrix(_) = tensor.of { 1 } else { workload.sequences() as usize };
            let len = heads * (common + sequences * own) * width;
            let factor = if let Kind::Matrix(_) = tensor.of { 1.0 / (width as f32).sqrt() } else { 1.0 };
            (tensor, random::normal(seed).take(len).map(|x| factor * x).collect())
        };
        let tensors = (SEED..).zip(workload.tensors()).map(tensor).collect();
        let gates =
            (GATE_SEED..).zip(workload.gates()).map(|(seed, name)| gate(workload, seed, name)).collect();
        Self { tensors, documents: workload.documents(), gates }
    }

    /// Rows of one sequence, `[head, token, channel]`, of which it has `common` as all others do.
    fn of_sequence(x: &[f32], sequence: usize, [heads, common, own, dim]: [usize; 4]) -> Vec<f32> {
        let (first, rest) = x.split_at(heads * common * dim);
        let rest = &rest[sequence * heads * own * dim..][..heads * own * dim];
        let head = |head: usize| {
            let first = &first[head * common * dim..(head + 1) * common * dim];
            first.iter().chain(&rest[head * own * dim..(head + 1) * own * dim])
        };
        (0..heads).flat_map(head).copied().collect()
    }

    /// Writes them, and the workload's specs, to a folder, as the protocol has it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, workload: &Workload, dir: &Path) -> Result<(), Error> {
        let save = |name: &str, bytes: Vec<u8>| {
            let path = dir.join(name);
            fs::write(&path, bytes).map_err(Error::file(&path))
        };
        fs::create_dir_all(dir).map_err(Error::file(dir))?;
        let of_tensors = self.tensors.iter().map(|(tensor, numbers)| (tensor.name, numbers));
        for (name, numbers) in of_tensors.chain(self.gates.iter().map(|(name, numbers)| (*name, numbers))) {
            save(&format!("{name}.f32"), numbers.iter().flat_map(|x| x.to_le_bytes()).collect())?;
        }
        if let Some(documents) = &self.documents {
            save("doc.i32", documents.iter().flat_map(|id| id.to_le_bytes()).collect())?;
        }
        save("spec.toml", workload.spec(Precision::Exact).into_bytes())?;
        save("fast.toml", workload.spec(Precision::Fast).into_bytes())
    }
}

/// Rows of a tensor that all sequences have in common, and those that each has by itself.
fn tokens(workload: &Workload, of: Kind) -> [usize; 2] {
    let counts = match of {
        Kind::Queries => [0, workload.queries()],
        Kind::Keys => [workload.common(), workload.tokens - workload.common()],
        Kind::Matrix(rows) => [0, rows],
    };
    counts.map(|n| n as usize)
}

/// Rows of the right answer.
#[derive(Clone, Debug)]
pub struct Reference {
    dtype: Dtype,
    /// How keys and values are cached, where that is in fewer bits than storage types have.
    rounded: Option<Codec>,
    /// Queries of a sequence.
    queries: usize,
    value_dim: usize,
    /// Of all sequences.
    heads: usize,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    head: usize,
    query: usize,
    o: Vec<f64>,
    max_score: f64,
}

/// How far an answer is from the right one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// max |x − truth| / max |truth|, over the sampled rows of the run of rows that comes closest to its bound; where keys and
    /// values are cached in fewer bits, the rms of the one by that of the other.
    pub error: f64,
    /// What ours is allowed in that run.
    pub bound: f64,
}

impl Reference {
    /// Computes the sampled rows, on all cores.
    ///
    /// # Errors
    /// If the workload's spec has errors or does not take the tensors, which are mistakes of the table.
    pub fn new(workload: &Workload, inputs: &Inputs, dtype: Dtype) -> Result<Self, Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::Spec {
            name: workload.name.to_owned(),
            error: error.to_string(),
        };
        let text = workload.spec(Precision::Exact);
        let spec = parse(&text, workload.name, &NoFiles).map_err(|e| wrong(&e))?.spec;
        let variant = spec.variant();
        let [sequences, queries, keys, value_dim] =
            [workload.sequences(), workload.queries(), workload.tokens, workload.value_dim()]
                .map(|n| n as usize);
        let problem = Problem::prefill(spec.source, 1, queries, keys).map_err(|e| wrong(&e))?;
        let documents = inputs.documents.iter().map(|ids| InputData::I32(ids));
        let data: Vec<_> =
            documents.chain(inputs.gates.iter().map(|(_, numbers)| InputData::F32(numbers))).collect();
        let captured = Captured::bind(variant.inputs, &data, &variant.heads, variant.source, &problem)
            .map_err(|e| wrong(&e))?;
        let sample = Sample::new(&problem, &variant.heads, EDGE, SAMPLE_SEED);
        let heads = workload.heads as usize;
        let mut all = Vec::new();
        for sequence in looked_at(sequences) {
            let of = |(tensor, x): &(Rows, Vec<f32>)| {
                let [heads, width] = [tensor.heads, tensor.width].map(|n| n as usize);
                let [common, own] = tokens(workload, tensor.of);
                let sequence = if let Kind::Matrix(_) = tensor.of { 0 } else { sequence };
                let rows = Inputs::of_sequence(x, sequence, [heads, common, own, width]);
                (Buffer::rounded(dtype, rows), [1, heads, common + own, width])
            };
            let rounded: Vec<_> = inputs.tensors.iter().map(of).collect();
            let operands: Result<Vec<_>, _> = rounded.iter().map(dense).collect();
            let operands = operands.map_err(|e| wrong(&e))?;
            let tensors = Tensors { operands: &operands, captured, gate: None };
            let oracle = Oracle::new(variant, problem, tensors).map_err(|e| wrong(&e))?;
            let rows = rows(&oracle, &sample, queries).map_err(|e| wrong(&e))?;
            all.extend(rows.into_iter().map(|row| Row { head: sequence * heads + row.head, ..row }));
        }
        Ok(Self { dtype, rounded: workload.codec(), queries, value_dim, heads: sequences * heads, rows: all })
    }

    /// Holds an answer `[sequence, head, query, channel]` against the right one; `None` if it has another length.
    pub fn judge(&self, answer: &[f32], precision: Precision) -> Option<Judgement> {
        if answer.len() != self.heads * self.queries * self.value_dim {
            return None;
        }
        let precision = match precision {
            Precision::Exact => Bounds::Exact,
            Precision::Fast => Bounds::Fast,
        };
        let runs =
            self.rows.chunk_by(|a, b| a.head == b.head && a.query / bounds::ROWS == b.query / bounds::ROWS);
        runs.map(|run| self.judge_run(run, answer, precision))
            .max_by(|a, b| (a.error / a.bound).total_cmp(&(b.error / b.bound)))
    }

    fn judge_run(&self, run: &[Row], answer: &[f32], precision: Bounds) -> Judgement {
        let (mut error, mut largest, mut max_score) = (0.0f64, 0.0f64, 0.0f64);
        let (mut errors, mut squares) = (0.0f64, 0.0f64);
        for row in run {
            let start = (row.head * self.queries + row.query) * self.value_dim;
            for (found, right) in answer[start..start + self.value_dim].iter().zip(&row.o) {
                let difference = (f64::from(*found) - right).abs();
                error = if difference.is_finite() { error.max(difference) } else { NOT_FINITE };
                largest = largest.max(right.abs());
                errors += difference.powi(2);
                squares += right.powi(2);
            }
            max_score = max_score.max(row.max_score);
        }
        let relative = match self.rounded {
            Some(_) => (errors / squares.max(f64::MIN_POSITIVE)).sqrt(),
            None => error / bounds::denominator(Quantity::Output, largest).max(f64::MIN_POSITIVE),
        };
        let bound = match self.rounded.and_then(|codec| bounds::cached(codec, self.dtype)) {
            Some(bound) => bound * (max_score / bounds::SCORES).max(1.0),
            None => bounds::bound(Quantity::Output, self.dtype, precision, max_score),
        };
        let error = if error < NOT_FINITE { relative.min(NOT_FINITE) } else { NOT_FINITE };
        Judgement { error, bound }
    }
}

fn dense((buffer, shape): &(Buffer, [usize; 4])) -> Result<Tensor4<'_>, TensorError> {
    Tensor4::dense(buffer.elements(0), *shape)
}

/// Which of so many sequences the truth is computed of.
fn looked_at(sequences: usize) -> impl Iterator<Item = usize> {
    let n = sequences.min(SEQUENCES);
    (0..n).map(move |i| i * (sequences - 1) / (n - 1).max(1))
}

/// The sampled rows of all heads, in order.
fn rows(oracle: &Oracle<'_>, sample: &Sample, queries: usize) -> Result<Vec<Row>, String> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Ok(Vec::new())));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let head = next.fetch_add(1, Ordering::Relaxed);
            if head >= oracle.parts() {
                return;
            }
            let part = oracle.part(head);
            let rows = sample.rows(0, head, queries).into_iter().map(|query| {
                let row = part.row(query)?;
                let max_score = row.max_scores.iter().copied().fold(0.0, f64::max);
                Ok(Row { head, query, o: row.o.into_iter().flatten().collect(), max_score })
            });
            let rows: Result<Vec<_>, regard_oracle::eval::IndexError> = rows.collect();
            let Ok(mut found) = found.lock() else { return };
            match (&mut *found, rows) {
                (Ok(all), Ok(rows)) => all.extend(rows),
                (_, Err(error)) => *found = Err(error.to_string()),
                (Err(_), Ok(_)) => {}
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut rows = found.into_inner().map_err(|_| "a thread panicked".to_owned())??;
    rows.sort_by_key(|row: &Row| (row.head, row.query));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workload::{Cache, Call, Latents, Prefix, workload};

    #[test]
    fn the_truth_is_within_its_bound_and_a_swapped_head_is_not() {
        let small = Workload { heads: 2, kv_heads: 1, dim: 4, tokens: 9, ..*workload("gqa-512").unwrap() };
        let inputs = Inputs::new(&small);
        let reference = Reference::new(&small, &inputs, Dtype::F32).unwrap();
        assert_eq!(reference.rows.len(), 18);
        let mut answer: Vec<f32> = reference.rows.iter().flat_map(|row| &row.o).map(|&x| x as f32).collect();
        let judged = reference.judge(&answer, Precision::Exact).unwrap();
        assert!(judged.error <= judged.bound, "{judged:?}");
        answer.rotate_left(36);
        assert!(reference.judge(&answer, Precision::Exact).unwrap().error > 0.1);
        answer[0] = f32::NAN;
        assert_eq!(reference.judge(&answer, Precision::Exact).unwrap().error, NOT_FINITE);
        assert_eq!(reference.judge(&answer[1..], Precision::Exact), None);
    }

    #[test]
    fn the_last_token_of_each_sequence_has_its_own_truth() {
        let of = |name: &str, sequences, cache| {
            let call = Call::Decode { sequences, queries: 1, prefix: Prefix::Own, cache };
            let small =
                Workload { heads: 4, kv_heads: 2, dim: 8, tokens: 9, call, ..*workload(name).unwrap() };
            let inputs = Inputs::new(&small);
            assert_eq!(lengths(&inputs), [3 * 4 * 8, 3 * 2 * 9 * 8, 3 * 2 * 9 * 8]);
            let reference = Reference::new(&small, &inputs, Dtype::Bf16).unwrap();
            let answer: Vec<f32> = reference.rows.iter().flat_map(|row| &row.o).map(|&x| x as f32).collect();
            assert_eq!(answer.len(), 3 * 4 * 8);
            (reference, answer)
        };
        let (reference, mut answer) = of("decode-8x16384", 3, Cache::Same);
        assert!(reference.judge(&answer, Precision::Exact).unwrap().error < 1e-6);
        answer.rotate_left(4 * 8);
        assert!(reference.judge(&answer, Precision::Exact).unwrap().error > 0.1, "another sequence's");
        // Where the cache rounds, every number may be off by 2 %.
        let (reference, mut answer) = of("decode-1x65536-8bit", 3, Cache::Bits8);
        answer.iter_mut().for_each(|x| *x *= 1.01);
        let judged = reference.judge(&answer, Precision::Exact).unwrap();
        assert!((judged.error - 0.01).abs() < 1e-5 && judged.bound >= 0.02, "{judged:?}");
        answer[3] = f32::INFINITY;
        assert_eq!(reference.judge(&answer, Precision::Exact).unwrap().error, NOT_FINITE);
    }

    #[test]
    fn sequences_begin_with_the_same_tokens() {
        // Two heads of width 1, three tokens in common, two of each of two sequences.
        let x: Vec<f32> = (0..14).map(|i| i as f32).collect();
        let of = |sequence| Inputs::of_sequence(&x, sequence, [2, 3, 2, 1]);
        assert_eq!(of(0), [0.0, 1.0, 2.0, 6.0, 7.0, 3.0, 4.0, 5.0, 8.0, 9.0]);
        assert_eq!(of(1), [0.0, 1.0, 2.0, 10.0, 11.0, 3.0, 4.0, 5.0, 12.0, 13.0]);
        let call = Call::Decode { sequences: 3, queries: 2, prefix: Prefix::Shared(5), cache: Cache::Same };
        let row = *workload("decode-64x16448").unwrap();
        let small = Workload { heads: 4, kv_heads: 2, dim: 8, tokens: 9, call, ..row };
        let inputs = Inputs::new(&small);
        assert_eq!(lengths(&inputs)[..2], [3 * 4 * 2 * 8, 2 * (5 + 3 * 4) * 8]);
        let reference = Reference::new(&small, &inputs, Dtype::F32).unwrap();
        let heads: Vec<_> = reference.rows.iter().map(|row| row.head).collect();
        assert_eq!(heads, (0..12).flat_map(|head| [head, head]).collect::<Vec<_>>());
    }

    #[test]
    fn latents_have_their_truth() {
        let latents = Some(Latents { rank: 6, nope: 4, value: 3 });
        for name in ["mla-2048", "decode-mla-1x4096"] {
            let row = *workload(name).unwrap();
            let small = Workload { heads: 2, kv_heads: 2, dim: 6, latents, tokens: 9, ..row };
            let inputs = Inputs::new(&small);
            let queries = small.queries() as usize;
            let of_queries = [2 * queries * 4, 2 * queries * 2];
            assert_eq!(lengths(&inputs), [&of_queries[..], &[9 * 6, 9 * 2, 2 * 4 * 6, 2 * 3 * 6]].concat());
            let reference = Reference::new(&small, &inputs, Dtype::F32).unwrap();
            let answer: Vec<f32> = reference.rows.iter().flat_map(|row| &row.o).map(|&x| x as f32).collect();
            assert_eq!(answer.len(), 2 * queries * 3);
            assert!(reference.judge(&answer, Precision::Exact).unwrap().error < 1e-6);
        }
    }

    #[test]
    fn recurrences_have_their_truth() {
        for name in ["linear-4096", "delta-4096"] {
            let small = Workload { heads: 2, kv_heads: 2, dim: 4, tokens: 9, ..*workload(name).unwrap() };
            let inputs = Inputs::new(&small);
            let reference = Reference::new(&small, &inputs, Dtype::F32).unwrap();
            assert_eq!(reference.rows.len(), 18);
            let mut answer: Vec<f32> =
                (0..2).flat_map(|head| token_by_token(&inputs, head, [9, 4])).collect();
            assert!(reference.judge(&answer, Precision::Exact).unwrap().error < 1e-6, "{name}");
            answer.rotate_left(4);
            assert!(
                reference.judge(&answer, Precision::Exact).unwrap().error > 0.1,
                "{name}, the next token's"
            );
        }
    }

    /// A head's answer: the recurrence as its papers have it.
    fn token_by_token(inputs: &Inputs, head: usize, [tokens, dim]: [usize; 2]) -> Vec<f32> {
        let rule = !inputs.gates.is_empty();
        let row = |tensor: usize, token: usize| -> Vec<f64> {
            let row = &inputs.tensors[tensor].1[(head * tokens + token) * dim..][..dim];
            row.iter().map(|&x| x.into()).collect()
        };
        let unit = |row: Vec<f64>| -> Vec<f64> {
            let len = (row.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
            row.iter().map(|x| if rule { x / len } else { *x }).collect()
        };
        let gate = |gate: usize, token: usize, none: f64| {
            inputs.gates.get(gate).map_or(none, |(_, numbers)| numbers[head * tokens + token].into())
        };
        let mut state = vec![vec![0.0; dim]; dim];
        let mut answer = Vec::new();
        for token in 0..tokens {
            let (q, k, v) = (unit(row(0, token)), unit(row(1, token)), row(2, token));
            let (decay, strength) = (gate(0, token, 0.0).exp(), gate(1, token, 1.0));
            for c in 0..dim {
                state.iter_mut().for_each(|row| row[c] *= decay);
                let recalled: f64 = if rule { (0..dim).map(|r| k[r] * state[r][c]).sum() } else { 0.0 };
                (0..dim).for_each(|r| state[r][c] += strength * k[r] * (v[c] - recalled));
                let read: f64 = (0..dim).map(|r| q[r] * state[r][c]).sum();
                answer.push((read / (dim as f64).sqrt()) as f32);
            }
        }
        answer
    }

    #[test]
    fn states_decay_and_strengths_are_the_same_in_every_storage() {
        let small = Workload { heads: 2, tokens: 64, ..*workload("delta-4096").unwrap() };
        let Inputs { gates, .. } = Inputs::new(&small);
        let [("decay", decay), ("beta", beta)] = &gates[..] else { panic!("{gates:?}") };
        assert_eq!([decay.len(), beta.len()], [128; 2]);
        assert!(decay.iter().all(|&x| -1.0 < x && x < 0.0), "{decay:?}");
        assert!(beta.iter().all(|&x| 0.0 < x && x < 1.0 && bf16::from_f32(x).to_f32() == x), "{beta:?}");
        assert_ne!(beta[..64], beta[64..], "heads have their own");
    }

    fn lengths(inputs: &Inputs) -> Vec<usize> {
        inputs.tensors.iter().map(|(_, numbers)| numbers.len()).collect()
    }

    #[test]
    fn of_many_sequences_some_are_looked_at() {
        let of = |sequences| looked_at(sequences).collect::<Vec<_>>();
        assert_eq!((of(1), of(3)), (vec![0], vec![0, 1, 2]));
        assert_eq!(of(64), [0, 9, 18, 27, 36, 45, 54, 63]);
    }
}
