//! Kernels with bugs put in on purpose, on every engine. They are of this library, and not of the test that runs them, as they are
//! large: it is compiled while other crates are.

use std::ops::Range;

use regard::{Dtype, Problem, Solo};
use regard_engine::catalog::Entry;
use regard_engine::isa::Door;
use regard_engine::pack::Rows;
use regard_engine::stairs::{Stairs, VECTORS};
use regard_engine::weigh::{Precise, Weigher};
use regard_engine::{Change, Engine, Fold, Op, Shape, Step};
use regard_ir::plan::Blocks;
use regard_runtime::code::{AnyCode, Code, Place};
use regard_runtime::interpreter::LaneProgram;
use regard_simd::Lanes;
use regard_testkit::{Case, Inputs, Layout};

use crate::run::{self, Direct, Disagreement, Wrap};
use crate::{engines, specs};

/// A bug in an engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bug {
    /// None.
    None,
    /// The last key of what is packed at once has the value of the key before it.
    LastValueMisread,
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
    /// Keys past the first eight of what is packed at once are those of eight before.
    KeyOfAnotherPanel,
    /// The last channel does not count.
    LastChannelDropped,
    /// Where a mask's edge crosses a row tile, no row sees more than the first eight keys.
    StairsTooSteep,
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
    const STORAGE: &'static [Dtype] = E::STORAGE;
    /// Recurrences have bugs of their own, and take their time to be compiled.
    const STATES: &'static [Dtype] = &[];
    const ROWS: usize = E::ROWS;
    const ROW_STEP: usize = E::ROW_STEP;
    const KEY_STEP: usize = E::KEY_STEP;
    const CHANNEL_STEP: usize = E::CHANNEL_STEP;
    const UNSCALED: bool = E::UNSCALED;
    const HAS_STAIRS: bool = E::HAS_STAIRS;
    const SLACK: f32 = E::SLACK;
    const WEIGHTS_KEPT: usize = E::WEIGHTS_KEPT;

    #[inline(always)]
    fn lanes(self) -> Self::Lanes {
        self.engine.lanes()
    }

    #[inline(always)]
    fn enter<O: Op>(self, op: O) -> O::Output {
        self.engine.enter(op)
    }

    fn query_len(shape: &Shape) -> usize {
        E::query_len(shape)
    }

    fn unit_keys(shape: &Shape) -> usize {
        E::unit_keys(shape)
    }

    fn packed_len(shape: &Shape) -> usize {
        E::packed_len(shape)
    }

    fn scratch_len(shape: &Shape) -> usize {
        E::scratch_len(shape)
    }

    fn pack_len(shape: &Shape) -> usize {
        E::pack_len(shape)
    }

    #[inline(always)]
    fn pack_queries<'t>(
        self,
        shape: &Shape,
        queries: &impl Rows<'t>,
        counts: [usize; 2],
        factor: f32,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        self.engine.pack_queries(shape, queries, counts, factor, scratch, to);
    }

    #[inline(always)]
    fn pack<'t>(
        self,
        shape: &Shape,
        keys: &impl Rows<'t>,
        values: &impl Rows<'t>,
        count: usize,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        let keys = MisreadKeys { keys, bug: self.bug };
        let last = if self.bug == Bug::LastValueMisread { count.max(2) - 2 } else { usize::MAX };
        self.engine.pack(shape, &keys, &MisreadValues { values, last }, count, scratch, to);
    }

    fn odd_keys(shape: &Shape, packed: &[f32], group: usize) -> u32 {
        E::odd_keys(shape, packed, group)
    }

    #[inline(always)]
    fn step<F: Fold<Self::Lanes>>(self, mut step: Step<'_>, fold: &mut F) {
        if self.bug == Bug::LastKeyDropped {
            step.live_keys -= 1;
            step.stairs = None;
        }
        if self.bug == Bug::StairsTooSteep {
            step.stairs = step.stairs.map(|_| Stairs::over([const { 0..8 }; VECTORS]));
        }
        let factors = [0.0; MOST_ROWS];
        self.engine.step(step, &mut MisledFold { fold, bug: self.bug, factors });
    }

    fn weights(shape: &Shape, scratch: &[f32], at: usize, to: &mut [f32]) {
        E::weights(shape, scratch, at, to);
    }
}

/// Keys as a bug reads them.
struct MisreadKeys<'k, R> {
    keys: &'k R,
    bug: Bug,
}

impl<'t, R: Rows<'t>> Rows<'t> for MisreadKeys<'_, R> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        match self.bug {
            Bug::KeyOfAnotherPanel if i >= 8 => self.keys.row(lanes, i - 8, scratch),
            Bug::LastChannelDropped => {
                let mut copy = [0.0; 64];
                let row = self.keys.row(lanes, i, scratch);
                let (width, copy) = (row.len(), &mut copy[..row.len()]);
                copy.copy_from_slice(row);
                copy[width - 1] = 0.0;
                scratch[..width].copy_from_slice(copy);
                &scratch[..width]
            }
            _ => self.keys.row(lanes, i, scratch),
        }
    }
}

