//! Packing: rows of a tensor into the panels that tiles read.
//!
//! Packing turns any strides and any storage type into one layout of f32, contiguous in the order in which a tile
//! reads it, so that tiles need no bounds checks, no strides and no edges: what is missing is zero. Keys and values are
//! packed once a run, or once for each key block and query block, and shared by all rows of a pass.

use pulp::bytemuck;
use regard_simd::{Lanes, TRANSPOSE, rows_from, vectors_mut};

use crate::element::Elements;
use crate::engine::GROUP;
use crate::isa::Door;
use crate::split::{join_rows, pair_channels, pair_rows};

/// Keys of a key panel and channels of a value panel.
pub const PANEL: usize = 8;

/// A row of zeros that stands for rows which do not exist, and so sets the widest row.
static ZEROS: [f32; MAX_DIM] = [0.0; MAX_DIM];

/// The widest row that can be packed.
pub const MAX_DIM: usize = 4096;

/// Rows of a tensor that lives for `'t`, on their way into a panel: as they are, or changed on the way.
pub trait Rows<'t> {
    /// Elements of scratch that a row of `width` elements is made in.
    #[inline(always)]
    fn scratch_len(&self, width: usize) -> usize {
        width
    }

    /// Row `i` as floats: where they lie, or written to `scratch`, which is as long as [`Rows::scratch_len`] says.
    /// `#[inline(always)]`.
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a;

    /// The bits of row `i`, where it is stored as bf16.
    #[inline(always)]
    fn bf16_bits(&self, _i: usize) -> Option<&'t [u16]> {
        None
    }

    /// The first `dim` channels of row `i` as words of two bf16 each: where they lie, or written to `scratch`, which has
    /// room for the words behind [`Rows::scratch_len`]. `#[inline(always)]`.
    #[inline(always)]
    fn words<'a, L: Door>(&self, lanes: L, i: usize, dim: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        let (scratch, words) = scratch.split_at_mut(self.scratch_len(dim));
        let words = &mut words[..dim.div_ceil(2)];
        pair_channels(&self.row(lanes, i, scratch)[..dim], 1, bytemuck::cast_slice_mut(words));
        words
    }
}

/// The rows that a function finds, as they are.
pub struct AsStored<F>(pub F);

impl<'t, F: Fn(usize) -> Elements<'t>> Rows<'t> for AsStored<F> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        self.0(i).widen(lanes, scratch)
    }

    #[inline(always)]
    fn bf16_bits(&self, i: usize) -> Option<&'t [u16]> {
        self.0(i).bf16_bits()
    }

    #[inline(always)]
    fn words<'a, L: Door>(&self, lanes: L, i: usize, dim: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        let row = self.0(i).part(0..dim);
        let (words, scratch) = scratch.split_at_mut(dim.div_ceil(2));
        match row.bf16_bits() {
            Some(bits) => {
                if let Ok(stored) = bytemuck::try_cast_slice(bits) {
                    return stored;
                }
                let (whole, missing) = bytemuck::cast_slice_mut(words).split_at_mut(dim);
                whole.copy_from_slice(bits);
                missing.fill(0u16);
            }
            None => pair_channels(row.widen(lanes, scratch), 1, bytemuck::cast_slice_mut(words)),
        }
        words
    }
}

/// Rows as words of two bf16 channels each.
pub struct Paired<'r, R> {
    /// The rows.
    pub rows: &'r R,
    /// Their channels.
    pub dim: usize,
}

impl<'t, R: Rows<'t>> Rows<'t> for Paired<'_, R> {
    #[inline(always)]
    fn scratch_len(&self, width: usize) -> usize {
        self.rows.scratch_len(self.dim) + width
    }

    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        self.rows.words(lanes, i, self.dim, scratch)
    }
}

