//! Bugs put in on purpose: what judges the kernels must refuse each of them, on every engine, where it accepts the same
//! run without the bug.

use std::ops::Range;

use regard::{Dtype, Isa, Problem, Solo};
use regard_engine::engine::PANEL;
use regard_engine::isa::Door;
use regard_engine::{Engine, Fold, Op, Rescale, Step};
use regard_ir::plan::Blocks;
use regard_oracle::Tensor4;
use regard_runtime::code::{AnyCode, Code, Place};
use regard_runtime::interpreter::LaneProgram;
use regard_testkit::{Case, Failure, Input, Inputs, Layout};
use regard_tests::run::{self, Direct, Disagreement, Wrap};
use regard_tests::{engines, specs};

/// A bug in an engine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// The last key of a block has a weight, but no value.
    LastValueDropped,
    /// The last key of a block is not there at all.
    LastKeyDropped,
    /// A row's sum so far is not brought to its new reference.
    RescaleIgnored,
    /// What is there is replaced where it should be kept or rescaled.
    OutputReplaced,
    /// What the memory held before is kept where it should be replaced.
    OutputKept,
    /// Every row is multiplied by the factor of the first.
    FactorOfAnotherRow,
    /// Keys past the first panel are scored by the channels of the panel before.
    PanelOfAnotherKey,
    /// The last channel does not count.
    LastChannelDropped,
}

impl Wrap for Bug {
    fn wrap<E: Engine>(self, engine: E) -> impl Engine {
        Mutant { engine, bug: self }
    }
}

#[derive(Clone, Copy)]
struct Mutant<E> {
    engine: E,
    bug: Bug,
}

impl<E: Engine> Engine for Mutant<E> {
    type Lanes = E::Lanes;
    const ISA: Isa = E::ISA;
    const MAX_VECTORS: usize = E::MAX_VECTORS;

    #[inline(always)]
    fn lanes(self) -> Self::Lanes {
        self.engine.lanes()
    }

    #[inline(always)]
    fn enter<O: Op>(self, op: O) -> O::Output {
        self.engine.enter(op)
    }

    #[inline(always)]
    fn scores(self, step: &mut Step<'_>) {
        match self.bug {
            Bug::PanelOfAnotherKey if step.valid_keys > PANEL => {
                let (first, keys) = (step.first_key, step.keys);
                self.engine.scores(step);
                let panel = step.dim * PANEL;
                let mut second = Step {
                    keys: &keys[first / PANEL * panel..][..panel],
                    first_key: 0,
                    valid_keys: PANEL.min(step.valid_keys - PANEL),
                    scores: &mut step.scores[PANEL * step.width..],
                    output: &mut [],
                    ..*step
                };
                self.engine.scores(&mut second);
            }
            Bug::LastChannelDropped => {
                // One panel at a time, because a panel is as long as it has channels.
                let (panel, channels) = (step.dim * PANEL, step.dim - 1);
                for at in (0..step.valid_keys).step_by(PANEL) {
                    let keys = &step.keys[(step.first_key + at) / PANEL * panel..][..channels * PANEL];
                    let mut short = Step {
                        query: &step.query[..channels * step.width],
                        keys,
                        dim: channels,
                        first_key: 0,
                        valid_keys: PANEL.min(step.valid_keys - at),
                        scores: &mut step.scores[at * step.width..],
                        output: &mut [],
                        ..*step
                    };
                    self.engine.scores(&mut short);
                }
            }
            _ => self.engine.scores(step),
        }
    }

    #[inline(always)]
    fn values(self, step: &mut Step<'_>, rescale: Rescale<'_>) {
        let first: [f32; 64];
        let rescale = match (self.bug, rescale) {
            (Bug::RescaleIgnored, Rescale::By(_)) => Rescale::Keep,
            (Bug::OutputReplaced, _) => Rescale::Replace,
            (Bug::OutputKept, Rescale::Replace) => Rescale::Keep,
            (Bug::FactorOfAnotherRow, Rescale::By(factors)) => {
                first = [factors[0]; 64];
                Rescale::By(&first[..factors.len()])
            }
            (_, rescale) => rescale,
        };
        let keys = step.valid_keys;
        if self.bug == Bug::LastValueDropped {
            step.valid_keys -= 1;
        }
        self.engine.values(step, rescale);
        step.valid_keys = keys;
    }