/// Values of which those past some key are read as that key's.
struct MisreadValues<'v, R> {
    values: &'v R,
    last: usize,
}

impl<'t, R: Rows<'t>> Rows<'t> for MisreadValues<'_, R> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        self.values.row(lanes, i.min(self.last), scratch)
    }
}

/// The most rows of a row tile.
const MOST_ROWS: usize = 64;

/// A fold of which the engine is told something wrong.
struct MisledFold<'f, F> {
    fold: &'f mut F,
    bug: Bug,
    factors: [f32; MOST_ROWS],
}

impl<L: Lanes, F: Fold<L>> Fold<L> for MisledFold<'_, F> {
    #[inline(always)]
    fn open<const V: usize, P: Precise>(
        &mut self,
        lanes: L,
        first: usize,
        scores: &mut [f32],
        most: f32,
    ) -> (Change, Weigher<L, V, P>) {
        let (change, weigher) = self.fold.open::<V, P>(lanes, first, scores, most);
        self.factors[..V * L::WIDTH].copy_from_slice(self.fold.factors());
        let change = match (self.bug, change) {
            (Bug::RescaleIgnored, Change::Rescale) => Change::Keep,
            (Bug::OutputReplaced, _) => Change::Replace,
            (Bug::OutputKept, Change::Replace) => Change::Keep,
            (Bug::FactorOfAnotherRow, Change::Rescale) => {
                self.factors = [self.factors[0]; MOST_ROWS];
                Change::Rescale
            }
            (_, change) => change,
        };
        (change, weigher)
    }

    #[inline(always)]
    fn close<const V: usize, P: Precise>(&mut self, lanes: L, weigher: Weigher<L, V, P>) {
        self.fold.close(lanes, weigher);
    }

    #[inline(always)]
    fn factors(&self) -> &[f32] {
        &self.factors[..self.fold.factors().len()]
    }
}

/// A bug in a variant's code, all of which is right if every number is 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Misled {
    /// Added to the position of every key.
    pub keys: i32,
    /// Added to every head.
    pub heads: i32,
    /// Keys that have no weight, as if their sums had been lost.
    pub lost: Range<i32>,
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
pub struct Mutation {
    /// In the engine.
    pub bug: Bug,
    /// In the variant's code.
    pub misled: Misled,
    /// In what is read.
    pub inputs: fn(&Case<'_>, Inputs) -> Inputs,
}

/// Nothing is.
pub const NOTHING: Mutation =
    Mutation { bug: Bug::None, misled: Misled { keys: 0, heads: 0, lost: 0..0 }, inputs: |_, inputs| inputs };

const BLOCKS: Blocks =
    Blocks { query_block: 16, key_block: 32, key_cell: 64, mask_step: 8, channel_chain: 16 };

/// Runs a mutation on every engine that may have its bug, and gives the verdicts, all for inputs on which the kernel passes.
///
/// # Panics
/// If a kernel does not pass without the mutation.
pub fn verdicts(text: &str, mutation: &Mutation) -> Vec<(String, Result<(), Disagreement>)> {
    let entries = engines::available().into_iter();
    entries
        .filter(|entry| mutation.bug != Bug::StairsTooSteep || entry.tile.stairs)
        .map(|entry| {
            let dtype = if entry.serves(Dtype::F32) { Dtype::F32 } else { Dtype::Bf16 };
            verdict(text, entry, dtype, mutation)
        })
        .collect()
}

/// The same on one engine.
fn verdict(
    text: &str,
    entry: &Entry,
    dtype: Dtype,
    mutation: &Mutation,
) -> (String, Result<(), Disagreement>) {
    let spec = specs::parse(text);
    let variant = spec.variant();
    let problem = Problem::prefill(spec.source, 2, 90, 150).expect("short");
    let case = Case { variant, problem, dtype, layout: Layout::Bhnd, seed: 21 };
    let inputs = case.inputs();
    let run = |mutation: &Mutation| {
        let code = MisledCode { program: LaneProgram::new(&variant), misled: mutation.misled.clone() };
        let direct = Direct { case: &case, entry, blocks: BLOCKS, pack_ahead_bytes: 0 };
        let given = (mutation.inputs)(&case, inputs.clone());
        let result = direct.run_as(&code, mutation.bug, &given, &Solo);
        // Judged on the inputs as they should have been read.
        run::judge(&case, &inputs, result, &direct.plan())
    };
    let what = run::describe(text, entry, &case);
    run(&NOTHING).unwrap_or_else(|error| panic!("without a bug: {what}: {error}"));
    (what, run(mutation))
}
