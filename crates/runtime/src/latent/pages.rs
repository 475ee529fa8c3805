//! Latents of tensors, written to pages of the workspace as a cache has them.

use regard_engine::grid::Lots;
use regard_engine::isa::Door;
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::cache::PageShape;
use regard_ir::inputs::Captured;
use regard_ir::problem::{Packed, Problem};
use regard_ir::variant::Variant;

use crate::cache::{CachedSequence, CachedSequenceMut, Caches, Pages};
use crate::carve::{self, ALIGN, Carve};
use crate::code::Fault;
use crate::operands::KeyRows;
use crate::rows::{Change, Side};
use crate::split::{Stored, rows_len};
use crate::tokens::{self, TokenLayout};

/// Where the pages of a problem's sequences lie, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub problem: &'a Problem<'a>,
    pub shape: PageShape,
}

impl Places<'_> {
    /// Pages of all sequences; saturates.
    pub fn count(&self) -> usize {
        let Problem { batch, .. } = *self.problem;
        match &self.problem.packed {
            None => (batch as usize).saturating_mul(self.of_each()),
            Some(_) => self.first(batch),
        }
    }

    /// Pages of a sequence, where sequences are not packed.
    fn of_each(&self) -> usize {
        let held = self.problem.sequence(0).held;
        (held.end as usize).div_ceil(self.shape.tokens) - held.begin as usize / self.shape.tokens
    }

    /// Where the pages of a sequence begin.
    fn first(&self, sequence: u32) -> usize {
        match &self.problem.packed {
            None => sequence as usize * self.of_each(),
            // Each sequence before it leaves less than a page of its last one.
            Some(packed) => {
                let start = Packed::cu_k(packed)[sequence as usize] as usize;
                start / self.shape.tokens + sequence as usize
            }
        }
    }

    /// The sequence that page number `number` of the memory is of.
    fn sequence(&self, number: usize) -> u32 {
        let (mut low, mut high) = (0, self.problem.batch);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if self.first(middle) <= number { low = middle } else { high = middle }
        }
        low
    }
}

/// Latents in pages of the workspace.
pub(super) struct Made<'a> {
    pub places: Places<'a>,
    pub memory: &'a [u32],
}

impl Caches for Made<'_> {
    fn count(&self) -> usize {
        self.places.problem.batch as usize
    }

    fn get(&self, sequence: usize) -> CachedSequence<'_> {
        let of = self.places.problem.sequence(sequence as u32);
        let begin = of.held.begin / self.places.shape.tokens as u32;
        let pages = Pages::From { begin, first: self.places.first(sequence as u32) as u32 };
        CachedSequence { memory: self.memory, pages, len: of.keys, written: of.keys }
    }
}

/// Sizes of what pages are written with.
pub(super) struct Writing {
    tokens: TokenLayout,
    rows: usize,
}

impl Writing {
    /// Of a variant in its absorbed form.
    pub fn new(absorbed: &Variant<'_>, problem: &Problem<'_>) -> Self {
        Self { tokens: TokenLayout::of_keys(absorbed, problem), rows: rows_len(absorbed) }
    }

    fn pieces(&self) -> [usize; 2] {
        [self.tokens.frequencies_len(), self.tokens.table_len()]
    }

    /// Elements for `threads` workers; saturates.
    pub fn len(&self, threads: usize) -> usize {
        let rows = threads.max(1).saturating_mul(self.rows.next_multiple_of(ALIGN));
        carve::len(self.pieces()).saturating_add(rows)
    }

    /// Writes latents and rotary keys to their pages, these turned. `memory` is as long as [`Writing::len`] says.
    pub fn write<E: Engine>(
        &self,
        engine: E,
        (absorbed, captured): (&Variant<'_>, &Captured<'_>),
        kv: &KeyRows<'_>,
        (places, pages): (Places<'_>, &mut [u32]),
        (threads, fault): (&dyn Threads, &Fault),
        memory: &mut [f32],
    ) {
        let mut pieces = Carve::new(memory, self.pieces());
        let (frequencies, table) = (pieces.next(), pieces.next());
        if let Some(position) = &absorbed.position {
            tokens::frequencies(position, captured, frequencies);
        }
        if !table.is_empty() {
            let lots = Lots::new(&mut *table, tokens::CHUNK * self.tokens.stride());
            let fill = tokens::Fill {
                layout: self.tokens,
                variant: absorbed,
                problem: places.problem,
                rows: tokens::Rows { q: None, k: None },
                captured,
                fault,
                frequencies,
            };
            threads.run(&|_| engine.enter(tokens::FillTokens { fill: &fill, lots: &lots }));
        }
        let tokens = tokens::Tokens { layout: self.tokens, table };
        let (keys, values) = kv.tensors();
        let change = Change::new(absorbed, Side::Key, captured, tokens);
        let stored = Stored { page: places.shape, keys, values, asks: None, change };
        let pages = Lots::new(pages, places.shape.len());
        let lots = Lots::new(pieces.rest(), self.rows.next_multiple_of(ALIGN));
        threads.run(&|_| {
            if let Some((_, rows)) = lots.take() {
                engine.enter(Write { lanes: engine.lanes(), stored: &stored, places, pages: &pages, rows });
            }
        });
    }
}

/// One worker's share of the pages, inside the engine's instruction set.
struct Write<'a, D> {
    lanes: D,
    stored: &'a Stored<'a>,
    places: Places<'a>,
    pages: &'a Lots<'a, u32>,
    rows: &'a mut [f32],
}

impl<D: Door> Op for Write<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, stored, places, pages, rows } = self;
        while let Some((number, page)) = pages.take() {
            let sequence = places.sequence(number);
            let of = places.problem.sequence(sequence);
            let tokens = places.shape.tokens as u32;
            let at = of.held.begin / tokens + (number - places.first(sequence)) as u32;
            let (begin, end) =
                (of.held.begin.max(at * tokens), of.held.end.min(at.saturating_add(1) * tokens));
            if begin >= end {
                continue;
            }
            let first = (of.first_key + (begin - of.held.begin)) as usize;
            let token = (of.batch as usize, first, (end - begin) as usize);
            let pages = Pages::From { begin: at, first: 0 };
            let mut cache = CachedSequenceMut { memory: page, pages, learned: None };
            stored.write(lanes, token, (&mut cache, begin as usize), rows);
        }
    }
}
