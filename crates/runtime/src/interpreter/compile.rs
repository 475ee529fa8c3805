//! From straight-line lane code to lane programs: every value gets a slot.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use regard_ir::lanes::{Instr, Kind, LaneOp, Lowered, ValueId};

use super::fuse::{Work, fuse};
use super::slots::{Sizes, Slot};
use super::{Program, Step};

/// Places the values of an expression; `to_scores` says that its result takes the place of the scores.
///
/// A chunk of scores is large and a long expression has many intermediate values, so slots of the body that are read
/// no more go to later instructions. The prologue's slots stay: the body runs once for each chunk.
pub(super) fn program(lowered: &Lowered, to_scores: bool) -> Program {
    let work = fuse(lowered);
    let last_uses = last_uses(lowered, &work);
    let mut slots = Sizes::default();
    let mut free: BTreeMap<Kind, Vec<u32>> = BTreeMap::new();
    let mut places: Vec<Slot> = Vec::with_capacity(lowered.instrs.len());
    let (mut prologue, mut body) = (vec![], vec![]);
    for (id, &Instr { op, kind, .. }) in lowered.instrs.iter().enumerate() {
        let work = match work[id] {
            Some(work) if op != LaneOp::Score => work,
            // Scores are where they are; what another instruction does has no place.
            _ => {
                places.push(Slot::SCORES);
                continue;
            }
        };
        // What the last instruction makes of scores takes their place, element by element.
        let ends = id + 1 == lowered.instrs.len() && lowered.result as usize == id;
        if ends && kind == Kind::Full && to_scores {
            places.push(Slot::SCORES);
            body.push(Step { work: work.map(|operand| places[operand as usize]), to: Slot::SCORES });
            continue;
        }
        // The slot is taken before the operands' are given back: an instruction never reads where it writes.
        let index = free.get_mut(&kind).and_then(Vec::pop).unwrap_or_else(|| slots.add(kind));
        places.push(Slot { kind, index });
        let step = Step { work: work.map(|operand| places[operand as usize]), to: places[id] };
        if kind.is_keyless() {
            prologue.push(step);
            continue;
        }
        body.push(step);
        for &ended in &last_uses[id] {
            let slot @ Slot { kind, index } = places[ended as usize];
            if !kind.is_keyless() && !slot.is_scores() {
                free.entry(kind).or_default().push(index);
            }
        }
    }
    Program { prologue, body, result: places[lowered.result as usize], slots }
}

/// For each instruction, the values that nothing after it reads.
fn last_uses(lowered: &Lowered, work: &[Option<Work<ValueId>>]) -> Vec<Vec<ValueId>> {
    let mut ended = vec![vec![]; lowered.instrs.len()];
    let mut is_read = vec![false; lowered.instrs.len()];
    is_read[lowered.result as usize] = true;
    for (id, work) in work.iter().enumerate().rev() {
        let Some(work) = work else { continue };
        for value in work.operands().into_iter().chain([id as ValueId]) {
            if !core::mem::replace(&mut is_read[value as usize], true) {
                ended[id].push(value);
            }
        }
    }
    ended
}
