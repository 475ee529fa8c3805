//! Products with cached keys and values on every instruction set of this processor.

mod turn;

use regard_engine::any::{self, Visit};
use regard_engine::cached::{
    self, Ahead, Before, LANES, Target, Weights, Words, pack_query, packed_row, scratch_len,
};
use regard_engine::catalog::{ENTRIES, Entry};
use regard_engine::isa::Door;
use regard_engine::{Engine, Op};
use regard_ir::cache::{Codec, PageFormat, PageShape};
use regard_ir::variant::Heads;
use regard_simd::Prefetch;

/// One engine on each instruction set: these products are those of its lanes, whatever the engine multiplies with.
fn sets() -> impl Iterator<Item = &'static Entry> {
    let first_of = |(at, entry): &(usize, &Entry)| ENTRIES[..*at].iter().all(|other| other.isa != entry.isa);
    ENTRIES.iter().enumerate().filter(first_of).map(|(_, entry)| entry)
}

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

/// What lanes compute, which has the same bits however lines are asked for.
fn however_asked<D: Door>(lanes: D, compute: impl Fn(D) -> [Vec<f32>; 2]) -> [Vec<f32>; 2] {
    let bits = |found: &[Vec<f32>; 2]| {
        found.each_ref().map(|all| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
    };
    let first = compute(lanes.with_prefetches(Prefetch::IntoFirst));
    for prefetch in [Prefetch::IntoSecond, Prefetch::AtJumps, Prefetch::Close] {
        let found = compute(lanes.with_prefetches(prefetch));
        assert_eq!(bits(&found), bits(&first), "{:?} {prefetch:?}", D::ISA);
    }
    first
}

/// Pages of one head with some tokens, one after the other, and rows that are multiplied with them.
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
    fn new(codec: Codec, sizes: [usize; 4], dice: &mut Dice) -> Self {
        Self::of(codec, sizes, || dice.float())
    }

    /// Of numbers from −1 to 1.
    fn of(codec: Codec, [tokens, count, rows, dim]: [usize; 4], mut number: impl FnMut() -> f32) -> Self {
        let heads = Heads { query: 1, kv: 1, value: 1, dim: dim as u32, value_dim: dim as u32 };
        let shape = PageFormat { tokens: tokens as u32, k: codec, v: codec, mixed: false }.of_heads(&heads);
        let pages = count.div_ceil(tokens);
        let [mut key_words, mut value_words] =
            [shape.keys_len(), shape.values_len()].map(|len| vec![0; pages * len]);
        for token in 0..count {
            let row: Vec<f32> = (0..dim).map(|_| number()).collect();
            let (page, at) = (token / tokens, token % tokens);
            cached::write_key(&shape.keys, at, &row, &mut key_words[page * shape.keys_len()..]);
            let to = &mut value_words[page * shape.values_len()..];
            cached::write_value(&shape.values, tokens, at, &row, to);
        }
        let stride = pages * tokens;
        let mut weights = vec![0.0; rows * stride];
        for row in weights.chunks_exact_mut(stride) {
            row[..count].iter_mut().for_each(|x| *x = number().abs());
        }
        let queries = (0..rows * dim).map(|_| number()).collect();
        Self { shape, rows, count, key_words, value_words, queries, weights, pairs: false }
    }

    fn pages(&self) -> usize {
        self.count.div_ceil(self.shape.tokens)
    }

    /// Tokens that there is room for.
    fn stride(&self) -> usize {
        self.pages() * self.shape.tokens
    }

    fn expected(&self) -> [Vec<f64>; 2] {
        let (dim, stride) = (self.shape.keys.channels, self.stride());
        let (mut scores, mut outputs) = (vec![0.0; self.rows * self.count], vec![0.0; self.rows * dim]);
        let mut row = vec![0.0f32; dim];
        for token in 0..self.count {
            let tokens = self.shape.tokens;
            let (page, at) = (token / tokens, token % tokens);
            let from = &self.key_words[page * self.shape.keys_len()..];
            cached::read_key(&self.shape.keys, at, from, &mut row);
            for r in 0..self.rows {
                let query = &self.queries[r * dim..][..dim];
                scores[r * self.count + token] =
                    query.iter().zip(&row).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
            }
            let from = &self.value_words[page * self.shape.values_len()..];
            cached::read_value(&self.shape.values, tokens, at, from, &mut row);
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
    /// Pages that are read as one.
    at_once: usize,
}

impl<D: Door> Op for Multiply<'_, D> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self { lanes, page, at_once } = self;
        let (dim, stride) = (page.shape.keys.channels, page.stride());
        let width = dim.next_multiple_of(LANES);
        let packed_len = packed_row(&page.shape.keys);
        let mut packed = vec![f32::NAN; page.rows * packed_len];
        for (row, to) in page.queries.chunks_exact(dim).zip(packed.chunks_exact_mut(packed_len)) {
            pack_query(lanes, (&page.shape.keys, page.pairs), row, to);
        }
        let mut scores = vec![f32::NAN; page.rows * stride];
        let mut outputs = vec![f32::NAN; page.rows * width];
        let mut scratch = vec![f32::NAN; scratch_len((&page.shape.values, stride), page.rows, 64)];
        for first in (0..page.pages()).step_by(at_once) {
            let (pages, begin) = (at_once.min(page.pages() - first), first * page.shape.tokens);
            let count = page.count.min((first + pages) * page.shape.tokens) - begin;
            let values = &page.value_words[first * page.shape.values_len()..];
            let words = Words {
                block: &page.shape.keys,
                tokens: page.shape.tokens,
                pages,
                pairs: page.pairs,
                words: &page.key_words[first * page.shape.keys_len()..][..pages * page.shape.keys_len()],
                ahead: Some(Ahead::values(&page.shape, &values[..page.shape.values_len()])),
            };
            let target = Target { to: &mut scores[begin..], stride };
            cached::scores(lanes, words, (&packed, page.rows), (64, count), target);
            let words = Words {
                block: &page.shape.values,
                words: &values[..pages * page.shape.values_len()],
                ahead: None,
                ..words
            };
            let numbers = &page.weights[begin..];
            let weights = Weights { numbers, stride, rows: page.rows, count, chain: 64 };
            let before = if first == 0 { Before::Nothing } else { Before::Kept };
            let target = Target { to: &mut outputs, stride: width };
            cached::outputs(lanes, words, weights, &mut scratch, before, target);
        }
        let cut = |rows: &[f32], stride: usize, len: usize| -> Vec<f32> {
            rows.chunks_exact(stride).take(page.rows).flat_map(|row| row[..len].to_vec()).collect()
        };
        [cut(&scores, stride, page.count), cut(&outputs, width, dim)]
    }
}

