//! The sizes of one call.

use core::ops::Range;

use crate::variant::{Heads, Source};

#[cfg(feature = "alloc")]
pub use self::owned::OwnedProblem;
pub use self::packed::{Packed, QueryOffsets, Sequence};

#[cfg(feature = "alloc")]
mod owned;
mod packed;

/// The most queries of a sequence that one call on a cache takes; more are a prefill.
pub const MAX_FEW: u32 = 16;

/// What a call does, named by the caller because plans differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Phase {
    /// Many queries at once.
    Prefill,
    /// 2 to [`MAX_FEW`] queries on a cache.
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
    /// `cu_q` and `cu_k` are for other numbers of sequences, or for none: each has one entry more than sequences.
    Sequences {
        /// Entries of `cu_q`.
        cu_q: usize,
        /// Entries of `cu_k`.
        cu_k: usize,
    },
    /// Cumulative offsets that do not start at 0, or fall.
    Cumulative {
        /// "cu_q" or "cu_k".
        what: &'static str,
        /// Which entry.
        at: usize,
        /// Its value.
        found: i32,
        /// The entry before it, or 0.
        least: i32,
    },
    /// A part of the keys that is none of the problem's.
    Part {
        /// The first position.
        begin: usize,
        /// Past the last.
        end: usize,
        /// The problem's keys.
        keys: u32,
        /// Whether sequences are packed, which have no parts.
        packed: bool,
    },
    /// Packed tensors have other rows than their offsets say.
    Rows {
        /// "cu_q" or "cu_k".
        what: &'static str,
        /// Where the offsets end.
        end: usize,
        /// Rows that there are.
        rows: usize,
    },
    /// Not one query offset for each sequence.
    QueryOffsets {
        /// Sequences.
        sequences: usize,
        /// Offsets.
        found: usize,
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
            ProblemError::Sequences { cu_q, cu_k } => write!(
                f,
                "cu_q has {cu_q} entries and cu_k has {cu_k}: each needs one more than there are sequences, the first being 0"
            ),
            ProblemError::Cumulative { what, at: 0, found, .. } => {
                write!(f, "{what}[0] is {found}: cumulative offsets start at 0")
            }
            ProblemError::Cumulative { what, at, found, least } => {
                write!(f, "{what}[{at}] is {found}, after {least}: cumulative offsets never fall")
            }
            ProblemError::Part { packed: true, .. } => {
                write!(f, "packed sequences have no parts: give each sequence's part in a problem of its own")
            }
            ProblemError::Part { begin, end, keys, .. } => {
                write!(f, "keys {begin}..{end} are no part of the {keys} that there are")
            }
            ProblemError::Rows { what, end, rows } => {
                write!(
                    f,
                    "{what} ends at {end}, but its tensors have {rows} rows: the last offset is their number"
                )
            }
            ProblemError::QueryOffsets { sequences, found } => {
                write!(f, "{found} query offsets for {sequences} sequences: each has one")
            }
        }
    }
}

impl core::error::Error for ProblemError {}

/// Batch, queries, keys and where the queries stand among the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Problem<'a> {
    /// What the call does.
    pub phase: Phase,
    /// Number of sequences.
    pub batch: u32,
    /// Queries of each sequence, nq; of the longest where sequences are packed.
    pub queries: u32,
    /// Keys of each sequence, nk; of the longest where sequences are packed. All of them, also where only a part is held.
    pub keys: u32,
    /// Position of the first query; where sequences are packed, [`Problem::sequence`] has it.
    pub q_offset: i32,
    /// The sequences' own lengths, where they differ and their rows lie one after the other.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub packed: Option<Packed<'a>>,
    /// The keys that the call has, by position, where it is one of several over disjoint keys.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub part: Option<KeyRange>,
}

/// A run of keys, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct KeyRange {
    /// The first.
    pub begin: u32,
    /// Past the last.
    pub end: u32,
}

