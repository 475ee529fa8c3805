//! The variant as code: what a skeleton asks of a mask and a score modifier.

use core::sync::atomic::{AtomicU32, Ordering};

use regard_engine::isa::Door;
use regard_ir::inputs::Captured;
use regard_simd::{I32, Lanes, load_i32};

/// Where a tile of scores stands: rows of `width` lanes.
///
/// What each coordinate does along the lanes is the tile's business, not the variant's. In prefill each lane is a row (query
/// head and query) and each row of the tile a key; in decode all lanes are keys of one row. So queries and heads come as
/// tables, keys as a table and a count from row to row of the tile, and the rest is the same everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Sequence.
    pub b: i32,
    /// Key head.
    pub g: i32,
    /// Query heads of the variant, which slopes go by.
    pub heads: u32,
    /// Number of queries of the sequence.
    pub nq: i32,
    /// Number of keys of the sequence.
    pub nk: i32,
    /// Absolute query position of each lane, `[width]`.
    pub q: &'a [i32],
    /// Query head of each lane, `[width]`.
    pub h: &'a [i32],
    /// Position of the first key.
    pub first_key: i32,
    /// How lanes and the tile's rows count keys.
    pub keys: Keys<'a>,
    /// Captured tensors.
    pub captured: &'a Captured<'a>,
    /// Where a bad index is reported.
    pub fault: &'a Fault,
}

/// What key a score is of.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'a> {
    /// Each row of the tile is one key, the next one to that of the row before.
    Rows,
    /// Each lane is one, so many after the first of its row; from row to row of the tile it is as many more as there are
    /// lanes in a vector.
    Lanes(&'a [i32]),
}

impl Keys<'_> {
    /// The keys of a vector of lanes in the tile's first row, of which the first is given.
    #[inline(always)]
    pub(crate) fn lanes<L: Lanes>(self, lanes: L, first: i32) -> I32<L> {
        let first = I32::splat(lanes, first);
        match self {
            Keys::Rows => first,
            Keys::Lanes(after) => first + load_i32(lanes, after),
        }
    }

    /// How many more they are in the tile's next row.
    #[inline(always)]
    pub(crate) const fn step<L: Lanes>(self) -> i32 {
        match self {
            Keys::Rows => 1,
            Keys::Lanes(_) => L::WIDTH as i32,
        }
    }

    /// Whether all lanes of a vector are of one key.
    pub(crate) const fn is_uniform(self) -> bool {
        matches!(self, Keys::Rows)
    }
}

/// The first captured input that was indexed outside its axes, where a run met one.
#[derive(Debug)]
pub struct Fault(AtomicU32);

impl Fault {
    const NONE: u32 = u32::MAX;

    /// No fault so far.
    pub const fn new() -> Self {
        Self(AtomicU32::new(Self::NONE))
    }

    /// Reports an input.
    pub fn report(&self, input: u16) {
        // The smallest is kept, so that the error does not depend on which thread came first.
        self.0.fetch_min(input.into(), Ordering::Relaxed);
    }

    /// The input that was reported, if any.
    pub fn input(&self) -> Option<usize> {
        let input = self.0.load(Ordering::Relaxed);
        (input != Self::NONE).then_some(input as usize)
    }
}

impl Default for Fault {
    fn default() -> Self {
        Self::new()
    }
}

/// A variant's mask and score modifier, on tiles.
///
/// Mask and modifier are separate entries: a tile that is live throughout calls the modifier alone, and where
/// [`Code::modifies`] is false it calls nothing. A call is a block of keys of one row tile, so that a call through
/// `dyn` costs nothing that can be measured, and one skeleton serves every variant of an instruction set. Methods
/// enter the set's door themselves.
pub trait Code<L: Door>: Sync {
    /// Whether the modifier is anything but the score itself.
    fn modifies(&self) -> bool;

    /// 32-bit words that [`Code::apply`] needs as scratch for rows of `width` lanes.
    fn scratch_len(&self, width: usize) -> usize;

    /// Rewrites scaled scores, `[keys][width]`, as modified ones; with `masked`, those that the mask forbids become
    /// −inf whatever they were.
    fn apply(&self, lanes: L, place: &Place<'_>, scores: &mut [f32], masked: bool, scratch: &mut [i32]);

    /// Writes whether each row may attend to the key `place.first_key`: not 0 where it may. `[width]`.
    fn allow(&self, lanes: L, place: &Place<'_>, allowed: &mut [i32], scratch: &mut [i32]);

    /// Of lookahead keys, code whose mask says whether the token that is the lane's query teaches a key.
    fn teaches(&self) -> Option<&dyn Code<L>> {
        None
    }
}

/// A variant as code for every instruction set.
pub trait AnyCode: Sync {
    /// The code for one set.
    fn on<L: Door>(&self) -> &dyn Code<L>;
}
