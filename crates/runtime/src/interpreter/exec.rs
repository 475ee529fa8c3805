//! Running a lane program.

use regard_engine::Op;
use regard_engine::isa::Door;
use regard_ir::expr::{Binary, MAX_AXES, Type, Unary, Var};
use regard_ir::lanes::{Kind, LaneOp};
use regard_simd::{F32, I32, Mask, Simd, exp, exp2, sigmoid, tanh, vectors_i32_mut, vectors_mut};

use super::slots::Slot;
use super::{Program, Step};
use crate::code::Place;
use crate::operations::{abs, alibi, exactly, floor_div, floor_rem, gather, outside, pow, truth};

/// What a program reads and writes beside its slots, `[keys][width]`.
pub(super) struct Io<'a> {
    /// Scores; empty for a mask.
    pub scores: &'a [f32],
    /// Which scores are not masked; all, where absent.
    pub guard: Option<&'a [i32]>,
}

/// Fills the slots that stay the same from chunk to chunk.
#[inline(always)]
pub(super) fn prepare<L: Door>(program: &Program, lanes: L, place: &Place<'_>, scratch: &mut [i32]) {
    let io = Io { scores: &[], guard: None };
    lanes.call(Run { program, steps: &program.prologue, lanes, place, io, keys: 1, scratch });
}

/// Writes a chunk of a mask, `[keys][width]`.
#[inline(always)]
pub(super) fn mask_of<L: Door>(
    program: &Program,
    lanes: L,
    place: &Place<'_>,
    allowed: &mut [i32],
    scratch: &mut [i32],
) {
    let io = Io { scores: &[], guard: None };
    let keys = allowed.len() / place.q.len();
    let vectors = place.q.len() / L::WIDTH;
    lanes.call(Run { program, steps: &program.body, lanes, place, io, keys, scratch: &mut *scratch });
    let result = program.slots.span(program.result, vectors);
    let slots = vectors_i32_mut(lanes, scratch);
    for (at, allowed) in vectors_i32_mut(lanes, allowed).iter_mut().enumerate() {
        *allowed = slots[result.at(at / vectors, at % vectors)];
    }
}

/// Replaces a chunk of scores by what the modifier makes of them.
#[inline(always)]
pub(super) fn modify<L: Door>(
    program: &Program,
    lanes: L,
    place: &Place<'_>,
    guard: Option<&[i32]>,
    scores: &mut [f32],
    scratch: &mut [i32],
) {
    let keys = scores.len() / place.q.len();
    let vectors = place.q.len() / L::WIDTH;
    let io = Io { scores, guard };
    lanes.call(Run { program, steps: &program.body, lanes, place, io, keys, scratch: &mut *scratch });
    let result = program.slots.span(program.result, vectors);
    let slots = vectors_i32_mut(lanes, scratch);
    for (at, score) in vectors_mut(lanes, scores).iter_mut().enumerate() {
        let modified = slots[result.at(at / vectors, at % vectors)];
        *score = I32::from_raw(lanes, modified).from_bits().raw();
    }
}

/// Sets the scores that are not allowed to −inf.
#[inline(always)]
pub(super) fn mask<L: Door>(lanes: L, allowed: &mut [i32], scores: &mut [f32]) {
    let masked = F32::splat(lanes, f32::NEG_INFINITY);
    for (score, &allowed) in vectors_mut(lanes, scores).iter_mut().zip(&*vectors_i32_mut(lanes, allowed)) {
        let allowed = truth(I32::from_raw(lanes, allowed));
        *score = allowed.select(F32::from_raw(lanes, *score), masked).raw();
    }
}

/// A run of instructions, inside the instruction set's door.
///
/// Called, not inlined: one function for each instruction set instead of a copy for each caller.
struct Run<'a, L> {
    program: &'a Program,
    steps: &'a [Step],
    lanes: L,
    place: &'a Place<'a>,
    io: Io<'a>,
    keys: usize,
    scratch: &'a mut [i32],
}

