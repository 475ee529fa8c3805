//! What happens to output rows after the weighted sum: heads are mixed, rows are normed, gates are applied.

use regard_engine::element::Element;
use regard_engine::grid::{Band, Bands};
use regard_engine::isa::Door;
use regard_ir::inputs::Captured;
use regard_ir::rows::{Gate as GateShape, Mix, Output};
use regard_ir::variant::Variant;
use regard_simd::{F32, Lanes, sigmoid, vectors_mut};

use super::Gate;

/// Queries of a band whose heads are mixed at a time.
pub(super) const BAND: usize = 8;

/// Heads whose sum is one chain.
const CHAIN: usize = 64;

/// Norm and gate of output rows.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a, T> {
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

/// Weighted sums of heads, and what is made of their mixtures.
pub(super) struct Mixing<'a, T> {
    pub mix: Mix,
    /// The factors, `[heads, query heads]`.
    pub factors: &'a [f32],
    /// What is mixed: `[sequence][query head][query]` rows, contiguous.
    pub sums: &'a [f32],
    pub query_heads: usize,
    pub queries: usize,
    pub value_dim: usize,
    pub finish: Option<Finish<'a, T>>,
}

impl<T: Element> Mixing<'_, T> {
    /// Mixes bands until there is none left. `row`, `chain` and `scratch` are a whole number of vectors and at least
    /// `value_dim` long.
    #[inline(always)]
    pub fn run<L: Door>(&self, lanes: L, bands: &Bands<'_, T>, [row, chain, scratch]: [&mut [f32]; 3]) {
        while let Some(mut band) = bands.claim() {
            for head in 0..self.mix.heads as usize {
                for query in band.queries() {
                    let row = &mut row[..self.value_dim];
                    self.mixture(&band, head, query, row, &mut chain[..self.value_dim]);
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

    /// Σ mix[head, h] · o[h], in chains of at most [`CHAIN`] heads.
    #[inline(always)]
    fn mixture(&self, band: &Band<'_, T>, head: usize, query: usize, row: &mut [f32], chain: &mut [f32]) {
        let factors = &self.factors[head * self.query_heads..][..self.query_heads];
        row.fill(0.0);
        for (part, factors) in factors.chunks(CHAIN).enumerate() {
            chain.fill(0.0);
            for (h, &factor) in factors.iter().enumerate() {
                let from = (band.sequence * self.query_heads + part * CHAIN + h) * self.queries + query;
                for (to, x) in chain.iter_mut().zip(&self.sums[from * self.value_dim..]) {
                    *to += factor * x;
                }
            }
            row.iter_mut().zip(&*chain).for_each(|(row, chain)| *row += chain);
        }
    }
}
