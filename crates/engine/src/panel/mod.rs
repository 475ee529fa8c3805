//! Products of panels: what engines on vectors have in common.
//!
//! Both products of attention are one register tile: a few broadcast rows against a few vectors of row lanes. Scores
//! broadcast keys and run over channels, outputs broadcast value channels and run over keys. Operands are made of
//! elements, a float or a word of two bf16, and are deep by so many of them: queries are packed as `[depth][width]`, keys
//! as panels `[keys / 8][depth][8]`, values as panels `[value_dim / 8][depth of a block][8]`; weights are
//! `[depth of the live keys][width]`. Scores and outputs are floats, `[keys][width]` and `[channels][width]`.

pub(crate) mod tile;

use crate::engine::{GROUP, LINE, Rescale, Shape, Step};
use crate::isa::Door;
use crate::pack::PANEL;
use crate::stairs::VECTORS;
use tile::Elements;

/// Whether a full row tile leaves out what its vectors do not see: where one function keeps the sums of a whole panel.
pub(crate) const fn has_stairs<D: Door>() -> bool {
    D::TILE == PANEL && D::VECTORS == VECTORS
}

/// Elements that so many numbers take.
pub(crate) const fn depth<K: Elements>(numbers: usize) -> usize {
    numbers.div_ceil(K::NUMBERS)
}

/// Elements of a block's packed keys.
pub(crate) const fn keys_len<K: Elements>(shape: &Shape) -> usize {
    shape.key_block * depth::<K>(shape.dim)
}

/// Elements of a block's packed values.
pub(crate) const fn values_len<K: Elements>(shape: &Shape) -> usize {
    depth::<K>(shape.key_block) * shape.value_dim.next_multiple_of(PANEL)
}

/// Elements of a packed block: its key panels, its value panels, and words that tell of odd values.
pub(crate) const fn packed_len<K: Elements>(shape: &Shape) -> usize {
    let odd = shape.key_block.div_ceil(GROUP);
    (keys_len::<K>(shape) + values_len::<K>(shape) + odd).next_multiple_of(LINE)
}

/// Of the keys of a packed block's group, those whose values were not all finite.
#[inline(always)]
pub(crate) fn odd_keys<K: Elements>(shape: &Shape, packed: &[f32], group: usize) -> u32 {
    packed[keys_len::<K>(shape) + values_len::<K>(shape) + group].to_bits()
}

/// A packed block.
struct Packed<'a> {
    keys: &'a [f32],
    values: &'a [f32],
}

impl<'a> Packed<'a> {
    #[inline(always)]
    fn new<K: Elements>(shape: &Shape, packed: &'a [f32]) -> Self {
        let (keys, rest) = packed.split_at(keys_len::<K>(shape));
        Self { keys, values: &rest[..values_len::<K>(shape)] }
    }
}

/// `scores[k][r] = Σ_c query[c][r] · keys[k / 8][c][k % 8]` for every live key, in chains of channels.
#[inline(always)]
pub(crate) fn scores<D: Door, K: Elements>(lanes: D, step: &mut Step<'_>) {
    some_scores::<D, K>(lanes, step, step.shape.dim, Rescale::Replace);
}

/// The same of the first channels alone, in place of what is there or added to it.
#[inline(always)]
pub(crate) fn some_scores<D: Door, K: Elements>(
    lanes: D,
    step: &mut Step<'_>,
    channels: usize,
    first: Rescale<'_>,
) {
    let depth = depth::<K>(step.shape.dim);
    let chain = step.shape.channel_chain.div_ceil(K::NUMBERS);
    let width = step.width;
    let keys = &Packed::new::<K>(step.shape, step.packed).keys[step.first_key / PANEL * depth * PANEL..];
    let some = channels.div_ceil(K::NUMBERS).min(depth);
    let query = &step.query[..some * width];
    let panels = keys.chunks_exact(depth * PANEL).zip(step.scratch.chunks_exact_mut(width * PANEL));
    for (panel, (keys, scores)) in panels.take(step.live_keys.div_ceil(PANEL)).enumerate() {
        let of_panel = panel * PANEL..(panel + 1) * PANEL;
        let some_vectors = step.stairs.map(|stairs| stairs.vectors(of_panel)).filter(|it| it.len() < VECTORS);
        if some_vectors.is_some() && matches!(first, Rescale::Replace) {
            // What is not seen is masked, whatever it is.
            scores.fill(0.0);
        }
        // Each chain starts from zero and is added to those before it: one running sum over more channels than
        // that would not meet the bound.
        let mut rescale = first;
        let chains = keys[..some * PANEL].chunks(chain * PANEL).zip(query.chunks(chain * width));
        for (keys, query) in chains {
            match &some_vectors {
                None => tile::multiply::<D, K>(lanes, keys, query, scores, width, rescale),
                Some(vectors) => tile::multiply_some::<D, K>(lanes, keys, query, scores, vectors, rescale),
            }
            rescale = Rescale::Keep;
        }
    }
}

/// `output[c][r] (+)= Σ_k weights[k][r] · values[c / 8][k][c % 8]` over the live keys: what is there is replaced, kept or
/// rescaled first.
#[inline(always)]
pub(crate) fn values<D: Door, K: Elements>(lanes: D, step: &mut Step<'_>, rescale: Rescale<'_>) {
    let Step { first_key, live_keys, width, stairs, .. } = *step;
    let values = Packed::new::<K>(step.shape, step.packed).values;
    let (first, live) = (first_key / K::NUMBERS, depth::<K>(live_keys));
    let weights = &step.scratch[..live * width];
    let panels = values
        .chunks_exact(depth::<K>(step.shape.key_block) * PANEL)
        .zip(step.output.chunks_exact_mut(width * PANEL));
    for (values, output) in panels {
        let values = &values[first * PANEL..][..live * PANEL];
        match stairs {
            None => tile::multiply::<D, K>(lanes, values, weights, output, width, rescale),
            Some(stairs) => tile::multiply_seen::<D, K>(lanes, values, weights, output, stairs, rescale),
        }
    }
}
