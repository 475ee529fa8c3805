//! Running a lane program.

use core::cell::Cell;

use pulp::bytemuck;
use regard_engine::Op;
use regard_engine::isa::Door;
use regard_ir::expr::{Binary, MAX_AXES, Type, Unary, Var};
use regard_ir::lanes::{Kind, LaneOp};
use regard_simd::{F32, I32, Mask, Simd, exp, exp2, sigmoid, tanh, vectors_i32_mut, vectors_mut};

use super::fuse::Work;
use super::slots::Slot;
use super::{Program, Step};
use crate::code::Place;
use crate::operations::{abs, alibi, exactly, floor_div, floor_rem, gather, outside, pow, truth};

/// What a program reads and writes beside its slots, `[keys][width]`.
pub(super) struct Io<'a> {
    /// The scores' bits; empty for a mask.
    pub scores: &'a mut [i32],
    /// Which scores are not masked; all, where absent.
    pub guard: Option<&'a [i32]>,
}

/// Fills the slots that stay the same from chunk to chunk.
#[inline(always)]
pub(super) fn prepare<L: Door>(program: &Program, lanes: L, place: &Place<'_>, scratch: &mut [i32]) {
    let io = Io { scores: &mut [], guard: None };
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
    let io = Io { scores: &mut [], guard: None };
    let keys = allowed.len() / place.q.len();
    lanes.call(Run { program, steps: &program.body, lanes, place, io, keys, scratch: &mut *scratch });
    copy_result(program, lanes, place, allowed, scratch);
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
    let scores: &mut [i32] = bytemuck::cast_slice_mut(scores);
    let io = Io { scores: &mut *scores, guard };
    lanes.call(Run { program, steps: &program.body, lanes, place, io, keys, scratch: &mut *scratch });
    if !program.result.is_scores() {
        copy_result(program, lanes, place, scores, scratch);
    }
}

/// Writes a program's result to every key and row of a chunk.
#[inline(always)]
fn copy_result<L: Door>(program: &Program, lanes: L, place: &Place<'_>, to: &mut [i32], scratch: &mut [i32]) {
    let vectors = place.q.len() / L::WIDTH;
    let result = &vectors_i32_mut(lanes, scratch)[program.slots.start(program.result, vectors)..];
    let (key_step, row_step) = program.result.steps(vectors);
    for (key, to) in vectors_i32_mut(lanes, to).chunks_exact_mut(vectors).enumerate() {
        for (row, to) in to.iter_mut().enumerate() {
            *to = result[key * key_step + row * row_step];
        }
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
        let memory = Cell::from_mut(vectors_i32_mut(lanes, scratch)).as_slice_of_cells();
        let Io { scores, guard } = io;
        let scores = Cell::from_mut(vectors_i32_mut(lanes, scores)).as_slice_of_cells();
        let slots = Slots { program, lanes, vectors, keys, memory, scores };
        for step in steps {
            slots.step(step, place, guard);
        }
    }
}

#[inline(always)]
fn bits<L: Door>(mask: Mask<L>, like: I32<L>) -> I32<L> {
    mask.select_i32(like.like(-1), like.like(0))
}

/// A vector that instructions read and write in turn.
type Vector<L> = Cell<<<L as regard_simd::Lanes>::Simd as Simd>::i32s>;

/// The slots of a chunk.
///
/// Cells, because an instruction reads some slots while it writes another of the same memory.
struct Slots<'a, L: Door> {
    program: &'a Program,
    lanes: L,
    /// Vectors of a row tile.
    vectors: usize,
    /// Keys of the chunk.
    keys: usize,
    memory: &'a [Vector<L>],
    scores: &'a [Vector<L>],
}

/// A slot that is read: its vectors, and how many apart those of neighbouring keys and rows are.
#[derive(Clone, Copy)]
struct Operand<'a, L: Door> {
    vectors: &'a [Vector<L>],
    steps: (usize, usize),
}