impl Visit for &Page {
    type Output = [Vec<f32>; 2];

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let multiplied = |at_once| {
            however_asked(engine.lanes(), |lanes| lanes.enter(Multiply { lanes, page: self, at_once }))
        };
        // Pages that lie one after the other may be read as one, with the same bits as apart.
        let found = multiplied(1);
        let most = if cached::is_of_runs(&self.shape.keys) { self.pages() } else { 1 };
        for at_once in 2..=most {
            let as_one = multiplied(at_once);
            let bits = |of: &[Vec<f32>; 2]| {
                of.each_ref().map(|of| of.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            };
            assert_eq!(bits(&as_one), bits(&found), "{:?}, {} tokens", self.shape.keys, self.count);
        }
        found
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
            // Several chains of channels and of keys, whole and not.
            (1, 128, 128, 128),
            (2, 128, 100, 192),
            (3, 64, 64, 256),
            (4, 256, 256, 128),
            (8, 144, 144, 96),
            (9, 128, 127, 320),
            // Several pages, with and without a last panel that has no partner.
            (1, 64, 200, 128),
            (1, 48, 144, 64),
            (2, 16, 41, 20),
            (4, 64, 256, 128),
            (5, 48, 100, 72),
            (9, 32, 96, 96),
        ] {
            for pairs in [false, true] {
                let page = Page { pairs, ..Page::new(codec, [tokens, count, rows, dim], &mut dice) };
                assert_products(codec, &page);
            }
        }
    }
}

