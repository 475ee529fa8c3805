//! The engine `simd-f32`: f32 products on the vectors of any instruction set.
//!
//! Both products of attention are one register tile: a few broadcast rows against a few vectors of row lanes. Scores
//! broadcast keys and run over channels, outputs broadcast value channels and run over keys.

pub(crate) mod tile;

use regard_ir::machine::Isa;

use crate::engine::{Engine, Op, PANEL, Rescale, Step};
use crate::isa::Door;

/// f32 products on the vectors of `D`.
#[derive(Clone, Copy, Debug)]
pub struct SimdF32<D>(pub D);

impl<D: Door> Engine for SimdF32<D> {
    type Lanes = D;
    const ISA: Isa = D::ISA;
    const MAX_VECTORS: usize = D::VECTORS;

    #[inline(always)]
    fn lanes(self) -> D {
        self.0
    }

    #[inline(always)]
    fn enter<O: Op>(self, op: O) -> O::Output {
        self.0.enter(op)
    }

    #[inline(always)]
    fn scores(self, step: &mut Step<'_>) {
        let Step { query, keys, dim, width, channel_chain, .. } = *step;
        let first_panel = step.first_key / PANEL;
        let keys = &keys[first_panel * dim * PANEL..];
        let panels = keys.chunks_exact(dim * PANEL).zip(step.scores.chunks_exact_mut(width * PANEL));
        for (keys, scores) in panels.take(step.valid_keys.div_ceil(PANEL)) {
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

    #[inline(always)]
    fn values(self, step: &mut Step<'_>, rescale: Rescale<'_>) {
        let Step { values, width, first_key, valid_keys, block_keys, .. } = *step;
        let weights = &step.scores[..valid_keys * width];
        let panels = values.chunks_exact(block_keys * PANEL).zip(step.output.chunks_exact_mut(width * PANEL));
        for (values, output) in panels {
            let values = &values[first_key * PANEL..][..valid_keys * PANEL];
            tile::multiply(self.0, values, weights, output, width, rescale);
        }
    }
}