    #[inline(always)]
    fn step<F: Fold<Self::Lanes>>(self, mut step: Step<'_>, fold: &mut F) {
        if self.bug == Bug::LastKeyDropped {
            step.valid_keys -= 1;
        }
        self.scores(&mut step);
        let live = step.valid_keys * step.width;
        let rescale = fold.fold(self.lanes(), 0, &mut step.scores[..live]);
        self.values(&mut step, rescale);
    }
}

/// A bug in a variant's code, all of which is right if every number is 0.
#[derive(Clone, Debug, Default, PartialEq)]
struct Misled {
    /// Added to the position of every key.
    keys: i32,
    /// Added to every head.
    heads: i32,
    /// Keys that have no weight, as if their sums had been lost.
    lost: Range<i32>,
}

struct MisledCode {
    program: LaneProgram,
    misled: Misled,
}

impl AnyCode for MisledCode {
    fn on<L: Door>(&self) -> &dyn Code<L> {
        self
    }
}

impl<L: Door> Code<L> for MisledCode {
    fn modifies(&self) -> bool {
        self.program.on::<L>().modifies()
    }

    fn scratch_len(&self, width: usize) -> usize {
        self.program.on::<L>().scratch_len(width)
    }

    fn apply(&self, lanes: L, place: &Place<'_>, scores: &mut [f32], masked: bool, scratch: &mut [i32]) {
        let Misled { keys, heads, lost } = &self.misled;
        let heads: Vec<i32> = place.h.iter().map(|h| h + heads).collect();
        let shifted = Place { first_key: place.first_key + keys, h: &heads, ..*place };
        self.program.on::<L>().apply(lanes, &shifted, scores, masked, scratch);
        for (key, scores) in (place.first_key..).zip(scores.chunks_mut(place.q.len())) {
            if lost.contains(&key) {
                scores.fill(f32::NEG_INFINITY);
            }
        }
    }

    fn allow(&self, lanes: L, place: &Place<'_>, allowed: &mut [i32], scratch: &mut [i32]) {
        let place = Place { first_key: place.first_key + self.misled.keys, ..*place };
        self.program.on::<L>().allow(lanes, &place, allowed, scratch);
    }
}

