//! How fast a machine is at what attention does, engine by engine: what a planner compares engines by.
//!
//! A rate is of one core that works alone on operands in its own caches. It is measured on the machine that it is of, or
//! there is none: whoever needs one all the same estimates it, and says so.

use crate::machine::Isa;
use crate::plan::EngineKind;

/// Rates of one engine on one instruction set.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct EngineRates {
    /// The engine.
    pub engine: EngineKind,
    /// The instruction set.
    pub isa: Isa,
    /// 10⁹ multiplications with an addition a second, in the engine's own tiles, of operands that are not split.
    pub products: f64,
    /// 10⁹ scores made into weights a second, in the time by which that makes a step longer than its products.
    pub softmax: f64,
    /// 10⁹ elements of keys and values packed a second.
    pub packing: f64,
}

/// How fast one core reads, in 10⁹ bytes a second; 0 where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ReadRates {
    /// From its second-level cache.
    pub l2: f64,
    /// From the last-level cache.
    pub l3: f64,
    /// From memory.
    pub memory: f64,
}

/// Where rates come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Origin {
    /// Measured on the machine that they are of.
    Measured,
    /// Made up from its instruction set and a nominal clock.
    Estimated,
}

impl Origin {
    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Measured => "measured",
            Origin::Estimated => "estimated",
        }
    }
}

/// Instruction sets, each of which has a place for every engine.
const SETS: usize = Isa::ALL.len();

/// Every engine on every instruction set.
const PAIRS: usize = EngineKind::ALL.len() * SETS;

/// What was measured on a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Rates {
    #[cfg_attr(feature = "serde", serde(serialize_with = "present"))]
    engines: [Option<EngineRates>; PAIRS],
    /// How fast it reads.
    pub reads: ReadRates,
}

impl Rates {
    /// Of a machine on which nothing was measured.
    pub const NONE: Rates =
        Rates { engines: [None; PAIRS], reads: ReadRates { l2: 0.0, l3: 0.0, memory: 0.0 } };

    /// With those of one engine, in place of what there was of it.
    pub const fn with(mut self, rates: EngineRates) -> Self {
        self.engines[place(rates.engine, rates.isa)] = Some(rates);
        self
    }

    /// Those of an engine on an instruction set, if they were measured.
    pub const fn of(&self, engine: EngineKind, isa: Isa) -> Option<EngineRates> {
        self.engines[place(engine, isa)]
    }

    /// All that were measured, by engine and instruction set.
    pub fn engines(&self) -> impl Iterator<Item = &EngineRates> {
        self.engines.iter().flatten()
    }
}

const fn place(engine: EngineKind, isa: Isa) -> usize {
    engine as usize * SETS + isa as usize
}

#[cfg(feature = "serde")]
fn present<S: serde::Serializer>(
    engines: &[Option<EngineRates>; PAIRS],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(engines.iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_a_place_of_its_own() {
        const ONE: Rates = Rates::NONE.with(rates(EngineKind::SimdF32, Isa::Avx2));
        assert_eq!(ONE.engines().count(), 1);
        let mut all = Rates::NONE;
        for engine in EngineKind::ALL {
            for isa in Isa::ALL {
                all = all.with(rates(engine, isa));
            }
        }
        assert_eq!(all.engines().count(), PAIRS);
        for engine in EngineKind::ALL {
            for isa in Isa::ALL {
                assert_eq!(all.of(engine, isa), Some(rates(engine, isa)));
            }
        }
    }

    const fn rates(engine: EngineKind, isa: Isa) -> EngineRates {
        EngineRates { engine, isa, products: 1.0, softmax: 2.0, packing: 3.0 }
    }
}