/// Holds products on every instruction set against those in f64.
fn assert_products(codec: Codec, page: &Page) {
    let expected = page.expected();
    for entry in sets() {
        let Ok(found) = any::with(entry.engine, entry.isa, page) else { continue };
        for (found, expected) in found.iter().zip(&expected) {
            let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
            for (found, expected) in found.iter().zip(expected) {
                let error = (f64::from(*found) - expected).abs() / largest;
                let &Page { shape, rows, count, pairs, .. } = page;
                let (dim, tokens) = (shape.keys.channels, shape.tokens);
                assert!(
                    error <= bound(codec, pairs),
                    "{codec:?}, {rows} rows of {dim} by {count} of {tokens}, {entry:?}: {error:.1e}"
                );
            }
        }
    }
}

#[test]
fn sums_of_integers_do_not_overflow() {
    for codec in [Codec::Int8, Codec::Int4] {
        for dim in [512, 520, 1024, 1100] {
            for number in [1.0, -1.0] {
                assert_products(codec, &Page::of(codec, [64, 64, 3, dim], || number));
                // Queries and keys of unlike signs.
                let page = Page::of(codec, [64, 64, 3, dim], || number);
                assert_products(codec, &Page { queries: vec![-number; 3 * dim], ..page });
            }
        }
    }
}

/// The most rows that are multiplied together: more than a tile has.
const MOST_ROWS: usize = 9;

/// One row of a page, and what is there before.
#[derive(Clone, Copy)]
struct Rows<'a> {
    page: &'a Page,
    first: usize,
    count: usize,
    factors: Option<&'a [f32]>,
}

impl Visit for Rows<'_> {
    type Output = [Vec<f32>; 2];

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let add = |lanes: E::Lanes| lanes.enter(Add { lanes, rows: self });
        match self.count {
            // One row has a loop of its own, and so have many.
            1 | MOST_ROWS => however_asked(engine.lanes(), add),
            _ => add(engine.lanes()),
        }
    }
}

/// Scores of some rows, and outputs that are added to what is there.
struct Add<'a, D> {
    lanes: D,
    rows: Rows<'a>,
}

impl<D: Door> Op for Add<'_, D> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self { lanes, rows: Rows { page, first, count, factors } } = self;
        let (dim, stride) = (page.shape.keys.channels, page.stride());
        let (width, packed_len) = (dim.next_multiple_of(LANES), packed_row(&page.shape.keys));
        let mut packed = vec![f32::NAN; count * packed_len];
        let queries = page.queries[first * dim..].chunks_exact(dim);
        for (row, to) in queries.zip(packed.chunks_exact_mut(packed_len)) {
            pack_query(lanes, (&page.shape.keys, page.pairs), row, to);
        }
        let (mut scores, mut outputs) = (vec![0.0; count * stride], vec![0.5; count * width]);
        let values = (&page.shape.values, page.shape.tokens);
        let mut scratch = vec![f32::NAN; scratch_len(values, count, 64)];
        let words = Words {
            block: &page.shape.keys,
            tokens: page.shape.tokens,
            pages: 1,
            pairs: page.pairs,
            words: &page.key_words,
            ahead: Some(Ahead::values(&page.shape, &page.value_words)),
        };
        let target = Target { to: &mut scores, stride };
        cached::scores(lanes, words, (&packed, count), (64, page.count), target);
        let words = Words {
            block: &page.shape.values,
            words: &page.value_words,
            ahead: Some(Ahead::keys(&page.shape, &page.key_words)),
            ..words
        };
        let numbers = &page.weights[first * stride..];
        let weights = Weights { numbers, stride, rows: count, count: page.count, chain: 64 };
        let before = factors.map_or(Before::Kept, |factors| Before::Scaled(&factors[first..]));
        let target = Target { to: &mut outputs, stride: width };
        cached::outputs(lanes, words, weights, &mut scratch, before, target);
        scores.chunks_exact_mut(stride).for_each(|row| row[page.count..].fill(0.0));
        outputs.chunks_exact_mut(width).for_each(|row| row[dim..].fill(0.0));
        [scores, outputs]
    }
}

