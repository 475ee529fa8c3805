//! What an engine does, as functions of their own.
//!
//! An engine's methods are inlined wherever they are used, and they are large: here each is compiled once for an engine and for
//! the kind of rows that it reads, whoever asks for it. What they work on is a tile or a block, beside which a call is nothing.

use regard_engine::cached::CachedUnit;
use regard_engine::engine::Fold;
use regard_engine::isa::Door;
use regard_engine::pack::Rows;
use regard_engine::{Engine, Op, Shape, Step};

/// [`Engine::pack_queries`].
#[inline(always)]
pub(crate) fn pack_queries<'t, E: Engine>(
    engine: E,
    shape: &Shape,
    queries: &impl Rows<'t>,
    counts: [usize; 2],
    factor: f32,
    scratch: &mut [f32],
    to: &mut [f32],
) {
    engine.lanes().call(PackQueries { engine, shape, queries, counts, factor, scratch, to });
}

struct PackQueries<'a, E, R> {
    engine: E,
    shape: &'a Shape,
    queries: &'a R,
    counts: [usize; 2],
    factor: f32,
    scratch: &'a mut [f32],
    to: &'a mut [f32],
}

impl<'t, E: Engine, R: Rows<'t>> Op for PackQueries<'_, E, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { engine, shape, queries, counts, factor, scratch, to } = self;
        engine.pack_queries(shape, queries, counts, factor, scratch, to);
    }
}

/// [`Engine::pack`].
#[inline(always)]
pub(crate) fn pack<'t, E: Engine>(
    engine: E,
    shape: &Shape,
    (keys, values): (&impl Rows<'t>, &impl Rows<'t>),
    count: usize,
    scratch: &mut [f32],
    to: &mut [f32],
) {
    engine.lanes().call(Pack { engine, shape, keys, values, count, scratch, to });
}

struct Pack<'a, E, K, V> {
    engine: E,
    shape: &'a Shape,
    keys: &'a K,
    values: &'a V,
    count: usize,
    scratch: &'a mut [f32],
    to: &'a mut [f32],
}

impl<'t, E: Engine, K: Rows<'t>, V: Rows<'t>> Op for Pack<'_, E, K, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { engine, shape, keys, values, count, scratch, to } = self;
        engine.pack(shape, keys, values, count, scratch, to);
    }
}

/// [`Engine::pack_cached`].
#[inline(always)]
pub(crate) fn pack_cached<E: Engine>(
    engine: E,
    shape: &Shape,
    unit: &CachedUnit<'_>,
    to: &mut [f32],
) -> bool {
    engine.lanes().call(PackCached { engine, shape, unit, to })
}

struct PackCached<'a, 'u, E> {
    engine: E,
    shape: &'a Shape,
    unit: &'a CachedUnit<'u>,
    to: &'a mut [f32],
}

impl<E: Engine> Op for PackCached<'_, '_, E> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        self.engine.pack_cached(self.shape, self.unit, self.to)
    }
}

/// [`Engine::step`].
#[inline(always)]
pub(crate) fn step<E: Engine>(engine: E, step: Step<'_>, fold: &mut impl Fold<E::Lanes>) {
    engine.lanes().call(Attend { engine, step, fold });
}

struct Attend<'a, E, F> {
    engine: E,
    step: Step<'a>,
    fold: &'a mut F,
}

impl<E: Engine, F: Fold<E::Lanes>> Op for Attend<'_, E, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.engine.step(self.step, self.fold);
    }
}

/// [`Engine::scores`].
#[inline(always)]
pub(crate) fn scores<E: Engine>(engine: E, step: Step<'_>, to: &mut [f32]) {
    engine.lanes().call(Scores { engine, step, added: None, to });
}

/// [`Engine::add_scores`].
#[inline(always)]
pub(crate) fn add_scores<E: Engine>(engine: E, step: Step<'_>, channels: usize, to: &mut [f32]) {
    engine.lanes().call(Scores { engine, step, added: Some(channels), to });
}

struct Scores<'a, E> {
    engine: E,
    step: Step<'a>,
    /// Channels of those that are added.
    added: Option<usize>,
    to: &'a mut [f32],
}

impl<E: Engine> Op for Scores<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { engine, step, added, to } = self;
        match added {
            None => engine.scores(step, to),
            Some(channels) => engine.add_scores(step, channels, to),
        }
    }
}
