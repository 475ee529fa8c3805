//! Sequences of different lengths, whose rows lie one after the other.

use super::{KeyRange, ProblemError};
use crate::interval::{Region, Span};
use crate::variant::{Heads, Source};

/// Where each sequence of a packed batch begins and ends, and where its queries stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Packed<'a> {
    /// Row of the first query of each sequence, and past the last of all.
    pub(super) cu_q: &'a [i32],
    /// Row of the first key of each sequence, and past the last of all.
    pub(super) cu_k: &'a [i32],
    pub(super) q_offsets: QueryOffsets<'a>,
}

/// Positions of the first queries of a packed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum QueryOffsets<'a> {
    /// A sequence's queries are the last of its keys' positions.
    Last,
    /// The same for all sequences.
    Same(i32),
    /// One for each sequence.
    Each(&'a [i32]),
}

/// One sequence of a problem: its lengths, and where its rows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Its index along the tensors' first axis: 0 where sequences are packed.
    pub batch: u32,
    /// Its first row along the token axis of q and o.
    pub first_query: u32,
    /// The row of its first held key along the token axis of k and v.
    pub first_key: u32,
    /// Its queries, nq.
    pub queries: u32,
    /// Its keys, nk.
    pub keys: u32,
    /// Those of them that k and v have.
    pub held: KeyRange,
    /// Position of its first query.
    pub q_offset: i32,
}

impl<'a> Packed<'a> {
    pub(super) fn new(source: Source, cu_q: &'a [i32], cu_k: &'a [i32]) -> Result<Self, ProblemError> {
        if cu_q.len() != cu_k.len() || cu_q.is_empty() {
            return Err(ProblemError::Sequences { cu_q: cu_q.len(), cu_k: cu_k.len() });
        }
        for (what, offsets) in [("cu_q", cu_q), ("cu_k", cu_k)] {
            let mut least = 0;
            for (at, &found) in offsets.iter().enumerate() {
                if found < least || (at == 0 && found != 0) {
                    return Err(ProblemError::Cumulative { what, at, found, least });
                }
                least = found;
            }
        }
        if i32::try_from(cu_q.len()).is_err() {
            return Err(ProblemError::TooLong { what: "batch", len: cu_q.len() - 1 });
        }
        let q_offsets = match source {
            Source::SelfAttention => QueryOffsets::Last,
            Source::Cross => QueryOffsets::Same(0),
        };
        Ok(Self { cu_q, cu_k, q_offsets })
    }

    pub(super) const fn with_offsets(self, q_offsets: QueryOffsets<'a>) -> Self {
        Self { q_offsets, ..self }
    }

    /// How many sequences there are.
    pub(super) const fn sequences(&self) -> u32 {
        (self.cu_q.len() - 1) as u32
    }

    /// Rows of the longest sequence by some offsets.
    pub(super) fn longest(&self, offsets: &[i32]) -> u32 {
        offsets.windows(2).map(|pair| (pair[1] - pair[0]) as u32).max().unwrap_or(0)
    }

    pub(super) fn sequence(&self, index: u32) -> Sequence {
        let rows = |offsets: &[i32]| {
            let (begin, end) = (offsets[index as usize], offsets[index as usize + 1]);
            (begin as u32, (end - begin) as u32)
        };
        let ((first_query, queries), (first_key, keys)) = (rows(self.cu_q), rows(self.cu_k));
        let q_offset = match self.q_offsets {
            QueryOffsets::Last => keys as i32 - queries as i32,
            QueryOffsets::Same(offset) => offset,
            QueryOffsets::Each(offsets) => offsets[index as usize],
        };
        let held = KeyRange { begin: 0, end: keys };
        Sequence { batch: 0, first_query, first_key, queries, keys, held, q_offset }
    }

    /// Row of the first query of each sequence, and past the last of all.
    pub const fn cu_q(&self) -> &'a [i32] {
        self.cu_q
    }

    /// Row of the first key of each sequence, and past the last of all.
    pub const fn cu_k(&self) -> &'a [i32] {
        self.cu_k
    }

    /// Where the queries stand.
    pub const fn q_offsets(&self) -> QueryOffsets<'a> {
        self.q_offsets
    }

    /// Queries over all sequences.
    pub(super) fn queries(&self) -> u32 {
        self.cu_q.last().map_or(0, |&end| end as u32)
    }

    /// Keys over all sequences.
    pub(super) fn keys(&self) -> u32 {
        self.cu_k.last().map_or(0, |&end| end as u32)
    }
}

impl Sequence {
    /// Positions of the queries; empty where there are none.
    pub const fn query_span(&self) -> Span {
        Span { lo: self.q_offset, hi: (self.q_offset as i64 + self.queries as i64 - 1) as i32 }
    }

    /// What the sequence, number `index` of its problem, covers for the query heads that share a key head: all queries by all
    /// held keys.
    pub fn region(&self, index: u32, heads: &Heads, kv_head: u32) -> Region {
        let group = heads.group();
        let head = (kv_head * group) as i32;
        Region {
            b: Span::point(index as i32),
            h: Span { lo: head, hi: head + group as i32 - 1 },
            g: Span::point(kv_head as i32),
            q: self.query_span(),
            k: Span { lo: self.held.begin as i32, hi: (self.held.end as i64 - 1) as i32 },
            nq: self.queries as i32,
            nk: self.keys as i32,
        }
    }
}
