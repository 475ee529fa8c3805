//! A problem that outlives the offsets that it was made of.

use alloc::boxed::Box;

use super::packed::{Packed, QueryOffsets};
use super::{KeyRange, Problem, ProblemError};

/// A [`Problem`] and its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedProblem {
    /// All but what is packed.
    plain: Problem<'static>,
    packed: Option<OwnedPacked>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnedPacked {
    cu_q: Box<[i32]>,
    cu_k: Box<[i32]>,
    q_offsets: OwnedOffsets,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnedOffsets {
    Last,
    Same(i32),
    Each(Box<[i32]>),
}

impl OwnedProblem {
    /// The problem.
    pub fn view(&self) -> Problem<'_> {
        let packed = self.packed.as_ref().map(|OwnedPacked { cu_q, cu_k, q_offsets }| {
            let q_offsets = match q_offsets {
                OwnedOffsets::Last => QueryOffsets::Last,
                OwnedOffsets::Same(offset) => QueryOffsets::Same(*offset),
                OwnedOffsets::Each(offsets) => QueryOffsets::Each(offsets),
            };
            Packed { cu_q, cu_k, q_offsets }
        });
        Problem { packed, ..self.plain }
    }

    /// A problem whose tokens are `per_token` positions each: its lengths and offsets so many times as large.
    ///
    /// # Errors
    /// If a length or a query's position leaves 32 bits.
    pub fn spread(problem: &Problem<'_>, per_token: u32) -> Result<Self, ProblemError> {
        let len = |what, tokens: u32| {
            let len = u64::from(tokens) * u64::from(per_token);
            let too_long = ProblemError::TooLong { what, len: usize::try_from(len).unwrap_or(usize::MAX) };
            i32::try_from(len).map_err(|_| too_long)
        };
        let offset = |offset: i32, queries: u32| {
            let q_offset = i64::from(offset) * i64::from(per_token);
            let queries = u64::from(queries) * u64::from(per_token);
            let end = q_offset.saturating_add_unsigned(queries);
            let too_large = ProblemError::OffsetTooLarge {
                q_offset,
                queries: usize::try_from(queries).unwrap_or(usize::MAX),
            };
            i32::try_from(end).map_err(|_| too_large)?;
            i32::try_from(q_offset).map_err(|_| too_large)
        };
        let &Problem { phase, batch, queries, keys, q_offset, packed, part } = problem;
        let part = match part {
            None => None,
            Some(KeyRange { begin, end }) => {
                Some(KeyRange { begin: len("keys", begin)? as u32, end: len("keys", end)? as u32 })
            }
        };
        let plain = Problem {
            phase,
            batch,
            queries: len("queries", queries)? as u32,
            keys: len("keys", keys)? as u32,
            q_offset: offset(q_offset, queries)?,
            packed: None,
            part,
        };
        let Some(Packed { cu_q, cu_k, q_offsets }) = packed else { return Ok(Self { plain, packed: None }) };
        let starts = |what, starts: &[i32]| {
            starts.iter().map(|&at| len(what, at as u32)).collect::<Result<Box<[i32]>, _>>()
        };
        let q_offsets = match q_offsets {
            QueryOffsets::Last => OwnedOffsets::Last,
            QueryOffsets::Same(first) => OwnedOffsets::Same(offset(first, queries)?),
            QueryOffsets::Each(offsets) => {
                let each = offsets.iter().zip(0..).map(|(&at, i)| offset(at, problem.sequence(i).queries));
                OwnedOffsets::Each(each.collect::<Result<_, _>>()?)
            }
        };
        let (cu_q, cu_k) = (starts("queries", cu_q)?, starts("keys", cu_k)?);
        Ok(Self { plain, packed: Some(OwnedPacked { cu_q, cu_k, q_offsets }) })
    }
}

impl From<&Problem<'_>> for OwnedProblem {
    fn from(problem: &Problem<'_>) -> Self {
        let &Problem { phase, batch, queries, keys, q_offset, packed, part } = problem;
        let packed = packed.map(|Packed { cu_q, cu_k, q_offsets }| OwnedPacked {
            cu_q: cu_q.into(),
            cu_k: cu_k.into(),
            q_offsets: match q_offsets {
                QueryOffsets::Last => OwnedOffsets::Last,
                QueryOffsets::Same(offset) => OwnedOffsets::Same(offset),
                QueryOffsets::Each(offsets) => OwnedOffsets::Each(offsets.into()),
            },
        });
        Self { plain: Problem { phase, batch, queries, keys, q_offset, packed: None, part }, packed }
    }
}
