//! Rows of tensors that are written from several threads.

use core::marker::PhantomData;
use core::ops::Range;

use half::{bf16, f16};
use regard_ir::plan::Dtype;

use super::GridError;
use crate::element::ElementsMut;

/// A strided tensor of rows, to be written: `[sequence][head][query]` rows of `width` adjacent elements.
#[derive(Debug)]
pub struct RowsMut<'a, T> {
    /// The elements.
    pub data: &'a mut [T],
    /// How many sequences, heads and queries there are.
    pub counts: [usize; 3],
    /// How many elements apart neighbours are along each of them.
    pub strides: [usize; 3],
    /// Elements of a row.
    pub width: usize,
}

impl<T> RowsMut<'_, T> {
    /// The same for a while.
    pub fn reborrow(&mut self) -> RowsMut<'_, T> {
        RowsMut { data: &mut *self.data, ..*self }
    }

    /// Checks that no two rows share an element and that all lie inside the data.
    pub fn check(&self) -> Result<(), GridError> {
        let overlap = GridError::Overlap { counts: self.counts, strides: self.strides, width: self.width };
        if self.counts.contains(&0) || self.width == 0 {
            return Ok(());
        }
        let mut axes = [0, 1, 2].map(|i| (self.strides[i], self.counts[i]));
        axes.sort_unstable();
        // What the axes so far reach over; the next stride must step past it.
        let mut extent = self.width;
        for (stride, count) in axes.into_iter().filter(|&(_, count)| count > 1) {
            if stride < extent {
                return Err(overlap);
            }
            extent =
                stride.checked_mul(count - 1).and_then(|span| span.checked_add(extent)).ok_or(overlap)?;
        }
        if extent > self.data.len() {
            return Err(GridError::Short { needed: extent, found: self.data.len() });
        }
        Ok(())
    }
}

/// Where the rows of a tensor lie, which were found inside it and apart from each other.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub counts: [usize; 3],
    pub strides: [usize; 3],
    pub width: usize,
}

impl Places {
    /// The element that the row `at` begins with.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    fn first(&self, at: [usize; 3]) -> usize {
        for (at, count) in at.iter().zip(self.counts) {
            assert!(*at < count, "row {at} of {count}");
        }
        at.iter().zip(self.strides).map(|(at, stride)| at * stride).sum()
    }
}

/// A checked output whose pieces may be written from several threads.
pub(super) struct Shared<'a, T> {
    pub start: *mut T,
    pub places: Places,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<'a, T> Shared<'a, T> {
    pub fn new(rows: RowsMut<'a, T>) -> Result<Self, GridError> {
        rows.check()?;
        let RowsMut { data, counts, strides, width } = rows;
        let places = Places { counts, strides, width };
        Ok(Self { start: data.as_mut_ptr(), places, lifetime: PhantomData })
    }

    /// Where the row `at` lies: inside the data and apart from all other rows, as `new` checked.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn row(&self, at: [usize; 3]) -> *mut [T] {
        self.elements(self.places.first(at), self.places.width)
    }

    #[inline(always)]
    fn elements(&self, first: usize, len: usize) -> *mut [T] {
        core::ptr::slice_from_raw_parts_mut(self.start.wrapping_add(first), len)
    }
}

/// A strided tensor of rows, to be written in the type that they are stored as.
#[derive(Debug)]
pub enum Rows<'a> {
    /// Floats.
    F32(RowsMut<'a, f32>),
    /// In binary16.
    F16(RowsMut<'a, f16>),
    /// In bfloat16.
    Bf16(RowsMut<'a, bf16>),
}

/// The same of rows of any type.
macro_rules! of_each {
    ($of:ident: $self:expr, $rows:ident => $do:expr) => {
        match $self {
            $of::F32($rows) => $do,
            $of::F16($rows) => $do,
            $of::Bf16($rows) => $do,
        }
    };
}

impl<'a> Rows<'a> {
    /// Rows of elements; [`Rows::check`] says whether they lie in these.
    pub fn new(data: ElementsMut<'a>, counts: [usize; 3], strides: [usize; 3], width: usize) -> Self {
        match data {
            ElementsMut::F32(data) => Rows::F32(RowsMut { data, counts, strides, width }),
            ElementsMut::F16(data) => Rows::F16(RowsMut { data, counts, strides, width }),
            ElementsMut::Bf16(data) => Rows::Bf16(RowsMut { data, counts, strides, width }),
        }
    }

    /// How many sequences, heads and queries there are.
    pub const fn counts(&self) -> [usize; 3] {
        of_each!(Rows: self, rows => rows.counts)
    }

    /// Elements of a row.
    pub const fn width(&self) -> usize {
        of_each!(Rows: self, rows => rows.width)
    }

    /// Their type.
    pub const fn dtype(&self) -> Dtype {
        match self {
            Rows::F32(_) => Dtype::F32,
            Rows::F16(_) => Dtype::F16,
            Rows::Bf16(_) => Dtype::Bf16,
        }
    }

    /// The same for a while.
    pub fn reborrow(&mut self) -> Rows<'_> {
        match self {
            Rows::F32(rows) => Rows::F32(rows.reborrow()),
            Rows::F16(rows) => Rows::F16(rows.reborrow()),
            Rows::Bf16(rows) => Rows::Bf16(rows.reborrow()),
        }
    }

    /// Checks that no two rows share an element and that all lie inside the data.
    pub fn check(&self) -> Result<(), GridError> {
        of_each!(Rows: self, rows => rows.check())
    }
}

/// [`Rows`] that were checked.
pub(super) enum SharedRows<'a> {
    F32(Shared<'a, f32>),
    F16(Shared<'a, f16>),
    Bf16(Shared<'a, bf16>),
}

impl<'a> SharedRows<'a> {
    pub fn new(rows: Rows<'a>) -> Result<Self, GridError> {
        Ok(match rows {
            Rows::F32(rows) => Self::F32(Shared::new(rows)?),
            Rows::F16(rows) => Self::F16(Shared::new(rows)?),
            Rows::Bf16(rows) => Self::Bf16(Shared::new(rows)?),
        })
    }

    #[inline]
    const fn places(&self) -> Places {
        of_each!(SharedRows: self, rows => rows.places)
    }

    pub const fn counts(&self) -> [usize; 3] {
        self.places().counts
    }

    pub const fn width(&self) -> usize {
        self.places().width
    }

    /// Some channels of the row `at`.
    ///
    /// # Safety
    /// Nobody else has them for as long as they are borrowed.
    ///
    /// # Panics
    /// If there is no such row, or it has no such channels.
    #[inline]
    pub unsafe fn part<'r>(&self, at: [usize; 3], channels: Range<usize>) -> ElementsMut<'r> {
        let (places, Range { start, end }) = (self.places(), channels);
        assert!(start <= end && end <= places.width, "channels of the row");
        let (first, len) = (places.first(at) + start, end - start);
        // SAFETY: each row lies inside the data that `new` was given, apart from all others; the caller has these channels alone.
        unsafe {
            match self {
                SharedRows::F32(rows) => ElementsMut::F32(&mut *rows.elements(first, len)),
                SharedRows::F16(rows) => ElementsMut::F16(&mut *rows.elements(first, len)),
                SharedRows::Bf16(rows) => ElementsMut::Bf16(&mut *rows.elements(first, len)),
            }
        }
    }
}
