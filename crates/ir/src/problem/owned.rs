//! A problem that outlives the offsets that it was made of.

use alloc::boxed::Box;

use super::Problem;
use super::packed::{Packed, QueryOffsets};

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
