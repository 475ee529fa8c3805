//! Keys and values on their way into packed blocks.

use core::ops::Range;

use regard_engine::cached::CachedUnit;
use regard_engine::isa::Door;
use regard_engine::pack::{self, Rows};
use regard_engine::{Engine, Op, Shape};
use regard_ir::cache::PageShape;
use regard_ir::plan::Dtype;
use regard_ir::problem::{Problem, Sequence};
use regard_ir::variant::{Heads, Variant};

use super::expand::{self, Expansion};
use crate::cache::{CachedSequence, Caches, RowOf};
use crate::called;
use crate::lines;
use crate::mix::{Known, Mixed, MixedRows, Mixes, Sources, Which};
use crate::rows::{Change, Changed, Tensor};
use crate::view::View;

/// What is packed.
pub(super) struct Keys<'a> {
    pub variant: &'a Variant<'a>,
    pub problem: &'a Problem<'a>,
    pub source: Source<'a>,
    /// How rows of k change on their way.
    pub change: Option<Change<'a>>,
    /// How heads are mixed first, where they are and were not before.
    pub mixes: Option<Mixes<'a>>,
    /// Whether rows of tensors are asked for before they are read or written.
    pub asks: bool,
}

/// Bytes of a call's tensors up to which nothing is asked for: who calls with so few has just made them, and a request for a line that
/// is there takes its time too.
const HOT_BYTES: u64 = 128 << 10;

/// Whether rows of a call's tensors are asked for: queries, keys, values and outputs.
pub(super) fn asks(heads: &Heads, problem: &Problem<'_>, dtype: Dtype) -> bool {
    let [batch, queries, keys] = problem.extents().map(u64::from);
    let width = u64::from(heads.dim) + u64::from(heads.value_dim);
    let rows = (queries * u64::from(heads.query)).saturating_add(keys * u64::from(heads.kv));
    batch.saturating_mul(rows).saturating_mul(width * dtype.size_bytes() as u64) > HOT_BYTES
}

