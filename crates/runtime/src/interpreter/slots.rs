//! Where a program's values live: slots as large as what they depend on.

use super::CHUNK;

/// What a value depends on, beside the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Nothing: one vector of equal lanes.
    Uniform,
    /// The row: one vector for each of a row tile's.
    Row,
    /// The key: one vector of equal lanes for each key of a chunk.
    Key,
    /// Both.
    Full,
}

impl Kind {
    /// What depends on either.
    pub fn join(self, other: Kind) -> Kind {
        match (self, other) {
            (Kind::Uniform, kind) | (kind, Kind::Uniform) => kind,
            (a, b) if a == b => a,
            _ => Kind::Full,
        }
    }
}

/// A place for one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub kind: Kind,
    pub index: u16,
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
    /// The number of slots of a kind.
    pub fn count_mut(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Uniform => &mut self.uniform,
            Kind::Row => &mut self.row,
            Kind::Key => &mut self.key,
            Kind::Full => &mut self.full,
        }
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
