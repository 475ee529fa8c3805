//! What a skeleton asks of an engine.

use regard_ir::plan::{Dtype, Pieces};
use regard_simd::{Lanes, vectors_mut};

use crate::cached::CachedUnit;
use crate::isa::Door;
use crate::pack::Rows;
use crate::product::{self, Before, Matrix, Right, Sizes};
use crate::stairs::Stairs;
use crate::weigh::{Precise, Weigher};

/// Keys whose odd values are told in one word.
pub const GROUP: usize = 32;

/// Elements of a cache line.
pub const LINE: usize = 16;

/// Work to be done inside an engine's instruction set.
pub trait Op {
    /// What the work gives.
    type Output;

    /// Does it. Implementations are `#[inline(always)]`, and so is all they call that works on lanes: that is how the
    /// body comes to be compiled for the set.
    fn run(self) -> Self::Output;
}

/// Sizes of the operands, the same for a whole run.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Channels of a query and a key.
    pub dim: usize,
    /// Channels of a value.
    pub value_dim: usize,
    /// Keys of a whole block.
    pub key_block: usize,
    /// Channels of one chain of sums.
    pub channel_chain: usize,
    /// What operands are made of, for engines that split them.
    pub pieces: Pieces,
}

/// A way to compute tiles.
///
/// Rows (pairs of query head and position) are lanes throughout, so that a row's maximum, sum and rescaling need no
/// horizontal step: scores are `[keys][width]`, outputs `[channels][width]`, both f32. How queries, keys and values are
/// packed is the engine's own business; skeletons hold them in slices of f32 whose lengths the engine says.
pub trait Engine: Copy + Send + Sync + 'static {
    /// Its vectors.
    type Lanes: Door;

    /// Storage types that it computes.
    const STORAGE: &'static [Dtype];

    /// Storage types of which it computes recurrences: those whose bounds the products of [`Engine::multiply`] keep.
    const STATES: &'static [Dtype] = &[];

    /// Rows of a full row tile.
    const ROWS: usize;

    /// Widths of row tiles are multiples of this: a whole number of vectors that divides [`Engine::ROWS`].
    const ROW_STEP: usize;

    /// Live keys start at multiples of this, from the start of the block.
    const KEY_STEP: usize;

    /// Channels of an output are padded to a multiple of this, itself one of 8.
    const CHANNEL_STEP: usize;

    /// Whether scores come without the scale, because packed queries could not take it up without a rounding.
    const UNSCALED: bool;

    /// Whether a step of a full row tile leaves out of its products what the stairs say that its rows do not see.
    const HAS_STAIRS: bool;

    /// How far, in log2 units, a score may pass its row's reference before that moves, and how far the first ones of a row may be
    /// from a reference of 0: the largest weight of a row is between 2 to the negative of this and 2 to this, so that values as far
    /// from the ends of f32's range as that are summed up without loss.
    const SLACK: f32;

    /// Keys, from one of their multiples, whose weights are there after a step; no more live keys than that may be
    /// given to a step whose weights are read.
    const WEIGHTS_KEPT: usize;

    /// Its vectors' token.
    fn lanes(self) -> Self::Lanes;

    /// Runs `op` inside the instruction set: the one place where its features are turned on. Called once per worker
    /// and kernel call, never per tile.
    fn enter<O: Op>(self, op: O) -> O::Output;

    /// Elements of a packed full row tile.
    fn query_len(shape: &Shape) -> usize;

    /// Keys that are packed at once: a whole block, or a part that divides it, of which a block's lie one after the other.
    fn unit_keys(shape: &Shape) -> usize;

    /// Elements of a packed unit, whole cache lines.
    fn packed_len(shape: &Shape) -> usize;

    /// Elements of a step's scratch.
    fn scratch_len(shape: &Shape) -> usize;

    /// Elements that packing works in.
    fn pack_len(shape: &Shape) -> usize;

    /// Packs queries, multiplied by `factor`: `counts` are those that there are and the tile's width; lanes past them are
    /// zero.
    fn pack_queries<'t>(
        self,
        shape: &Shape,
        queries: &impl Rows<'t>,
        counts: [usize; 2],
        factor: f32,
        scratch: &mut [f32],
        to: &mut [f32],
    );

    /// Packs `count` keys and values of a unit; what is missing is zero.
    ///
    /// Values that are not finite are packed as zero: a product with a weight of zero would turn them into NaN in rows
    /// that may not see the key. [`Engine::odd_keys`] tells of which keys they were.
    fn pack<'t>(
        self,
        shape: &Shape,
        keys: &impl Rows<'t>,
        values: &impl Rows<'t>,
        count: usize,
        scratch: &mut [f32],
        to: &mut [f32],
    );

    /// Packs a unit from a cache, where its pages lie as the engine's panels do. Says whether it did: else [`Engine::pack`] takes
    /// the rows one by one.
    #[inline(always)]
    fn pack_cached(self, _shape: &Shape, _unit: &CachedUnit<'_>, _to: &mut [f32]) -> bool {
        false
    }

    /// The keys of group number `group` of a packed block whose values were not all finite: bit i is key i.
    fn odd_keys(shape: &Shape, packed: &[f32], group: usize) -> u32;

    /// One row tile against the live keys of one block: scores, their fold into weights, and output.
    fn step<F: Fold<Self::Lanes>>(self, step: Step<'_>, fold: &mut F);

    /// The weights of the key that was number `at` of the last step's block, `[width]`; see [`Engine::WEIGHTS_KEPT`].
    fn weights(shape: &Shape, scratch: &[f32], at: usize, to: &mut [f32]);

    /// Floats that making a right operand takes, so deep and so wide, of a matrix that is turned or not.
    fn right_len([depth, columns]: [usize; 2], is_turned: bool) -> usize {
        if is_turned { depth.saturating_mul(columns) } else { 0 }
    }

    /// Floats that packing some rows of a left operand takes, so deep.
    fn left_len(_depth: usize) -> usize {
        0
    }

    /// Makes a right operand of a matrix: as deep and as wide as any product that it is for, in multiples of [`LINE`]. `room` is as
    /// long as [`Engine::right_len`] says. What it leaves there of a turned matrix that is not precise is the operand again, as
    /// [`Right::rows`] of `columns`.
    #[inline(always)]
    fn right<'a>(self, matrix: Matrix<'a>, sizes: [usize; 2], room: &'a mut [f32]) -> Right<'a> {
        matrix.into_rows(self.lanes(), sizes, room)
    }

    /// Multiplies matrices of floats, as [`product::multiply`] does, with the precision of the engine's operands. Sizes are multiples
    /// of [`LINE`]; `room` is as long as [`Engine::left_len`] says.
    #[inline(always)]
    fn multiply(
        self,
        sizes: Sizes,
        (left, right): (Matrix<'_>, Right<'_>),
        to: (&mut [f32], usize),
        before: Before<'_>,
        _room: &mut [f32],
    ) {
        product::multiply(self.lanes(), sizes, left, right, to, before);
    }

    /// The scores of a step alone, as the engine gives them: `to` is `[live keys, rounded up to 8][width]`, and its shape has
    /// no channels of values.
    #[inline(always)]
    fn scores(self, step: Step<'_>, to: &mut [f32]) {
        let width = step.width;
        self.step(step, &mut Kept { to, width, adds: false });
    }

    /// Adds the scores of a step to what is there, as [`Engine::scores`] gives them. The queries' channels from `channels` on are
    /// zero, and may be left out.
    #[inline(always)]
    fn add_scores(self, step: Step<'_>, _channels: usize, to: &mut [f32]) {
        let width = step.width;
        self.step(step, &mut Kept { to, width, adds: true });
    }
}

