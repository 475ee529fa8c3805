//! Products with cached keys and values, and products of bytes, on every instruction set of this processor.

use regard_engine::any::{self, Visit};
use regard_engine::cached::{
    self, Ahead, Before, LANES, Target, Weights, Words, pack_query, packed_row, scratch_len,
};
use regard_engine::catalog::ENTRIES;
use regard_engine::isa::Door;
use regard_engine::{Engine, Op};
use regard_ir::cache::{Codec, PageFormat, PageShape};
use regard_ir::variant::Heads;
use regard_simd::Simd;

/// Numbers that are drawn: xorshift.
struct Dice(u64);

impl Dice {
    fn word(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    fn float(&mut self) -> f32 {
        self.word() as f32 / u32::MAX as f32 * 2.0 - 1.0
    }
}

/// Words of bytes, multiplied.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    a: &'a [u32; 64],
    b: &'a [u32; 64],
    c: &'a [i32; 64],
}

struct InDoor<'a, D> {
    lanes: D,
    bytes: Bytes<'a>,
}

impl<D: Door> Op for InDoor<'_, D> {
    type Output = Vec<i32>;

    #[inline(always)]
    fn run(self) -> Vec<i32> {
        let Self { lanes, bytes: Bytes { a, b, c } } = self;
        let mut found = c.to_vec();
        let (a, b) = (D::Simd::as_simd_u32s(a).0, D::Simd::as_simd_u32s(b).0);
        for ((sum, &a), &b) in D::Simd::as_mut_simd_i32s(&mut found).0.iter_mut().zip(a).zip(b) {
            *sum = lanes.dot_bytes(a, b, *sum);
        }
        found
    }
}

impl Visit for Bytes<'_> {
    type Output = [Vec<i32>; 2];

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let lanes = engine.lanes();
        // Inside the function that has the processor's own instructions for them, and outside.
        [lanes.call_bytes(InDoor { lanes, bytes: self }), lanes.call(InDoor { lanes, bytes: self })]
    }
}

#[test]
fn products_of_bytes_are_exact() {
    let mut dice = Dice(1);
    for _ in 0..100 {
        let (a, b) = ([(); 64].map(|()| dice.word()), [(); 64].map(|()| dice.word()));
        let c = [(); 64].map(|()| dice.word() as i32 >> 8);
        let expected: Vec<i32> = (0..64)
            .map(|i| {
                let products = a[i].to_le_bytes().into_iter().zip(b[i].to_le_bytes());
                products.fold(c[i], |sum, (a, b)| sum + i32::from(a) * i32::from(b as i8))
            })
            .collect();
        for entry in ENTRIES {
            if let Ok(found) = any::with(entry.engine, entry.isa, Bytes { a: &a, b: &b, c: &c }) {
                assert_eq!(found, [expected.clone(), expected.clone()], "{entry:?}");
            }
        }
    }
}

/// A page of one head with some tokens, and rows that are multiplied with it.
struct Page {
    shape: PageShape,
    rows: usize,
    count: usize,
    key_words: Vec<u32>,
    value_words: Vec<u32>,
    queries: Vec<f32>,
    weights: Vec<f32>,
    pairs: bool,
}

impl Page {
    fn new(codec: Codec, [tokens, count, rows, dim]: [usize; 4], dice: &mut Dice) -> Self {
        let heads = Heads { query: 1, kv: 1, value: 1, dim: dim as u32, value_dim: dim as u32 };
        let shape = PageFormat { tokens: tokens as u32, k: codec, v: codec, mixed: false }.of_heads(&heads);
        let (mut key_words, mut value_words) = (vec![0; shape.keys_len()], vec![0; shape.values_len()]);
        for token in 0..count {
            let row: Vec<f32> = (0..dim).map(|_| dice.float()).collect();
            cached::write_key(&shape.keys, token, &row, &mut key_words);
            cached::write_value(&shape.values, tokens, token, &row, &mut value_words);
        }
        let stride = tokens.next_multiple_of(LANES);
        let mut weights = vec![0.0; rows * stride];
        for row in weights.chunks_exact_mut(stride) {
            row[..count].iter_mut().for_each(|x| *x = dice.float().abs());
        }
        let queries = (0..rows * dim).map(|_| dice.float()).collect();
        Self { shape, rows, count, key_words, value_words, queries, weights, pairs: false }
    }

