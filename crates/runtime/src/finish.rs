//! What happens to output rows after the weighted sum: heads are mixed, rows are normed, gates are applied.

use regard_engine::element::Element;
use regard_engine::grid::{Band, Bands};
use regard_engine::isa::Door;
use regard_ir::inputs::Captured;
use regard_ir::rows::{Gate as GateShape, Output};
use regard_ir::variant::Variant;
use regard_simd::{F32, Lanes, sigmoid, vectors_mut};

use crate::flash::Gate;
use crate::flash::part::Of;

/// Queries of a band whose heads are mixed at a time.
pub(crate) const BAND: usize = 8;

/// Rows that are at work while outputs are mixed, normed and gated.
pub(crate) const ROWS: usize = 3;

/// Heads whose sum is one chain.
const CHAIN: usize = 64;

/// Norm and gate of output rows.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a, T> {
    output: &'a Output,
    /// The norm's factors, where there are learned ones.
    learned: Option<&'a [f32]>,
    gate: Option<(GateShape, Gate<'a, T>)>,
}

impl<'a, T: Element> Finish<'a, T> {
    /// `None` where rows stay as they are.
    pub fn new(variant: &'a Variant<'a>, captured: &Captured<'a>, gate: Option<Gate<'a, T>>) -> Option<Self> {
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
        let width = match gate {
            Gate::Stored(gate) => {
                let gate = gate.row(sequence, head, query);
                T::widen_into(lanes, gate, &mut scratch[..gate.len()]);
                gate.len()
            }
            Gate::Floats(gate) => {
                let gate = gate.row(sequence, head, query);
                scratch[..gate.len()].copy_from_slice(gate);
                gate.len()
            }
        };
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
pub(crate) struct Mixing<'a, T> {
    /// Output heads, and the factors `[output heads, query heads]`; absent where each head is its own output.
    pub mix: Option<(usize, &'a [f32])>,
    pub sums: Sums<'a>,
    pub query_heads: usize,
    pub queries: usize,
    pub value_dim: usize,
    pub finish: Option<Finish<'a, T>>,
}

impl<T: Element> Mixing<'_, T> {
    /// Makes outputs of bands until there is none left. `row`, `chain` and `scratch` are a whole number of vectors and at
    /// least `value_dim` long.
    #[inline(always)]
    pub fn run<L: Door>(&self, lanes: L, bands: &Bands<'_, T>, [row, chain, scratch]: [&mut [f32]; ROWS]) {
        while let Some(mut band) = bands.claim() {
            for head in 0..self.mix.map_or(self.query_heads, |(heads, _)| heads) {
                for query in band.queries() {
                    let row = &mut row[..self.value_dim];
                    match self.mix {
                        Some((_, factors)) => {
                            let factors = &factors[head * self.query_heads..][..self.query_heads];
                            self.mixture(&band, factors, query, row, &mut chain[..self.value_dim]);
                        }
                        None => {
                            let (sums, factor) = self.sums([band.sequence, head, query]);
                            row.iter_mut().zip(sums).for_each(|(row, x)| *row = scaled(*x, factor));
                        }
                    }
                    if let Some(finish) = &self.finish {
                        finish.apply(lanes, [band.sequence, head, query], row, scratch);
                    }
                    for (to, &x) in band.row(head, query).iter_mut().zip(&*row) {
                        *to = T::narrow(x);
                    }
                }
            }
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

    /// Σ factor[h] · o[h], in chains of at most [`CHAIN`] heads.
    #[inline(always)]
    fn mixture(&self, band: &Band<'_, T>, factors: &[f32], query: usize, row: &mut [f32], chain: &mut [f32]) {
        row.fill(0.0);
        for (part, factors) in factors.chunks(CHAIN).enumerate() {
            chain.fill(0.0);
            for (h, &factor) in factors.iter().enumerate() {
                let (sums, scale) = self.sums([band.sequence, part * CHAIN + h, query]);
                for (to, &x) in chain.iter_mut().zip(sums) {
                    *to += factor * scaled(x, scale);
                }
            }
            row.iter_mut().zip(&*chain).for_each(|(row, chain)| *row += chain);
        }
    }
}

/// A factor of 0 gives 0, whatever the sum holds.
#[inline(always)]
fn scaled(x: f32, factor: f32) -> f32 {
    if factor == 0.0 { 0.0 } else { x * factor }
}
