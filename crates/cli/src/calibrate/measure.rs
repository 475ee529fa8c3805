//! The rates of this machine's engines, and of its reads.
//!
//! Parts of engines take turns, each a fraction of a millisecond, so that most turns run between what else the system does and
//! all of them meet the same clock; a rate is that of the median turn. What a softmax takes is the difference between a step
//! and its products, on heads of 64: on wider ones it is a small difference of large times.

use std::time::Instant;

use regard::{Dtype, Machine, Options, Planned, Pool};
use regard_engine::any;
use regard_engine::catalog::{self, Entry};
use regard_ir::plan::Pieces;
use regard_ir::rates::{EngineRates, Rates, ReadRates};
use regard_ir::variant::Heads;
use regard_measure::trial::{self, Part, Trial};

use crate::failure::Failure;
use crate::peaks::Peaks;
use crate::progress::Progress;
use crate::timing::median;

/// The spec whose plans say how large operands are: four query heads to a key head.
const SPEC: &str = "gqa";

/// Widths of heads.
const WIDTHS: [u32; 2] = [128, 64];

/// Heads of the first and of the second of [`WIDTHS`].
const WIDE: usize = 0;
const NARROW: usize = 1;

/// What takes turns.
const MEASURED: [(usize, Part); 4] =
    [(WIDE, Part::Products), (WIDE, Part::Packing), (NARROW, Part::Products), (NARROW, Part::Step)];

/// Seconds of a turn, or one repetition where that takes longer.
const TURN_S: f64 = 3e-4;

/// Turns of each part of each engine.
const TURNS: usize = 101;

/// Turns of an engine so slow that a repetition passes that of a turn by far.
const FEW_TURNS: usize = 15;

/// The least share of its products' time that a softmax is said to take: what turns cannot tell from nothing.
const LEAST_SOFTMAX: f64 = 0.01;

/// One engine under measurement.
struct Subject {
    entry: &'static Entry,
    /// With heads of each of [`WIDTHS`].
    trials: [Box<dyn Trial>; 2],
    /// Repetitions of a turn of each of [`MEASURED`].
    times: [usize; 4],
    turns: usize,
    /// Seconds of a repetition, by what is measured and turn.
    seconds: [Vec<f64>; 4],
}

/// Measures every engine that this machine has, emulated ones aside, in a few seconds.
///
/// # Errors
/// If there is no memory, or no thread.
pub(super) fn rates(machine: &Machine) -> Result<Rates, Failure> {
    let mut subjects = subjects(machine)?;
    let progress = Progress::new("turns of engines", TURNS as u64);
    for turn in 0..TURNS {
        for subject in subjects.iter_mut().filter(|subject| turn < subject.turns) {
            subject.turn();
        }
        progress.advance();
    }
    drop(progress);
    let mut rates = subjects.iter().fold(Rates::NONE, |rates, subject| rates.with(subject.rates()));
    rates.reads = reads(machine)?;
    Ok(rates)
}

fn subjects(machine: &Machine) -> Result<Vec<Subject>, Failure> {
    let there = |entry: &&Entry| !entry.emulated && any::available(entry.engine, entry.isa);
    catalog::runnable(machine.isa)
        .filter(there)
        .map(|entry| {
            let [wide, narrow] = WIDTHS.map(|width| trial(machine, entry, width));
            Ok(Subject::new(entry, [wide?, narrow?]))
        })
        .collect()
}

/// An engine with operands for heads of a width.
fn trial(machine: &Machine, entry: &Entry, width: u32) -> Result<Box<dyn Trial>, Failure> {
    let mut spec = regard::shipped(SPEC).map_err(Failure::Spec)?.spec;
    spec.heads = Heads { dim: width, value_dim: width, ..spec.heads };
    let compile = |error| Failure::Compile { spec: spec.name.clone(), error };
    let options = Options { dtype: Some(whole(entry)), engine: Some(entry.engine), ..Options::default() };
    // An engine that is asked for is taken on the most capable set.
    let machine = Machine { isa: entry.isa, ..*machine };
    let planned = Planned::new(&spec, &machine, options).map_err(compile)?;
    trial::of(entry, &spec.heads, planned.plan()).map_err(|unavailable| Failure::Bug(unavailable.to_string()))
}