impl<L: Door> Op for Run<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { program, steps, lanes, place, io, keys, scratch } = self;
        let vectors = place.q.len() / L::WIDTH;
        let mut slots = Slots { program, lanes, vectors, keys, memory: vectors_i32_mut(lanes, scratch) };
        for step in steps {
            slots.step(step, place, &io);
        }
    }
}

#[inline(always)]
fn bits<L: Door>(mask: Mask<L>, like: I32<L>) -> I32<L> {
    mask.select_i32(like.like(-1), like.like(0))
}

struct Slots<'a, L: Door> {
    program: &'a Program,
    lanes: L,
    /// Vectors of a row tile.
    vectors: usize,
    /// Keys of the chunk.
    keys: usize,
    memory: &'a mut [<L::Simd as Simd>::i32s],
}

impl<L: Door> Slots<'_, L> {
    /// How many keys and rows of vectors a slot has.
    #[inline(always)]
    fn extent(&self, kind: Kind) -> (usize, usize) {
        let keys = if matches!(kind, Kind::Key | Kind::Full) { self.keys } else { 1 };
        let rows = if matches!(kind, Kind::Row | Kind::Full) { self.vectors } else { 1 };
        (keys, rows)
    }

    #[inline(always)]
    fn fill(&mut self, to: Slot, f: impl Fn(usize, usize) -> I32<L>) {
        let (keys, rows) = self.extent(to.kind);
        let out = self.program.slots.span(to, self.vectors);
        for key in 0..keys {
            for row in 0..rows {
                self.memory[out.at(key, row)] = f(key, row).raw();
            }
        }
    }

    #[inline(always)]
    fn map(&mut self, to: Slot, a: Slot, f: impl Fn(I32<L>) -> I32<L>) {
        let (keys, rows) = self.extent(to.kind);
        let (out, a) = (self.span(to), self.span(a));
        for key in 0..keys {
            for row in 0..rows {
                let x = I32::from_raw(self.lanes, self.memory[a.at(key, row)]);
                self.memory[out.at(key, row)] = f(x).raw();
            }
        }
    }

    #[inline(always)]
    fn zip(&mut self, to: Slot, a: Slot, b: Slot, f: impl Fn(I32<L>, I32<L>) -> I32<L>) {
        let (keys, rows) = self.extent(to.kind);
        let (out, a, b) = (self.span(to), self.span(a), self.span(b));
        for key in 0..keys {
            for row in 0..rows {
                let x = I32::from_raw(self.lanes, self.memory[a.at(key, row)]);
                let y = I32::from_raw(self.lanes, self.memory[b.at(key, row)]);
                self.memory[out.at(key, row)] = f(x, y).raw();
            }
        }
    }

    #[inline(always)]
    fn span(&self, slot: Slot) -> super::slots::Span {
        self.program.slots.span(slot, self.vectors)
    }

    #[inline(always)]
    fn step(&mut self, step: &Step, place: &Place<'_>, io: &Io<'_>) {
        let to = step.to;
        let lanes = self.lanes;
        let vectors = self.vectors;
        match step.op {
            LaneOp::Bool(x) => self.fill(to, |_, _| I32::splat(lanes, -(x as i32))),
            LaneOp::Int(x) => self.fill(to, |_, _| I32::splat(lanes, x)),
            LaneOp::Float(x) => self.fill(to, |_, _| F32::splat(lanes, x).to_bits()),
            LaneOp::Var(var) => self.fill(to, |key, row| variable(lanes, var, place, key, row)),
            LaneOp::Score => {
                let scores = regard_simd::vectors(lanes, io.scores);
                self.fill(to, |key, row| F32::from_raw(lanes, scores[key * vectors + row]).to_bits());
            }
            LaneOp::Live => match io.guard {
                Some(guard) => {
                    let guard = regard_simd::vectors_i32(lanes, guard);
                    self.fill(to, |key, row| I32::from_raw(lanes, guard[key * vectors + row]));
                }
                None => self.fill(to, |_, _| I32::splat(lanes, -1)),
            },
            LaneOp::Unary { op, of, exact, a } => self.unary(to, op, of, exact, a),
            LaneOp::Binary { op, of, a, b } => self.binary(to, op, of, a, b),
            LaneOp::Select { c, a, b } => {
                let (keys, rows) = self.extent(to.kind);
                let (out, c, a, b) = (self.span(to), self.span(c), self.span(a), self.span(b));
                for key in 0..keys {
                    for row in 0..rows {
                        let load = |at| I32::from_raw(lanes, self.memory[at]);
                        let condition = truth(load(c.at(key, row)));
                        let x = condition.select_i32(load(a.at(key, row)), load(b.at(key, row)));
                        self.memory[out.at(key, row)] = x.raw();
                    }
                }
            }
            LaneOp::Alibi { a, heads } => self.map(to, a, |x| alibi(x, heads).to_bits()),
            LaneOp::Fetch { input, rank, index } => {
                self.index(to, &index[..rank as usize], |at| gather(lanes, place.captured, input, at));
            }
            LaneOp::Outside { input, rank, index } => {
                self.index(to, &index[..rank as usize], |at| {
                    bits(outside(lanes, place.captured, input, at), I32::splat(lanes, 0))
                });
            }
            LaneOp::Check { input, outside, guard } => {
                if self.meet(to.kind, outside, guard.unwrap_or(outside)) {
                    place.fault.report(input);
                }
            }
        }
    }

    #[inline(always)]
    fn unary(&mut self, to: Slot, op: Unary, of: Type, exact: bool, a: Slot) {
        let int = of == Type::Int;
        match op {
            Unary::Not => self.map(to, a, |x| bits(!truth(x), x)),
            Unary::Neg if int => self.map(to, a, |x| x.like(0) - x),
            Unary::Neg => self.map(to, a, |x| (-x.from_bits()).to_bits()),
            Unary::Abs if int => self.map(to, a, |x| abs(x)),
            Unary::Abs => self.map(to, a, |x| x.from_bits().abs().to_bits()),
            Unary::ToFloat => self.map(to, a, |x| x.to_f32().to_bits()),
            Unary::ToInt => self.map(to, a, |x| x.from_bits().to_i32()),
            Unary::Floor => self.map(to, a, |x| x.from_bits().floor().to_bits()),
            Unary::Ceil => self.map(to, a, |x| x.from_bits().ceil().to_bits()),
            Unary::Sqrt => self.map(to, a, |x| x.from_bits().sqrt().to_bits()),
            Unary::Exp if !exact => self.map(to, a, |x| exp(x.from_bits()).to_bits()),
            Unary::Exp2 if !exact => self.map(to, a, |x| exp2(x.from_bits()).to_bits()),
            Unary::Tanh if !exact => self.map(to, a, |x| tanh(x.from_bits()).to_bits()),
            Unary::Sigmoid if !exact => self.map(to, a, |x| sigmoid(x.from_bits()).to_bits()),
            _ => self.map(to, a, |x| exactly(op, x.from_bits()).to_bits()),
        }
    }

    #[inline(always)]
    fn binary(&mut self, to: Slot, op: Binary, of: Type, a: Slot, b: Slot) {
        let float = of == Type::Float;
        match op {
            Binary::And => self.zip(to, a, b, |x, y| bits(truth(x) & truth(y), x)),
            Binary::Or => self.zip(to, a, b, |x, y| bits(truth(x) | truth(y), x)),
            Binary::Lt if float => self.zip(to, a, b, |x, y| bits(x.from_bits().lt(y.from_bits()), x)),
            Binary::Le if float => self.zip(to, a, b, |x, y| bits(x.from_bits().le(y.from_bits()), x)),
            Binary::Eq if float => self.zip(to, a, b, |x, y| bits(x.from_bits().eq(y.from_bits()), x)),
            Binary::Ne if float => self.zip(to, a, b, |x, y| bits(!x.from_bits().eq(y.from_bits()), x)),
            Binary::Lt => self.zip(to, a, b, |x, y| bits(x.lt(y), x)),
            Binary::Le => self.zip(to, a, b, |x, y| bits(x.le(y), x)),
            // Bools are 0 or −1, so they compare as ints.
            Binary::Eq => self.zip(to, a, b, |x, y| bits(x.eq(y), x)),
            Binary::Ne => self.zip(to, a, b, |x, y| bits(!x.eq(y), x)),
            Binary::Add if float => self.zip(to, a, b, |x, y| (x.from_bits() + y.from_bits()).to_bits()),
            Binary::Sub if float => self.zip(to, a, b, |x, y| (x.from_bits() - y.from_bits()).to_bits()),
            Binary::Mul if float => self.zip(to, a, b, |x, y| (x.from_bits() * y.from_bits()).to_bits()),
            Binary::Min if float => self.zip(to, a, b, |x, y| x.from_bits().min(y.from_bits()).to_bits()),
            Binary::Max if float => self.zip(to, a, b, |x, y| x.from_bits().max(y.from_bits()).to_bits()),
            Binary::Div => self.zip(to, a, b, |x, y| (x.from_bits() / y.from_bits()).to_bits()),
            Binary::Pow => self.zip(to, a, b, |x, y| pow(x.from_bits(), y.from_bits()).to_bits()),
            Binary::Add => self.zip(to, a, b, |x, y| x + y),
            Binary::Sub => self.zip(to, a, b, |x, y| x - y),
            Binary::Mul => self.zip(to, a, b, |x, y| x * y),
            Binary::Min => self.zip(to, a, b, |x, y| x.min(y)),
            Binary::Max => self.zip(to, a, b, |x, y| x.max(y)),
            Binary::FloorDiv => self.zip(to, a, b, |x, y| floor_div(x, y)),
            Binary::Rem => self.zip(to, a, b, |x, y| floor_rem(x, y)),
        }
    }

    /// Fills a slot from the index that others hold.
    #[inline(always)]
    fn index(&mut self, to: Slot, index: &[Slot], f: impl Fn(&[I32<L>]) -> I32<L>) {
        let (keys, rows) = self.extent(to.kind);
        let out = self.span(to);
        for key in 0..keys {
            for row in 0..rows {
                let mut at = [I32::splat(self.lanes, 0); MAX_AXES];
                for (at, &slot) in at.iter_mut().zip(index) {
                    *at = I32::from_raw(self.lanes, self.memory[self.span(slot).at(key, row)]);
                }
                self.memory[out.at(key, row)] = f(&at[..index.len()]).raw();
            }
        }
    }

    /// Whether two bools hold in one lane.
    #[inline(always)]
    fn meet(&self, kind: Kind, a: Slot, b: Slot) -> bool {
        let (keys, rows) = self.extent(kind);
        let (a, b) = (self.span(a), self.span(b));
        let mut found = false;
        for key in 0..keys {
            for row in 0..rows {
                let load = |at| truth(I32::from_raw(self.lanes, self.memory[at]));
                found |= (load(a.at(key, row)) & load(b.at(key, row))).any();
            }
        }
        found
    }
}

/// A variable's lanes for one key and vector of rows.
#[inline(always)]
fn variable<L: Door>(lanes: L, var: Var, place: &Place<'_>, key: usize, row: usize) -> I32<L> {
    match var {
        Var::Q => regard_simd::load_i32(lanes, &place.q[row * L::WIDTH..]),
        Var::H => regard_simd::load_i32(lanes, &place.h[row * L::WIDTH..]),
        Var::K => I32::splat(lanes, place.first_key.wrapping_add(key as i32)),
        Var::B => I32::splat(lanes, place.b),
        Var::G => I32::splat(lanes, place.g),
        Var::Nq => I32::splat(lanes, place.nq),
        Var::Nk => I32::splat(lanes, place.nk),
        // Scores have an instruction of their own, and no mask or modifier reads a feature.
        Var::S | Var::X => I32::splat(lanes, 0),
    }
}