impl<L: Door> Operand<'_, L> {
    #[inline(always)]
    fn at(&self, lanes: L, key: usize, row: usize) -> I32<L> {
        I32::from_raw(lanes, self.vectors[key * self.steps.0 + row * self.steps.1].get())
    }
}

impl<'a, L: Door> Slots<'a, L> {
    /// The vectors of a slot.
    #[inline(always)]
    fn vectors(&self, slot: Slot) -> &'a [Vector<L>] {
        let (keys, rows) = slot.extent(self.keys, self.vectors);
        if slot.is_scores() {
            return &self.scores[..keys * rows];
        }
        &self.memory[self.program.slots.start(slot, self.vectors)..][..keys * rows]
    }

    #[inline(always)]
    fn operand(&self, slot: Slot) -> Operand<'a, L> {
        Operand { vectors: self.vectors(slot), steps: slot.steps(self.vectors) }
    }

    #[inline(always)]
    fn fill(&self, to: Slot, f: impl Fn(usize, usize) -> I32<L>) {
        let (_, rows) = to.extent(self.keys, self.vectors);
        for (key, out) in self.vectors(to).chunks_exact(rows).enumerate() {
            for (row, out) in out.iter().enumerate() {
                out.set(f(key, row).raw());
            }
        }
    }

    /// An instruction of one operand, which is as large as what it makes.
    #[inline(always)]
    fn map(&self, to: Slot, a: Slot, f: impl Fn(I32<L>) -> I32<L>) {
        for (out, a) in self.vectors(to).iter().zip(self.vectors(a)) {
            out.set(f(I32::from_raw(self.lanes, a.get())).raw());
        }
    }

    #[inline(always)]
    fn zip(&self, to: Slot, a: Slot, b: Slot, f: impl Fn(I32<L>, I32<L>) -> I32<L>) {
        let (keys, mut rows) = to.extent(self.keys, self.vectors);
        let [mut a, mut b] = [a, b].map(|slot| (slot.kind, self.operand(slot)));
        let out = self.vectors(to);
        // Where each operand is the same everywhere or as large as the result, one long loop serves.
        if [a.0, b.0].iter().all(|kind| *kind == to.kind || *kind == Kind::Uniform) {
            rows *= keys;
            for (kind, operand) in [&mut a, &mut b] {
                operand.steps = (0, (*kind == to.kind) as usize);
            }
        }
        for (key, out) in out.chunks_exact(rows).enumerate() {
            for (row, out) in out.iter().enumerate() {
                out.set(f(a.1.at(self.lanes, key, row), b.1.at(self.lanes, key, row)).raw());
            }
        }
    }

    #[inline(always)]
    fn step(&self, step: &Step, place: &Place<'_>, guard: Option<&[i32]>) {
        let to = step.to;
        let lanes = self.lanes;
        let op = match step.work {
            Work::One(op) => op,
            Work::Difference { a, b } => {
                return self.zip(to, a, b, |x, y| (x - y).to_f32().to_bits());
            }
            Work::Product { a, b, c } => {
                let [a, b, c] = [a, b, c].map(|slot| self.operand(slot));
                return self.fill(to, |key, row| {
                    let load = |operand: Operand<'_, L>| operand.at(lanes, key, row).from_bits();
                    (load(a) * load(b) + load(c)).to_bits()
                });
            }
            Work::Slope { key, row, slope, score } => {
                return self.slope(to, [key, row, slope, score].map(|slot| self.vectors(slot)));
            }
            Work::Cap { x, scale, cap } => {
                let [scale, cap] = [scale, cap].map(|slot| self.operand(slot).at(lanes, 0, 0).from_bits());
                return self.map(to, x, |x| (tanh(x.from_bits() * scale) * cap).to_bits());
            }
        };
        let vectors = self.vectors;
        match op {
            LaneOp::Bool(x) => self.fill(to, |_, _| I32::splat(lanes, -(x as i32))),
            LaneOp::Int(x) => self.fill(to, |_, _| I32::splat(lanes, x)),
            LaneOp::Float(x) => self.fill(to, |_, _| F32::splat(lanes, x).to_bits()),
            LaneOp::Var(var) => self.fill(to, |key, row| variable(lanes, var, place, key, row)),
            // Its slot is the scores themselves.
            LaneOp::Score => {}
            LaneOp::Live => match guard {
                Some(guard) => {
                    let guard = regard_simd::vectors_i32(lanes, guard);
                    self.fill(to, |key, row| I32::from_raw(lanes, guard[key * vectors + row]));
                }
                None => self.fill(to, |_, _| I32::splat(lanes, -1)),
            },
            LaneOp::Unary { op, of, exact, a } => self.unary(to, op, of, exact, a),
            LaneOp::Binary { op, of, a, b } => self.binary(to, op, of, a, b),
            LaneOp::Select { c, a, b } => {
                let [c, a, b] = [c, a, b].map(|slot| self.operand(slot));
                self.fill(to, |key, row| {
                    let load = |operand: Operand<'_, L>| operand.at(lanes, key, row);
                    truth(load(c)).select_i32(load(a), load(b))
                });
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
                if self.meet(to, outside, guard.unwrap_or(outside)) {
                    place.fault.report(input);
                }
            }
        }
    }

    #[inline(always)]
    fn unary(&self, to: Slot, op: Unary, of: Type, exact: bool, a: Slot) {
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
    fn binary(&self, to: Slot, op: Binary, of: Type, a: Slot, b: Slot) {
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

    /// (key − row) · slope + score; the operands lie as [`Work::Slope`] says, so that no place is computed.
    #[inline(always)]
    fn slope(&self, to: Slot, [keys, rows, slopes, scores]: [&[Vector<L>]; 4]) {
        let out = self.vectors(to).chunks_exact(self.vectors);
        let scores = scores.chunks_exact(self.vectors);
        for ((key, scores), out) in keys.iter().zip(scores).zip(out) {
            let key = I32::from_raw(self.lanes, key.get());
            for (((row, slope), score), out) in rows.iter().zip(slopes).zip(scores).zip(out) {
                let distance = (key - I32::from_raw(self.lanes, row.get())).to_f32();
                let [slope, score] = [slope, score].map(|x| I32::from_raw(self.lanes, x.get()).from_bits());
                out.set((slope * distance + score).to_bits().raw());
            }
        }
    }

    /// Fills a slot from the index that others hold.
    #[inline(always)]
    fn index(&self, to: Slot, index: &[Slot], f: impl Fn(&[I32<L>]) -> I32<L>) {
        self.fill(to, |key, row| {
            let mut at = [I32::splat(self.lanes, 0); MAX_AXES];
            for (at, &slot) in at.iter_mut().zip(index) {
                *at = self.operand(slot).at(self.lanes, key, row);
            }
            f(&at[..index.len()])
        });
    }

    /// Whether two bools hold in one lane.
    #[inline(always)]
    fn meet(&self, to: Slot, a: Slot, b: Slot) -> bool {
        let (keys, rows) = to.extent(self.keys, self.vectors);
        let [a, b] = [a, b].map(|slot| self.operand(slot));
        let mut found = false;
        for key in 0..keys {
            for row in 0..rows {
                found |= (truth(a.at(self.lanes, key, row)) & truth(b.at(self.lanes, key, row))).any();
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
        Var::K => {
            let after = (key as i32).wrapping_mul(place.keys.step::<L>());
            place.keys.lanes(lanes, place.first_key.wrapping_add(after))
        }
        Var::B => I32::splat(lanes, place.b),
        Var::G => I32::splat(lanes, place.g),
        Var::Nq => I32::splat(lanes, place.nq),
        Var::Nk => I32::splat(lanes, place.nk),
        // Scores have an instruction of their own, and no mask or modifier reads a feature.
        Var::S | Var::X => I32::splat(lanes, 0),
    }
}
