//! Pieces of one memory, each of which begins with a line of a cache.

use pulp::bytemuck::{self, AnyBitPattern, NoUninit};
use regard_engine::engine::LINE;

/// Every piece starts at a multiple of this many elements: a cache line, so that no vector straddles two.
pub(crate) const ALIGN: usize = LINE;

/// What is left of a workspace from the first aligned element on.
pub(crate) fn align(workspace: &mut [f32]) -> &mut [f32] {
    let skip = workspace.as_ptr().align_offset(ALIGN * size_of::<f32>()).min(workspace.len());
    &mut workspace[skip..]
}

/// Elements of an aligned memory for pieces of some sizes; saturates.
pub(crate) fn len<const N: usize>(sizes: [usize; N]) -> usize {
    let aligned = |size: usize| size.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX);
    sizes.into_iter().map(aligned).fold(0, usize::saturating_add)
}

/// Takes pieces of an aligned memory, in the order of their sizes.
pub(crate) struct Carve<'a, const N: usize> {
    rest: &'a mut [f32],
    sizes: core::array::IntoIter<usize, N>,
}

impl<'a, const N: usize> Carve<'a, N> {
    /// Of a memory that is at least as long as [`len`] says.
    pub fn new(memory: &'a mut [f32], sizes: [usize; N]) -> Self {
        Self { rest: memory, sizes: sizes.into_iter() }
    }

    /// The next piece.
    pub fn next(&mut self) -> &'a mut [f32] {
        let size = self.sizes.next().unwrap_or(0);
        let (piece, rest) = core::mem::take(&mut self.rest).split_at_mut(size.next_multiple_of(ALIGN));
        self.rest = rest;
        &mut piece[..size]
    }

    /// The next piece as numbers of another kind.
    pub fn next_as<T: AnyBitPattern + NoUninit>(&mut self) -> &'a mut [T] {
        bytemuck::cast_slice_mut(self.next())
    }

    /// What no piece was taken of.
    pub fn rest(self) -> &'a mut [f32] {
        self.rest
    }
}
