//! Variants that were loaded at run time, as lane programs.
//!
//! A program is an expression compiled to instructions over slots of lanes. A slot is as large as what it depends on:
//! one vector for what is the same everywhere, a row of lanes for what depends on query or head, a column for what
//! depends on the key, and a whole chunk of scores for the rest, so that `alibi(h)` is looked up once a tile and not
//! once a score. Each instruction runs over its whole slot before the next begins: the cost of dispatch is shared by
//! hundreds of lanes.

mod compile;
mod exec;
mod fuse;
mod slots;

use alloc::boxed::Box;
use alloc::vec::Vec;

use regard_engine::Op;
use regard_engine::isa::Door;
use regard_ir::expr::Tree;
use regard_ir::lanes::Lowered;
use regard_ir::variant::{InputShape, Variant};

use self::fuse::Work;
use self::slots::{Sizes, Slot};
use crate::code::{AnyCode, Code, Place};

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
    /// Who teaches lookahead keys, as a mask alone.
    teaches: Option<Box<LaneProgram>>,
}

impl LaneProgram {
    /// Compiles a variant's mask and modifier.
    pub fn new(variant: &Variant<'_>) -> Self {
        let Variant { allow, modify, inputs, .. } = *variant;
        let modify = (!modify.is_var(variant.element())).then(|| Lowered::modifier(modify, inputs));
        let teaches = variant.teaches().map(|allow| Box::new(Self::mask(allow, inputs)));
        Self {
            modify: modify.as_ref().map(|modify| compile::program(modify, true)),
            guarded: modify.is_some_and(|modify| modify.checks()),
            teaches,
            ..Self::mask(allow, inputs)
        }
    }

    /// A mask whose scores stay as they are.
    fn mask(allow: Tree<'_>, inputs: &[InputShape]) -> Self {
        let allow = compile::program(&Lowered::mask(allow, inputs), false);
        Self { allow, modify: None, guarded: false, teaches: None }
    }
}

impl<L: Door> Code<L> for LaneProgram {
    fn modifies(&self) -> bool {
        self.modify.is_some()
    }

    fn scratch_len(&self, width: usize) -> usize {
        let vectors = width / L::WIDTH;
        CHUNK * width + (self.allow.slots.vectors(vectors) + self.modify_vectors(vectors)) * L::WIDTH
    }

    fn apply(&self, lanes: L, place: &Place<'_>, scores: &mut [f32], masked: bool, scratch: &mut [i32]) {
        lanes.enter(Apply { program: self, lanes, place, scores, masked, scratch });
    }

    fn allow(&self, lanes: L, place: &Place<'_>, allowed: &mut [i32], scratch: &mut [i32]) {
        lanes.enter(Allow { program: self, lanes, place, allowed, scratch });
    }

    fn teaches(&self) -> Option<&dyn Code<L>> {
        self.teaches.as_deref().map(|teaches| teaches as &dyn Code<L>)
    }
}

impl AnyCode for LaneProgram {
    fn on<L: Door>(&self) -> &dyn Code<L> {
        self
    }
}

/// A tile through the programs, chunk by chunk, inside the instruction set's door.
struct Apply<'a, L> {
    program: &'a LaneProgram,
    lanes: L,
    place: &'a Place<'a>,
    scores: &'a mut [f32],
    masked: bool,
    scratch: &'a mut [i32],
}

impl<L: Door> Op for Apply<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            program: LaneProgram { allow, modify, guarded, .. },
            lanes,
            place,
            scores,
            masked,
            scratch,
        } = self;
        let width = place.q.len();
        let vectors = width / L::WIDTH;
        let (allowed, scratch) = scratch.split_at_mut(CHUNK * width);
        let (allow_slots, scratch) = scratch.split_at_mut(allow.slots.vectors(vectors) * L::WIDTH);
        let modify_slots = &mut scratch[..self.program.modify_vectors(vectors) * L::WIDTH];
        if masked {
            exec::prepare(allow, lanes, place, allow_slots);
        }
        if let Some(modify) = modify {
            exec::prepare(modify, lanes, place, modify_slots);
        }
        for (chunk, scores) in scores.chunks_mut(CHUNK * width).enumerate() {
            let after = (chunk * CHUNK) as i32 * place.keys.step::<L>();
            let place = Place { first_key: place.first_key.wrapping_add(after), ..*place };
            let allowed = &mut allowed[..scores.len()];
            if masked {
                exec::mask_of(allow, lanes, &place, allowed, allow_slots);
            }
            if let Some(modify) = modify {
                let guard = (masked && *guarded).then_some(&*allowed);
                exec::modify(modify, lanes, &place, guard, scores, modify_slots);
            }
            if masked {
                exec::mask(lanes, allowed, scores);
            }
        }
    }
}

/// The mask of one key, inside the door.
struct Allow<'a, L> {
    program: &'a LaneProgram,
    lanes: L,
    place: &'a Place<'a>,
    allowed: &'a mut [i32],
    scratch: &'a mut [i32],
}

impl<L: Door> Op for Allow<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { program: LaneProgram { allow, .. }, lanes, place, allowed, scratch } = self;
        let slots = &mut scratch[..allow.slots.vectors(place.q.len() / L::WIDTH) * L::WIDTH];
        exec::prepare(allow, lanes, place, slots);
        exec::mask_of(allow, lanes, place, allowed, slots);
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
    prologue: Vec<Step>,
    /// The rest.
    body: Vec<Step>,
    /// Where the result is.
    result: Slot,
    slots: Sizes,
}

/// What is done over slots, and the slot that it fills. A check fills nothing that is read.
#[derive(Clone, Copy, Debug)]
struct Step {
    work: Work<Slot>,
    to: Slot,
}
