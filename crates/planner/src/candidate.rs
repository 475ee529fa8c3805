//! What may serve a spec, and which of it is the fastest.
//!
//! A candidate is a whole plan. Candidates are compared on one problem that stands for all: the engine must not change with
//! the lengths of a call, or its bits would.

use regard_engine::catalog::Entry;
use regard_ir::interval::Unknown;
use regard_ir::machine::Machine;
use regard_ir::plan::{Dtype, Plan};
use regard_ir::problem::Problem;
use regard_ir::reach::reach;
use regard_ir::spec::Spec;
use regard_ir::variant::{Mechanism, Variant};

use crate::blocks::Target;
use crate::cost::{Case, Sharing};
use crate::decode;
use crate::estimate::Known;
use crate::latent;
use crate::pieces;
use crate::pseudo;
use crate::recurrence;
use crate::report::{Choice, Reason, RejectedEngine};

/// Tasks that each thread gets at most. The cut is even to one task, so the busiest thread works at most about 1/32
/// longer than the average; a task costs a schedule entry of 28 bytes and nothing else.
const TASKS_PER_THREAD: u32 = 32;

/// Queries, and keys, of the problem that candidates are compared on: enough that blocks are full and few enough that a
/// short problem is not far from it.
const REPRESENTATIVE: usize = 2048;

/// A plan on one engine.
pub(crate) struct Candidate {
    /// The engine.
    pub(crate) entry: &'static Entry,
    /// The plan.
    pub(crate) plan: Plan,
    /// Its numbers with their reasons.
    pub(crate) choices: Vec<Choice>,
}

impl Candidate {
    /// The plan on an engine; `None` where that does not meet the precision.
    pub(crate) fn new(spec: &Spec, machine: &Machine, dtype: Dtype, entry: &'static Entry) -> Option<Self> {
        let variant = spec.variant();
        let split = pieces::choose(entry, &variant, dtype, spec.precision)?;
        let mixed = variant.pseudo().map_or(0, |_| variant.heads.kv);
        let learns = matches!(variant.mechanism, Mechanism::Lookahead(_));
        let target = |heads| Target { heads, mixed, machine, entry, pieces: split.pieces, learns };
        let mut chunks = None;
        let (prefill, latent, mut choices) = match &variant.mechanism {
            Mechanism::Recurrence(recurrence) => {
                let (plan, blocks, choices) = recurrence::choose((&variant.heads, recurrence), machine);
                chunks = Some(plan);
                (blocks, None, choices)
            }
            Mechanism::Latent(latent) => {
                let query = spec.heads.query;
                let (prefill, mut choices) = target(latent.expanded_heads(query)).choose();
                let (latent, more) = latent::choose(latent, &target(latent.absorbed_heads(query)));
                choices.extend(more);
                (prefill, Some(latent), choices)
            }
            Mechanism::Plain | Mechanism::Lookahead(_) | Mechanism::Pseudo(_) => {
                let (prefill, choices) = target(variant.scored().heads).choose();
                (prefill, None, choices)
            }
        };
        let pack_ahead_bytes = pack_ahead_bytes(machine);
        if chunks.is_none() {
            choices.extend(split.choice);
            choices.push(Choice::fixed("pack_ahead_bytes", pack_ahead_bytes, Reason::PackAhead));
            choices.push(Choice::fixed("tasks_per_thread", TASKS_PER_THREAD as u64, Reason::TasksPerThread));
        }
        let reach = reach(&variant.scored());
        let cached = |mixed| {
            let (cache, decode, more) = decode::choose(spec, machine, dtype, mixed);
            let plan = Plan {
                identity: spec.identity,
                isa: entry.isa,
                engine: entry.engine,
                dtype,
                pieces: split.pieces,
                prefill,
                decode,
                latent,
                recurrence: chunks,
                cache,
                reach,
                pack_ahead_bytes,
                tasks_per_thread: TASKS_PER_THREAD,
            };
            (plan, more)
        };
        let form =
            variant.pseudo().map(|it| pseudo::choose((&variant, &it), machine, |mixed| cached(mixed).0));
        let (mixed, form) = form.map_or((false, None), |(mixed, choice)| (mixed, Some(choice)));
        let (plan, more) = cached(mixed);
        choices.extend(form);
        if chunks.is_none() {
            choices.extend(more);
        }
        Some(Self { entry, plan, choices })
    }

    /// Seconds that one thread would take for the problem that stands for all.
    fn seconds(&self, spec: &Spec, known: &Known<'_>) -> f64 {
        let variant = &prefill_form(&spec.variant());
        let problem = Problem::prefill(spec.source, 1, REPRESENTATIVE, REPRESENTATIVE);
        let Ok(problem) = &problem else { return 0.0 };
        let inputs = &Unknown(variant.inputs);
        let case = Case { plan: &self.plan, variant, machine: known.machine, problem, inputs };
        case.predict_by(known, self.entry, &Sharing::ALONE).seconds
    }
}

/// The variant as most of a prefill has it.
fn prefill_form<'a>(variant: &Variant<'a>) -> Variant<'a> {
    match &variant.mechanism {
        Mechanism::Latent(latent) => variant.expanded(latent),
        Mechanism::Plain | Mechanism::Lookahead(_) | Mechanism::Pseudo(_) | Mechanism::Recurrence(_) => {
            *variant
        }
    }
}

/// Memory that a machine can spare for packed keys and values: many times its last cache, nothing where it has L1 alone.
const fn pack_ahead_bytes(machine: &Machine) -> u64 {
    const CACHES: u64 = 16;
    let last = if machine.l3_bytes > machine.l2_bytes { machine.l3_bytes } else { machine.l2_bytes };
    CACHES * last as u64
}

/// The fastest, and how much longer each other would take; the first of those that take the same. `None` of none.
pub(crate) fn cheapest(
    candidates: Vec<Candidate>,
    spec: &Spec,
    known: &Known<'_>,
) -> Option<(Candidate, Vec<RejectedEngine>)> {
    let mut costed: Vec<(f64, Candidate)> =
        candidates.into_iter().map(|candidate| (candidate.seconds(spec, known), candidate)).collect();
    // Stable: the catalog has the more capable first.
    costed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut costed = costed.into_iter();
    let (least, best) = costed.next()?;
    let rejected = costed.map(|(seconds, Candidate { entry, .. })| RejectedEngine {
        engine: entry.engine,
        isa: entry.isa,
        times_as_long: if least > 0.0 { seconds / least } else { 1.0 },
    });
    Some((best, rejected.collect()))
}
