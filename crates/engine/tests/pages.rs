//! Rows that are written to pages many at a time, against the same rows written number by number, on every instruction set.

use regard_engine::any::{self, Visit};
use regard_engine::cached;
use regard_engine::catalog::ENTRIES;
use regard_engine::isa::Door;
use regard_engine::pages::{self, Rows};
use regard_engine::{Engine, Op};
use regard_ir::cache::{Codec, PageFormat, PageShape};
use regard_ir::variant::Heads;

/// Numbers that a codec may stumble over, one of some kinds for each row.
const ODD: [&[f32]; 6] = [
    &[],
    &[0.0, -0.0, 1e-45, -1e-40, f32::MIN_POSITIVE],
    // Around the least binary16, its largest, and those of bf16; and halves of a unit of each.
    &[
        5.9e-8,
        2.9802322e-8,
        2.980233e-8,
        6.1e-5,
        65504.0,
        65519.99,
        65520.0,
        1.0 + 0.5f32 / 512.0,
        1.0 + 0.5 / 128.0,
    ],
    &[f32::MAX, -3.3961775e38, 3.4e38, 458_640.0, 458_639.9],
    &[f32::INFINITY, -1.0],
    &[f32::NAN, 3.0, f32::from_bits(0xff80_0001), f32::NEG_INFINITY],
];

struct Write<'a> {
    shape: PageShape,
    rows: [&'a [f32]; 2],
    first: usize,
    count: usize,
    keys: Vec<u32>,
    values: Vec<u32>,
}

struct InDoor<'a, D>(D, Write<'a>);

impl<'a, D: Door> Op for InDoor<'a, D> {
    type Output = [Vec<u32>; 2];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self(lanes, Write { shape, rows: [keys, values], first, count, keys: mut k, values: mut v }) =
            self;
        let mut done = 0;
        while done < count {
            let first = first + done;
            let now = (count - done).min(pages::TOKENS - first % pages::TOKENS);
            let of = |rows: &'a [f32], channels| Rows {
                rows: &rows[done * pages::stride(channels)..],
                first,
                count: now,
            };
            pages::write_keys(lanes, &shape.keys, of(keys, shape.keys.channels), &mut k);
            pages::write_values(
                lanes,
                &shape.values,
                shape.tokens,
                of(values, shape.values.channels),
                &mut v,
            );
            done += now;
        }
        [k, v]
    }
}

impl Visit for Write<'_> {
    type Output = [Vec<u32>; 2];

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let lanes = engine.lanes();
        lanes.enter(InDoor(lanes, self))
    }
}

/// Numbers that are drawn: xorshift.
fn draw(state: &mut u64) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as u32
}

/// Rows of numbers of all sizes, [`pages::stride`] apart, with zeros behind their channels.
fn rows(count: usize, channels: usize, state: &mut u64) -> Vec<f32> {
    let mut rows = vec![0.0; count * pages::stride(channels)];
    for (i, row) in rows.chunks_exact_mut(pages::stride(channels)).enumerate() {
        let exponent = draw(state) % 40;
        for x in &mut row[..channels] {
            let fraction = draw(state) as f32 / u32::MAX as f32 * 2.0 - 1.0;
            *x = fraction * 2f32.powi(exponent as i32 - 22);
        }
        for &odd in ODD[i % ODD.len()] {
            row[draw(state) as usize % channels] = odd;
        }
    }
    rows
}

#[test]
fn rows_have_the_bits_that_they_have_number_by_number() {
    let mut state = 5;
    for codec in Codec::ALL {
        for (tokens, first, count, dim, value_dim) in [
            (64, 0, 64, 128, 128),
            (64, 16, 16, 64, 40),
            (32, 3, 29, 20, 33),
            (16, 0, 16, 7, 1),
            (48, 15, 18, 33, 72),
            (16, 5, 1, 128, 128),
            // More groups of channels than one vector has scales.
            (32, 1, 31, 540, 545),
        ] {
            let heads = Heads { query: 1, kv: 1, value: 1, dim, value_dim };
            let shape = PageFormat { tokens, k: codec, v: codec, mixed: false }.of_heads(&heads);
            let tokens = tokens as usize;
            let channels = [shape.keys.channels, shape.values.channels];
            let [key_rows, value_rows] = channels.map(|channels| rows(count, channels, &mut state));
            // What was there before, but where no number ever is.
            let (mut keys, mut values) = (vec![0; shape.keys_len()], vec![0; shape.values_len()]);
            let mut write = |range: core::ops::Range<usize>, turn: usize| {
                for i in range {
                    let row = |rows: &[f32], channels: usize| {
                        rows[(i + turn) % count * pages::stride(channels)..][..channels].to_vec()
                    };
                    let token = first + i;
                    cached::write_key(&shape.keys, token, &row(&key_rows, channels[0]), &mut keys);
                    let row = row(&value_rows, channels[1]);
                    cached::write_value(&shape.values, tokens, token, &row, &mut values);
                }
                [keys.clone(), values.clone()]
            };
            let [keys, values] = write(0..count, 5);
            let expected = write(0..count, 0);
            for entry in ENTRIES {
                let (keys, values) = (keys.clone(), values.clone());
                let rows = [&key_rows[..], &value_rows];
                let write = Write { shape, rows, first, count, keys, values };
                match any::with(entry.engine, entry.isa, write) {
                    Ok(found) => assert!(
                        found == expected,
                        "{codec:?}: {count} tokens from {first} of {tokens}, {dim} and {value_dim} on {entry:?}"
                    ),
                    Err(_) => println!("skipped {entry:?}: not on this CPU"),
                }
            }
        }
    }
}
