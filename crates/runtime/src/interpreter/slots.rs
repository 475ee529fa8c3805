//! Where a program's values live: slots as large as what they depend on.

use regard_ir::lanes::Kind;

use super::CHUNK;

/// A place for one value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub kind: Kind,
    pub index: u32,
}

impl Slot {
    /// The scores themselves, which a modifier reads and, where its last instruction makes them, writes.
    pub const SCORES: Self = Self { kind: Kind::Full, index: u32::MAX };

    pub fn is_scores(self) -> bool {
        self.index == Self::SCORES.index
    }

    /// How many keys and rows of vectors a slot has, of chunks of `keys` and row tiles of `vectors`.
    #[inline(always)]
    pub fn extent(self, keys: usize, vectors: usize) -> (usize, usize) {
        let keys = if matches!(self.kind, Kind::Key | Kind::Full) { keys } else { 1 };
        let rows = if matches!(self.kind, Kind::Row | Kind::Full) { vectors } else { 1 };
        (keys, rows)
    }

    /// How many vectors apart its keys and its rows are, 0 where it does not depend on them.
    #[inline(always)]
    pub fn steps(self, vectors: usize) -> (usize, usize) {
        match self.kind {
            Kind::Uniform => (0, 0),
            Kind::Row => (0, 1),
            Kind::Key => (1, 0),
            Kind::Full => (vectors, 1),
        }
    }
}

impl Default for Slot {
    /// The first slot of what depends on nothing; it stands where an instruction reads none.
    fn default() -> Self {
        Self { kind: Kind::Uniform, index: 0 }
    }
}

/// How many slots of each kind a program needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    pub uniform: usize,
    pub row: usize,
    pub key: usize,
    pub full: usize,
}

impl Sizes {
    /// One more slot of a kind: its index.
    pub fn add(&mut self, kind: Kind) -> u32 {
        let count = match kind {
            Kind::Uniform => &mut self.uniform,
            Kind::Row => &mut self.row,
            Kind::Key => &mut self.key,
            Kind::Full => &mut self.full,
        };
        *count += 1;
        (*count - 1) as u32
    }

    /// Vectors that all slots take, for row tiles of `vectors`.
    pub fn vectors(&self, vectors: usize) -> usize {
        self.uniform + self.row * vectors + self.key * CHUNK + self.full * CHUNK * vectors
    }

    /// The first vector of a slot that is not the scores, for row tiles of `vectors`.
    #[inline(always)]
    pub fn start(&self, slot: Slot, vectors: usize) -> usize {
        let index = slot.index as usize;
        let row = self.uniform;
        let key = row + self.row * vectors;
        let full = key + self.key * CHUNK;
        match slot.kind {
            Kind::Uniform => index,
            Kind::Row => row + index * vectors,
            Kind::Key => key + index * CHUNK,
            Kind::Full => full + index * CHUNK * vectors,
        }
    }
}
