//! What happens to output rows after the weighted sum: heads are mixed, rows are normed, gates are applied.

use regard_engine::grid::Bands;
use regard_engine::isa::Door;
use regard_ir::inputs::Captured;
use regard_ir::rows::{Gate as GateShape, Output};
use regard_ir::variant::Variant;
use regard_simd::{F32, Lanes, sigmoid, vectors_mut};

use crate::carve::ALIGN;
use crate::flash::part::Of;
use crate::mix::{self, CHAIN, Combination, Factors, SUMS};
use crate::view::View;

/// Queries of a band whose heads are mixed at a time.
pub(crate) const BAND: usize = 8;

/// Rows that are at work while outputs are mixed, normed and gated: those that are made, sums that they are made of, and one
/// that a gate is widened in.
const ROWS: usize = SUMS + CHAIN + 1;

/// Floats of the memory in which outputs of this width are finished.
pub(crate) const fn len(value_dim: usize) -> usize {
    ROWS.saturating_mul(value_dim.next_multiple_of(ALIGN))
}

/// Norm and gate of output rows.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    output: &'a Output,
    /// The norm's factors, where there are learned ones.
    learned: Option<&'a [f32]>,
    gate: Option<(GateShape, View<'a>)>,
}

impl<'a> Finish<'a> {
    /// `None` where rows stay as they are.
    pub fn new(variant: &'a Variant<'a>, captured: &Captured<'a>, gate: Option<View<'a>>) -> Option<Self> {
        let output = &variant.output;
        if output.norm.is_none() && output.gate.is_none() {
            return None;
        }
        let learned = output.norm.and_then(|norm| norm.learned).and_then(|input| captured.floats(input));
        Some(Self { output, learned, gate: output.gate.zip(gate) })
    }

    /// Norms and gates the row of an output head. `scratch` is a whole number of vectors and at least as long.
    #[inline(always)]
    pub fn apply<L: Lanes>(&self, lanes: L, at: [usize; 3], row: &mut [f32], scratch: &mut [f32]) {
        if let Some(norm) = self.output.norm {
            let squares = row.iter().map(|&x| x as f64 * x as f64).sum::<f64>();
            let inverse = (1.0 / libm::sqrt(squares / row.len() as f64 + norm.eps)) as f32;
            match self.learned {
                None => row.iter_mut().for_each(|x| *x *= inverse),
                Some(learned) => row.iter_mut().zip(learned).for_each(|(x, learned)| *x *= inverse * learned),
            }
        }
        let Some((shape, gate)) = self.gate else { return };
        let [sequence, head, query] = at;
        let gate = gate.row(sequence, head, query);
        let width = gate.len();
        gate.widen_into(lanes, &mut scratch[..width]);
        let vectors = width.next_multiple_of(L::WIDTH);
        scratch[width..vectors].fill(0.0);
        for gate in vectors_mut(lanes, &mut scratch[..vectors]) {
            let x = F32::from_raw(lanes, *gate);
            let opened = sigmoid(x);
            *gate = if shape.silu { x * opened } else { opened }.raw();
        }
        if shape.per_head {
            let gate = scratch[0];
            row.iter_mut().for_each(|x| *x *= gate);
        } else {
            row.iter_mut().zip(&*scratch).for_each(|(x, gate)| *x *= gate);
        }
    }
}

/// Weighted sums of heads.
pub(crate) enum Sums<'a> {
    /// Divided already: `[sequence][query head][query]` rows, contiguous.
    Whole(&'a [f32]),
    /// Of merged parts, yet to be divided.
    Part(Of<'a>),
}

/// Weighted sums of heads, and what is made of them or of their mixtures.
pub(crate) struct Mixing<'a> {
    /// Absent where each head is its own output.
    pub combination: Option<Combination<'a>>,
    pub sums: Sums<'a>,
    pub query_heads: usize,
    /// Rows of each head's sums.
    pub queries: usize,
    pub value_dim: usize,
    pub finish: Option<Finish<'a>>,
}

impl Mixing<'_> {
    /// Makes outputs of bands until there is none left. `memory` is as long as [`len`] says.
    #[inline(always)]
    pub fn run<L: Door>(&self, lanes: L, bands: &Bands<'_>, memory: &mut [f32]) {
        let width = self.value_dim;
        let (scratch, memory) = memory.split_at_mut(width.next_multiple_of(ALIGN));
        let (rows, sources) = memory.split_at_mut(SUMS * width);
        let heads = self.combination.map_or(self.query_heads, |combination| combination.heads);
        while let Some(mut band) = bands.claim() {
            for query in band.queries() {
                for first in (0..heads).step_by(SUMS) {
                    let count = SUMS.min(heads - first);
                    let rows = &mut rows[..count * width];
                    self.make(lanes, [band.sequence, first, query], sources, rows);
                    for (row, head) in rows.chunks_exact_mut(width.max(1)).zip(first..) {
                        if let Some(finish) = &self.finish {
                            finish.apply(lanes, [band.sequence, head, query], row, scratch);
                        }
                        band.row(head, query).write(lanes, row);
                    }
                }
            }
        }
    }

    /// Makes the rows of some output heads, of which the first is given.
    #[inline(always)]
    fn make<L: Lanes>(
        &self,
        lanes: L,
        [sequence, first, query]: [usize; 3],
        sources: &mut [f32],
        rows: &mut [f32],
    ) {
        let width = self.value_dim;
        let Some(Combination { per_token, factors, .. }) = self.combination else {
            for (row, head) in rows.chunks_exact_mut(width.max(1)).zip(first..) {
                let (sums, factor) = self.sums([sequence, head, query]);
                row.iter_mut().zip(sums).for_each(|(row, x)| *row = scaled(*x, factor));
            }
            return;
        };
        let n_sources = self.query_heads * per_token;
        rows.fill(0.0);
        for chain in (0..n_sources).step_by(CHAIN) {
            let count = CHAIN.min(n_sources - chain);
            let mut found: [&[f32]; CHAIN] = [&[]; CHAIN];
            let mut scratch = sources.chunks_exact_mut(width.max(1));
            for (source, found) in (chain..).zip(&mut found[..count]) {
                let at = [sequence, source / per_token, query * per_token + source % per_token];
                let (sums, factor) = self.sums(at);
                *found = sums;
                if factor != 1.0 {
                    let own = scratch.next().unwrap_or_default();
                    own.iter_mut().zip(sums).for_each(|(own, x)| *own = scaled(*x, factor));
                    *found = own;
                }
            }
            let factors = Factors { data: &factors[first * n_sources + chain..], source: 1, sum: n_sources };
            mix::add(lanes, &found[..count], factors, rows, width);
        }
    }

    /// The sums of a row, and what they are multiplied by.
    #[inline(always)]
    fn sums(&self, at: [usize; 3]) -> (&[f32], f32) {
        match &self.sums {
            Sums::Part(part) => part.row(at, self.value_dim),
            Sums::Whole(sums) => {
                let [sequence, head, query] = at;
                let from = (sequence * self.query_heads + head) * self.queries + query;
                (&sums[from * self.value_dim..][..self.value_dim], 1.0)
            }
        }
    }
}

/// A factor of 0 gives 0, whatever the sum holds.
#[inline(always)]
fn scaled(x: f32, factor: f32) -> f32 {
    if factor == 0.0 { 0.0 } else { x * factor }
}
