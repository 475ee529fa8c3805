//! A module with every operation of the language against the lane program of its spec, lane by lane.

use std::collections::BTreeSet;
use std::ops::Range;

use regard_engine::Engine;
use regard_engine::any::{self, Visit};
use regard_engine::catalog::Entry;
use regard_engine::isa::Door;
use regard_ir::expr::{Binary, Op, Unary};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::Problem;
use regard_oracle::random::{CapturedBuffer, captured};
use regard_runtime::code::{Code, Fault, Keys, Place};
use regard_runtime::interpreter::LaneProgram;
use regard_runtime::straight::Straight;
use regard_simd::Lanes;
use regard_tests::{engines, specs};

use crate::operations::{Expressions, VARIANT};

const KEYS: i32 = 43;

/// Stands for all NaN: one is as good as another.
const NAN: u32 = u32::MAX;

/// What one code makes of a tile: the bits of scores, or whether a key is allowed, and the input that was indexed badly.
#[derive(Debug, PartialEq)]
struct Made {
    lanes: Vec<u32>,
    fault: Option<usize>,
}

struct Compare<'a> {
    captured: &'a Captured<'a>,
}

impl Visit for Compare<'_> {
    /// Calls without a bad index and with one.
    type Output = [usize; 2];

    fn visit<E: Engine>(self, engine: E) -> [usize; 2] {
        let lanes = engine.lanes();
        let captured = self.captured;
        let program = LaneProgram::new(&VARIANT);
        let codes: [&dyn Code<E::Lanes>; 2] = [&program, &Straight(Expressions)];

        let width = E::ROWS;
        for first in [-4, 3, 17, 35] {
            let q: Vec<i32> = (first..).take(width).collect();
            let h: Vec<i32> = (0..width as i32).map(|lane| 3 + lane % 3).collect();
            let tile = Tile { captured, q: &q, h: &h };
            for masked in [false, true] {
                let [loaded, generated] = tile.apply(lanes, codes, 0..KEYS, masked);
                assert_eq!(loaded, generated, "queries from {first}, masked: {masked}");
                let forbidden = |bits: &&u32| **bits == f32::NEG_INFINITY.to_bits();
                let share = loaded.lanes.iter().filter(forbidden).count() as f32 / loaded.lanes.len() as f32;
                assert!(masked == (0.05..0.95).contains(&share), "{share} of the scores are forbidden");
                assert!(loaded.lanes.iter().filter(|&&bits| bits == NAN).count() <= 2 * width);
            }
        }

        // A bad index hides all others of its call, so a call of these has one row and one key.
        let mut calls = [0; 2];
        for (q, h) in (-4..KEYS + 2).flat_map(|q| [(q, 3), (q, 5)]) {
            let tile = Tile { captured, q: &vec![q; E::Lanes::WIDTH], h: &vec![h; E::Lanes::WIDTH] };
            for k in 0..KEYS {
                let made = [
                    tile.allow(lanes, codes, k),
                    tile.apply(lanes, codes, k..k + 1, false),
                    tile.apply(lanes, codes, k..k + 1, true),
                ];
                for [loaded, generated] in made {
                    assert_eq!(loaded, generated, "q = {q}, h = {h}, k = {k}");
                    calls[usize::from(loaded.fault.is_some())] += 1;
                }
            }
        }
        calls
    }
}

struct Tile<'a> {
    captured: &'a Captured<'a>,
    q: &'a [i32],
    h: &'a [i32],
}

impl Tile<'_> {
    fn place<'a>(&'a self, first_key: i32, fault: &'a Fault) -> Place<'a> {
        let Self { captured, q, h } = *self;
        let heads = VARIANT.heads.query;
        Place { b: 1, g: 1, heads, nq: 37, nk: KEYS, q, h, first_key, keys: Keys::Rows, captured, fault }
    }

    fn apply<L: Door>(
        &self,
        lanes: L,
        codes: [&dyn Code<L>; 2],
        keys: Range<i32>,
        masked: bool,
    ) -> [Made; 2] {
        let width = self.q.len();
        codes.map(|code| {
            let mut scores: Vec<f32> =
                (0..width * keys.len()).map(|i| (i * 7919 % 1013) as f32 / 50.0 - 10.0).collect();
            scores[0] = f32::NAN;
            scores[width - 1] = f32::INFINITY;
            let fault = Fault::new();
            let mut scratch = vec![i32::MIN; code.scratch_len(width)];
            code.apply(lanes, &self.place(keys.start, &fault), &mut scores, masked, &mut scratch);
            let bits = |s: &f32| if s.is_nan() { NAN } else { s.to_bits() };
            Made { lanes: scores.iter().map(bits).collect(), fault: fault.input() }
        })
    }

    fn allow<L: Door>(&self, lanes: L, codes: [&dyn Code<L>; 2], key: i32) -> [Made; 2] {
        let width = self.q.len();
        codes.map(|code| {
            let fault = Fault::new();
            let (mut allowed, mut scratch) = (vec![7; width], vec![i32::MIN; code.scratch_len(width)]);
            code.allow(lanes, &self.place(key, &fault), &mut allowed, &mut scratch);
            Made { lanes: allowed.iter().map(|&is| u32::from(is != 0)).collect(), fault: fault.input() }
        })
    }
}

#[test]
fn every_operation_gives_the_same_bits() {
    let spec = specs::parse(include_str!("operations.toml"));
    assert_eq!(spec.variant(), VARIANT);
    let problem = Problem::prefill(spec.source, 2, 37, KEYS as usize).expect("short");
    let buffers: Vec<CapturedBuffer> =
        (0..VARIANT.inputs.len()).map(|input| captured(&VARIANT, &problem, input, input as u64)).collect();
    let data: Vec<InputData<'_>> = buffers.iter().map(CapturedBuffer::data).collect();
    let captured = Captured::bind(VARIANT.inputs, &data, &VARIANT.heads, VARIANT.source, &problem)
        .expect("made for the problem");
    for entry in engines::lanes() {
        let Entry { engine, isa, .. } = *entry;
        let [without, with] =
            any::with(engine, isa, Compare { captured: &captured }).expect("only what is available is run");
        assert!(without > 500 && with > 500, "{without} calls without a bad index, {with} with one");
    }
}

#[test]
fn the_spec_has_every_operation() {
    let mut missing: BTreeSet<String> = Unary::ALL.iter().map(|op| format!("{op:?}")).collect();
    missing.extend(Binary::ALL.iter().map(|op| format!("{op:?}")));
    missing.extend(["Select", "Alibi", "Input"].map(str::to_owned));
    for node in VARIANT.modify.nodes().iter().chain(VARIANT.allow.nodes()) {
        missing.remove(&match node.op {
            Op::Unary(op, _) => format!("{op:?}"),
            Op::Binary(op, ..) => format!("{op:?}"),
            Op::Select(..) => "Select".to_owned(),
            Op::Alibi { .. } => "Alibi".to_owned(),
            Op::Input { .. } => "Input".to_owned(),
            Op::Bool(_) | Op::Int(_) | Op::Float(_) | Op::Var(_) => String::new(),
        });
    }
    assert!(missing.is_empty(), "operations.toml lacks {missing:?}");
}
