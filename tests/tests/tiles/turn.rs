//! Keys that are turned to values and widened, against the same numbers read one by one, on every instruction set.

use regard_engine::any::{self, Visit};
use regard_engine::cached::{self, Before, Columns, LANES, Lane, Target, Weights, Words};
use regard_engine::isa::Door;
use regard_engine::{Engine, Op};
use regard_ir::cache::{Codec, PageFormat, PageShape};
use regard_ir::variant::Heads;

use super::sets;

/// A page of keys, whose first channels are values.
struct Page {
    shape: PageShape,
    words: Vec<u32>,
}

impl Page {
    fn new(codec: Codec, tokens: usize, [dim, value_dim]: [usize; 2]) -> Self {
        let heads = Heads { query: 1, kv: 1, value: 1, dim: dim as u32, value_dim: value_dim as u32 };
        let shape = PageFormat { tokens: tokens as u32, k: codec, v: codec, mixed: false }.of_heads(&heads);
        let mut words = vec![0; shape.keys_len()];
        let mut state = 7u32;
        for token in 0..tokens {
            let row: Vec<f32> = (0..dim)
                .map(|_| {
                    state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                    (state >> 8) as f32 / (1 << 22) as f32 - 2.0
                })
                .collect();
            cached::write_key(&shape.keys, token, &row, &mut words);
        }
        Self { shape, words }
    }
}

struct InDoor<'a, D, T>(D, &'a T);

/// Turned values; channels of each panel; its rows.
type Made = (Vec<u32>, Vec<Vec<Lane>>, Vec<Vec<f32>>);

impl<D: Door> Op for InDoor<'_, D, Page> {
    type Output = Made;

    #[inline(always)]
    fn run(self) -> Made {
        let Self(lanes, Page { shape, words }) = self;
        let mut values = vec![0; shape.values_len()];
        cached::turn_keys(lanes, (&shape.keys, &shape.values), shape.tokens, words, &mut values);
        let dim = shape.keys.channels;
        let (mut all, mut turned) = (Vec::new(), Vec::new());
        for panel in 0..shape.tokens / LANES {
            let mut channels = vec![[0.0; LANES]; dim - 1];
            cached::widen_keys(lanes, &shape.keys, words, panel, 1..dim, &mut channels);
            let mut rows = vec![0.0; LANES * dim.next_multiple_of(8)];
            cached::turn_rows(lanes, &channels, &mut rows, dim.next_multiple_of(8));
            all.push(channels);
            turned.push(rows);
        }
        (values, all, turned)
    }
}

impl Visit for &Page {
    type Output = Made;

    fn visit<E: Engine>(self, engine: E) -> Made {
        engine.enter(InDoor(engine.lanes(), self))
    }
}

#[test]
fn keys_that_are_turned_hold_the_same_numbers() {
    for codec in Codec::ALL {
        for (tokens, widths) in
            [(16, [40, 33]), (64, [120, 96]), (48, [5, 2]), (32, [96, 96]), (16, [77, 64])]
        {
            let page = Page::new(codec, tokens, widths);
            let (shape, [dim, value_dim]) = (&page.shape, widths);
            for entry in sets().filter(|entry| any::available(entry.engine, entry.isa)) {
                let (values, channels, rows) = any::with(entry.engine, entry.isa, &page).expect("it is here");
                let what = format!("{codec:?}, {tokens} tokens of {widths:?} on {entry:?}");
                for token in 0..tokens {
                    let (mut key, mut value) = (vec![0.0; dim], vec![0.0; value_dim]);
                    cached::read_key(&shape.keys, token, &page.words, &mut key);
                    cached::read_value(&shape.values, tokens, token, &values, &mut value);
                    assert_eq!(key[..value_dim], value, "{what}: token {token}");
                    let (panel, lane) = (token / LANES, token % LANES);
                    let widened: Vec<f32> = channels[panel].iter().map(|channel| channel[lane]).collect();
                    assert_eq!(key[1..], widened, "{what}: token {token}");
                    let row = &rows[panel][lane * dim.next_multiple_of(8)..];
                    assert_eq!(&key[1..], &row[..dim - 1], "{what}: token {token}");
                    let last = cached::read_key_channel(&shape.keys, token, dim - 1, &page.words);
                    assert_eq!(last, key[dim - 1]);
                }
            }
        }
    }
}

