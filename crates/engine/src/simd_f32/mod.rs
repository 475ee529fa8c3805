//! The engine `simd-f32`: f32 products on the vectors of any instruction set.
//!
//! Storage of 16 bits is converted while it is packed.

use pulp::bytemuck;
use regard_ir::plan::Dtype;
use regard_simd::TRANSPOSE;

use crate::cached::{CachedUnit, repack_floats};
use crate::engine::{Engine, Fold, Op, Rescale, Shape, Step};
use crate::isa::Door;
use crate::pack::{self, PANEL, Rows, ValueBlock};
use crate::panel::{self, tile::Floats};

/// f32 products on the vectors of `D`.
#[derive(Clone, Copy, Debug)]
pub struct SimdF32<D>(pub D);

impl<D: Door> Engine for SimdF32<D> {
    type Lanes = D;
    const STORAGE: &'static [Dtype] = &Dtype::ALL;
    const STATES: &'static [Dtype] = &Dtype::ALL;
    const ROWS: usize = D::VECTORS * D::WIDTH;
    const ROW_STEP: usize = D::WIDTH;
    const KEY_STEP: usize = PANEL;
    const CHANNEL_STEP: usize = PANEL;
    const UNSCALED: bool = false;
    const HAS_STAIRS: bool = panel::has_stairs::<D>();
    const SLACK: f32 = 0.0;
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
        shape.dim * Self::ROWS
    }

    fn unit_keys(shape: &Shape) -> usize {
        shape.key_block
    }

    fn packed_len(shape: &Shape) -> usize {
        panel::packed_len::<Floats>(shape)
    }

    fn scratch_len(shape: &Shape) -> usize {
        shape.key_block * Self::ROWS
    }

    fn pack_len(shape: &Shape) -> usize {
        TRANSPOSE * shape.dim.max(shape.value_dim)
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
        let to = &mut to[..shape.dim * width];
        pack::pack_rows(self.0, queries, count, shape.dim, width, scratch, to);
        pack::scale(self.0, to, factor);
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
        let (key_panels, rest) = to.split_at_mut(panel::keys_len::<Floats>(shape));
        let (value_panels, odd) = rest.split_at_mut(panel::values_len::<Floats>(shape));
        pack::pack_keys(self.0, keys, count, shape.dim, scratch, key_panels);
        let block = ValueBlock { count, dim: shape.value_dim, block_keys: shape.key_block };
        pack::pack_values(self.0, values, block, scratch, bytemuck::cast_slice_mut(odd), value_panels);
    }

    #[inline(always)]
    fn pack_cached(self, shape: &Shape, unit: &CachedUnit<'_>, to: &mut [f32]) -> bool {
        repack_floats(self.0, shape, unit, to)
    }

    #[inline(always)]
    fn odd_keys(shape: &Shape, packed: &[f32], group: usize) -> u32 {
        panel::odd_keys::<Floats>(shape, packed, group)
    }

    #[inline(always)]
    fn step<F: Fold<D>>(self, mut step: Step<'_>, fold: &mut F) {
        panel::scores::<D, Floats>(self.0, &mut step);
        let live = step.live_keys * step.width;
        let rescale = fold.whole(self.0, step.width, 0, &mut step.scratch[..live]);
        panel::values::<D, Floats>(self.0, &mut step, rescale);
    }

    #[inline(always)]
    fn scores(self, step: Step<'_>, to: &mut [f32]) {
        panel::scores::<D, Floats>(self.0, &mut Step { scratch: to, ..step });
    }

    #[inline(always)]
    fn add_scores(self, step: Step<'_>, channels: usize, to: &mut [f32]) {
        panel::some_scores::<D, Floats>(self.0, &mut Step { scratch: to, ..step }, channels, Rescale::Keep);
    }

    #[inline(always)]
    fn weights(_: &Shape, scratch: &[f32], at: usize, to: &mut [f32]) {
        to.copy_from_slice(&scratch[at * to.len()..][..to.len()]);
    }
}
