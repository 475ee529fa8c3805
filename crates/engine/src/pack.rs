//! Packing: rows of a tensor into the panels that tiles read.
//!
//! Packing turns any strides and any storage type into one layout of f32, contiguous in the order in which a tile
//! reads it, so that tiles need no bounds checks, no strides and no edges: what is missing is zero. It is paid once
//! per key block and query block, and shared by all rows of a pass.

use regard_simd::{Lanes, TRANSPOSE, vectors_mut};

use crate::element::Element;
use crate::engine::GROUP;

/// Keys of a key panel and channels of a value panel.
pub const PANEL: usize = 8;

/// A row of zeros that stands for rows which do not exist, and so sets the widest row.
static ZEROS: [f32; MAX_DIM] = [0.0; MAX_DIM];

/// The widest row that can be packed.
pub const MAX_DIM: usize = 4096;

/// Rows of a tensor that lives for `'t`, on their way into a panel: as they are, or changed on the way.
pub trait Rows<'t> {
    /// Row `i` as floats: where they lie, or written to `scratch`, which is as long as a row. `#[inline(always)]`.
    fn row<'a, L: Lanes>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a;
}

/// The rows that a function finds, as they are.
pub struct AsStored<F>(pub F);

impl<'t, T: Element, F: Fn(usize) -> &'t [T]> Rows<'t> for AsStored<F> {
    #[inline(always)]
    fn row<'a, L: Lanes>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        T::widen(lanes, self.0(i), scratch)
    }
}

/// Packs `count` rows of `dim` channels as `[dim][width]`; lanes past `count` are zero.
///
/// `scratch` holds [`TRANSPOSE`] rows. `to` is `dim * width` long and `count <= width`.
#[inline(always)]
pub fn pack_rows<'t, L: Lanes>(
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
        let mut buffers = scratch.chunks_exact_mut(dim.max(1));
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
        lanes.transpose(rows.map(|row| &row[channel..]), &mut to[channel * width..], width);
    }
    for channel in turned..dim {
        for (row, to) in rows[..columns].iter().zip(&mut to[channel * width..]) {
            *to = row[channel];
        }
    }
}

/// Packs `count` keys as panels `[count / 8, rounded up][dim][8]`; missing keys of the last panel are zero.
///
/// `scratch` holds [`PANEL`] rows.
#[inline(always)]
pub fn pack_keys<'t, L: Lanes>(
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
    fn row<'a, L: Lanes>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
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
pub fn pack_values<'t, L: Lanes, T: Element>(
    lanes: L,
    row: impl Fn(usize) -> &'t [T],
    block: ValueBlock,
    scratch: &mut [f32],
    odd: &mut [u32],
    to: &mut [f32],
) {
    let ValueBlock { count, dim, block_keys } = block;
    odd.fill(0);
    for key in 0..count {
        let values = T::widen(lanes, &row(key)[..dim], scratch);
        let (whole, rest) = values.as_chunks::<PANEL>();
        let mut panels = to.chunks_exact_mut(block_keys * PANEL);
        // A product with zero is zero unless the factor is not finite.
        let mut check = [0.0f32; PANEL];
        for channels in whole {
            let Some(panel) = panels.next() else { break };
            panel[key * PANEL..][..PANEL].copy_from_slice(channels);
            for (check, x) in check.iter_mut().zip(channels) {
                *check += x * 0.0;
            }
        }
        if !rest.is_empty()
            && let Some(panel) = panels.next()
        {
            let to = &mut panel[key * PANEL..][..PANEL];
            to.fill(0.0);
            to[..rest.len()].copy_from_slice(rest);
            for (check, x) in check.iter_mut().zip(rest) {
                *check += x * 0.0;
            }
        }
        if check.iter().sum::<f32>().is_nan() {
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

/// Multiplies a packed panel by a factor.
#[inline(always)]
pub fn scale<L: Lanes>(lanes: L, panel: &mut [f32], factor: f32) {
    use regard_simd::Simd;
    let factor = lanes.simd().splat_f32s(factor);
    for x in vectors_mut(lanes, panel) {
        *x = lanes.simd().mul_f32s(*x, factor);
    }
}
