//! Rates of machines on which nothing was measured: from the instruction set and a nominal clock.
//!
//! An estimate is there to tell engines apart, so it is of the slowest processors that have an engine's unit: where a unit
//! runs at full speed on some and at half on others, the estimate says half, and only a measurement makes a planner take it
//! there. For the same reason rates that were measured are never held against rates that were not.

use regard_engine::catalog::{self, Entry};
use regard_ir::machine::{Isa, Machine};
use regard_ir::plan::EngineKind;
use regard_ir::rates::{EngineRates, Origin, ReadRates};

use crate::blocks;

/// The share of its peak that an engine's tiles reach where its unit is the slowest: lanes were seen at 72 to 97 %, matrix
/// tiles at 62 %.
const fn share_of_peak(engine: EngineKind) -> f64 {
    match engine {
        EngineKind::SimdF32 | EngineKind::DotBf16 => 0.7,
        EngineKind::AmxBf16 => 0.6,
    }
}

/// What sums over heads take of the rate of products: they load as much as they multiply.
const MIXING_SHARE: f64 = 0.5;

/// Cycles to make a vector of scores into weights.
const SOFTMAX_CYCLES: f64 = 8.0;

/// Elements of keys and values that are packed in a cycle.
const PACKED_PER_CYCLE: f64 = 1.0;

/// Bytes that a core reads in a cycle from its second-level cache, and from the last one.
const READ_PER_CYCLE: [f64; 2] = [32.0, 8.0];

/// 10⁹ bytes that a core reads from memory in a second.
const MEMORY_GBS: f64 = 10.0;

/// 10⁹ cycles a second of common processors whose most capable instruction set is this.
const fn nominal_ghz(isa: Isa) -> f64 {
    match isa {
        Isa::Scalar => 1.0,
        Isa::Neon | Isa::WasmSimd => 1.5,
        Isa::Avx2 | Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => 3.0,
    }
}

/// Of one engine on a machine.
fn engine(machine: &Machine, entry: &Entry) -> EngineRates {
    let Entry { engine, isa, emulated, .. } = *entry;
    let ghz = nominal_ghz(machine.isa);
    // A unit that is emulated is scalar code.
    let per_cycle = match emulated {
        true => 1.0,
        false => share_of_peak(engine) * blocks::peak_products_per_cycle(entry) as f64,
    };
    EngineRates {
        engine,
        isa,
        products: ghz * per_cycle,
        softmax: ghz * f64::from(isa.f32_lanes()) / SOFTMAX_CYCLES,
        packing: ghz * PACKED_PER_CYCLE,
    }
}

/// What is known of a machine, or made up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// The machine.
    pub(crate) machine: &'a Machine,
    /// Where the engines' rates come from.
    pub(crate) origin: Origin,
}

impl<'a> Known<'a> {
    /// Of engines that are to be compared: measured if all of them were, else estimated.
    pub(crate) fn of<'e>(machine: &'a Machine, entries: impl IntoIterator<Item = &'e Entry>) -> Self {
        let measured = |entry: &Entry| machine.rates.of(entry.engine, entry.isa).is_some();
        let origin = if entries.into_iter().all(measured) { Origin::Measured } else { Origin::Estimated };
        Self { machine, origin }
    }

    /// Rates of an engine.
    pub(crate) fn engine(&self, entry: &Entry) -> EngineRates {
        let measured = self.machine.rates.of(entry.engine, entry.isa);
        match (self.origin, measured) {
            (Origin::Measured, Some(rates)) => rates,
            _ => engine(self.machine, entry),
        }
    }

    /// Multiply-adds of sums over heads, which are made on vectors whatever the engine.
    pub(crate) fn mixing(&self, entry: &Entry) -> f64 {
        self.engine(&catalog::vectors(entry)).products * MIXING_SHARE
    }

    /// How fast it reads what lies in so many bytes, by the smallest cache that holds them with as much again.
    pub(crate) fn read_gbs(&self, bytes: f64) -> f64 {
        let Machine { isa, l2_bytes, l3_bytes, rates, .. } = *self.machine;
        let ReadRates { l2, l3, memory } = rates.reads;
        let ghz = nominal_ghz(isa);
        let holds = |cache: u32| 2.0 * bytes <= f64::from(cache);
        let (measured, estimated) = match () {
            () if holds(l2_bytes) => (l2, ghz * READ_PER_CYCLE[0]),
            () if holds(l3_bytes) => (l3, ghz * READ_PER_CYCLE[1]),
            () => (memory, MEMORY_GBS),
        };
        if measured > 0.0 { measured } else { estimated }
    }
}
