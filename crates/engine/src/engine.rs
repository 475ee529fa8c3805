//! What a skeleton asks of an engine.

use regard_ir::machine::Isa;
use regard_simd::Lanes;

use crate::isa::Door;

/// Keys of a key panel and channels of a value panel.
pub const PANEL: usize = 8;

/// Work to be done inside an engine's instruction set.
pub trait Op {
    /// What the work gives.
    type Output;

    /// Does it. Implementations are `#[inline(always)]`, and so is all they call that works on lanes: that is how the
    /// body comes to be compiled for the set.
    fn run(self) -> Self::Output;
}

/// A way to compute tiles.
///
/// Operands are packed: a *row panel* holds the queries of a row tile as `[dim][width]`, where the width is a whole
/// number of vectors and each lane is one row (a pair of query head and position); a *key panel* holds [`PANEL`]
/// keys as `[dim][PANEL]`; a *value panel* holds [`PANEL`] channels as `[keys][PANEL]`. Scores and weights are
/// `[keys][width]`, outputs `[channels][width]`: a row is a lane throughout, so that its maximum, sum and rescaling
/// need no horizontal step.
pub trait Engine: Copy + Send + Sync + 'static {
    /// Its vectors.
    type Lanes: Door;

    /// The instruction set that it is built for.
    const ISA: Isa;

    /// The most vectors of a row tile's width.
    const MAX_VECTORS: usize;

    /// Its vectors' token.
    fn lanes(self) -> Self::Lanes;

    /// Runs `op` inside the instruction set: the one place where its features are turned on. Called once per kernel
    /// call, never per tile.
    fn enter<O: Op>(self, op: O) -> O::Output;

    /// `scores[k][r] = Σ_c query[c][r] · keys[k / 8][c][k % 8]` for every key of `step.keys`, in chains of at most
    /// `step.channel_chain` channels.
    fn scores(self, step: &mut Step<'_>);

    /// `output[c][r] (+)= Σ_k scores[k][r] · values[c / 8][k][c % 8]` over `step.valid_keys` keys: what is there is
    /// replaced, kept or rescaled first, as `rescale` says.
    fn values(self, step: &mut Step<'_>, rescale: Rescale<'_>);

    /// One row tile against one key block: scores, their fold into weights, and output.
    ///
    /// An engine whose units work side by side overrides this, cuts the block and overlaps the scores of one part with
    /// the fold of another and the output of a third; `fold` says where each part begins.
    #[inline(always)]
    fn step<F: Fold<Self::Lanes>>(self, mut step: Step<'_>, fold: &mut F) {
        self.scores(&mut step);
        let live = step.valid_keys * step.width;
        let rescale = fold.fold(self.lanes(), 0, &mut step.scores[..live]);
        self.values(&mut step, rescale);
    }
}

/// The operands of one row tile against the live keys of one key block.
pub struct Step<'a> {
    /// Row panel, `[dim][width]`.
    pub query: &'a [f32],
    /// Key panels, `[panels][dim][PANEL]`.
    pub keys: &'a [f32],
    /// Value panels of the whole block, `[value panels][block keys][PANEL]`.
    pub values: &'a [f32],
    /// Keys of a whole block: the stride of a value panel, in rows.
    pub block_keys: usize,
    /// The first live key within the block; a multiple of [`PANEL`].
    pub first_key: usize,
    /// Live keys; the last panel may hold more.
    pub valid_keys: usize,
    /// Scores, then weights, `[panels · PANEL][width]`.
    pub scores: &'a mut [f32],
    /// Output so far, `[value panels · PANEL][width]`.
    pub output: &'a mut [f32],
    /// Channels of a query and a key.
    pub dim: usize,
    /// Rows of the tile: a whole number of vectors.
    pub width: usize,
    /// Channels of one chain of sums.
    pub channel_chain: usize,
}

/// Turns scores into weights.
pub trait Fold<L: Lanes> {
    /// Rewrites `scores`, `[keys][width]`, as weights and says what becomes of the output so far.
    ///
    /// `first` is the first key of the slice, counted from the step's first key. Parts come in ascending order.
    fn fold(&mut self, lanes: L, first: usize, scores: &mut [f32]) -> Rescale<'_>;
}

/// What becomes of the output so far when a new block is added.
#[derive(Clone, Copy, Debug)]
pub enum Rescale<'a> {
    /// There is none yet: the product replaces what the memory holds.
    Replace,
    /// It stays as it is.
    Keep,
    /// Each row is multiplied by its factor, `[width]`.
    By(&'a [f32]),
}
