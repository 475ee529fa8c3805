//! Cells that are shared out, where heads and channels keep threads waiting, have the bits of one after the other.

use regard::{Dtype, Pool, Problem, Spec};
use regard_ir::interval::Unknown;
use regard_ir::plan::RecurrenceShares;
use regard_oracle::random::CapturedBuffer;
use regard_runtime::schedule::{OwnedSchedule, Share, Work};
use regard_tests::{cumulative, specs};

use crate::{RECURRENCES, Trial, serving, spec};

/// Tokens of a chunk, and of a cell.
const CHUNK: u32 = 16;
const CELL: usize = 16 * CHUNK as usize;

/// Those of which tokens only add to a state.
fn sums() -> impl Iterator<Item = (u64, &'static str)> {
    (0..).zip(RECURRENCES).filter(|(_, lines)| !lines.contains("delta"))
}

impl Trial<'_> {
    /// How threads share it.
    fn shares(&self, spec: &Spec, threads: u32) -> RecurrenceShares {
        let (variant, problem) = (&self.case.variant, &self.case.problem);
        let entry = serving(spec, self.case.dtype).next().expect("an engine");
        let plan = &self.direct(entry, CHUNK).plan();
        let inputs = &Unknown(variant.inputs);
        let work = Work { plan, variant, problem, inputs, threads, of: Share::All };
        let schedule = OwnedSchedule::new(&work).expect("few heads");
        schedule.view().overview(&work).recurrence.expect("a recurrence")
    }

    /// Checks it with as many threads as two, three and eight, on every engine; cells are shared out by some.
    fn check_cells(&self, spec: &Spec, told: &str) {
        let pools = [2, 3, 8].map(|threads| Pool::new(threads).expect("threads"));
        let is_shared = [2, 3, 8].iter().any(|&threads| self.shares(spec, threads).wave > 0);
        assert!(is_shared, "{told}: no cell is shared");
        for entry in serving(spec, self.case.dtype) {
            pools.iter().for_each(|pool| drop(self.check(entry, CHUNK, pool)));
        }
    }
}

#[test]
fn cells_are_shared_out_where_heads_are_few() {
    let spec = spec("query = 1, dim = 24, value_dim = 16", RECURRENCES[1]);
    let problem = Problem::prefill(spec.source, 1, 5 * CELL, 5 * CELL).expect("short");
    let trial = |problem| Trial::new(&spec, problem, Dtype::F32, 0);
    let shares = trial(problem).shares(&spec, 2);
    assert_eq!((shares.parts, shares.cell as usize, shares.wave), (1, CELL, 8));
    assert_eq!(trial(problem).shares(&spec, 1).wave, 0);
    // Neither a cell alone, nor what does not begin with one, nor as many heads as threads, nor beside tokens that each leave a state.
    let cu = cumulative([5 * CELL, 3].into_iter());
    let packed = Problem::packed(spec.source, &cu, &cu).expect("offsets that rise from 0");
    assert_eq!(trial(packed).shares(&spec, 5).wave, 0);
    let alone = Problem::prefill(spec.source, 1, CELL, CELL).expect("short");
    assert_eq!(trial(alone).shares(&spec, 2).wave, 0);
    let later = problem.with_q_offset(16).expect("near");
    assert_eq!(trial(later).shares(&spec, 2).wave, 0);
    let next = problem.with_q_offset(CELL as i64).expect("near");
    assert_eq!(trial(next).shares(&spec, 2).wave, 8);
    let two = Problem::prefill(spec.source, 2, 5 * CELL, 5 * CELL).expect("short");
    assert_eq!(trial(two).shares(&spec, 2).wave, 0);
}

