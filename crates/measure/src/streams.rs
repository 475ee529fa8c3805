//! Bytes that are read from several places in turn, with or without asking for those that come next.

use std::hint::black_box;

use regard_engine::any::{self, Unavailable, Visit};
use regard_engine::isa::Door;
use regard_engine::{Engine, Op};
use regard_ir::cache::LANES;
use regard_ir::machine::Isa;
use regard_ir::plan::EngineKind;
use regard_simd::{F32, Simd, vectors};

/// Words of a line.
const LINE: usize = LANES as usize;

/// The most places.
pub const MOST: usize = 4;

/// Lines that are read of a place in turn.
const STEP: usize = 4;

/// Sums of a place: an exclusive or is done a cycle later, and two vectors are loaded in one.
const SUMS: usize = 2;

/// Words of a turn through the most places: what is read is a multiple of them.
pub const ROUND: usize = MOST * STEP * LINE;

/// In what way words are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Places that are read in turn, each through its own part of the words: 1, 2 or 4.
    pub streams: usize,
    /// How far ahead of each place lines are asked for.
    pub ahead_bytes: usize,
}

/// Reads words so many times.
///
/// # Errors
/// If the processor lacks the set.
///
/// # Panics
/// If they are no multiple of [`ROUND`].
pub fn turn(isa: Isa, words: &[u32], passes: usize, way: Way) -> Result<(), Unavailable> {
    let ahead = way.ahead_bytes / (LINE * size_of::<u32>());
    any::with(EngineKind::SimdF32, isa, Turn { words, streams: way.streams, ahead, passes })
}

struct Turn<'a> {
    words: &'a [u32],
    streams: usize,
    /// Lines ahead.
    ahead: usize,
    passes: usize,
}

impl Visit for Turn<'_> {
    type Output = ();

    fn visit<E: Engine>(self, engine: E) {
        black_box(engine.enter(Read { lanes: engine.lanes(), turn: self }));
    }
}

/// Every vector, combined.
struct Read<'a, L> {
    lanes: L,
    turn: Turn<'a>,
}

impl<L: Door> Op for Read<'_, L> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let Self { lanes, turn } = self;
        match turn.streams {
            1 => read::<L, 1>(lanes, &turn),
            2 => read::<L, 2>(lanes, &turn),
            _ => read::<L, 4>(lanes, &turn),
        }
    }
}

#[inline(always)]
fn read<L: Door, const STREAMS: usize>(lanes: L, turn: &Turn<'_>) -> f32 {
    let Turn { words, ahead, passes, .. } = *turn;
    let simd = lanes.simd();
    let lines = words.as_chunks::<LINE>().0;
    let len = lines.len() / STREAMS;
    let streams: [&[[u32; LINE]]; STREAMS] = std::array::from_fn(|stream| &lines[stream * len..][..len]);
    let mut sums = [[simd.splat_f32s(0.0); SUMS]; STREAMS];
    for _ in 0..passes {
        for at in (0..len).step_by(STEP) {
            for (stream, sums) in streams.iter().zip(&mut sums) {
                if ahead > 0
                    && let Some(soon) = stream.get(at + ahead..at + ahead + STEP)
                {
                    soon.iter().for_each(|line| lanes.prefetch(line));
                }
                let floats: &[f32] = bytemuck::cast_slice(stream[at..at + STEP].as_flattened());
                for pair in vectors(lanes, floats).chunks_exact(SUMS) {
                    for (sum, &x) in sums.iter_mut().zip(pair) {
                        *sum = simd.xor_f32s(*sum, x);
                    }
                }
            }
        }
    }
    let all = sums.into_iter().flatten().reduce(|a, b| simd.xor_f32s(a, b));
    all.map_or(0.0, |all| F32::from_raw(lanes, all).sum())
}