/// Whether some number is not finite.
#[inline(always)]
pub(crate) fn is_odd(row: &[f32]) -> bool {
    // A product with zero is zero unless the factor is not finite.
    let mut sums = [0.0f32; PANEL];
    let (panels, rest) = row.as_chunks::<PANEL>();
    for x in panels {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x * 0.0;
        }
    }
    let rest: f32 = rest.iter().map(|x| x * 0.0).sum();
    (sums.iter().sum::<f32>() + rest).is_nan()
}

/// Packs `count` rows of `dim` elements as `[dim][width]`; lanes past `count` are zero.
///
/// `scratch` holds [`TRANSPOSE`] times what a row is made in. `to` is `dim * width` long and `count <= width`.
#[inline(always)]
pub fn pack_rows<'t, L: Door>(
    lanes: L,
    source: &impl Rows<'t>,
    count: usize,
    dim: usize,
    width: usize,
    scratch: &mut [f32],
    to: &mut [f32],
) {
    let to = &mut to[..dim * width];
    let mut first = 0;
    while first < width {
        let lanes_here = TRANSPOSE.min(width - first);
        let mut buffers = scratch.chunks_exact_mut(source.scratch_len(dim).max(1));
        let mut rows: [&[f32]; TRANSPOSE] = [&ZEROS[..dim]; TRANSPOSE];
        for (i, row) in rows.iter_mut().enumerate().take(lanes_here.min(count.saturating_sub(first))) {
            *row = &source.row(lanes, first + i, buffers.next().unwrap_or_default())[..dim];
        }
        turn_rows(lanes, rows, lanes_here, width, &mut to[first..]);
        first += lanes_here;
    }
}

/// Writes `rows` as columns `0..columns` of `to`, whose rows are `width` apart.
#[inline(always)]
fn turn_rows<L: Lanes>(lanes: L, rows: [&[f32]; TRANSPOSE], columns: usize, width: usize, to: &mut [f32]) {
    let dim = rows[0].len();
    let turned = if columns == TRANSPOSE { dim / TRANSPOSE * TRANSPOSE } else { 0 };
    for channel in (0..turned).step_by(TRANSPOSE) {
        lanes.transpose(rows_from(rows, channel), &mut to[channel * width..], width);
    }
    for channel in turned..dim {
        for (row, to) in rows[..columns].iter().zip(&mut to[channel * width..]) {
            *to = row[channel];
        }
    }
}

/// Packs `count` keys as panels `[count / 8, rounded up][dim][8]`; missing keys of the last panel are zero.
///
/// `scratch` is as for [`pack_rows`].
#[inline(always)]
pub fn pack_keys<'t, L: Door>(
    lanes: L,
    source: &impl Rows<'t>,
    count: usize,
    dim: usize,
    scratch: &mut [f32],
    to: &mut [f32],
) {
    for (panel, to) in to.chunks_exact_mut(dim * PANEL).take(count.div_ceil(PANEL)).enumerate() {
        let first = panel * PANEL;
        let source = From { source, first };
        pack_rows(lanes, &source, count - first, dim, PANEL, scratch, to);
    }
}

/// The rows of another source from `first` on.
struct From<'s, R> {
    source: &'s R,
    first: usize,
}

impl<'t, R: Rows<'t>> Rows<'t> for From<'_, R> {
    #[inline(always)]
    fn scratch_len(&self, width: usize) -> usize {
        self.source.scratch_len(width)
    }

    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        self.source.row(lanes, self.first + i, scratch)
    }
}

/// Sizes of a block of values.
#[derive(Clone, Copy, Debug)]
pub struct ValueBlock {
    /// Rows to pack.
    pub count: usize,
    /// Channels of a row.
    pub dim: usize,
    /// Rows that a panel has room for.
    pub block_keys: usize,
}

