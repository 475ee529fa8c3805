//! Recurrences on every engine against the oracle, token by token: states that begin and end, awkward sizes and chunks, documents,
//! packed sequences, decays that forget all, and numbers that are none.

mod caches;
mod cells;
mod identities;
mod lengths;

use regard::{Dtype, Pool, Problem, Spec};
use regard_engine::catalog::Entry;
use regard_engine::threads::Solo;
use regard_ir::plan::Blocks;
use regard_ir::variant::Source;
use regard_oracle::random::CapturedBuffer;
use regard_runtime::flash::RunError;
use regard_testkit::{Case, Inputs, Layout, Outputs};
use regard_tests::run::Direct;
use regard_tests::states::{self, States};
use regard_tests::{engines, run, specs};

/// Blocks whose chunk is as long.
const fn chunks(chunk: u32) -> Blocks {
    Blocks { query_block: chunk, key_block: chunk, key_cell: chunk, mask_step: chunk, channel_chain: 64 }
}

/// What a recurrence can be made of.
const RECURRENCES: [&str; 12] = [
    "recurrence = {}",
    "recurrence = { normalize = true, feature_map = 'elu(x) + 1' }",
    "recurrence = { normalize = true, feature_map = 'exp(0.5 * x)', decay = 'head' }",
    "recurrence = { normalize = true, feature_map = 'softplus(x) + 0.1', decay = 'channel' }",
    "recurrence = { decay = 'head', feature_map = 'silu(x)' }",
    "recurrence = { decay = 'token' }\nscore = { scale = 1.0 }",
    "recurrence = { decay = 'channel' }\nposition = { rope = { theta = 100.0 } }",
    "recurrence = { update = 'delta' }\nqk_norm = 'l2'",
    "recurrence = { update = 'delta', decay = 'head' }\nqk_norm = { kind = 'l2', learned = true }",
    "recurrence = { update = 'delta', decay = 'token' }\nqk_norm = 'l2'\noutput = { norm = 'rms', gate = 'elementwise' }",
    "recurrence = { update = 'delta', decay = 'channel' }\nqk_norm = 'l2'",
    "recurrence = { update = 'delta', decay = 'channel' }\nqk_norm = { kind = 'l2', axis = 'all' }\noutput = { gate = 'head' }",
];

fn spec(heads: &str, lines: &str) -> Spec {
    specs::parse(&format!("heads = {{ {heads} }}\nmask = 'causal'\n{lines}\n"))
}

/// The engines here that compute a spec.
fn serving(spec: &Spec, dtype: Dtype) -> impl Iterator<Item = &'static Entry> {
    engines::available().into_iter().filter(move |entry| run::serves(spec, entry, dtype))
}

/// A case, and what it begins with.
struct Trial<'a> {
    case: Case<'a>,
    inputs: Inputs,
    start: States,
}

impl<'a> Trial<'a> {
    fn new(spec: &'a Spec, problem: Problem<'a>, dtype: Dtype, seed: u64) -> Self {
        let variant = spec.variant();
        let layout = Layout::ALL[seed as usize % 3];
        let case = Case { variant, problem, dtype, layout, seed };
        // Half of them begin with nothing.
        let start = match seed.is_multiple_of(2) {
            true => States::zeros(&variant, &problem),
            false => States::random(&variant, &problem, seed),
        };
        Self { inputs: case.inputs(), case, start }
    }