impl Keys<'_> {
    /// Packs a block, or its first keys, unit by unit.
    #[inline(always)]
    pub fn pack_block<E: Engine>(
        &self,
        engine: E,
        shape: &Shape,
        block: [u32; 2],
        keys: Range<u32>,
        scratch: Scratch<'_>,
        to: &mut [f32],
    ) {
        let Scratch { rows, mut kept, expansion, expanded } = scratch;
        let firsts = keys.clone().step_by(E::unit_keys(shape));
        for (first, to) in firsts.zip(to.chunks_exact_mut(E::packed_len(shape))) {
            let end = keys.end.min(first + E::unit_keys(shape) as u32);
            let [for_keys, for_values] = &mut kept;
            let scratch = Scratch { rows, kept: [for_keys, for_values], expansion, expanded };
            self.pack(engine, shape, block, first..end, scratch, to);
        }
    }

    /// Packs the keys of a unit, at positions `keys` of a sequence and key head, and their values.
    #[inline(always)]
    pub fn pack<E: Engine>(
        &self,
        engine: E,
        shape: &Shape,
        of: [u32; 2],
        keys: Range<u32>,
        scratch: Scratch<'_>,
        to: &mut [f32],
    ) {
        engine.lanes().call(Unit { keys: self, engine, shape, of, range: keys, scratch, to });
    }

    #[inline(always)]
    fn pack_unit<E: Engine>(&self, unit: Unit<'_, '_, E>) {
        let Unit { engine, shape, of: [sequence, kv_head], range: keys, scratch, to, .. } = unit;
        let Scratch { rows: scratch, kept, expansion: memory, expanded } = scratch;
        let of = self.problem.sequence(sequence);
        let (batch, head) = (of.batch as usize, kv_head as usize);
        let first = (of.first_key + (keys.start - of.held.begin)) as usize;
        let value_head = self.value_head(kv_head);
        let count = keys.len();
        if let Some(mixes) = self.mixes {
            let (sources, at) = self.sources(&of, sequence, keys.start);
            let mixed = |which, sources| Mixed { mixes, which, sources, head };
            let change = self.change.map(|change| (change, Known { batch, first }));
            let [for_keys, for_values] = kept;
            let keys = MixedRows::new(mixed(Which::Key, sources[0]), at, change, for_keys);
            let values = MixedRows::new(mixed(Which::Value, sources[1]), at, None, for_values);
            called::pack(engine, shape, (&keys, &values), count, scratch, to);
            return;
        }
        match self.source {
            Source::Given { k, v } => {
                // Keys are turned some rows at a time, so that each of their lines would be waited for.
                self.ask(engine.lanes(), [sequence, kv_head], keys.clone());
                let key = |i: usize| k.row(batch, head, first + i);
                let values = pack::AsStored(|i: usize| v.row(batch, value_head, first + i));
                match self.change {
                    None => {
                        let keys = pack::AsStored(key);
                        called::pack(engine, shape, (&keys, &values), count, scratch, to);
                    }
                    Some(_) => {
                        let at = |i| [batch, head, first + i];
                        let rows = Changed { change: self.change, tensor: Tensor::One(k), at };
                        called::pack(engine, shape, (&rows, &values), count, scratch, to);
                    }
                }
            }
            // Keys were turned and normed when they were appended.
            Source::Cached { caches, page } => {
                let cache = caches.get(sequence as usize);
                if page.shared {
                    let of = (head, shape.value_dim);
                    let [k, v] = expand::read_rows(engine.lanes(), (&cache, &page), of, keys, memory);
                    called::pack(engine, shape, (&k, &v), count, scratch, to);
                    return;
                }
                let blocks = cache.blocks(&page, head);
                let blocks = |at: usize| [blocks.keys(at..at + 1), blocks.values(at..at + 1)];
                let unit = CachedUnit {
                    keys: &page.keys,
                    values: &page.values,
                    tokens: page.tokens,
                    page: &blocks,
                    first: keys.start as usize,
                    count,
                };
                if called::pack_cached(engine, shape, &unit, to) {
                    return;
                }
                let rows = |row| CachedRows { cache, page, row, first: keys.start as usize };
                let (k, v) = (rows(RowOf::Key(head)), rows(RowOf::Value(value_head)));
                called::pack(engine, shape, (&k, &v), count, scratch, to);
            }
            Source::Latents { caches, page, expansion } => {
                let cache = (&caches.get(sequence as usize), &page);
                let unit = E::unit_keys(shape);
                let [k, v] = expansion.make(engine, cache, (kv_head, keys), unit, (memory, expanded));
                called::pack(engine, shape, (&k, &v), count, scratch, to);
            }
        }
    }

    /// Asks for the keys at some positions and their values, where they are rows of tensors.
    #[inline(always)]
    pub fn ask<L: Door>(&self, lanes: L, [sequence, kv_head]: [u32; 2], keys: Range<u32>) {
        let (Source::Given { k, v }, None, true) = (self.source, self.mixes, self.asks) else { return };
        let of = self.problem.sequence(sequence);
        let first = (of.first_key + (keys.start - of.held.begin)) as usize;
        for (rows, head) in [(k, kv_head as usize), (v, self.value_head(kv_head))] {
            for i in first..first + keys.len() {
                lines::ask(lanes, rows.row(of.batch as usize, head, i));
            }
        }
    }

    /// What keys and values of a sequence are mixed from, and the virtual token there that is at a position.
    #[inline(always)]
    fn sources(&self, of: &Sequence, sequence: u32, position: u32) -> ([Sources<'_>; 2], usize) {
        match self.source {
            Source::Given { k, v } => {
                let batch = of.batch as usize;
                let sources = [k, v].map(|rows| Sources::Given { rows, batch });
                (sources, (of.first_key + (position - of.held.begin)) as usize)
            }
            Source::Cached { caches, page } | Source::Latents { caches, page, .. } => {
                let cache = caches.get(sequence as usize);
                ([Sources::Cached { cache, page }; 2], position as usize)
            }
        }
    }

    /// The value head that a key head reads.
    fn value_head(&self, kv_head: u32) -> usize {
        let heads = &self.variant.heads;
        (kv_head / (heads.kv / heads.value)) as usize
    }

    /// One channel of the value of a key at some position.
    pub fn value<L: Door>(
        &self,
        lanes: L,
        [sequence, kv_head]: [u32; 2],
        position: u32,
        channel: usize,
    ) -> f32 {
        let of = self.problem.sequence(sequence);
        if let Some(mixes) = self.mixes {
            let ([_, sources], at) = self.sources(&of, sequence, position);
            let mixed = Mixed { mixes, which: Which::Value, sources, head: kv_head as usize };
            return mixed.channel(lanes, at, channel);
        }
        let head = self.value_head(kv_head);
        match self.source {
            Source::Given { v, .. } => {
                let row = of.first_key + (position - of.held.begin);
                v.row(of.batch as usize, head, row as usize).to_f32(channel)
            }
            Source::Cached { caches, page } => {
                caches.get(sequence as usize).value(&page, head, position as usize, channel)
            }
            Source::Latents { caches, page, expansion: Expansion { w_uv, .. } } => {
                let latents = caches.get(sequence as usize);
                let weights = w_uv.row(0, head, channel);
                let latent = |c| latents.value(&page, 0, position as usize, c);
                (0..weights.len()).map(|c| weights.to_f32(c) * latent(c)).sum()
            }
        }
    }
}

/// A unit to be packed, as a function of its own: it reads keys and values from all that they may come from.
struct Unit<'a, 'k, E> {
    keys: &'a Keys<'k>,
    engine: E,
    shape: &'a Shape,
    /// Sequence and key head.
    of: [u32; 2],
    range: Range<u32>,
    scratch: Scratch<'a>,
    to: &'a mut [f32],
}

impl<E: Engine> Op for Unit<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.keys.pack_unit(self);
    }
}

/// Where keys and values come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// From the caller's tensors.
    Given {
        /// Keys, `[sequence][key head][key]`.
        k: View<'a>,
        /// Values, `[sequence][value head][key]`.
        v: View<'a>,
    },
    /// From caches.
    Cached {
        /// That of each sequence.
        caches: &'a dyn Caches,
        /// What their pages are.
        page: PageShape,
    },
    /// From latents, in pages.
    Latents {
        /// Those of each sequence.
        caches: &'a dyn Caches,
        /// What their pages are.
        page: PageShape,
        /// What makes keys and values of them.
        expansion: Expansion<'a>,
    },
}

/// What keys and values are packed in.
pub(super) struct Scratch<'a> {
    /// Rows on their way.
    pub rows: &'a mut [f32],
    /// What keys and values are mixed in, where heads are mixed.
    pub kept: [&'a mut [f32]; 2],
    /// What they are made in, where they are made of latents.
    pub expansion: &'a mut [f32],
    /// The head whose matrices are packed there.
    pub expanded: &'a mut Option<u32>,
}

/// Rows of a cache.
pub(super) struct CachedRows<'a> {
    pub cache: CachedSequence<'a>,
    pub page: PageShape,
    pub row: RowOf,
    /// Position of the first.
    pub first: usize,
}

impl<'t> Rows<'t> for CachedRows<'_> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, _: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        self.cache.read_into(&self.page, self.first + i, self.row, scratch);
        scratch
    }
}
