//! Strided views of q, k, v and o: no copies, whatever the layout.

use core::fmt;

use regard_engine::element::{Element, Elements, ElementsMut};
use regard_engine::grid::{GridError, Rows, RowsMut};
use regard_ir::plan::Dtype;

use crate::flash::RunError;

/// A strided tensor of rows of any storage type: `[sequence][head][token]` rows of `width` adjacent elements.
///
/// Any strides serve, 0 included (one row for all): `[B, H, N, D]` and `[B, N, H, D]` differ in their strides alone.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: Elements<'a>,
    counts: [usize; 3],
    strides: [usize; 3],
    width: usize,
}

/// A view that does not fit its data or its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewError {
    /// Rows reach past the data; `needed` saturates.
    Short {
        /// Elements that the rows reach to.
        needed: usize,
        /// Elements there are.
        found: usize,
    },
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ViewError::Short { needed, found } => {
                write!(f, "the view's rows reach to element {needed}, the data has {found}")
            }
        }
    }
}

impl core::error::Error for ViewError {}

impl<'a> View<'a> {
    /// A view of `counts` sequences, heads and tokens at `strides` elements, with rows of `width`.
    ///
    /// # Errors
    /// If a row reaches past the data.
    pub fn new<T: Element>(
        data: &'a [T],
        counts: [usize; 3],
        strides: [usize; 3],
        width: usize,
    ) -> Result<Self, ViewError> {
        Self::of(T::elements(data), counts, strides, width)
    }

    /// As [`View::new`], of elements whose type is known at run time alone.
    ///
    /// # Errors
    /// As [`View::new`].
    pub fn of(
        data: Elements<'a>,
        counts: [usize; 3],
        strides: [usize; 3],
        width: usize,
    ) -> Result<Self, ViewError> {
        let reach = |needed: Option<usize>, (&count, &stride): (&usize, &usize)| {
            needed?.checked_add(stride.checked_mul(count.saturating_sub(1))?)
        };
        let needed = counts.iter().zip(&strides).fold(Some(width), reach).unwrap_or(usize::MAX);
        if needed > data.len() && !counts.contains(&0) {
            return Err(ViewError::Short { needed, found: data.len() });
        }
        Ok(Self { data, counts, strides, width })
    }

    /// A view of no rows, of floats.
    pub const fn empty(width: usize) -> Self {
        Self { data: Elements::F32(&[]), counts: [0; 3], strides: [0; 3], width }
    }

    /// A view of a contiguous `[sequences, heads, tokens, width]` tensor.
    ///
    /// # Errors
    /// If the data is too short.
    pub fn contiguous<T: Element>(
        data: &'a [T],
        counts: [usize; 3],
        width: usize,
    ) -> Result<Self, ViewError> {
        Self::new(data, counts, contiguous_strides(counts, width), width)
    }

    /// The rows of one sequence.
    ///
    /// # Panics
    /// If there is no such sequence.
    pub fn sequence(&self, sequence: usize) -> Self {
        let [sequences, heads, tokens] = self.counts;
        assert!(sequence < sequences, "sequence {sequence} of {sequences}");
        let skip = (sequence * self.strides[0]).min(self.data.len());
        Self { data: self.data.part(skip..self.data.len()), counts: [1, heads, tokens], ..*self }
    }

    /// The same rows of some tokens alone.
    ///
    /// # Panics
    /// If there are not so many tokens.
    pub fn tokens(&self, range: core::ops::Range<usize>) -> Self {
        let [sequences, heads, tokens] = self.counts;
        assert!(range.start <= range.end && range.end <= tokens, "tokens {range:?} of {tokens}");
        let counts = [sequences, heads, range.len()];
        let skip = (range.start * self.strides[2]).min(self.data.len());
        Self { data: self.data.part(skip..self.data.len()), counts, ..*self }
    }

    /// The type that its elements are stored as.
    pub const fn dtype(&self) -> Dtype {
        self.data.dtype()
    }

    /// How many sequences, heads and tokens there are.
    pub const fn counts(&self) -> [usize; 3] {
        self.counts
    }

