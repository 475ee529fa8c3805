//! Keys and values on their way into packed blocks.

use core::ops::Range;

use regard_engine::element::Element;
use regard_engine::{Engine, Shape, pack};
use regard_ir::problem::Problem;
use regard_ir::variant::Heads;

use super::Inputs;
use super::rows::{Change, Changed};

/// What is packed.
pub(super) struct Keys<'a, T> {
    pub heads: &'a Heads,
    pub problem: &'a Problem<'a>,
    pub inputs: Inputs<'a, T>,
    /// How rows of k change on their way.
    pub change: Option<Change<'a>>,
}

impl<T: Element> Keys<'_, T> {
    /// Packs the keys at positions `keys` of a sequence and key head, and their values.
    #[inline(always)]
    pub fn pack<E: Engine>(
        &self,
        engine: E,
        shape: &Shape,
        [sequence, kv_head]: [u32; 2],
        keys: Range<u32>,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        let of = self.problem.sequence(sequence);
        let (batch, head) = (of.batch as usize, kv_head as usize);
        let value_head = (kv_head / (self.heads.kv / self.heads.value)) as usize;
        let first = (of.first_key + (keys.start - of.held.begin)) as usize;
        let key = |i: usize| self.inputs.k.row(batch, head, first + i);
        let value = |i: usize| self.inputs.v.row(batch, value_head, first + i);
        let count = keys.len();
        match self.change {
            None => engine.pack(shape, &pack::AsStored(key), value, count, scratch, to),
            Some(change) => {
                let token = |i| change.tokens.key(batch, first + i);
                let rows = Changed::new(change, |i| (head, key(i)), token);
                engine.pack(shape, &rows, value, count, scratch, to);
            }
        }
    }
}
