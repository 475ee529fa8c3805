//! Variants that were loaded at run time, as lane programs.
//!
//! A program is an expression compiled to instructions over slots of lanes. A slot is as large as what it depends on:
//! one vector for what is the same everywhere, a row of lanes for what depends on query or head, a column for what
//! depends on the key, and a whole chunk of scores for the rest, so that `alibi(h)` is looked up once a tile and not
//! once a score. Each instruction runs over its whole slot before the next begins: the cost of dispatch is shared by
//! hundreds of lanes.

mod compile;
mod exec;
mod slots;

use alloc::vec::Vec;

use regard_engine::isa::Door;
use regard_ir::expr::{Binary, MAX_AXES, Node, Unary, Var};
use regard_ir::variant::Variant;
use regard_simd::vectors_i32_mut;

use crate::code::{Code, Place};

/// Keys that a program takes at once. With 24 rows a slot is 1.5 KiB: a dozen stay in L1 beside the scores.
const CHUNK: usize = 16;

/// A variant as lane programs.
#[derive(Clone, Debug)]
pub struct LaneProgram {
    allow: Program,
    /// `None` for the score itself.
    modify: Option<Program>,
    /// Whether the modifier can index outside an input, so that it must know which scores are masked.
    guarded: bool,
}

impl LaneProgram {
    /// Compiles a variant's mask and modifier.
    pub fn new(variant: &Variant<'_>) -> Self {
        let modify =
            (!variant.modify.is_var(Var::S)).then(|| compile::program(variant.modify, variant.inputs, true));
        let guarded = modify.as_ref().is_some_and(Program::checks);
        Self { allow: compile::program(variant.allow, variant.inputs, false), modify, guarded }
    }
}

impl Code for LaneProgram {
    fn modifies(&self) -> bool {
        self.modify.is_some()
    }

    fn scratch_len(&self, width: usize, lanes: usize) -> usize {
        let vectors = width / lanes;
        CHUNK * width + (self.allow.slots.vectors(vectors) + self.modify_vectors(vectors)) * lanes
    }

    #[inline(always)]
    fn apply<L: Door>(
        &self,
        lanes: L,
        place: &Place<'_>,
        scores: &mut [f32],
        masked: bool,
        scratch: &mut [i32],
    ) {
        let width = place.q.len();
        let (allowed, scratch) = scratch.split_at_mut(CHUNK * width);
        let (allow_slots, modify_slots) =
            scratch.split_at_mut(self.allow.slots.vectors(width / L::WIDTH) * L::WIDTH);
        let modify_slots = &mut modify_slots[..self.modify_vectors(width / L::WIDTH) * L::WIDTH];
        if masked {
            exec::prepare(&self.allow, lanes, place, allow_slots);
        }
        if let Some(modify) = &self.modify {
            exec::prepare(modify, lanes, place, modify_slots);
        }
        for (chunk, scores) in scores.chunks_mut(CHUNK * width).enumerate() {
            let place = Place { first_key: place.first_key + (chunk * CHUNK) as i32, ..*place };
            let allowed = &mut allowed[..scores.len()];
            let keys = scores.len() / width;
            if masked {
                let io = exec::Io { scores: &[], guard: None };
                let to = vectors_i32_mut(lanes, allowed);
                exec::run(&self.allow, lanes, &place, io, keys, allow_slots, |at, allowed| to[at] = allowed);
            }
            if let Some(modify) = &self.modify {
                let guard = (masked && self.guarded).then_some(&*allowed);
                exec::modify(modify, lanes, &place, guard, scores, modify_slots);
            }
            if masked {
                exec::mask(lanes, allowed, scores);
            }
        }
    }

    #[inline(always)]
    fn allow<L: Door>(&self, lanes: L, place: &Place<'_>, allowed: &mut [i32], scratch: &mut [i32]) {
        let slots = &mut scratch[..self.allow.slots.vectors(place.q.len() / L::WIDTH) * L::WIDTH];
        exec::prepare(&self.allow, lanes, place, slots);
        let io = exec::Io { scores: &[], guard: None };
        let to = vectors_i32_mut(lanes, allowed);
        exec::run(&self.allow, lanes, place, io, 1, slots, |at, allowed| to[at] = allowed);
    }
}

impl LaneProgram {
    fn modify_vectors(&self, vectors: usize) -> usize {
        self.modify.as_ref().map_or(0, |modify| modify.slots.vectors(vectors))
    }
}

/// An expression as instructions over slots.
#[derive(Clone, Debug)]
struct Program {
    /// What depends on rows alone, or on nothing: run once a call.
    prologue: Vec<Instr>,
    /// The rest.
    body: Vec<Instr>,
    /// Where the result is.
    result: slots::Slot,
    slots: slots::Sizes,
}

impl Program {
    /// Whether it can report a bad index.
    fn checks(&self) -> bool {
        self.prologue.iter().chain(&self.body).any(|instr| matches!(instr.op, LaneOp::Check { .. }))
    }
}

/// One instruction: operands, and the slot that it fills.
#[derive(Clone, Copy, Debug)]
struct Instr {
    op: LaneOp,
    to: slots::Slot,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug)]
enum LaneOp {
    /// The bits of a literal.
    Literal(i32),
    /// A variable other than the score.
    Var(Var),
    /// The score.
    Score,
    /// The guard that the caller gives: which scores are not masked.
    Guard,
    /// An operation of one operand, with the node for its type and exactness.
    Unary { op: Unary, node: Node, operand: Node, a: slots::Slot },
    /// An operation of two.
    Binary { op: Binary, node: Node, operand: Node, a: slots::Slot, b: slots::Slot },
    /// `if c then a else b`.
    Select { c: slots::Slot, a: slots::Slot, b: slots::Slot },
    /// The ALiBi slope of head `a`.
    Alibi { a: slots::Slot, heads: u32 },
    /// The element at an index; 0 where the index leaves the axes.
    Fetch { input: u16, rank: u8, index: [slots::Slot; MAX_AXES] },
    /// Reports the input if a lane of `guard` (any lane, where absent) has an index outside the axes. Fills nothing.
    Check { input: u16, rank: u8, index: [slots::Slot; MAX_AXES], guard: Option<slots::Slot> },
}
