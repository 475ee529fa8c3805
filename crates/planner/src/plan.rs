//! The decision: which engine, on which instruction set, with which blocks. Of all that may serve, the one that is
//! predicted to take the least time.

use core::fmt;

use regard_engine::catalog::{self, Entry};
use regard_ir::expr::Op;
use regard_ir::machine::{Isa, Machine};
use regard_ir::plan::{Dtype, EngineKind, Plan, Precision};
use regard_ir::spec::{CacheLayout, Mechanism, Spec};
use regard_ir::variant::Heads;

use crate::candidate::{self, Candidate};
use crate::estimate::Known;
use crate::report::{Note, PlanReport, RejectedEngine};

/// A spec that cannot be planned for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// No engine of this build, or not the one asked for, runs there.
    NoEngine {
        /// The engine asked for.
        engine: Option<EngineKind>,
        /// The machine's instruction set.
        isa: Isa,
        /// The storage type.
        dtype: Dtype,
    },
    /// The spec asks for a ring of cached keys, and no ring holds all that its mask lets queries see.
    Ring,
    /// A machine without cores or without a first-level cache.
    Machine {
        /// Its cores.
        cores: u32,
        /// Its first-level data cache.
        l1d_bytes: u32,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::NoEngine { engine: Some(engine), isa, dtype } => {
                write!(f, "engine {} does not run {} on {}", engine.name(), dtype.name(), isa.name())?;
                match (engine, dtype) {
                    (EngineKind::AmxBf16, Dtype::F32) => {
                        f.write_str(" unless the spec says `precision = \"fast\"`")
                    }
                    (EngineKind::DotBf16, Dtype::Bf16) => f.write_str(
                        " for this spec: rows that are turned or normed, and outputs that may cancel, need more than bf16",
                    ),
                    _ => Ok(()),
                }
            }
            PlanError::NoEngine { engine: None, isa, dtype } => {
                write!(f, "no engine of this build runs {} on {}", dtype.name(), isa.name())
            }
            PlanError::Ring => f.write_str(
                "`cache.layout` is `ring`, but the mask lets queries see keys without end: a ring needs one like `causal & window(4096)`",
            ),
            PlanError::Machine { cores, l1d_bytes } => write!(
                f,
                "a machine of {cores} cores with {l1d_bytes} B of L1d cannot be planned for: both must be at least 1"
            ),
        }
    }
}

impl std::error::Error for PlanError {}

/// Plans `spec` in storage type `dtype` for `machine`, with `engine` where one is asked for.
///
/// Of the engines that meet the precision, and that are not emulated, the one is taken that is predicted to be the fastest, by
/// the machine's rates or, where one of them was not measured, by estimates. An engine that is asked for is taken on the most
/// capable instruction set that it has there, however fast.
///
/// # Errors
/// If no engine runs there, or the machine has no core or no L1d.
pub fn plan(
    spec: &Spec,
    machine: &Machine,
    dtype: Dtype,
    engine: Option<EngineKind>,
) -> Result<(Plan, PlanReport), PlanError> {
    let Machine { isa, cores, l1d_bytes, .. } = *machine;
    if cores == 0 || l1d_bytes == 0 {
        return Err(PlanError::Machine { cores, l1d_bytes });
    }
    let candidates: Vec<Candidate> = catalog::runnable(isa)
        .filter(|entry| engine.map_or(!entry.emulated, |engine| engine == entry.engine))
        .filter_map(|entry| Candidate::new(spec, machine, dtype, entry))
        .take(if engine.is_some() { 1 } else { usize::MAX })
        .collect();
    let known = Known::of(machine, candidates.iter().map(|candidate| candidate.entry));
    let Some((Candidate { entry, plan, choices }, rejected)) = candidate::cheapest(candidates, spec, &known)
    else {
        return Err(PlanError::NoEngine { engine, isa, dtype });
    };
    if spec.cache.layout == CacheLayout::Ring && plan.reach.is_none() {
        return Err(PlanError::Ring);
    }
    let report = PlanReport {
        spec: spec.name.clone(),
        heads: spec.heads,
        machine: *machine,
        plan,
        tile: [entry.tile.rows, entry.tile.keys],
        rates: known.origin,
        choices,
        notes: notes(spec, machine, entry, &plan, &rejected),
        rejected,
    };
    Ok((plan, report))
}

fn notes(
    spec: &Spec,
    machine: &Machine,
    entry: &Entry,
    plan: &Plan,
    rejected: &[RejectedEngine],
) -> Vec<Note> {
    let mut notes = Vec::new();
    if machine.isa != entry.isa && rejected.iter().all(|engine| engine.isa != machine.isa) {
        let (machine, used, engine, dtype) = (machine.isa, entry.isa, entry.engine, plan.dtype);
        notes.push(Note::Unused { machine, used, engine, dtype });
    }
    if entry.emulated {
        notes.push(Note::Emulated { engine: entry.engine });
    }
    match (plan.engine, plan.dtype) {
        (EngineKind::SimdF32, Dtype::F32)
            if spec.precision == Precision::Fast
                && rejected.iter().all(|engine| engine.engine == EngineKind::SimdF32) =>
        {
            notes.push(Note::FastIsExact { isa: machine.isa });
        }
        (EngineKind::DotBf16 | EngineKind::AmxBf16, _) | (EngineKind::SimdF32, Dtype::F32) => {}
        (EngineKind::SimdF32, dtype) => notes.push(Note::Converted { dtype }),
    }
    if let Mechanism::Pseudo(pseudo) = spec.mechanism {
        let Heads { query, kv, .. } = spec.heads;
        notes.push(Note::PseudoHeads { query, sources: kv, per_token: pseudo.heads });
    }
    if let Mechanism::Recurrence(_) = spec.mechanism {
        notes.push(Note::States);
        notes.push(Note::Bits);
        return notes;
    }
    let allow = spec.allow.tree();
    if allow.node(allow.root()).op == Op::Bool(true) {
        notes.push(Note::NoMask);
    }
    let group = match spec.mechanism {
        Mechanism::Latent(_) => 1,
        _ => spec.variant().scored().heads.group(),
    };
    let rows = plan.prefill.query_block as u64 * group as u64;
    let tile_rows = entry.tile.rows as u64;
    if !rows.is_multiple_of(tile_rows) {
        notes.push(Note::RaggedRows { rows, tile_rows });
    }
    if let Some(reach) = plan.reach {
        notes.push(Note::Ring(reach));
    }
    if let Mechanism::Lookahead(_) = spec.mechanism {
        notes.push(Note::WholeHeads);
    }
    notes.push(Note::Bits);
    notes
}
