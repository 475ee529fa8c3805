//! How far back a mask reaches, however long a sequence grows: what a ring of keys must hold.

use crate::expr::Var;
use crate::interval::{Liveness, Region, Span, Unknown};
use crate::tiles;
use crate::variant::Variant;

/// The keys that a query can see at most: the first tokens of its sequence, and the last ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Reach {
    /// Tokens from the start that every later query may see.
    pub first: u32,
    /// Tokens up to the query, itself included: past the first ones it sees no key at `q − back` or before.
    pub back: u32,
}

impl Reach {
    /// The same in tokens of so many positions, which see what any of their positions does.
    pub const fn in_tokens(self, per_token: u32) -> Self {
        let Self { first, back } = self;
        let back = match back.checked_sub(1) {
            // A token's first position sees the farthest, which may be the last one of its token.
            Some(before) => before.div_ceil(per_token) + 1,
            None => 0,
        };
        Self { first: first.div_ceil(per_token), back }
    }
}

/// The most first tokens, and the longest way back, that are looked for.
const MOST: u32 = 1 << 20;

/// Of a variant's mask; `None` where there is no end to it, or where it hangs on how long the sequence is.
///
/// It is looked for at positions all over the range of positions, by intervals. That a mask does the same in between is
/// likely, not certain: whoever drops keys looks again, with [`tiles::liveness`], before each use.
pub fn reach(variant: &Variant<'_>) -> Option<Reach> {
    let allow = variant.allow;
    if allow.reads(Var::Nq) || allow.reads(Var::Nk) {
        return None;
    }
    let fewest = |holds: &dyn Fn(u32) -> bool| {
        let (mut low, mut high) = (0, MOST);
        if !holds(high) {
            return None;
        }
        // The fewest that hold lie in `low..=high`.
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(middle) { high = middle } else { low = middle + 1 }
        }
        Some(low)
    };
    let first = fewest(&|first| is_reach(variant, Reach { first, back: MOST }))?;
    let back = fewest(&|back| is_reach(variant, Reach { first, back }))?;
    Some(Reach { first, back })
}

/// Whether no query that is looked at sees more.
fn is_reach(variant: &Variant<'_>, reach: Reach) -> bool {
    (22..31).all(|power| {
        let at = 1i32 << power;
        // Before, at and past a power of two, where blocks of positions begin; and somewhere.
        [at - 1, at, at + 1, at + at / 3, at + at / 7 * 5]
            .into_iter()
            .all(|q| sees_nothing(variant, reach, q))
    })
}

fn sees_nothing(variant: &Variant<'_>, Reach { first, back }: Reach, q: i32) -> bool {
    let heads = &variant.heads;
    let up_to = |n: u32| Span { lo: 0, hi: n as i32 - 1 };
    let region = Region {
        b: Span { lo: 0, hi: i32::MAX },
        h: up_to(heads.query),
        g: up_to(heads.kv),
        q: Span::point(q),
        k: Span { lo: first as i32, hi: q - back as i32 },
        nq: 1,
        nk: q.saturating_add(1),
    };
    tiles::liveness(variant.allow, &region, &Unknown(variant.inputs)) == Liveness::Dead
}
