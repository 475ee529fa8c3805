//! The engine `dot-bf16`: bf16 products by an instruction that multiplies pairs and adds them to f32 sums.
//!
//! The panels of `simd-f32`, half as deep: an element is a word of two bf16, two channels of a query or key, or two keys of
//! a value or weight. Where the instruction keeps the rate of an f32 multiply-add this is twice as fast, and operands take
//! half the cache. Some processors run it at half of that rate, and gain nothing.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VDPBF16PS.

mod matrix;

use pulp::bytemuck;
use regard_ir::plan::Dtype;
use regard_simd::{F32, TRANSPOSE, pair_bf16, round_bf16, vectors_mut};

use crate::cached::{CachedUnit, repack_pairs};
use crate::engine::{Change, Engine, Fold, Op, Rescale, Shape, Step};
use crate::isa::Door;
use crate::pack::{self, PANEL, Paired, Rows, ValueBlock};
use crate::pairs;
use crate::panel::{self, depth, tile::Pairs};
use crate::product::{Before, Matrix, Right, Sizes};
use crate::weigh::Coarse;

/// bf16 products on the vectors of `D`.
#[derive(Clone, Copy, Debug)]
pub struct DotBf16<D>(pub D);

impl<D: Door> Engine for DotBf16<D> {
    type Lanes = D;
    const STORAGE: &'static [Dtype] = &[Dtype::Bf16];
    const ROWS: usize = D::VECTORS * D::WIDTH;
    const ROW_STEP: usize = D::WIDTH;
    const KEY_STEP: usize = PANEL;
    const CHANNEL_STEP: usize = PANEL;
    const UNSCALED: bool = true;
    const HAS_STAIRS: bool = panel::has_stairs::<D>();
    const SLACK: f32 = 8.0;
    const WEIGHTS_KEPT: usize = usize::MAX;

    #[inline(always)]
    fn lanes(self) -> D {
        self.0
    }

    #[inline(always)]
    fn enter<O: Op>(self, op: O) -> O::Output {
        self.0.enter(op)
    }

    fn query_len(shape: &Shape) -> usize {
        depth::<Pairs>(shape.dim) * Self::ROWS
    }

    fn unit_keys(shape: &Shape) -> usize {
        shape.key_block
    }

    fn packed_len(shape: &Shape) -> usize {
        panel::packed_len::<Pairs>(shape)
    }

    fn scratch_len(shape: &Shape) -> usize {
        // A key more, so that the last pair is whole.
        (shape.key_block + 1) * Self::ROWS
    }

    fn pack_len(shape: &Shape) -> usize {
        let rows = TRANSPOSE * (shape.dim + depth::<Pairs>(shape.dim));
        rows.max(3 * shape.value_dim.next_multiple_of(PANEL))
    }

