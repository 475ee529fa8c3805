//! The interval reading of expressions: what a mask can be over a whole box of queries and keys.

use crate::expr::{Tree, Var};

/// The ints from `lo` to `hi`, both included. Empty where `lo > hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Span {
    /// The smallest.
    pub lo: i32,
    /// The largest.
    pub hi: i32,
}

impl Span {
    /// One int.
    pub const fn point(at: i32) -> Self {
        Self { lo: at, hi: at }
    }

    /// Every int.
    pub const ALL: Span = Span { lo: i32::MIN, hi: i32::MAX };

    /// How many ints it holds.
    pub const fn len(self) -> u64 {
        if self.lo > self.hi { 0 } else { (self.hi as i64 - self.lo as i64 + 1) as u64 }
    }

    /// Whether it holds none.
    pub const fn is_empty(self) -> bool {
        self.lo > self.hi
    }
}

/// A box: what each variable can be. `s` and `x` can be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Batch indices.
    pub b: Span,
    /// Query heads.
    pub h: Span,
    /// Key heads.
    pub g: Span,
    /// Query positions.
    pub q: Span,
    /// Key positions.
    pub k: Span,
    /// Number of queries.
    pub nq: i32,
    /// Number of keys.
    pub nk: i32,
}

/// What a value can be over a region. Sound, not always tight: a value outside it never occurs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// A bool.
    Bool {
        /// Whether it may be false.
        can_be_false: bool,
        /// Whether it may be true.
        can_be_true: bool,
    },
    /// An int.
    Int(Span),
    /// A float from `lo` to `hi`, or NaN if `nan`.
    Float {
        /// The smallest.
        lo: f64,
        /// The largest.
        hi: f64,
        /// Whether it may be NaN.
        nan: bool,
    },
}

/// What a mask is over a whole tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// False everywhere: never visited.
    Dead,
    /// True everywhere: needs no mask code.
    Full,
    /// Perhaps both: tested lane by lane.
    Partial,
}

/// What is known about the elements of captured inputs.
pub trait InputRanges {
    /// What an element can be whose index along each axis lies in `index`. Indices outside the axes hold nothing.
    fn range(&self, input: usize, index: &[Span]) -> Range;
}

/// What `tree` can be over `region`.
pub fn eval(tree: Tree<'_>, region: &Region, inputs: &dyn InputRanges) -> Range {
    let _ = (tree, region, inputs, Var::B);
    Range::Bool { can_be_false: true, can_be_true: true }
}