    /// Elements of a row.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub fn row(&self, sequence: usize, head: usize, token: usize) -> Elements<'a> {
        debug_assert!(sequence < self.counts[0] && head < self.counts[1] && token < self.counts[2]);
        let offset = sequence * self.strides[0] + head * self.strides[1] + token * self.strides[2];
        self.data.part(offset..offset + self.width)
    }

    /// Some rows of a head as one, from a token on, where they lie one behind the other.
    ///
    /// # Panics
    /// If there are no such rows.
    #[inline(always)]
    pub(crate) fn block(&self, [sequence, head, token]: [usize; 3], count: usize) -> Option<Elements<'a>> {
        if self.strides[2] != self.width || count == 0 {
            return None;
        }
        debug_assert!(sequence < self.counts[0] && head < self.counts[1] && token + count <= self.counts[2]);
        let offset = sequence * self.strides[0] + head * self.strides[1] + token * self.strides[2];
        Some(self.data.part(offset..offset + count * self.width))
    }
}

/// Strides of a contiguous tensor; they saturate where the tensor could not exist.
pub fn contiguous_strides(counts: [usize; 3], width: usize) -> [usize; 3] {
    let token = width;
    let head = token.saturating_mul(counts[2]);
    [head.saturating_mul(counts[1]), head, token]
}

/// A strided tensor of rows of any storage type to be written; rows must not overlap.
#[derive(Debug)]
pub struct ViewMut<'a>(pub(crate) Rows<'a>);

impl<'a> ViewMut<'a> {
    /// Its rows, which must be floats.
    pub(crate) fn floats(self, tensor: &'static str) -> Result<RowsMut<'a, f32>, RunError> {
        match self.0 {
            Rows::F32(rows) => Ok(rows),
            rows => Err(RunError::Dtype { tensor, found: rows.dtype(), expected: Dtype::F32 }),
        }
    }

    /// A view of `counts` sequences, heads and tokens at `strides` elements, with rows of `width`.
    ///
    /// # Errors
    /// If rows overlap or reach past the data.
    pub fn new<T: Element>(
        data: &'a mut [T],
        counts: [usize; 3],
        strides: [usize; 3],
        width: usize,
    ) -> Result<Self, GridError> {
        Self::of(T::elements_mut(data), counts, strides, width)
    }

    /// As [`ViewMut::new`], of elements whose type is known at run time alone.
    ///
    /// # Errors
    /// As [`ViewMut::new`].
    pub fn of(
        data: ElementsMut<'a>,
        counts: [usize; 3],
        strides: [usize; 3],
        width: usize,
    ) -> Result<Self, GridError> {
        let rows = Rows::new(data, counts, strides, width);
        rows.check()?;
        Ok(Self(rows))
    }

    /// A view of a contiguous `[sequences, heads, tokens, width]` tensor.
    ///
    /// # Errors
    /// If the data is too short.
    pub fn contiguous<T: Element>(
        data: &'a mut [T],
        counts: [usize; 3],
        width: usize,
    ) -> Result<Self, GridError> {
        Self::new(data, counts, contiguous_strides(counts, width), width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_differ_in_strides_alone() {
        // 1 sequence, 2 heads, 3 tokens, rows of 2; element = head * 100 + token * 10 + channel.
        let element = |h: usize, n: usize, d: usize| (h * 100 + n * 10 + d) as f32;
        let bhnd: [f32; 12] = core::array::from_fn(|i| element(i / 6, i / 2 % 3, i % 2));
        let bnhd: [f32; 12] = core::array::from_fn(|i| element(i / 2 % 2, i / 4, i % 2));
        let a = View::contiguous(&bhnd, [1, 2, 3], 2).unwrap();
        let b = View::new(&bnhd, [1, 2, 3], [12, 2, 4], 2).unwrap();
        for (h, n) in [(0, 0), (1, 2), (0, 2), (1, 0)] {
            assert_eq!(f32::of(a.row(0, h, n)), f32::of(b.row(0, h, n)));
        }
    }

    #[test]
    fn a_view_past_its_data_is_refused() {
        assert_eq!(
            View::contiguous(&[0.0f32; 11], [1, 2, 3], 2).unwrap_err(),
            ViewError::Short { needed: 12, found: 11 }
        );
        assert!(View::contiguous(&[0.0f32; 0], [1, 0, 3], 2).is_ok());
        let huge = View::new(&[0.0f32; 4], [usize::MAX, 2, 2], [usize::MAX, 1, 1], 1);
        assert_eq!(huge.unwrap_err(), ViewError::Short { needed: usize::MAX, found: 4 });
    }
}