/// What is wrong with a run.
struct Mutation {
    bug: Bug,
    misled: Misled,
    inputs: fn(&Case<'_>, Inputs) -> Inputs,
}

const NOTHING: Mutation =
    Mutation { bug: Bug::None, misled: Misled { keys: 0, heads: 0, lost: 0..0 }, inputs: |_, inputs| inputs };

const SPEC: &str = "heads = { query = 6, kv = 2, dim = 21, value_dim = 13 }\nmask = 'causal & window(37)'\n\
                    score = { modify = 's + alibi(h) * (k - q)' }\noutput = { lse = true }";

const BLOCKS: Blocks =
    Blocks { query_block: 16, key_block: 32, key_cell: 64, mask_step: 8, channel_chain: 16 };

/// Runs a mutation on every engine and gives the verdicts, all for inputs on which the kernel passes.
fn verdicts(text: &str, mutation: &Mutation) -> Vec<(String, Result<(), Disagreement>)> {
    let spec = specs::parse(text);
    let variant = spec.variant().expect("softmax");
    let problem = Problem::prefill(spec.source, 2, 90, 150).expect("short");
    let case = Case { variant, problem, dtype: Dtype::F32, layout: Layout::Bhnd, seed: 21 };
    let inputs = case.inputs();
    let run = |entry, mutation: &Mutation| {
        let code = MisledCode { program: LaneProgram::new(&variant), misled: mutation.misled.clone() };
        let direct = Direct { case: &case, entry, blocks: BLOCKS };
        let given = (mutation.inputs)(&case, inputs.clone());
        let result = direct.run_as::<f32, _, _>(&code, mutation.bug, &given, &Solo);
        // Judged on the inputs as they should have been read.
        run::judge(&case, &inputs, result, BLOCKS.query_block)
    };
    let verdicts = engines::available().into_iter().map(|entry| {
        let what = run::describe(text, entry, &case);
        run(entry, &NOTHING).unwrap_or_else(|error| panic!("without a bug: {what}: {error}"));
        (what, run(entry, mutation))
    });
    verdicts.collect()
}

fn assert_caught(text: &str, mutation: Mutation) {
    for (what, verdict) in verdicts(text, &mutation) {
        let caught = matches!(verdict, Err(Disagreement::Outputs(Failure::Bound(_))));
        assert!(caught, "{:?} {:?} is not caught: {what}: {verdict:?}", mutation.bug, mutation.misled);
    }
}

fn bug(bug: Bug) -> Mutation {
    Mutation { bug, ..NOTHING }
}

#[test]
fn the_last_key_of_a_block_is_dropped() {
    assert_caught(SPEC, bug(Bug::LastValueDropped));
    assert_caught(SPEC, bug(Bug::LastKeyDropped));
}

#[test]
fn a_rescale_is_missing() {
    // Scores that rise along the keys, so that references move in every block.
    let rising = "heads = { query = 6, kv = 2, dim = 21 }\nscore = { modify = 's + k * 0.05' }";
    assert_caught(rising, bug(Bug::RescaleIgnored));
    assert_caught(rising, bug(Bug::FactorOfAnotherRow));
}

#[test]
fn an_output_is_replaced_or_kept_by_mistake() {
    assert_caught(SPEC, bug(Bug::OutputReplaced));
    // The workspace is full of NaN, and of the cell before.
    assert_caught(SPEC, bug(Bug::OutputKept));
}

#[test]
fn a_panel_or_a_channel_is_wrong() {
    assert_caught(SPEC, bug(Bug::PanelOfAnotherKey));
    assert_caught(SPEC, bug(Bug::LastChannelDropped));
}

#[test]
fn a_window_is_off_by_one() {
    for keys in [-1, 1] {
        assert_caught(SPEC, Mutation { misled: Misled { keys, ..Misled::default() }, ..NOTHING });
        let plain = "heads = { query = 2, dim = 16 }\nmask = 'causal & window(37)'";
        assert_caught(plain, Mutation { misled: Misled { keys, ..Misled::default() }, ..NOTHING });
        let causal = "heads = { query = 2, dim = 16 }\nmask = 'causal'";
        assert_caught(causal, Mutation { misled: Misled { keys, ..Misled::default() }, ..NOTHING });
    }
}

#[test]
fn a_head_of_the_modifier_is_wrong() {
    assert_caught(SPEC, Mutation { misled: Misled { heads: 1, ..Misled::default() }, ..NOTHING });
}

#[test]
fn a_kv_head_is_wrong() {
    assert_caught(SPEC, Mutation { inputs: |case, inputs| rotated(case, inputs, (1, 0), (0, 0)), ..NOTHING });
    assert_caught(SPEC, Mutation { inputs: |case, inputs| rotated(case, inputs, (0, 0), (1, 0)), ..NOTHING });
}

#[test]
fn a_key_or_value_of_another_position() {
    assert_caught(SPEC, Mutation { inputs: |case, inputs| rotated(case, inputs, (0, 1), (0, 0)), ..NOTHING });
    assert_caught(SPEC, Mutation { inputs: |case, inputs| rotated(case, inputs, (0, 0), (0, 1)), ..NOTHING });
}

/// A cell whose sums do not join those of the others: the first, one in the midst, the last.
#[test]
fn a_cell_is_not_merged() {
    // The modifier has the code called for every key.
    let spec = "heads = { query = 2, dim = 16 }\nscore = { modify = 's * 0.5' }";
    for lost in [0..64, 64..128, 128..192] {
        assert_caught(spec, Mutation { misled: Misled { lost, ..Misled::default() }, ..NOTHING });
    }
}

/// Keys and values of so many heads and tokens further on.
fn rotated(case: &Case<'_>, inputs: Inputs, keys: (usize, usize), values: (usize, usize)) -> Inputs {
    let rotate = |tensor: Tensor4<'_>, (by_head, by_token): (usize, usize)| {
        let [batch, heads, tokens, _] = tensor.shape();
        let rows = (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h)));
        let values = rows.flat_map(|(b, h)| {
            (0..tokens).flat_map(move |n| tensor.row(b, (h + by_head) % heads, (n + by_token) % tokens))
        });
        Input::new(case.dtype, tensor.shape(), case.layout, values.map(|x| x as f32))
    };
    Inputs { k: rotate(inputs.k.view(), keys), v: rotate(inputs.v.view(), values), ..inputs }
}