/// Outputs of some rows on a page, by keys as they lie and by values that these are turned to, each added to what is there.
struct Outputs<'a> {
    page: &'a Page,
    pairs: bool,
    /// Weights of each row, `[row][token]`, of which so many keys are there.
    weights: &'a [f32],
    count: usize,
    factors: Option<&'a [f32]>,
}

impl<D: Door> Op for InDoor<'_, D, Outputs<'_>> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self(lanes, &Outputs { page: Page { shape, words }, pairs, weights, count, factors }) = self;
        let (tokens, channels) = (shape.tokens, shape.values.channels);
        let rows = weights.len() / tokens;
        let width = channels.next_multiple_of(LANES);
        let weights = Weights { numbers: weights, stride: tokens, rows, count, chain: 64 };
        let mut values = vec![0; shape.value_block_len()];
        cached::turn_keys(lanes, (&shape.keys, &shape.values), tokens, words, &mut values);
        let mut turned = vec![1.0; rows * width];
        let whole = rows.next_multiple_of(D::WIDTH);
        let mut scratch = vec![0.0; cached::columns_scratch_len(whole, 64).max(rows * tokens)];
        let before = |rows: usize| factors.map_or(Before::Kept, |factors| Before::Scaled(&factors[..rows]));
        let of_values = Words { block: &shape.values, tokens, pages: 1, pairs, words: &values, ahead: None };
        let target = Target { to: &mut turned, stride: width };
        cached::outputs(lanes, of_values, weights, &mut scratch, before(rows), target);

        let mut columns = vec![1.0; channels * whole];
        let of_keys = Words { block: &shape.keys, tokens, pages: 1, pairs, words, ahead: None };
        let to = Columns { to: &mut columns, rows: whole };
        cached::columns(lanes, of_keys, weights, &mut scratch, before(whole), to);
        let mut lying = vec![0.0; rows * width];
        cached::turn_columns(lanes, (&columns, whole), &mut lying, width);
        for (turned, lying) in turned.chunks_mut(width).zip(lying.chunks_mut(width)) {
            turned[channels..].fill(0.0);
            lying[channels..].fill(0.0);
        }
        [turned, lying]
    }
}

impl Visit for &Outputs<'_> {
    type Output = [Vec<f32>; 2];

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        engine.enter(InDoor(engine.lanes(), self))
    }
}

#[test]
fn outputs_of_keys_as_they_lie_have_the_bits_of_those_of_turned_ones() {
    for (codec, pairs) in
        [(Codec::F32, false), (Codec::F16, false), (Codec::Bf16, false), (Codec::Bf16, true)]
    {
        for (tokens, widths) in
            [(16, [40, 33]), (64, [120, 96]), (48, [5, 2]), (32, [96, 96]), (16, [77, 64])]
        {
            let page = Page::new(codec, tokens, widths);
            for (rows, count) in [(16, tokens), (13, tokens - 3), (1, 1), (48, tokens - 16), (30, tokens)] {
                let count = count.max(1);
                let mut weights: Vec<f32> =
                    (0..rows * tokens).map(|i| (i * 29 % 31) as f32 / 32.0 + 0.01).collect();
                weights.chunks_mut(tokens).for_each(|row| row[count..].fill(0.0));
                let factors: Vec<f32> = (0..64).map(|row| (-(row % 5) as f32).exp2()).collect();
                for factors in [None, Some(&factors[..])] {
                    let outputs = Outputs { page: &page, pairs, weights: &weights, count, factors };
                    for entry in sets().filter(|entry| any::available(entry.engine, entry.isa)) {
                        let [turned, lying] =
                            any::with(entry.engine, entry.isa, &outputs).expect("it is here");
                        let bits = |sums: Vec<f32>| sums.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                        let what =
                            format!("{codec:?}, {rows} rows, {count} of {tokens} of {widths:?} on {entry:?}");
                        assert!(bits(turned) == bits(lying), "{what}");
                    }
                }
            }
        }
    }
}
