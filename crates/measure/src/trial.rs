//! An engine at work as in a run: the row tiles of a pass against a packed block of keys, all of it in cache.
//!
//! Operands are N(0, 1), never zeros: matrix units have been seen to multiply zeros a quarter faster. Sizes are those of a
//! plan, so that operands lie where a run has them.

use std::hint::black_box;

use regard_engine::any::{self, Unavailable, Visit};
use regard_engine::catalog::Entry;
use regard_engine::element::Elements;
use regard_engine::weigh::{Precise, Weigher};
use regard_engine::{Change, Engine, Fold, Op, Shape, Step, pack};
use regard_ir::plan::Plan;
use regard_ir::variant::Heads;
use regard_oracle::{Buffer, random};
use regard_runtime::flash::{PlainRows, plain_fold};
use regard_simd::Lanes;

/// The most row tiles of a pass.
const MAX_TILES: usize = 12;

/// Operands start at a multiple of so many elements: a line of a cache.
const ALIGN: usize = 16;

/// What of an engine's work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Products alone: scores are taken for weights.
    Products,
    /// Products, with a softmax between them.
    Step,
    /// Keys and values packed.
    Packing,
}

/// How much one repetition of a part does.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    /// Multiply-adds of [`Part::Products`] and of [`Part::Step`].
    pub products: f64,
    /// Scores of [`Part::Step`].
    pub scores: f64,
    /// Elements of [`Part::Packing`].
    pub packed: f64,
}

/// An engine with operands.
pub trait Trial {
    /// How much one repetition does.
    fn amounts(&self) -> Amounts;

    /// Does a part so many times.
    fn repeat(&mut self, part: Part, times: usize);
}

/// An engine with the operands of a plan.
///
/// # Errors
/// If the processor lacks the instruction set.
pub fn of(entry: &Entry, heads: &Heads, plan: &Plan) -> Result<Box<dyn Trial>, Unavailable> {
    any::with(entry.engine, entry.isa, Build { heads, plan })
}

struct Build<'a> {
    heads: &'a Heads,
    plan: &'a Plan,
}

impl Visit for Build<'_> {
    type Output = Box<dyn Trial>;

    fn visit<E: Engine>(self, engine: E) -> Box<dyn Trial> {
        Box::new(Operands::new(engine, &self))
    }
}

/// Numbers that begin at a line of a cache.
struct Aligned {
    floats: Vec<f32>,
    start: usize,
}

impl Aligned {
    fn zeroed(len: usize) -> Self {
        let floats = vec![0.0f32; len + ALIGN];
        let start = floats.as_ptr().align_offset(ALIGN * size_of::<f32>()).min(ALIGN);
        Self { floats, start }
    }

    fn view(&self) -> &[f32] {
        &self.floats[self.start..]
    }

    fn view_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.start..]
    }
}

/// What an engine reads of drawn numbers.
fn elements(drawn: &Buffer) -> Elements<'_> {
    match drawn {
        Buffer::F32(floats) => Elements::F32(floats),
        Buffer::F16(halves) => Elements::F16(halves),
        Buffer::Bf16(halves) => Elements::Bf16(halves),
    }
}

struct Operands<E> {
    engine: E,
    shape: Shape,
    /// Row tiles.
    tiles: usize,
    /// Channels of an output, padded.
    value_width: usize,
    /// What scores are to be multiplied by.
    scale: f32,
    keys: Buffer,
    values: Buffer,
    queries: Aligned,
    packed: Aligned,
    scratch: Aligned,
    rows: Aligned,
    outputs: Aligned,
    references: Aligned,
    totals: Aligned,
    factors: Aligned,
}

impl<E: Engine> Operands<E> {
    fn new(engine: E, Build { heads, plan }: &Build<'_>) -> Self {
        let blocks = &plan.prefill;
        let shape = Shape {
            dim: heads.dim as usize,
            value_dim: heads.value_dim as usize,
            key_block: blocks.key_block as usize,
            channel_chain: blocks.channel_chain as usize,
            pieces: plan.pieces,
        };
        let rows = (blocks.query_block * heads.group()) as usize;
        let tiles = rows.div_ceil(E::ROWS).min(MAX_TILES);
        let value_width = shape.value_dim.next_multiple_of(E::CHANNEL_STEP);
        let mut normal = random::normal(0);
        let mut drawn = |len| Buffer::rounded(plan.dtype, normal.by_ref().take(len));
        let (keys, values) = (drawn(shape.key_block * shape.dim), drawn(shape.key_block * shape.value_dim));
        let queries = drawn(tiles * E::ROWS * shape.dim);
        let scale = (f64::from(heads.dim).sqrt().recip() * std::f64::consts::LOG2_E) as f32;
        let mut operands = Self {
            engine,
            tiles,
            value_width,
            scale,
            keys,
            values,
            queries: Aligned::zeroed(tiles * Self::query_len(&shape)),
            packed: Aligned::zeroed(Self::units(&shape) * E::packed_len(&shape)),
            scratch: Aligned::zeroed(E::scratch_len(&shape)),
            rows: Aligned::zeroed(E::pack_len(&shape)),
            outputs: Aligned::zeroed(tiles * E::ROWS * value_width),
            references: Aligned::zeroed(tiles * E::ROWS),
            totals: Aligned::zeroed(tiles * E::ROWS),
            factors: Aligned::zeroed(E::ROWS),
            shape,
        };
        operands.references.view_mut().fill(f32::NEG_INFINITY);
        engine.enter(PackQueries { operands: &mut operands, queries: elements(&queries) });
        operands.repeat(Part::Packing, 1);
        operands
    }