impl<'a> Problem<'a> {
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
        Ok(Self { phase: Phase::Prefill, batch, queries, keys, q_offset, packed: None, part: None })
    }

    /// A prefill of sequences of their own lengths, packed: rows `cu_q[i]..cu_q[i + 1]` of q and `cu_k[i]..cu_k[i + 1]`
    /// of k and v are those of sequence i. Tensors have one batch, and all rows along their token axis.
    ///
    /// Query offsets are as in [`Problem::prefill`], each sequence's own. A sequence may have no queries or no keys.
    ///
    /// # Errors
    /// If there are not as many entries in both, each starting at 0 and never falling.
    pub fn packed(source: Source, cu_q: &'a [i32], cu_k: &'a [i32]) -> Result<Self, ProblemError> {
        let packed = Packed::new(source, cu_q, cu_k)?;
        Ok(Self {
            phase: Phase::Prefill,
            batch: packed.sequences(),
            queries: packed.longest(cu_q),
            keys: packed.longest(cu_k),
            q_offset: 0,
            packed: Some(packed),
            part: None,
        })
    }

    /// The same problem over some of its keys: k and v have the rows of positions `keys` alone, and what comes out is a
    /// part, to be merged with those of the other keys. Captured tensors stay those of the whole.
    ///
    /// # Errors
    /// If they are not among the problem's keys, or its sequences are packed.
    pub fn partial(self, keys: Range<usize>) -> Result<Self, ProblemError> {
        let outside = ProblemError::Part {
            begin: keys.start,
            end: keys.end,
            keys: self.keys,
            packed: self.packed.is_some(),
        };
        let fit = |position: usize| u32::try_from(position).ok().filter(|&position| position <= self.keys);
        match (fit(keys.start), fit(keys.end)) {
            (Some(begin), Some(end)) if begin <= end && self.packed.is_none() => {
                Ok(Self { part: Some(KeyRange { begin, end }), ..self })
            }
            _ => Err(outside),
        }
    }

    /// The same problem with the first query, of each sequence, at another position.
    ///
    /// # Errors
    /// If a query's position leaves 32 bits.
    pub fn with_q_offset(self, q_offset: i64) -> Result<Self, ProblemError> {
        let too_large = ProblemError::OffsetTooLarge { q_offset, queries: self.queries as usize };
        let offset = i32::try_from(q_offset).map_err(|_| too_large)?;
        offset.checked_add(self.queries as i32).ok_or(too_large)?;
        Ok(match self.packed {
            None => Self { q_offset: offset, ..self },
            Some(packed) => Self { packed: Some(packed.with_offsets(QueryOffsets::Same(offset))), ..self },
        })
    }

    /// The same problem with the first query of each sequence at a position of its own.
    ///
    /// # Errors
    /// If there is not one for each sequence of a packed problem, or a query's position leaves 32 bits.
    pub fn with_q_offsets(self, q_offsets: &'a [i32]) -> Result<Self, ProblemError> {
        let sequences = self.batch as usize;
        match self.packed {
            Some(packed) if q_offsets.len() == sequences => {
                for (i, &offset) in q_offsets.iter().enumerate() {
                    let queries = self.sequence(i as u32).queries;
                    let too_large =
                        ProblemError::OffsetTooLarge { q_offset: offset.into(), queries: queries as usize };
                    offset.checked_add(queries as i32).ok_or(too_large)?;
                }
                Ok(Self { packed: Some(packed.with_offsets(QueryOffsets::Each(q_offsets))), ..self })
            }
            _ => Err(ProblemError::QueryOffsets { sequences, found: q_offsets.len() }),
        }
    }

    /// Lengths of a sequence, and where its rows lie.
    ///
    /// # Panics
    /// If a packed problem has no such sequence.
    pub fn sequence(&self, index: u32) -> Sequence {
        match &self.packed {
            Some(packed) => packed.sequence(index),
            None => Sequence {
                batch: index,
                first_query: 0,
                first_key: 0,
                queries: self.queries,
                keys: self.keys,
                held: self.held(),
                q_offset: self.q_offset,
            },
        }
    }

    /// The keys that k and v have, of sequences of one length.
    const fn held(&self) -> KeyRange {
        match self.part {
            Some(held) => held,
            None => KeyRange { begin: 0, end: self.keys },
        }
    }

    /// How long the axes of sequences, queries and keys of the tensors are.
    pub fn extents(&self) -> [u32; 3] {
        match &self.packed {
            None => [self.batch, self.queries, self.held().len()],
            Some(packed) => [1, packed.queries(), packed.keys()],
        }
    }

    /// Queries over all sequences.
    pub fn all_queries(&self) -> u64 {
        let [batch, queries, _] = self.extents();
        batch as u64 * queries as u64
    }

    /// Keys over all sequences.
    pub fn all_keys(&self) -> u64 {
        let [batch, _, keys] = self.extents();
        batch as u64 * keys as u64
    }

    /// How long the axis `q` of a captured input is, of the longest sequence.
    pub const fn query_axis(&self, source: Source) -> u32 {
        match source {
            Source::SelfAttention => self.keys,
            Source::Cross => self.queries,
        }
    }

    /// Pairs of query and held key of one head over all sequences, masked or not; saturates.
    pub fn head_pairs(&self) -> u64 {
        let pairs = |queries: u32, keys: u32| queries as u64 * keys as u64;
        match self.packed {
            None => (self.batch as u64).saturating_mul(pairs(self.queries, self.held().len())),
            Some(_) => (0..self.batch)
                .map(|i| self.sequence(i))
                .fold(0, |sum: u64, sequence| sum.saturating_add(pairs(sequence.queries, sequence.keys))),
        }
    }

    /// Pairs of query and key over all heads and sequences, masked or not; saturates.
    pub fn pairs(&self, heads: &Heads) -> u64 {
        self.head_pairs().saturating_mul(heads.query as u64)
    }
}

impl KeyRange {
    /// How many keys there are; none where the end is before the beginning.
    pub const fn len(&self) -> u32 {
        self.end.saturating_sub(self.begin)
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