/// Keeps scores where weights would be made of them.
struct Kept<'a> {
    to: &'a mut [f32],
    width: usize,
    /// Whether they are added to what is there.
    adds: bool,
}

impl<L: Lanes> Fold<L> for Kept<'_> {
    #[inline(always)]
    fn open<const V: usize, P: Precise>(
        &mut self,
        lanes: L,
        first: usize,
        scores: &mut [f32],
        _: f32,
    ) -> (Change, Weigher<L, V, P>) {
        let to = &mut self.to[first * self.width..][..scores.len()];
        if self.adds {
            to.iter_mut().zip(&*scores).for_each(|(to, score)| *to += score);
        } else {
            to.copy_from_slice(scores);
        }
        (Change::Keep, Weigher::identity(lanes))
    }

    #[inline(always)]
    fn close<const V: usize, P: Precise>(&mut self, _: L, _: Weigher<L, V, P>) {}

    #[inline(always)]
    fn factors(&self) -> &[f32] {
        &[]
    }
}

/// The operands of one row tile against the live keys of one key block.
pub struct Step<'a> {
    /// Sizes.
    pub shape: &'a Shape,
    /// The packed row tile.
    pub query: &'a [f32],
    /// The packed block.
    pub packed: &'a [f32],
    /// The first live key within the block; a multiple of the engine's key step.
    pub first_key: usize,
    /// Live keys.
    pub live_keys: usize,
    /// Room for scores and weights.
    pub scratch: &'a mut [f32],
    /// Output so far, `[value_dim, padded][width]`.
    pub output: &'a mut [f32],
    /// Rows of the tile.
    pub width: usize,
    /// Which of the live keys its vectors see, where they differ; none of engines without [`Engine::HAS_STAIRS`].
    pub stairs: Option<Stairs>,
}