    fn query_len(shape: &Shape) -> usize {
        E::query_len(shape).next_multiple_of(ALIGN)
    }

    /// Units that a block is packed in.
    fn units(shape: &Shape) -> usize {
        shape.key_block / E::unit_keys(shape)
    }

    #[inline(always)]
    fn pack(&mut self) {
        let Self { engine, shape, keys, values, rows, packed, .. } = self;
        let (keys, values) = (elements(keys), elements(values));
        let (units, len) = (Self::units(shape), E::packed_len(shape));
        let count = shape.key_block / units;
        for unit in 0..units {
            let row = |i: usize, width: usize| {
                let at = (unit * count + i) * width;
                at..at + width
            };
            let key = pack::AsStored(|i| keys.part(row(i, shape.dim)));
            let value = pack::AsStored(|i| values.part(row(i, shape.value_dim)));
            let to = &mut packed.view_mut()[unit * len..][..len];
            engine.pack(shape, &key, &value, count, rows.view_mut(), to);
        }
    }

    #[inline(always)]
    fn step(&mut self, tile: usize, part: Part) {
        let Self { engine, shape, value_width, scale, .. } = *self;
        let (rows, output_len) = (tile * E::ROWS, E::ROWS * value_width);
        let step = Step {
            shape: &self.shape,
            query: &self.queries.view()[tile * Self::query_len(&shape)..][..Self::query_len(&shape)],
            packed: self.packed.view(),
            first_key: 0,
            live_keys: shape.key_block,
            scratch: self.scratch.view_mut(),
            output: &mut self.outputs.view_mut()[tile * output_len..][..output_len],
            width: E::ROWS,
            stairs: None,
        };
        if part == Part::Products {
            return engine.step(step, &mut Untouched);
        }
        let rows = PlainRows {
            references: &mut self.references.view_mut()[rows..][..E::ROWS],
            totals: &mut self.totals.view_mut()[rows..][..E::ROWS],
            factors: &mut self.factors.view_mut()[..E::ROWS],
            fresh: false,
        };
        engine.step(step, &mut plain_fold::<E>(rows, scale));
    }
}

impl<E: Engine> Trial for Operands<E> {
    fn amounts(&self) -> Amounts {
        let Shape { dim, value_dim, key_block, .. } = self.shape;
        let pairs = (self.tiles * E::ROWS * key_block) as f64;
        let width = (dim + value_dim) as f64;
        Amounts { products: pairs * width, scores: pairs, packed: key_block as f64 * width }
    }

    fn repeat(&mut self, part: Part, times: usize) {
        let engine = self.engine;
        engine.enter(Turn { operands: self, part, times });
        black_box(self.outputs.view());
        black_box(self.packed.view());
    }
}

/// A part, so many times.
struct Turn<'a, E> {
    operands: &'a mut Operands<E>,
    part: Part,
    times: usize,
}

impl<E: Engine> Op for Turn<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { operands, part, times } = self;
        for _ in 0..times {
            if part == Part::Packing {
                operands.pack();
                continue;
            }
            for tile in 0..operands.tiles {
                operands.step(tile, part);
            }
        }
    }
}

/// The queries of every row tile, packed.
struct PackQueries<'a, E> {
    operands: &'a mut Operands<E>,
    queries: Elements<'a>,
}

impl<E: Engine> Op for PackQueries<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { operands: Operands { engine, shape, scale, rows, queries, tiles, .. }, queries: stored } =
            self;
        let factor = if E::UNSCALED { 1.0 } else { *scale };
        let len = Operands::<E>::query_len(shape);
        for tile in 0..*tiles {
            let row = pack::AsStored(|i: usize| {
                let first = (tile * E::ROWS + i) * shape.dim;
                stored.part(first..first + shape.dim)
            });
            let to = &mut queries.view_mut()[tile * len..][..len];
            engine.pack_queries(shape, &row, [E::ROWS, E::ROWS], factor, rows.view_mut(), to);
        }
    }
}

/// Leaves scores as they are.
struct Untouched;

impl<L: Lanes> Fold<L> for Untouched {
    #[inline(always)]
    fn open<const V: usize, P: Precise>(
        &mut self,
        lanes: L,
        _: usize,
        _: &mut [f32],
        _: f32,
    ) -> (Change, Weigher<L, V, P>) {
        (Change::Keep, Weigher::identity(lanes))
    }

    #[inline(always)]
    fn close<const V: usize, P: Precise>(&mut self, _: L, _: Weigher<L, V, P>) {}

    #[inline(always)]
    fn factors(&self) -> &[f32] {
        &[]
    }
}