#[test]
fn a_row_of_floats_has_the_same_bits_whichever_rows_are_multiplied_with_it() {
    assert_same_with_others(&[Codec::F32, Codec::F16, Codec::Bf16]);
}

#[test]
fn a_row_of_integers_has_the_same_bits_whichever_rows_are_multiplied_with_it() {
    assert_same_with_others(&[Codec::Int8, Codec::Int4]);
}

fn assert_same_with_others(codecs: &[Codec]) {
    let mut dice = Dice(3);
    for &codec in codecs {
        for (tokens, count, dim) in
            [(64, 64, 128), (64, 40, 64), (48, 48, 72), (128, 128, 192), (128, 99, 256)]
        {
            let pages = [false, true].map(|pairs| Page {
                pairs,
                ..Page::new(codec, [tokens, count, MOST_ROWS, dim], &mut Dice(u64::from(dice.word())))
            });
            let powers: Vec<f32> = (0..MOST_ROWS).map(|row| 0.5f32.powi(row as i32)).collect();
            for (page, factors) in pages.iter().flat_map(|page| [(page, None), (page, Some(&powers[..]))]) {
                for entry in sets() {
                    let take = |first, count| {
                        any::with(entry.engine, entry.isa, Rows { page, first, count, factors })
                    };
                    let alone: Vec<_> = (0..MOST_ROWS).map_while(|row| take(row, 1).ok()).collect();
                    for rows in 2..=alone.len() {
                        let Ok(together) = take(0, rows) else { continue };
                        for (which, together) in together.iter().enumerate() {
                            let rows = alone[..rows].iter().flat_map(|alone| &alone[which]);
                            let same = together.iter().zip(rows).all(|(a, b)| a.to_bits() == b.to_bits());
                            assert!(same, "{codec:?}, {dim} by {count} of {tokens}, {entry:?}");
                        }
                    }
                }
            }
        }
    }
}

/// A row of whole lines, and rows of as many numbers.
#[derive(Clone, Copy)]
struct Inner<'a> {
    a: &'a [f32],
    rows: &'a [f32],
    asks: bool,
}

impl Visit for Inner<'_> {
    type Output = [Vec<f32>; 2];

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        however_asked(engine.lanes(), |lanes| lanes.enter(FindInner { lanes, inner: self }))
    }
}

/// Inner products, all at once and one by one.
struct FindInner<'a, D> {
    lanes: D,
    inner: Inner<'a>,
}

impl<D: Door> Op for FindInner<'_, D> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self { lanes, inner: Inner { a, rows, asks } } = self;
        let mut together = vec![f32::NAN; rows.len() / a.len()];
        let words: Vec<u32> = rows.iter().map(|x| x.to_bits()).collect();
        let ahead = asks.then(|| Ahead::rows(&words));
        cached::inner_products(lanes, a, rows, ahead, &mut together);
        let alone = rows.chunks_exact(a.len()).map(|row| cached::inner_product(lanes, a, row)).collect();
        [together, alone]
    }
}

#[test]
fn inner_products_are_those_of_each_row() {
    let mut dice = Dice(4);
    for (dim, count) in [(16, 1), (32, 5), (48, 64), (64, 7), (64, 17), (80, 4), (128, 64), (192, 33)] {
        let a: Vec<f32> = (0..dim).map(|_| dice.float()).collect();
        let rows: Vec<f32> = (0..dim * count).map(|_| dice.float()).collect();
        let product = |row: &[f32]| a.iter().zip(row).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        let expected: Vec<f64> = rows.chunks_exact(dim).map(product).collect();
        for (entry, asks) in sets().flat_map(|entry| [(entry, false), (entry, true)]) {
            let inner = Inner { a: &a, rows: &rows, asks };
            let Ok([together, alone]) = any::with(entry.engine, entry.isa, inner) else { continue };
            let bits = |products: &[f32]| products.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&together), bits(&alone), "{count} rows of {dim}, {entry:?}");
            for (found, expected) in together.iter().zip(&expected) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 1e-6 * dim as f64, "{count} rows of {dim}, {entry:?}: {error:.1e}");
            }
        }
    }
}
