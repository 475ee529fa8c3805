//! A matrix unit: eight tiles of 16 rows of 16 words, and what it does with them.

use core::marker::PhantomData;

/// Rows of a tile, and 32-bit words of a row.
pub const SIDE: usize = 16;

/// A unit that this processor has, or an emulated one.
pub trait Unit: Copy + Send + Sync + 'static {
    /// Its tiles while a step runs.
    type Tiles: Tiles;

    /// Sets this thread's tiles up, until what it gives is dropped.
    fn configure(self) -> impl Drop;

    /// The tiles of this thread, which [`Unit::configure`] has set up; what they hold is unspecified.
    fn tiles(self) -> Self::Tiles;
}

/// A tile in memory.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Its first row; all of them lie in the words.
    first: *const u32,
    stride: usize,
    words: PhantomData<&'a [u32]>,
}

impl<'a> Source<'a> {
    /// The tile that words begin with, whose rows are `stride` words apart.
    ///
    /// # Panics
    /// If the words end within the tile.
    #[inline(always)]
    pub fn new(words: &'a [u32], stride: usize) -> Self {
        assert!(words.len() >= reach(stride), "a tile of rows {stride} words apart");
        Self { first: words.as_ptr(), stride, words: PhantomData }
    }

    /// The tile so many words further on.
    ///
    /// # Safety
    /// It lies in the words too.
    #[inline(always)]
    pub unsafe fn ahead(self, words: usize) -> Self {
        // SAFETY: the caller vouches for where this points.
        Self { first: unsafe { self.first.add(words) }, ..self }
    }

    /// Where it begins.
    #[inline(always)]
    pub fn first(self) -> *const u32 {
        self.first
    }

    /// Words between its rows.
    #[inline(always)]
    pub fn stride(self) -> usize {
        self.stride
    }

    /// Its rows.
    pub fn rows(self) -> [&'a [u32; SIDE]; SIDE] {
        // SAFETY: the rows lie in the words, by the promises of what makes a source.
        core::array::from_fn(|row| unsafe { &*self.first.add(row * self.stride).cast() })
    }
}

/// Eight tiles, by number.
pub trait Tiles {
    /// Fills a tile with zeros.
    fn zero<const T: usize>(&mut self);

    /// Loads a tile.
    fn load<const T: usize>(&mut self, from: Source<'_>);

    /// As [`Tiles::load`], of words that are not wanted again soon.
    fn stream<const T: usize>(&mut self, from: Source<'_>);

    /// Stores a tile whose rows are `stride` words apart.
    ///
    /// # Panics
    /// If the slice ends within the tile.
    fn store<const T: usize>(&mut self, to: &mut [u32], stride: usize);

    /// `c[m][n] += Σ_k a[m][2k] · b[k][2n] + a[m][2k + 1] · b[k][2n + 1]`, where c is f32, a and b are pairs of bf16.
    fn dot<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// Words that a tile reaches over; saturates.
pub(super) const fn reach(stride: usize) -> usize {
    stride.saturating_mul(SIDE - 1).saturating_add(SIDE)
}
