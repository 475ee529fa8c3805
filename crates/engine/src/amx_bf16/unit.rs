//! A matrix unit: eight tiles of 16 rows of 16 words, and what it does with them.

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

/// Eight tiles, by number.
pub trait Tiles {
    /// Fills a tile with zeros.
    fn zero<const T: usize>(&mut self);

    /// Loads a tile whose rows are `stride` words apart.
    ///
    /// # Panics
    /// If the slice ends within the tile.
    fn load<const T: usize>(&mut self, from: &[u32], stride: usize);

    /// As [`Tiles::load`], of words that are not wanted again soon.
    fn stream<const T: usize>(&mut self, from: &[u32], stride: usize);

    /// Stores a tile whose rows are `stride` words apart.
    ///
    /// # Panics
    /// If the slice ends within the tile.
    fn store<const T: usize>(&mut self, to: &mut [u32], stride: usize);

    /// `c[m][n] += Σ_k a[m][2k] · b[k][2n] + a[m][2k + 1] · b[k][2n + 1]`, where c is f32, a and b are pairs of bf16.
    fn dot<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// Words that a tile reaches over.
pub(super) const fn reach(stride: usize) -> usize {
    (SIDE - 1) * stride + SIDE
}
