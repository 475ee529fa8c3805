//! Lookahead keys: what the flash skeleton does beside, for keys that go on learning from later tokens.
//!
//! A task is a whole head. Its query blocks pass over the keys in order, and a block's tokens teach each block of keys
//! after its queries have read them, so that each pair of blocks is met once. Beside the two products of a pass there are
//! three more, all of the kind that makes scores: what keys ask of the block's tokens, `q_u · k_u`; what the block's queries
//! find at keys as earlier tokens left them and as their own block's do, `q_c · u + (q_c · v_u) · weights`; and what the
//! tokens leave, `weights · v_u`. Which of a block's tokens a query has seen is in its `q_c · v_u`, which is zero for later ones. The
//! keys after the last token are an output, and where they are kept until then. Where heads are too few for the threads, these take
//! cells of keys through the blocks instead, and sums are merged afterwards (`pass/strip.rs`).
//!
//! Source: *Causal Attention with Lookahead Keys*, arXiv 2509.07301; its blocks along diagonals are rows of blocks here, as
//! one row of them fits a core's cache.

mod extend;
pub(super) mod memory;
pub(super) mod rows;

pub use self::extend::extend_lookahead;

use regard_engine::Engine;
use regard_engine::grid::Task;
use regard_ir::expr::Tree;
use regard_ir::inputs::Captured;
use regard_ir::variant::{Mechanism, Turned, Variant};

use self::rows::{Asks, Tensor};
use super::check::shape;
use super::keys::Source;
use super::{Parts, RunError};
use crate::code::Code;
use crate::rows::{Change, Side};
use crate::tokens::Tokens;
use crate::view::{View, ViewMut};

/// What is given of lookahead keys.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// What keys ask of later tokens; none where that is in the pages that keys come from.
    pub q_u: Option<View<'a>>,
    /// What the queries' tokens are asked by.
    pub k_u: View<'a>,
    /// What they teach.
    pub v_u: View<'a>,
}

/// What workers read of lookahead keys.
pub(super) struct Learning<'a, E: Engine> {
    /// Who teaches whom, as code.
    pub code: &'a dyn Code<E::Lanes>,
    /// The same to be classified.
    pub allow: Tree<'a>,
    pub q_u: Asks<'a>,
    pub k_u: Tensor<'a>,
    pub v_u: Tensor<'a>,
}

impl<'a, E: Engine> Learning<'a, E> {
    /// Of a variant that was checked to have lookahead keys.
    pub fn new(
        variant: &'a Variant<'a>,
        code: &'a dyn Code<E::Lanes>,
        Given { q_u, k_u, v_u }: Given<'a>,
        source: &Source<'a>,
        captured: &Captured<'a>,
        tokens: Tokens<'a>,
    ) -> Result<Self, RunError> {
        let (Mechanism::Lookahead(lookahead), Some(code)) = (variant.mechanism, code.teaches()) else {
            return Err(RunError::Mechanism);
        };
        // Each query is a token's, which teaches keys: its row lies where that of the query does.
        let of = |side, view, tensor| {
            let change = Change::new(variant, side, captured, tokens);
            Tensor { view, change: change.filter(|_| lookahead.turns(tensor)) }
        };
        let q_u = match (q_u, source) {
            (Some(q_u), _) => Asks::Given(of(Side::Key, q_u, Turned::QU)),
            (None, &Source::Cached { caches, page }) => Asks::Cached { caches, page },
            (None, _) => return Err(RunError::Mechanism),
        };
        Ok(Self {
            code,
            allow: lookahead.allow,
            q_u,
            k_u: of(Side::Query, k_u, Turned::KU),
            v_u: of(Side::Query, v_u, Turned::VU),
        })
    }
}

/// Checks a call of lookahead keys, whose operands fit and whose queries are all tokens from position `first` on.
pub(super) fn check(parts: &Parts<'_>, u: &ViewMut<'_>, first: i32) -> Result<(), RunError> {
    let Parts { variant, problem, schedule, .. } = parts;
    let [batch, _, keys] = problem.extents().map(|n| n as usize);
    let (heads, dim) = (variant.heads.query as usize, variant.heads.dim as usize);
    shape("u", u.0.counts(), u.0.width(), [batch, heads, keys, dim])?;
    let whole = |i: u32| {
        let of = problem.sequence(i);
        of.queries as i64 + of.q_offset as i64 == of.keys as i64 && of.q_offset == first
    };
    if problem.part.is_some() || !(0..problem.batch).all(whole) {
        return Err(RunError::QueryForEachKey);
    }
    let apart =
        |tasks: &[Task]| (tasks[0].sequence, tasks[0].kv_head) != (tasks[1].sequence, tasks[1].kv_head);
    if schedule.tasks.windows(2).all(apart) { Ok(()) } else { Err(RunError::Schedule) }
}