    fn expected(&self) -> [Vec<f64>; 2] {
        let dim = self.shape.keys.channels;
        let stride = self.shape.tokens.next_multiple_of(LANES);
        let (mut scores, mut outputs) = (vec![0.0; self.rows * self.count], vec![0.0; self.rows * dim]);
        let mut row = vec![0.0f32; dim];
        for token in 0..self.count {
            cached::read_key(&self.shape.keys, token, &self.key_words, &mut row);
            for r in 0..self.rows {
                let query = &self.queries[r * dim..][..dim];
                scores[r * self.count + token] =
                    query.iter().zip(&row).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
            }
            cached::read_value(&self.shape.values, self.shape.tokens, token, &self.value_words, &mut row);
            for r in 0..self.rows {
                let weight = f64::from(self.weights[r * stride + token]);
                outputs[r * dim..][..dim]
                    .iter_mut()
                    .zip(&row)
                    .for_each(|(o, &v)| *o += weight * f64::from(v));
            }
        }
        [scores, outputs]
    }
}

struct Multiply<'a, D> {
    lanes: D,
    page: &'a Page,
}

impl<D: Door> Op for Multiply<'_, D> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self { lanes, page } = self;
        let (dim, stride) = (page.shape.keys.channels, page.shape.tokens.next_multiple_of(LANES));
        let width = dim.next_multiple_of(LANES);
        let packed_len = packed_row(&page.shape.keys);
        let mut packed = vec![f32::NAN; page.rows * packed_len];
        for (row, to) in page.queries.chunks_exact(dim).zip(packed.chunks_exact_mut(packed_len)) {
            pack_query(lanes, (&page.shape.keys, page.pairs), row, to);
        }
        let mut scores = vec![f32::NAN; page.rows * stride];
        let mut outputs = vec![f32::NAN; page.rows * width];
        let mut scratch = vec![f32::NAN; scratch_len(&page.shape.values, page.rows, 64)];
        let words = Words {
            block: &page.shape.keys,
            tokens: page.shape.tokens,
            pairs: page.pairs,
            words: &page.key_words,
            ahead: Some(Ahead::values(&page.shape, &page.value_words)),
        };
        let target = Target { to: &mut scores, stride };
        cached::scores(lanes, words, (&packed, page.rows), (64, page.count), target);
        let words = Words { block: &page.shape.values, words: &page.value_words, ahead: None, ..words };
        let weights =
            Weights { numbers: &page.weights, stride, rows: page.rows, count: page.count, chain: 64 };
        let target = Target { to: &mut outputs, stride: width };
        cached::outputs(lanes, words, weights, &mut scratch, Before::Nothing, target);
        let cut = |rows: &[f32], stride: usize, len: usize| -> Vec<f32> {
            rows.chunks_exact(stride).take(page.rows).flat_map(|row| row[..len].to_vec()).collect()
        };
        [cut(&scores, stride, page.count), cut(&outputs, width, dim)]
    }
}

impl Visit for &Page {
    type Output = [Vec<f32>; 2];

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let lanes = engine.lanes();
        lanes.enter(Multiply { lanes, page: self })
    }
}

/// How far products of a codec may be from f64, by the largest.
fn bound(codec: Codec, pairs: bool) -> f64 {
    match codec {
        Codec::Bf16 if pairs => 8e-3,
        Codec::F32 | Codec::F16 | Codec::Bf16 => 2e-6,
        // Rows of 16 bits.
        Codec::Int8 | Codec::Int4 => 1e-4,
    }
}

#[test]
fn products_are_those_of_what_is_cached() {
    let mut dice = Dice(2);
    for codec in Codec::ALL {
        for (rows, tokens, count, dim) in [
            (1, 64, 64, 128),
            (2, 16, 9, 20),
            (3, 48, 33, 72),
            (4, 64, 1, 16),
            (5, 80, 80, 33),
            (12, 32, 31, 100),
        ] {
            for pairs in [false, true] {
                let page = Page { pairs, ..Page::new(codec, [tokens, count, rows, dim], &mut dice) };
                let expected = page.expected();
                for entry in ENTRIES {
                    let Ok(found) = any::with(entry.engine, entry.isa, &page) else { continue };
                    for (found, expected) in found.iter().zip(&expected) {
                        let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
                        for (found, expected) in found.iter().zip(expected) {
                            let error = (f64::from(*found) - expected).abs() / largest;
                            assert!(
                                error <= bound(codec, pairs),
                                "{codec:?}, {rows} rows of {dim} by {count} of {tokens}, {entry:?}: {error:.1e}"
                            );
                        }
                    }
                }
            }
        }
    }
}