/// Packs `block.count` value rows as panels `[dim / 8, rounded up][block_keys][8]`; missing channels are zero.
///
/// Elements that are not finite are stored as zero, and `odd`, a word for each [`GROUP`] of rows, tells of which rows
/// they were: bit i of a word is row i of its group. `scratch` holds one row.
#[inline(always)]
pub fn pack_values<'t, L: Door>(
    lanes: L,
    source: &impl Rows<'t>,
    block: ValueBlock,
    scratch: &mut [f32],
    odd: &mut [u32],
    to: &mut [f32],
) {
    let ValueBlock { count, dim, block_keys } = block;
    odd.fill(0);
    for key in 0..count {
        let values = &source.row(lanes, key, &mut scratch[..dim])[..dim];
        let (whole, rest) = values.as_chunks::<PANEL>();
        let mut panels = to.chunks_exact_mut(block_keys * PANEL);
        for (channels, panel) in whole.iter().zip(&mut panels) {
            panel[key * PANEL..][..PANEL].copy_from_slice(channels);
        }
        if !rest.is_empty()
            && let Some(panel) = panels.next()
        {
            let to = &mut panel[key * PANEL..][..PANEL];
            to.fill(0.0);
            to[..rest.len()].copy_from_slice(rest);
        }
        if is_odd(values) {
            odd[key / GROUP] |= 1 << (key % GROUP);
            for x in
                to.chunks_exact_mut(block_keys * PANEL).flat_map(|panel| &mut panel[key * PANEL..][..PANEL])
            {
                if !x.is_finite() {
                    *x = 0.0;
                }
            }
        }
    }
}

/// Packs `block.count` value rows as panels `[dim / 8, rounded up][pairs of rows][8]` of words, each a channel of two rows
/// in bf16; a missing row or channel is zero, and so is what is not finite, as [`pack_values`] says.
///
/// `scratch` holds 3 rows of whole panels.
#[inline(always)]
pub fn pack_value_pairs<'t, L: Door>(
    lanes: L,
    source: &impl Rows<'t>,
    block: ValueBlock,
    scratch: &mut [f32],
    odd: &mut [u32],
    to: &mut [f32],
) {
    let ValueBlock { count, dim, block_keys } = block;
    let width = dim.next_multiple_of(PANEL);
    let (first, rest) = scratch.split_at_mut(width);
    let (second, words) = rest.split_at_mut(width);
    let (first, second, words) = (&mut first[..dim], &mut second[..dim], &mut words[..width]);
    odd.fill(0);
    for key in (0..count).step_by(2) {
        let missing = key + 1 == count;
        let keys = [key, if missing { key } else { key + 1 }];
        let is_odd = match keys.map(|key| source.bf16_bits(key)) {
            [Some(first), Some(second)] => {
                join_rows(&first[..dim], &second[..dim], bytemuck::cast_slice_mut(words))
            }
            _ => {
                let first = &source.row(lanes, keys[0], first)[..dim];
                let second = &source.row(lanes, keys[1], second)[..dim];
                pair_rows(first, second, 1, bytemuck::cast_slice_mut(words));
                [is_odd(first), is_odd(second)]
            }
        };
        odd[key / GROUP] |= u32::from(is_odd[0]) << (key % GROUP);
        if missing {
            for word in bytemuck::cast_slice_mut::<f32, u32>(words) {
                *word &= 0xffff;
            }
        } else {
            odd[key / GROUP] |= u32::from(is_odd[1]) << (key % GROUP + 1);
        }
        let panels = to.chunks_exact_mut(block_keys.div_ceil(2) * PANEL);
        for (panel, words) in panels.zip(words.as_chunks::<PANEL>().0) {
            panel[key / 2 * PANEL..][..PANEL].copy_from_slice(words);
        }
    }
}

/// Multiplies a packed panel by a factor.
#[inline(always)]
pub fn scale<L: Lanes>(lanes: L, panel: &mut [f32], factor: f32) {
    use regard_simd::Simd;
    let factor = lanes.simd().splat_f32s(factor);
    for x in vectors_mut(lanes, panel) {
        *x = lanes.simd().mul_f32s(*x, factor);
    }
}
