//! The sizes of one call.

use crate::interval::Span;
use crate::variant::{Heads, Source};

/// What a call does, named by the caller because plans differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Phase {
    /// Many queries at once.
    Prefill,
    /// 2 to 16 queries on a cache.
    Few,
    /// One query on a cache.
    Decode,
}

impl Phase {
    /// As it is written on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Prefill => "prefill",
            Phase::Few => "few",
            Phase::Decode => "decode",
        }
    }
}

/// A problem that no kernel can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemError {
    /// A length does not fit the 32-bit positions of the language.
    TooLong {
        /// Which length: "batch", "queries" or "keys".
        what: &'static str,
        /// Its value.
        len: usize,
    },
    /// The last query's position, `q_offset + queries − 1`, does not fit 32 bits.
    OffsetTooLarge {
        /// The offset.
        q_offset: i64,
        /// The number of queries.
        queries: usize,
    },
}

impl core::fmt::Display for ProblemError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ProblemError::TooLong { what, len } => {
                write!(f, "{what}: {len} is more than a 32-bit position can count ({})", i32::MAX)
            }
            ProblemError::OffsetTooLarge { q_offset, queries } => {
                write!(f, "a query offset of {q_offset} puts {queries} queries outside 32-bit positions")
            }
        }
    }
}

impl core::error::Error for ProblemError {}

/// Batch, queries, keys and where the queries stand among the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Problem {
    /// What the call does.
    pub phase: Phase,
    /// Number of sequences.
    pub batch: u32,
    /// Queries of each sequence, nq.
    pub queries: u32,
    /// Keys of each sequence, nk.
    pub keys: u32,
    /// Position of the first query.
    pub q_offset: i32,
}

impl Problem {
    /// A prefill of `batch` sequences, each with `queries` queries over `keys` keys.
    ///
    /// In self-attention the queries are the last of the positions (`q_offset = keys − queries`, which may be
    /// negative); in cross-attention the first query is at position 0.
    ///
    /// # Errors
    /// If a length is past 2^31 − 1.
    pub fn prefill(source: Source, batch: usize, queries: usize, keys: usize) -> Result<Self, ProblemError> {
        let fit = |what, len: usize| match i32::try_from(len) {
            Ok(len) => Ok(len as u32),
            Err(_) => Err(ProblemError::TooLong { what, len }),
        };
        let (batch, queries, keys) = (fit("batch", batch)?, fit("queries", queries)?, fit("keys", keys)?);
        let q_offset = match source {
            Source::SelfAttention => keys as i32 - queries as i32,
            Source::Cross => 0,
        };
        Ok(Self { phase: Phase::Prefill, batch, queries, keys, q_offset })
    }

    /// The same problem with the first query at another position.
    ///
    /// # Errors
    /// If a query's position leaves 32 bits.
    pub fn with_q_offset(self, q_offset: i64) -> Result<Self, ProblemError> {
        let too_large = ProblemError::OffsetTooLarge { q_offset, queries: self.queries as usize };
        let offset = i32::try_from(q_offset).map_err(|_| too_large)?;
        offset.checked_add(self.queries as i32).ok_or(too_large)?;
        Ok(Self { q_offset: offset, ..self })
    }

    /// Positions of the queries; empty where there are none.
    pub const fn query_span(&self) -> Span {
        Span { lo: self.q_offset, hi: (self.q_offset as i64 + self.queries as i64 - 1) as i32 }
    }

    /// How long the axis `q` of a captured input is.
    pub const fn query_axis(&self, source: Source) -> u32 {
        match source {
            Source::SelfAttention => self.keys,
            Source::Cross => self.queries,
        }
    }

    /// Pairs of query and key over all heads and sequences, masked or not; saturates.
    pub fn pairs(&self, heads: &Heads) -> u64 {
        [heads.query, self.queries, self.keys]
            .iter()
            .fold(self.batch as u64, |pairs, &n| pairs.saturating_mul(n.into()))
    }
}
