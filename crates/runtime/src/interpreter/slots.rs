//! Where a program's values live: slots as large as what they depend on.

use regard_ir::lanes::Kind;

use super::CHUNK;

/// A place for one value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub kind: Kind,
    pub index: u32,
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

    /// Where a slot lies, for row tiles of `vectors`.
    #[inline(always)]
    pub fn span(&self, slot: Slot, vectors: usize) -> Span {
        let index = slot.index as usize;
        let row = self.uniform;
        let key = row + self.row * vectors;
        let full = key + self.key * CHUNK;
        match slot.kind {
            Kind::Uniform => Span { start: index, key: 0, row: 0 },
            Kind::Row => Span { start: row + index * vectors, key: 0, row: 1 },
            Kind::Key => Span { start: key + index * CHUNK, key: 1, row: 0 },
            Kind::Full => Span { start: full + index * CHUNK * vectors, key: vectors, row: 1 },
        }
    }
}

/// A slot's first vector, and how many vectors apart its keys and its rows are; 0 where it does not depend on them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub start: usize,
    pub key: usize,
    pub row: usize,
}

impl Span {
    #[inline(always)]
    pub fn at(self, key: usize, row: usize) -> usize {
        self.start + key * self.key + row * self.row
    }
}
