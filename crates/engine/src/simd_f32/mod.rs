//! The engine `simd-f32`: f32 products on the vectors of any instruction set.
//!
//! Both products of attention are one register tile: a few broadcast rows against a few vectors of row lanes. Scores
//! broadcast keys and run over channels, outputs broadcast value channels and run over keys. Queries are packed as
//! `[dim][width]`, keys as panels `[keys / 8][dim][8]`, values as panels `[value_dim / 8][block keys][8]`; scores, then
//! weights, are `[keys][width]`.

pub(crate) mod tile;

use pulp::bytemuck;
use regard_simd::TRANSPOSE;

use crate::element::Element;
use crate::engine::{Engine, Fold, GROUP, Op, Rescale, Shape, Step};
use crate::isa::Door;
use crate::pack::{self, PANEL, Rows, ValueBlock};

/// f32 products on the vectors of `D`.
#[derive(Clone, Copy, Debug)]
pub struct SimdF32<D>(pub D);

/// A packed block: its key panels, its value panels, and words that tell of odd values.
struct Packed<'a> {
    keys: &'a [f32],
    values: &'a [f32],
}

const fn keys_len(shape: &Shape) -> usize {
    shape.key_block * shape.dim
}

const fn values_len(shape: &Shape) -> usize {
    shape.key_block * shape.value_dim.next_multiple_of(PANEL)
}

impl<'a> Packed<'a> {
    #[inline(always)]
    fn new(shape: &Shape, packed: &'a [f32]) -> Self {
        let (keys, rest) = packed.split_at(keys_len(shape));
        Self { keys, values: &rest[..values_len(shape)] }
    }
}

impl<D: Door> SimdF32<D> {
    /// `scores[k][r] = Σ_c query[c][r] · keys[k / 8][c][k % 8]` for every live key, in chains of channels.
    #[inline(always)]
    pub fn scores(self, step: &mut Step<'_>) {
        let Shape { dim, channel_chain, .. } = *step.shape;
        let width = step.width;
        let keys = &Packed::new(step.shape, step.packed).keys[step.first_key / PANEL * dim * PANEL..];
        let query = &step.query[..dim * width];
        let panels = keys.chunks_exact(dim * PANEL).zip(step.scratch.chunks_exact_mut(width * PANEL));
        for (keys, scores) in panels.take(step.live_keys.div_ceil(PANEL)) {
            // Each chain starts from zero and is added to those before it: one running sum over more channels than
            // that would not meet the bound.
            let mut rescale = Rescale::Replace;
            let chains = keys.chunks(channel_chain * PANEL).zip(query.chunks(channel_chain * width));
            for (keys, query) in chains {
                tile::multiply(self.0, keys, query, scores, width, rescale);
                rescale = Rescale::Keep;
            }
        }
    }

    /// `output[c][r] (+)= Σ_k weights[k][r] · values[c / 8][k][c % 8]` over the live keys: what is there is replaced,
    /// kept or rescaled first.
    #[inline(always)]
    pub fn values(self, step: &mut Step<'_>, rescale: Rescale<'_>) {
        let Step { first_key, live_keys, width, .. } = *step;
        let values = Packed::new(step.shape, step.packed).values;
        let weights = &step.scratch[..live_keys * width];
        let panels = values
            .chunks_exact(step.shape.key_block * PANEL)
            .zip(step.output.chunks_exact_mut(width * PANEL));
        for (values, output) in panels {
            let values = &values[first_key * PANEL..][..live_keys * PANEL];
            tile::multiply(self.0, values, weights, output, width, rescale);
        }
    }
}

impl<D: Door> Engine for SimdF32<D> {
    type Lanes = D;
    const ROWS: usize = D::VECTORS * D::WIDTH;
    const ROW_STEP: usize = D::WIDTH;
    const KEY_STEP: usize = PANEL;
    const CHANNEL_STEP: usize = PANEL;
    const PACKS_AHEAD: bool = false;
    const UNSCALED: bool = false;
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

    fn packed_len(shape: &Shape) -> usize {
        keys_len(shape) + values_len(shape) + shape.key_block.div_ceil(GROUP)
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
    fn pack<'t, T: Element>(
        self,
        shape: &Shape,
        keys: &impl Rows<'t>,
        values: impl Fn(usize) -> &'t [T],
        count: usize,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        let (key_panels, rest) = to.split_at_mut(keys_len(shape));
        let (value_panels, odd) = rest.split_at_mut(values_len(shape));
        pack::pack_keys(self.0, keys, count, shape.dim, scratch, key_panels);
        let block = ValueBlock { count, dim: shape.value_dim, block_keys: shape.key_block };
        pack::pack_values(self.0, values, block, scratch, bytemuck::cast_slice_mut(odd), value_panels);
    }

    #[inline(always)]
    fn odd_keys(shape: &Shape, packed: &[f32], group: usize) -> u32 {
        packed[keys_len(shape) + values_len(shape) + group].to_bits()
    }

    #[inline(always)]
    fn step<F: Fold<D>>(self, mut step: Step<'_>, fold: &mut F) {
        self.scores(&mut step);
        let live = step.live_keys * step.width;
        let rescale = fold.whole(self.0, step.width, 0, &mut step.scratch[..live]);
        self.values(&mut step, rescale);
    }

    #[inline(always)]
    fn weights(_: &Shape, scratch: &[f32], at: usize, to: &mut [f32]) {
        to.copy_from_slice(&scratch[at * to.len()..][..to.len()]);
    }
}