    #[inline(always)]
    fn pack_queries<'t>(
        self,
        shape: &Shape,
        queries: &impl Rows<'t>,
        [count, width]: [usize; 2],
        factor: f32,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        debug_assert!(factor == 1.0, "queries are packed as they are, so that bf16 is not rounded again");
        let words = Paired { rows: queries, dim: shape.dim };
        pack::pack_rows(self.0, &words, count, depth::<Pairs>(shape.dim), width, scratch, to);
    }

    #[inline(always)]
    fn pack<'t>(
        self,
        shape: &Shape,
        keys: &impl Rows<'t>,
        values: &impl Rows<'t>,
        count: usize,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        let (key_panels, rest) = to.split_at_mut(panel::keys_len::<Pairs>(shape));
        let (value_panels, odd) = rest.split_at_mut(panel::values_len::<Pairs>(shape));
        let words = Paired { rows: keys, dim: shape.dim };
        pack::pack_keys(self.0, &words, count, depth::<Pairs>(shape.dim), scratch, key_panels);
        let block = ValueBlock { count, dim: shape.value_dim, block_keys: shape.key_block };
        pack::pack_value_pairs(self.0, values, block, scratch, bytemuck::cast_slice_mut(odd), value_panels);
    }

    #[inline(always)]
    fn pack_cached(self, shape: &Shape, unit: &CachedUnit<'_>, to: &mut [f32]) -> bool {
        repack_pairs(self.0, shape, unit, to)
    }

    #[inline(always)]
    fn odd_keys(shape: &Shape, packed: &[f32], group: usize) -> u32 {
        panel::odd_keys::<Pairs>(shape, packed, group)
    }

    #[inline(always)]
    fn step<F: Fold<D>>(self, mut step: Step<'_>, fold: &mut F) {
        panel::scores::<D, Pairs>(self.0, &mut step);
        let (width, live_keys) = (step.width, step.live_keys);
        let change = match width / D::WIDTH {
            1 => weigh::<D, F, 1>(self.0, fold, live_keys, step.scratch),
            2 => weigh::<D, F, 2>(self.0, fold, live_keys, step.scratch),
            3 => weigh::<D, F, 3>(self.0, fold, live_keys, step.scratch),
            vectors => panic!("a row tile has 1 to 3 vectors, not {vectors}"),
        };
        panel::values::<D, Pairs>(self.0, &mut step, Rescale::new(change, fold.factors()));
    }

    #[inline(always)]
    fn scores(self, step: Step<'_>, to: &mut [f32]) {
        panel::scores::<D, Pairs>(self.0, &mut Step { scratch: to, ..step });
    }

    #[inline(always)]
    fn add_scores(self, step: Step<'_>, channels: usize, to: &mut [f32]) {
        panel::some_scores::<D, Pairs>(self.0, &mut Step { scratch: to, ..step }, channels, Rescale::Keep);
    }

    fn right_len(sizes: [usize; 2], _is_turned: bool) -> usize {
        pairs::right_len(sizes)
    }

    fn left_len(depth: usize) -> usize {
        pairs::left_len(depth)
    }

    #[inline(always)]
    fn right<'a>(self, matrix: Matrix<'a>, sizes: [usize; 2], room: &'a mut [f32]) -> Right<'a> {
        pairs::right(self.0, matrix, sizes, room)
    }

    #[inline(always)]
    fn multiply(
        self,
        sizes: Sizes,
        operands: (Matrix<'_>, Right<'_>),
        to: (&mut [f32], usize),
        before: Before<'_>,
        room: &mut [f32],
    ) {
        matrix::multiply(self.0, sizes, operands, to, before, room);
    }

    #[inline(always)]
    fn weights(_: &Shape, scratch: &[f32], at: usize, to: &mut [f32]) {
        let words = &scratch[at / 2 * to.len()..][..to.len()];
        for (weight, word) in to.iter_mut().zip(words) {
            *weight = f32::from_bits(word.to_bits() << (16 * (1 - at % 2)) & 0xffff_0000);
        }
    }
}

/// Rewrites the scores of a part, `[keys][V vectors]`, as words of the weights of two keys each, `[keys / 2][V vectors]`;
/// a missing key has no weight.
#[inline(always)]
fn weigh<D: Door, F: Fold<D>, const V: usize>(
    lanes: D,
    fold: &mut F,
    live_keys: usize,
    scratch: &mut [f32],
) -> Change {
    let row = V * D::WIDTH;
    let scores = &mut scratch[..live_keys * row];
    let (change, mut weigher) = fold.open::<V, Coarse>(lanes, 0, scores, f32::INFINITY);
    let pairs = live_keys.div_ceil(2);
    if live_keys < 2 * pairs {
        let nothing = if weigher.weighs() { f32::NEG_INFINITY } else { 0.0 };
        scratch[live_keys * row..][..row].fill(nothing);
    }
    let keys = vectors_mut(lanes, &mut scratch[..2 * pairs * row]).as_chunks_mut::<V>().0;
    for pair in 0..pairs {
        let first = weigher.weigh(lanes, keys[2 * pair]);
        let second = weigher.weigh(lanes, keys[2 * pair + 1]);
        for v in 0..V {
            let first = round_bf16(F32::from_raw(lanes, first[v]));
            let second = round_bf16(F32::from_raw(lanes, second[v]));
            keys[pair][v] = pair_bf16(first, second).raw();
        }
    }
    fold.close(lanes, weigher);
    change
}