/// A storage type whose operands the engine does not split: f32 where it computes that.
fn whole(entry: &Entry) -> Dtype {
    let whole = |dtype: &Dtype| entry.exact(*dtype) == Some(Pieces::WHOLE);
    Dtype::ALL.into_iter().find(whole).unwrap_or(Dtype::Bf16)
}

impl Subject {
    fn new(entry: &'static Entry, mut trials: [Box<dyn Trial>; 2]) -> Self {
        let once = MEASURED.map(|(width, part)| {
            trials[width].repeat(part, 1);
            seconds(&mut *trials[width], part, 1)
        });
        let slow = once.iter().any(|&once| once > 10.0 * TURN_S);
        Self {
            entry,
            trials,
            times: once.map(|once| (TURN_S / once).ceil() as usize),
            turns: if slow { FEW_TURNS } else { TURNS },
            seconds: Default::default(),
        }
    }

    fn turn(&mut self) {
        for (at, (width, part)) in MEASURED.into_iter().enumerate() {
            self.seconds[at].push(seconds(&mut *self.trials[width], part, self.times[at]));
        }
    }

    fn rates(&self) -> EngineRates {
        let [wide, narrow] = self.trials.each_ref().map(|trial| trial.amounts());
        let [products_s, packing_s, plain_s, step_s] = self.seconds.each_ref().map(|turns| middle(turns));
        let Entry { engine, isa, .. } = *self.entry;
        let rate = |amount: f64, seconds: f64| rounded(amount / seconds / 1e9);
        EngineRates {
            engine,
            isa,
            products: rate(wide.products, products_s),
            softmax: rate(narrow.scores, (step_s - plain_s).max(LEAST_SOFTMAX * plain_s)),
            packing: rate(wide.packed, packing_s),
        }
    }
}

/// Seconds of a repetition of a part.
fn seconds(trial: &mut dyn Trial, part: Part, times: usize) -> f64 {
    let start = Instant::now();
    trial.repeat(part, times);
    start.elapsed().as_secs_f64().max(1e-9) / times as f64
}

fn reads(machine: &Machine) -> Result<ReadRates, Failure> {
    let pool = Pool::new(1).map_err(|error| Failure::Threads { count: 1, error })?;
    let peaks = Peaks::measure(&pool, machine, machine.isa)?;
    let of = |name: &str| {
        let level = peaks.levels.iter().find(|level| level.name == name);
        level.map_or(0.0, |level| rounded(level.read.median))
    };
    Ok(ReadRates { l2: of("L2"), l3: of("L3"), memory: of("memory") })
}

fn middle(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    median(&sorted)
}

/// Three digits, which is more than two measurements share.
fn rounded(x: f64) -> f64 {
    let unit = 10f64.powi(2 - x.abs().max(1e-9).log10().floor() as i32);
    (x * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use regard::{EngineKind, Isa};

    use super::*;

    #[test]
    fn rates_have_three_digits() {
        assert_eq!([rounded(123.456), rounded(0.012345), rounded(9.999)], [123.0, 0.0123, 10.0]);
    }

    #[test]
    fn scalar_code_is_measured_everywhere() {
        let machine = Machine { isa: Isa::Scalar, ..regard::machine::host() };
        let mut subjects = subjects(&machine).unwrap();
        let [subject] = &mut subjects[..] else { panic!("scalar has one engine") };
        subject.turn();
        let EngineRates { engine, products, softmax, packing, .. } = subject.rates();
        assert_eq!(engine, EngineKind::SimdF32);
        for rate in [products, softmax, packing] {
            assert!(rate > 0.0 && rate.is_finite(), "{rate}");
        }
    }
}