/// Turns scores into weights.
///
/// Engines give scores part by part, in ascending order of keys. A part is opened, each of its vectors weighed, and
/// closed; [`Fold::whole`] does all three. Where weights are less precise than [`crate::weigh::Full`], the parts of a block are
/// cut at fixed keys, so that a row's references, and with them its bits, do not depend on what other rows may see.
pub trait Fold<L: Lanes> {
    /// Masks and modifies the scores of a part, `[keys][V vectors]`, and moves the rows' references where they must.
    /// `first` is the part's first key, counted from the step's first live key; no score is larger than `most`, infinity where
    /// nothing is known of them. What `weigher` then makes of the scores are their weights.
    fn open<const V: usize, P: Precise>(
        &mut self,
        lanes: L,
        first: usize,
        scores: &mut [f32],
        most: f32,
    ) -> (Change, Weigher<L, V, P>);

    /// Takes up the sums of a part whose vectors were all weighed.
    fn close<const V: usize, P: Precise>(&mut self, lanes: L, weigher: Weigher<L, V, P>);

    /// What each row is multiplied by where a part's change was [`Change::Rescale`].
    fn factors(&self) -> &[f32];

    /// Rewrites the scores of a part, `[keys][width]`, as weights and says what becomes of the output so far.
    ///
    /// # Panics
    /// If the width is not 1 to 3 vectors.
    #[inline(always)]
    fn whole(&mut self, lanes: L, width: usize, first: usize, scores: &mut [f32]) -> Rescale<'_> {
        let change = match width / L::WIDTH {
            1 => whole::<L, Self, 1>(self, lanes, first, scores),
            2 => whole::<L, Self, 2>(self, lanes, first, scores),
            3 => whole::<L, Self, 3>(self, lanes, first, scores),
            vectors => panic!("a row tile has 1 to 3 vectors, not {vectors}"),
        };
        Rescale::new(change, self.factors())
    }
}

#[inline(always)]
fn whole<L: Lanes, F: Fold<L> + ?Sized, const V: usize>(
    fold: &mut F,
    lanes: L,
    first: usize,
    scores: &mut [f32],
) -> Change {
    let (change, mut weigher) = fold.open::<V, crate::weigh::Full>(lanes, first, scores, f32::INFINITY);
    weigher.weigh_all(lanes, vectors_mut(lanes, scores).as_chunks_mut::<V>().0);
    fold.close(lanes, weigher);
    change
}

/// What becomes of the output so far when a part is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is none yet: the product replaces what the memory holds.
    Replace,
    /// It stays as it is.
    Keep,
    /// Each row is multiplied by its factor.
    Rescale,
}

/// A [`Change`] with its factors.
#[derive(Clone, Copy, Debug)]
pub enum Rescale<'a> {
    /// There is none yet: the product replaces what the memory holds.
    Replace,
    /// It stays as it is.
    Keep,
    /// Each row is multiplied by its factor, `[width]`.
    By(&'a [f32]),
}

impl<'a> Rescale<'a> {
    /// Of a change, with the factors of its rows.
    #[inline(always)]
    pub fn new(change: Change, factors: &'a [f32]) -> Self {
        match change {
            Change::Replace => Rescale::Replace,
            Change::Keep => Rescale::Keep,
            Change::Rescale => Rescale::By(factors),
        }
    }
}
