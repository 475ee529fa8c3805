//! Queries of all heads on their way to a pass: mixed, normed, and turned.

use regard_engine::Op;
use regard_engine::isa::Door;
use regard_engine::pack::Rows;
use regard_ir::variant::Weights;

use super::cell::Shared;
use super::memory::Memory;
use crate::mix::{Mixed, MixedRows, Sources, Which};
use crate::rows::{Change, Side};
use crate::tokens::{self, CHUNK, Tokens};
use crate::view::View;

/// Packs the queries of a sequence.
pub(super) struct Pack<'a, 'm, D: Door> {
    pub lanes: D,
    pub q: View<'a>,
    pub shared: &'a Shared<'a, D>,
    pub sequence: u32,
    pub memory: &'a mut Memory<'m>,
}

impl<D: Door> Op for Pack<'_, '_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, q, shared, sequence, memory } = self;
        let Shared { parts, scored, captured, layout, mixes, .. } = shared;
        let of = parts.problem.sequence(sequence);
        let (rows, batch) = (of.queries as usize, of.batch as usize);
        self::angles(shared, sequence, memory.table);
        let known = Tokens { layout: layout.tokens, table: memory.table };
        let change = Change::new(scored, Side::Query, captured, known);
        let factor = factor(shared);
        let mut to = memory.query.chunks_exact_mut(layout.dim);
        for head in 0..layout.heads {
            let sources = Sources::Given { rows: q, batch };
            let mixed = Mixed { mixes: *mixes, which: Which::Query, sources, head };
            // Row by row each is mixed anew for the next form, of which there are few.
            let mixed = MixedRows::new(mixed, of.first_query as usize, None, memory.room);
            for form in 0..layout.forms() {
                for query in 0..rows {
                    let to = to.next().expect("there is room for all queries");
                    to.copy_from_slice(&mixed.row(lanes, query, memory.row)[..layout.dim]);
                    if let Some(change) = &change {
                        change.apply([0, head, layout.form(query, form)], to);
                    }
                    to.iter_mut().for_each(|x| *x *= factor);
                }
            }
        }
    }
}

/// Fills the table of the positions that queries are turned by.
#[inline(always)]
fn angles<D: Door>(shared: &Shared<'_, D>, sequence: u32, table: &mut [f32]) {
    let Shared { parts, layout, captured, fault, angles, .. } = shared;
    let Some(position) = &parts.variant.position else { return };
    let of = parts.problem.sequence(sequence);
    let before = layout.forms() - 1;
    let count = of.queries as usize + before;
    let stride = layout.tokens.stride();
    for first in (0..count).step_by(CHUNK) {
        let mut positions = [0i32; CHUNK];
        let positions = &mut positions[..CHUNK.min(count - first)];
        for (i, at) in positions.iter_mut().enumerate() {
            *at = of.q_offset + (first + i) as i32 - before as i32;
            *at = tokens::given(position, parts.variant.source, (captured, fault), (sequence, *at, false));
        }
        tokens::angles(
            &layout.tokens,
            position.factor(),
            angles.frequencies,
            positions,
            &mut table[first * stride..],
        );
    }
}

/// What queries are multiplied by: scores are in log2 units from the start, unless a modifier or an activation must see natural
/// ones.
fn factor<D: Door>(shared: &Shared<'_, D>) -> f32 {
    let scale = shared.parts.variant.scale;
    if shared.is_natural() { scale as f32 } else { (scale * core::f64::consts::LOG2_E) as f32 }
}

impl<D: Door> Shared<'_, D> {
    /// Whether scores are in natural units.
    pub fn is_natural(&self) -> bool {
        !matches!(self.parts.variant.weights, Weights::Softmax { .. }) || self.code.modifies()
    }
}