    fn direct(&self, entry: &'static Entry, chunk: u32) -> Direct<'_> {
        Direct { case: &self.case, entry, blocks: chunks(chunk), pack_ahead_bytes: 0 }
    }

    /// Outputs and states of one thread, which are within their bounds and those of several.
    fn check(&self, entry: &'static Entry, chunk: u32, pool: &Pool) -> (Outputs, States) {
        let told = |error: &dyn core::fmt::Display| {
            format!("chunks of {chunk}: {}: {error}", run::describe("recurrence", entry, &self.case))
        };
        let run = |threads: &dyn regard::Threads| {
            let mut left = self.start.clone();
            let outputs = self.direct(entry, chunk).run_states(&self.inputs, &mut left, threads);
            (outputs.unwrap_or_else(|error| panic!("{}", told(&error))), left)
        };
        let (outputs, left) = run(&Solo);
        states::judge(&self.case, &self.inputs, &outputs, (&self.start, &left))
            .unwrap_or_else(|error| panic!("{}", told(&error)));
        let again = run(pool);
        assert!(same(&outputs, &again.0) && same_states(&left, &again.1), "{}", told(&"threads show"));
        (outputs, left)
    }
}

fn elements(outputs: &Outputs) -> Vec<u64> {
    let (view, [batch, heads, tokens, _]) = (outputs.o.view(), outputs.o.shape());
    let rows = (0..batch * heads * tokens).flat_map(|row| {
        view.row(row / tokens / heads, row / tokens % heads, row % tokens).into_iter().map(f64::to_bits)
    });
    rows.collect()
}

fn same(a: &Outputs, b: &Outputs) -> bool {
    elements(a) == elements(b)
}

fn same_states(a: &States, b: &States) -> bool {
    let bits = |states: &States| -> Vec<u32> {
        states.state.iter().chain(states.norm.iter().flatten()).map(|x| x.to_bits()).collect()
    };
    bits(a) == bits(b)
}

#[test]
fn every_recurrence_is_within_its_bounds() {
    let pool = Pool::new(3).expect("three threads");
    let mut seed = 0;
    for lines in RECURRENCES {
        for (heads, tokens, chunk) in [
            ("query = 2, dim = 16", 1, 16),
            ("query = 2, value = 4, dim = 20, value_dim = 12", 37, 16),
            ("query = 2, dim = 20, value_dim = 77", 5, 16),
            ("query = 1, value = 7, dim = 24, value_dim = 40", 70, 32),
            ("query = 1, dim = 72, value_dim = 136", 130, 64),
        ] {
            let spec = spec(heads, lines);
            let problem = Problem::prefill(Source::SelfAttention, 2, tokens, tokens).expect("short");
            for dtype in Dtype::ALL {
                seed += 1;
                let trial = Trial::new(&spec, problem, dtype, seed);
                for entry in serving(&spec, dtype) {
                    trial.check(entry, chunk, &pool);
                }
            }
        }
    }
}

#[test]
fn states_of_all_keys_need_no_mask() {
    let pool = Pool::new(2).expect("two threads");
    for (seed, lines) in (0..).zip(&RECURRENCES[..2]) {
        for (source, queries, keys) in
            [("self", 33, 33), ("cross", 5, 70), ("cross", 70, 5), ("cross", 3, 0), ("cross", 0, 20)]
        {
            let spec = specs::parse(&format!(
                "heads = {{ query = 3, dim = 20, value_dim = 24 }}\nsource = '{source}'\n{lines}"
            ));
            let problem = Problem::prefill(spec.source, 2, queries, keys).expect("short");
            let trial = Trial::new(&spec, problem, Dtype::F32, seed);
            for entry in serving(&spec, Dtype::F32) {
                trial.check(entry, 16, &pool);
            }
        }
    }
}

#[test]
fn documents_begin_anew() {
    let pool = Pool::new(2).expect("two threads");
    for (seed, lines) in (0..).zip(RECURRENCES) {
        let lines = format!("{lines}\ninputs = {{ doc = 'i32[b, k]' }}");
        let spec =
            specs::parse(&format!("heads = {{ query = 2, dim = 20 }}\nmask = 'causal & same(doc)'\n{lines}"));
        let problem = Problem::prefill(spec.source, 2, 90, 90).expect("short");
        let mut trial = Trial::new(&spec, problem, Dtype::F32, seed);
        // Of one token, across and at the ends of chunks, and two ids that alternate.
        let at =
            |t: usize| [0, 1, 16, 17, 31, 33, 48, 64, 88].iter().filter(|&&first| first <= t).count() as i32;
        trial.inputs.captured[0] = CapturedBuffer::I32((0..180).map(|t| at(t % 90) % 2).collect());
        for entry in serving(&spec, Dtype::F32) {
            trial.check(entry, 16, &pool);
        }
    }
}

#[test]
fn packed_sequences_are_what_they_are_alone() {
    let pool = Pool::new(3).expect("three threads");
    let lengths = [5usize, 0, 1, 40, 17];
    let cu = regard_tests::cumulative(lengths.into_iter());
    for (seed, lines) in (0..).zip(RECURRENCES) {
        let spec = spec("query = 2, value = 4, dim = 20, value_dim = 12", lines);
        let problem = Problem::packed(spec.source, &cu, &cu).expect("offsets that rise from 0");
        let trial = Trial::new(&spec, problem, Dtype::ALL[seed as usize % 3], 2 * seed + 1);
        for entry in serving(&spec, trial.case.dtype) {
            trial.check(entry, 16, &pool);
        }
    }
}

/// A token that is no number reaches its own row and the later ones, and none before.
#[test]
fn what_is_no_number_reaches_no_earlier_row() {
    let pool = Pool::new(1).expect("no thread");
    for (seed, lines) in (0..).zip(RECURRENCES) {
        let spec = spec("query = 1, value = 2, dim = 20, value_dim = 12", lines);
        let problem = Problem::prefill(spec.source, 1, 40, 40).expect("short");
        for (operand, head, bad) in [(1, 0, f32::NAN), (2, 1, f32::INFINITY), (2, 0, f32::NAN)] {
            let mut trial = Trial::new(&spec, problem, Dtype::F32, seed);
            trial.inputs.operands[operand].set([0, head, 21, 3], bad);
            for entry in serving(&spec, Dtype::F32) {
                let (outputs, _) = trial.check(entry, 32, &pool);
                assert!(outputs.o.view().row(0, head, 20).iter().all(|x| x.is_finite()), "{lines}");
            }
        }
    }
}

#[test]
fn decays_may_forget_all_at_once() {
    let pool = Pool::new(1).expect("no thread");
    for (seed, lines) in (0..).zip(RECURRENCES).filter(|(_, lines)| lines.contains("decay")) {
        let spec = spec("query = 2, dim = 20, value_dim = 12", lines);
        let problem = Problem::prefill(spec.source, 1, 70, 70).expect("short");
        let mut trial = Trial::new(&spec, problem, Dtype::F32, 2 * seed + 1);
        let input = spec.inputs.names.iter().position(|name| name == "decay").expect("it has one");
        let CapturedBuffer::F32(decays) = &mut trial.inputs.captured[input] else { panic!("f32") };
        for (at, decay) in decays.iter_mut().enumerate() {
            match at % 11 {
                0 => *decay = f32::NEG_INFINITY,
                3 => *decay = -300.0,
                5 => *decay = 0.0,
                7 => *decay = -1e-30,
                _ => {}
            }
        }
        for entry in serving(&spec, Dtype::F32) {
            trial.check(entry, 32, &pool);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let spec = spec("query = 2, dim = 8", "recurrence = {}");
    let entry = serving(&spec, Dtype::F32).next().expect("an engine");
    let problem = Problem::prefill(spec.source, 1, 3, 5).expect("short");
    let trial = Trial::new(&spec, problem, Dtype::F32, 0);
    let error =
        trial.direct(entry, 16).run_states(&trial.inputs, &mut trial.start.clone(), &Solo).unwrap_err();
    assert_eq!(error, RunError::QueryForEachKey);

    let problem = Problem::prefill(spec.source, 1, 5, 5).expect("short");
    let trial = Trial::new(&spec, problem, Dtype::F32, 0);
    let two = Problem::prefill(spec.source, 2, 5, 5).expect("short");
    let mut others = States::zeros(&trial.case.variant, &two);
    let error = trial.direct(entry, 16).run_states(&trial.inputs, &mut others, &Solo).unwrap_err();
    assert!(matches!(error, RunError::Shape { tensor: "state", .. }), "{error}");
    let mut summed = trial.start.clone();
    summed.norm = Some(vec![0.0; 16]);
    let error = trial.direct(entry, 16).run_states(&trial.inputs, &mut summed, &Solo).unwrap_err();
    assert_eq!(error, RunError::Norm { wanted: false });
}