#[test]
fn shared_cells_have_the_bits_of_one_after_the_other() {
    for (seed, lines) in sums() {
        for (heads, cells, more) in [
            ("query = 1, dim = 24, value_dim = 16", 2, 1),
            ("query = 1, dim = 24, value_dim = 16", 9, 0),
            ("query = 1, value = 3, dim = 20, value_dim = 24", 3, 100),
        ] {
            let spec = spec(heads, lines);
            let tokens = cells * CELL + more;
            let problem = Problem::prefill(spec.source, 1, tokens, tokens).expect("short");
            let problem = problem.with_q_offset(if seed % 3 == 0 { 0 } else { CELL as i64 }).expect("near");
            let dtype = Dtype::ALL[(seed as usize + cells) % 3];
            Trial::new(&spec, problem, dtype, seed + cells as u64).check_cells(&spec, lines);
        }
    }
}

#[test]
fn shared_cells_of_packed_sequences() {
    let [all, some] = [[3 * CELL + 5, 0, 17, CELL, 2 * CELL + 300], [0, 2 * CELL, 0, 0, 9]];
    let [all, some] = [all, some].map(|lengths| cumulative(lengths.into_iter()));
    for (seed, lines) in sums() {
        let spec = spec("query = 1, dim = 20, value_dim = 12", lines);
        for cu in [&all, &some] {
            let problem = Problem::packed(spec.source, cu, cu).expect("offsets that rise from 0");
            Trial::new(&spec, problem, Dtype::F32, seed).check_cells(&spec, lines);
        }
    }
}

/// Documents begin inside of cells, at their first tokens and at their last, and what came before one is forgotten though it is no
/// number.
#[test]
fn documents_begin_in_shared_cells() {
    for (seed, lines) in sums() {
        let lines = format!("{lines}\ninputs = {{ doc = 'i32[b, k]' }}");
        let spec = specs::parse(&format!(
            "heads = {{ query = 1, dim = 20, value_dim = 12 }}\nmask = 'causal & same(doc)'\n{lines}"
        ));
        let tokens = 5 * CELL + 40;
        let problem = Problem::prefill(spec.source, 1, tokens, tokens).expect("short");
        let mut trial = Trial::new(&spec, problem, Dtype::F32, seed);
        let firsts = [1, 255, 256, 300, 301, 767, 1024, 1290];
        let document = |t: usize| firsts.iter().filter(|&&first| first <= t).count() as i32;
        trial.inputs.captured[0] = CapturedBuffer::I32((0..tokens).map(document).collect());
        trial.inputs.operands[2].set([0, 0, 280, 3], f32::NAN);
        trial.inputs.operands[1].set([0, 0, 500, 7], f32::INFINITY);
        trial.check_cells(&spec, &lines);
    }
}

#[test]
fn what_is_no_number_reaches_no_earlier_shared_cell() {
    for (seed, lines) in sums() {
        let spec = spec("query = 1, dim = 20, value_dim = 12", lines);
        let problem = Problem::prefill(spec.source, 1, 3 * CELL, 3 * CELL).expect("short");
        let mut trial = Trial::new(&spec, problem, Dtype::F32, seed);
        trial.inputs.operands[1 + seed as usize % 2].set([0, 0, 300, 3], f32::NAN);
        trial.check_cells(&spec, lines);
    }
}

#[test]
fn cells_of_all_keys_are_shared_out() {
    for (seed, lines) in (0..).zip(&RECURRENCES[..2]) {
        for (source, queries, keys) in [
            ("self", 3 * CELL + 7, 3 * CELL + 7),
            ("cross", 5, 9 * CELL),
            ("cross", 9 * CELL, 5),
            ("cross", 2 * CELL, 0),
            ("cross", 0, 2 * CELL),
        ] {
            let spec = specs::parse(&format!(
                "heads = {{ query = 1, dim = 20, value_dim = 24 }}\nsource = '{source}'\n{lines}"
            ));
            let problem = Problem::prefill(spec.source, 1, queries, keys).expect("short");
            Trial::new(&spec, problem, Dtype::F32, seed).check_cells(&spec, lines);
        }
    }
}
