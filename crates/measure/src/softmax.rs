//! The softmax of whole rows of scores, as it is done between two products of matrices.

use std::ops::Range;

use regard_engine::any::{self, Unavailable, Visit};
use regard_engine::isa::Door;
use regard_engine::{Engine, Op};
use regard_ir::machine::Isa;
use regard_ir::plan::EngineKind;
use regard_simd::{F32, exp2, vectors_mut};

/// Rows of scores on their way to weights.
#[derive(Debug)]
pub struct Softmax<'a> {
    /// Whole rows, one after the other.
    pub scores: &'a mut [f32],
    /// Scores of a row.
    pub keys: usize,
    /// The keys that each row sees, as runs.
    pub visible: &'a [Vec<Range<u32>>],
    /// What scores are multiplied by.
    pub scale: f32,
}

impl Softmax<'_> {
    /// Makes weights of the scores, on the vectors of an engine.
    ///
    /// # Errors
    /// If the processor lacks the set.
    ///
    /// # Panics
    /// If a run lies outside its row.
    pub fn run(self, engine: EngineKind, isa: Isa) -> Result<(), Unavailable> {
        any::with(engine, isa, self)
    }
}

impl Visit for Softmax<'_> {
    type Output = ();

    fn visit<E: Engine>(self, engine: E) {
        engine.enter(Rows { lanes: engine.lanes(), softmax: self });
    }
}

struct Rows<'a, L> {
    lanes: L,
    softmax: Softmax<'a>,
}

impl<L: Door> Op for Rows<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, softmax: Softmax { scores, keys, visible, scale } } = self;
        for (row, visible) in scores.chunks_exact_mut(keys.max(1)).zip(visible) {
            let mut hidden = 0;
            for keys in visible {
                row[hidden..keys.start as usize].fill(f32::NEG_INFINITY);
                hidden = keys.end as usize;
            }
            row[hidden..].fill(f32::NEG_INFINITY);
            softmax_row(lanes, row, scale * std::f32::consts::LOG2_E);
        }
    }
}

#[inline(always)]
fn softmax_row<L: Door>(lanes: L, row: &mut [f32], scale: f32) {
    let whole = row.len() / L::WIDTH * L::WIDTH;
    let (body, tail) = row.split_at_mut(whole);
    let mut largest = F32::splat(lanes, f32::NEG_INFINITY);
    for &x in vectors_mut(lanes, body).iter() {
        largest = largest.max(F32::from_raw(lanes, x));
    }
    let largest = tail.iter().fold(largest.reduce_max(), |a, &b| a.max(b)) * scale;
    let largest = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
    let mut sums = F32::splat(lanes, 0.0);
    for x in vectors_mut(lanes, body) {
        let weight = exp2(F32::from_raw(lanes, *x) * F32::splat(lanes, scale) - F32::splat(lanes, largest));
        sums = sums + weight;
        *x = weight.raw();
    }
    let mut sum = sums.sum();
    for x in &mut *tail {
        *x = (*x * scale - largest).exp2();
        sum += *x;
    }
    let inverse = if sum > 0.0 { 1.0 / sum } else { 0.0 };
    for x in vectors_mut(lanes, body) {
        *x = (F32::from_raw(lanes, *x) * F32::splat(lanes, inverse)).raw();
    }
    for x in tail {
        *x *= inverse;
    }
}
