//! From pages of a cache to the panels of engines on vectors, which differ from them in width alone.

use regard_ir::cache::{Block, Codec};
use regard_simd::vectors_mut;

use super::LANES;
use super::load::{Dots, Floats, Halves, Pairs, Step, Stored};
use crate::engine::Shape;
use crate::isa::Door;
use crate::pack::PANEL;
use crate::panel;

/// Cached keys of a unit with their values.
pub struct CachedUnit<'a> {
    /// How keys lie.
    pub keys: &'a Block,
    /// How values lie.
    pub values: &'a Block,
    /// Tokens of a page.
    pub tokens: usize,
    /// The blocks of keys and of values of a page.
    pub page: &'a dyn Fn(usize) -> [&'a [u32]; 2],
    /// Position of the first key.
    pub first: usize,
    /// How many there are.
    pub count: usize,
}

/// Packs floats. Says whether it did: not integers, not from within a panel, and not where a value is not finite.
#[inline(always)]
pub(crate) fn repack_floats<D: Door>(lanes: D, shape: &Shape, unit: &CachedUnit<'_>, to: &mut [f32]) -> bool {
    let (keys_len, values_len) =
        (panel::keys_len::<panel::tile::Floats>(shape), panel::values_len::<panel::tile::Floats>(shape));
    if !unit.is_plain() {
        return false;
    }
    let (keys, rest) = to.split_at_mut(keys_len);
    let (values, odd) = rest.split_at_mut(values_len);
    odd.fill(0.0);
    match unit.keys.codec {
        Codec::F32 => keys_of::<D, Floats, 1>(lanes, shape.dim, unit, keys),
        Codec::F16 => keys_of::<D, Halves, 2>(lanes, shape.dim, unit, keys),
        Codec::Bf16 => keys_of::<D, Pairs, 2>(lanes, shape.dim, unit, keys),
        Codec::Int8 | Codec::Int4 => return false,
    }
    match unit.values.codec {
        Codec::F32 => values_of::<D, Floats, 1>(lanes, shape.key_block, unit, values),
        Codec::F16 => values_of::<D, Halves, 2>(lanes, shape.key_block, unit, values),
        Codec::Bf16 => values_of::<D, Pairs, 2>(lanes, shape.key_block, unit, values),
        Codec::Int8 | Codec::Int4 => return false,
    }
    true
}

/// The same as pairs of bf16, of caches that hold such.
#[inline(always)]
pub(crate) fn repack_pairs<D: Door>(lanes: D, shape: &Shape, unit: &CachedUnit<'_>, to: &mut [f32]) -> bool {
    if !unit.is_plain() || [unit.keys.codec, unit.values.codec] != [Codec::Bf16; 2] {
        return false;
    }
    let (keys, rest) = to.split_at_mut(panel::keys_len::<panel::tile::Pairs>(shape));
    let (values, odd) = rest.split_at_mut(panel::values_len::<panel::tile::Pairs>(shape));
    odd.fill(0.0);
    keys_of::<D, Dots, 1>(lanes, shape.dim.div_ceil(2), unit, keys);
    values_of::<D, Dots, 1>(lanes, shape.key_block.div_ceil(2), unit, values);
    true
}

impl CachedUnit<'_> {
    /// Whether the first key begins a panel, and all values are finite, also of tokens of its last page that are past it.
    fn is_plain(&self) -> bool {
        let pages = self.first / self.tokens..(self.first + self.count).div_ceil(self.tokens);
        self.first.is_multiple_of(PANEL)
            && pages.into_iter().all(|page| {
                let [_, values] = (self.page)(page);
                let odd = &values[self.values.scaled_words(self.tokens)..][..self.tokens.div_ceil(32)];
                odd.iter().all(|&word| word == 0)
            })
    }

    /// The page of a position, and where in it that is.
    fn place(&self, position: usize) -> ([&[u32]; 2], usize) {
        ((self.page)(position / self.tokens), position % self.tokens)
    }
}

/// The elements of a step, lane by lane.
#[inline(always)]
fn elements<D: Door, S: Stored<N>, const N: usize>(lanes: D, step: &Step) -> [[f32; LANES]; N] {
    let mut elements = [[0.0; LANES]; N];
    for v in 0..LANES / D::WIDTH {
        let loaded = S::load(lanes, step, v);
        for (n, elements) in elements.iter_mut().enumerate() {
            vectors_mut(lanes, &mut elements[v * D::WIDTH..][..D::WIDTH])[0] = loaded[n];
        }
    }
    elements
}

/// Panels of keys, each `depth` elements deep.
#[inline(always)]
fn keys_of<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    depth: usize,
    unit: &CachedUnit<'_>,
    to: &mut [f32],
) {
    for (panel, to) in to.chunks_exact_mut(depth * PANEL).take(unit.count.div_ceil(PANEL)).enumerate() {
        let ([keys, _], at) = unit.place(unit.first + panel * PANEL);
        let steps: &[Step] = keys[..unit.keys.words()].as_chunks().0;
        let (lines, lane) = (unit.keys.lines(at / LANES), at % LANES);
        for (line, to) in to.chunks_mut(N * PANEL).take(unit.keys.depth).enumerate() {
            let elements = elements::<D, S, N>(lanes, &steps[lines.at(line)]);
            for (to, elements) in to.chunks_exact_mut(PANEL).zip(&elements) {
                to.copy_from_slice(&elements[lane..lane + PANEL]);
            }
        }
    }
}

/// Panels of values, each `depth` elements deep.
#[inline(always)]
fn values_of<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    depth: usize,
    unit: &CachedUnit<'_>,
    to: &mut [f32],
) {
    // Elements of a panel are steps of tokens; those of a page lie one after the other.
    let mut token = 0;
    while token < unit.count {
        let ([_, values], at) = unit.place(unit.first + token);
        let here = (unit.tokens - at).min(unit.count - token);
        let steps: &[Step] = values[..unit.values.words()].as_chunks().0;
        for (pair, to) in to.chunks_mut(2 * depth * PANEL).enumerate() {
            let (low, high) = to.split_at_mut(depth * PANEL);
            let lines = unit.values.lines(pair);
            for j in 0..here.div_ceil(S::NUMBERS) {
                let elements = elements::<D, S, N>(lanes, &steps[lines.at(at / S::NUMBERS + j)]);
                let first = (token / S::NUMBERS + j) * N;
                for (n, elements) in elements.iter().enumerate() {
                    if first + n >= depth {
                        break;
                    }
                    let at = (first + n) * PANEL;
                    low[at..at + PANEL].copy_from_slice(&elements[..PANEL]);
                    if !high.is_empty() {
                        high[at..at + PANEL].copy_from_slice(&elements[PANEL..]);
                    }
                }
            }
        }
        token += here;
    }
}
