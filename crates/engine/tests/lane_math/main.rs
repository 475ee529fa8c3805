//! Lane math on every instruction set of this processor, measured in units in the last place (ULP) against f64.
//!
//! The usual run takes every 1,021st binary32 (a prime, so that all low bits occur); `cargo test -- --ignored` takes
//! them all. Conversions, floor and transposes are compared bit by bit.

mod parts;
mod weights;

use half::{bf16, f16};
use regard_engine::any::{self, Visit};
use regard_engine::catalog::{ENTRIES, Entry};
use regard_engine::{Engine, Op};
use regard_simd::{F32, I32, Lanes, Simd, TRANSPOSE, vectors, vectors_i32, vectors_i32_mut, vectors_mut};

/// A function of one float, on lanes.
trait Function: Copy + Sync {
    fn call<L: Lanes>(self, x: F32<L>) -> F32<L>;
}

macro_rules! functions {
    ($($type:ident = |$x:ident| $body:expr;)+) => {$(
        #[derive(Clone, Copy)]
        struct $type;

        impl Function for $type {
            #[inline(always)]
            fn call<L: Lanes>(self, $x: F32<L>) -> F32<L> {
                $body
            }
        }
    )+};
}

functions! {
    Exp2 = |x| regard_simd::exp2(x);
    Exp = |x| regard_simd::exp(x);
    Tanh = |x| regard_simd::tanh(x);
    Sigmoid = |x| regard_simd::sigmoid(x);
    Pow2 = |x| regard_simd::pow2(x);
    Floor = |x| x.floor();
    Ceil = |x| x.ceil();
}

/// The weight of a score against a reference this far above its floor.
#[derive(Clone, Copy)]
struct Weight(f32);

impl Function for Weight {
    #[inline(always)]
    fn call<L: Lanes>(self, s: F32<L>) -> F32<L> {
        // A row's reference is finite; that of a score of −inf comes from the others.
        let floor = s.lt(s.like(f32::MIN)).select(s.like(0.0), s.floor());
        regard_simd::softmax_weight(s, floor + s.like(self.0))
    }
}

fn available() -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().filter(|entry| {
        let here = any::available(entry.engine, entry.isa);
        if !here {
            println!("skipped {}: not on this CPU", entry.isa.name());
        }
        here
    })
}

/// Work on lanes, inside the instruction set.
trait OnLanes {
    fn on<L: Lanes>(self, lanes: L);
}

fn enter(entry: &Entry, work: impl OnLanes) {
    struct Outside<W>(W);
    struct Inside<L, W>(L, W);
    impl<W: OnLanes> Visit for Outside<W> {
        type Output = ();
        fn visit<E: Engine>(self, engine: E) {
            engine.enter(Inside(engine.lanes(), self.0));
        }
    }
    impl<L: Lanes, W: OnLanes> Op for Inside<L, W> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            self.1.on(self.0);
        }
    }
    any::with(entry.engine, entry.isa, Outside(work)).expect("it is available");
}

struct Map<'a, F> {
    function: F,
    from: &'a [f32],
    to: &'a mut [f32],
}

impl<F: Function> OnLanes for Map<'_, F> {
    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        for (x, y) in vectors(lanes, self.from).iter().zip(vectors_mut(lanes, self.to)) {
            *y = self.function.call(F32::from_raw(lanes, *x)).raw();
        }
    }
}

fn map(entry: &Entry, function: impl Function, from: &[f32]) -> Vec<f32> {
    let mut to = vec![0.0; from.len()];
    enter(entry, Map { function, from, to: &mut to });
    to
}

/// Floats that are looked at together.
const BATCH: usize = 1 << 14;

/// The binary32 numbers whose bits are `step` apart, batch by batch.
fn batches(step: usize, part: usize, parts: usize) -> impl Iterator<Item = Vec<f32>> {
    let count = (1u64 << 32).div_ceil(step as u64);
    let last = count - 1;
    (0..count.div_ceil(BATCH as u64)).skip(part).step_by(parts).map(move |batch| {
        let index = |i: usize| (batch * BATCH as u64 + i as u64).min(last);
        (0..BATCH).map(|i| f32::from_bits((index(i) * step as u64) as u32)).collect()
    })
}

/// The largest error found, in ULP, and where.
#[derive(Clone, Copy)]
struct Worst {
    ulp: f64,
    at: f32,
    found: f32,
}

/// |found − exact| in units in the last place of the exact result.
///
/// Infinity stands for 2^128, where it begins to be the nearest. Results below the smallest normal number may be 0,
/// and are otherwise measured in units of that number.
fn error(found: f32, exact: f64) -> f64 {
    const LEAST: f64 = f32::MIN_POSITIVE as f64;
    let over = 2f64.powi(128);
    if f64::from(found) == exact {
        return 0.0;
    }
    if exact.is_nan() || found.is_nan() {
        return if exact.is_nan() && found.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if exact.abs() < LEAST && found == 0.0 {
        return 0.0;
    }
    let found = if found.is_infinite() { over.copysign(found.into()) } else { found.into() };
    let exact = exact.clamp(-over, over);
    // A power of two: the exponent's bits alone, 2^127 at most.
    let unit = f64::from_bits(exact.abs().clamp(LEAST, 2f64.powi(127)).to_bits() & 0x7ff << 52);
    (found - exact).abs() / unit * 2f64.powi(23)
}

fn measure(entry: &Entry, function: impl Function, exact: fn(f64) -> f64, step: usize) -> Worst {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let part = |part| {
        let mut worst = Worst { ulp: 0.0, at: 0.0, found: 0.0 };
        for from in batches(step, part, threads) {
            for (&at, found) in from.iter().zip(map(entry, function, &from)) {
                let ulp = error(found, exact(at.into()));
                if ulp > worst.ulp {
                    worst = Worst { ulp, at, found };
                }
            }
        }
        worst
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|i| scope.spawn(move || part(i))).collect();
        let worst = parts.into_iter().map(|part| part.join().expect("no panic"));
        worst.max_by(|a, b| a.ulp.total_cmp(&b.ulp)).expect("there is a thread")
    })
}

/// Checks a function over every `step`-th float.
fn within(name: &str, function: impl Function, exact: fn(f64) -> f64, bound: f64, step: usize) {
    for entry in available() {
        let worst = measure(entry, function, exact, step);
        let Worst { ulp, at, found } = worst;
        println!("{name} on {}: {ulp:.3} ULP at {at:e}, where it is {found:e}", entry.isa.name());
        assert!(ulp <= bound, "{name} on {}: {ulp} ULP at {at:e}, stated are {bound}", entry.isa.name());
    }
}

const SAMPLE: usize = 1021;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn exp2(step: usize) {
    within("exp2", Exp2, f64::exp2, 1.7, step);
}

fn exp(step: usize) {
    within("exp", Exp, f64::exp, 2.1, step);
}

fn tanh(step: usize) {
    within("tanh", Tanh, f64::tanh, 1.7, step);
}

/// Below −87 a result of 0 is as good.
fn sigmoid_where_normal(step: usize) {
    #[derive(Clone, Copy)]
    struct Clamped;
    impl Function for Clamped {
        #[inline(always)]
        fn call<L: Lanes>(self, x: F32<L>) -> F32<L> {
            regard_simd::sigmoid(x.max(x.like(-87.0)))
        }
    }
    within("sigmoid, at least −87", Clamped, |x| sigmoid(if x < -87.0 { -87.0 } else { x }), 2.9, step);
    for entry in available() {
        for from in batches(step, 0, 1) {
            let below: Vec<f32> = from.into_iter().map(|x| if x < -87.0 { x } else { -87.5 }).collect();
            for (&at, found) in below.iter().zip(map(entry, Sigmoid, &below)) {
                let ulp = error(found, sigmoid(at.into()));
                assert!(found == 0.0 || ulp <= 4.0, "sigmoid({at:e}) is {found:e} on {}", entry.isa.name());
            }
        }
    }
}

/// 2^(s − ⌊s⌋ − distance); an infinite score and NaN give NaN but −inf, whose weight is 0.
fn softmax_weight(step: usize) {
    within("softmax_weight at 1", Weight(1.0), |s| weight(s, 1.0), 1.7, step);
    within("softmax_weight at 100", Weight(100.0), |s| weight(s, 100.0), 1.7, step);
}

fn weight(s: f64, distance: f64) -> f64 {
    // ⌊s⌋ + distance is rounded to binary32 for the reference; what the weight is taken against is the rounded one.
    let reference = f64::from(s.floor() as f32 + distance as f32);
    match s {
        f64::NEG_INFINITY => 0.0,
        s if s.is_finite() => (s - reference).exp2(),
        _ => f64::NAN,
    }
}

#[test]
fn exp2_on_a_sample() {
    exp2(SAMPLE);
}

#[test]
fn exp_on_a_sample() {
    exp(SAMPLE);
}

#[test]
fn tanh_on_a_sample() {
    tanh(SAMPLE);
}

#[test]
fn sigmoid_on_a_sample() {
    sigmoid_where_normal(SAMPLE);
}

#[test]
fn softmax_weight_on_a_sample() {
    softmax_weight(SAMPLE);
}

#[test]
#[ignore = "long"]
fn exp2_on_every_float() {
    exp2(1);
}

#[test]
#[ignore = "long"]
fn exp_on_every_float() {
    exp(1);
}

#[test]
#[ignore = "long"]
fn tanh_on_every_float() {
    tanh(1);
}

#[test]
#[ignore = "long"]
fn sigmoid_on_every_float() {
    sigmoid_where_normal(1);
}

#[test]
#[ignore = "long"]
fn softmax_weight_on_every_float() {
    softmax_weight(1);
}

#[test]
fn powers_of_two_are_exact() {
    let exponents: Vec<f32> = (-320..320).map(|n| n as f32).collect();
    for entry in available() {
        for (&n, found) in exponents.iter().zip(map(entry, Pow2, &exponents)) {
            let exact = if n < -126.0 { 0.0 } else { n.exp2() };
            assert_eq!(found, exact, "2^{n} on {}", entry.isa.name());
        }
    }
}

#[test]
fn floor_and_ceil_are_exact() {
    for entry in available() {
        for from in batches(SAMPLE, 0, 1) {
            let (floor, ceil) = (map(entry, Floor, &from), map(entry, Ceil, &from));
            for ((&x, floor), ceil) in from.iter().zip(floor).zip(ceil) {
                let same = |found: f32, exact: f32| found == exact || found.is_nan() && exact.is_nan();
                assert!(same(floor, x.floor()), "⌊{x:e}⌋ is {floor:e} on {}", entry.isa.name());
                assert!(same(ceil, x.ceil()), "⌈{x:e}⌉ is {ceil:e} on {}", entry.isa.name());
            }
        }
    }
}

/// The larger and the smaller of pairs, and the size of the first with the sign of the second.
struct Pairs<'a> {
    a: &'a [f32],
    b: &'a [f32],
    to: [&'a mut [f32]; 3],
}

impl OnLanes for Pairs<'_> {
    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let [larger, smaller, signed] = self.to.map(|to| vectors_mut(lanes, to));
        for (i, (a, b)) in vectors(lanes, self.a).iter().zip(vectors(lanes, self.b)).enumerate() {
            let (a, b) = (F32::from_raw(lanes, *a), F32::from_raw(lanes, *b));
            larger[i] = a.max(b).raw();
            smaller[i] = a.min(b).raw();
            signed[i] = a.abs().signed_as(b).raw();
        }
    }
}

/// Where one is NaN, and of zeros of either sign, the first stays: every set does the same to the bit.
#[test]
fn the_larger_and_the_smaller() {
    let numbers = [0.0, -0.0, 1.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE];
    let pairs = numbers.iter().flat_map(|&a| numbers.iter().map(move |&b| (a, b)));
    let (a, b): (Vec<f32>, Vec<f32>) = pairs.unzip();
    for entry in available() {
        let mut found = [(); 3].map(|()| vec![0.0; a.len()]);
        let to = found.each_mut().map(|to| to.as_mut_slice());
        enter(entry, Pairs { a: &a, b: &b, to });
        for (i, (&a, &b)) in a.iter().zip(&b).enumerate() {
            let exact = [if b > a { b } else { a }, if b < a { b } else { a }, a.abs().copysign(b)];
            let bits = found.each_ref().map(|found| found[i].to_bits());
            assert_eq!(bits, exact.map(f32::to_bits), "of {a} and {b} on {}", entry.isa.name());
        }
    }
}

struct ToInts<'a>(&'a [f32], &'a mut [i32]);

impl OnLanes for ToInts<'_> {
    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        for (x, y) in vectors(lanes, self.0).iter().zip(vectors_i32_mut(lanes, self.1)) {
            *y = F32::from_raw(lanes, *x).to_i32().raw();
        }
    }
}

struct ToFloats<'a>(&'a [i32], &'a mut [f32]);

impl OnLanes for ToFloats<'_> {
    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        for (x, y) in vectors_i32(lanes, self.0).iter().zip(vectors_mut(lanes, self.1)) {
            *y = I32::from_raw(lanes, *x).to_f32().raw();
        }
    }
}

#[test]
fn conversions_to_and_from_ints() {
    for entry in available() {
        for from in batches(SAMPLE, 0, 1) {
            let mut ints = vec![0; from.len()];
            enter(entry, ToInts(&from, &mut ints));
            for (&x, found) in from.iter().zip(ints) {
                assert_eq!(found, x as i32, "int({x:e}) on {}", entry.isa.name());
            }
            let from: Vec<i32> = from.iter().map(|x| x.to_bits() as i32).collect();
            let mut floats = vec![0.0; from.len()];
            enter(entry, ToFloats(&from, &mut floats));
            for (&x, found) in from.iter().zip(floats) {
                assert_eq!(found, x as f32, "float({x}) on {}", entry.isa.name());
            }
        }
        let edges =
            [2147483520.0, 2147483648.0, -2147483648.0, -2147483904.0, 0.99999994, -0.99999994, 1.5, -1.5];
        let edges = edges.repeat(2);
        let mut ints = [0; 16];
        enter(entry, ToInts(&edges, &mut ints));
        assert_eq!(ints.to_vec(), edges.iter().map(|&x| x as i32).collect::<Vec<_>>());
    }
}

/// Widens words of one 16-bit type.
struct Widen<'a> {
    half: bool,
    words: &'a [u16],
    to: &'a mut [f32],
}

impl OnLanes for Widen<'_> {
    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        for (words, to) in self.words.chunks_exact(L::WIDTH).zip(vectors_mut(lanes, self.to)) {
            *to = if self.half { lanes.load_f16(words) } else { lanes.load_bf16(words) };
        }
    }
}

#[test]
fn all_values_of_16_bit_types() {
    let words: Vec<u16> = (0..=u16::MAX).collect();
    for entry in available() {
        let widen = |half| {
            let mut to = vec![0.0; words.len()];
            enter(entry, Widen { half, words: &words, to: &mut to });
            to
        };
        for ((&word, half), brain) in words.iter().zip(widen(true)).zip(widen(false)) {
            let same = |found: f32, exact: f32| {
                found.to_bits() == exact.to_bits() || found.is_nan() && exact.is_nan()
            };
            let (f, b) = (f16::from_bits(word).to_f32(), bf16::from_bits(word).to_f32());
            assert!(same(half, f), "f16 {word:#06x} is {half:e}, not {f:e}, on {}", entry.isa.name());
            assert!(same(brain, b), "bf16 {word:#06x} is {brain:e}, not {b:e}, on {}", entry.isa.name());
        }
    }
}

/// Narrows floats to binary16.
struct Narrow<'a> {
    from: &'a [f32],
    to: &'a mut [u16],
}

impl OnLanes for Narrow<'_> {
    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        for (&x, to) in vectors(lanes, self.from).iter().zip(self.to.chunks_exact_mut(L::WIDTH)) {
            lanes.store_f16(x, to);
        }
    }
}

/// Every set gives the bits of `half`, which rounds to the nearest in software, NaN's payloads included.
fn narrow_f16(step: usize) {
    // Each number between two neighbours, the middle, and what is next to it on both sides; all NaN's upper bits.
    let words = || (0..=u16::MAX).map(|word| f16::from_bits(word).to_f32().to_bits());
    let near =
        words().flat_map(|bits| [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff].map(|low| f32::from_bits(bits + low)));
    // Numbers below the least one that has all its bits have their middles elsewhere.
    let small = (0..1 << 12).flat_map(|i| {
        let middle = i as f32 * 2f32.powi(-25);
        [middle.next_down(), middle, middle.next_up()]
    });
    let mut edges: Vec<f32> = near.chain(small).collect();
    edges.resize(edges.len().next_multiple_of(16), 0.0);
    for entry in available() {
        for from in batches(step, 0, 1).chain([edges.clone()]) {
            let mut to = vec![0; from.len()];
            enter(entry, Narrow { from: &from, to: &mut to });
            for (&x, found) in from.iter().zip(to) {
                let exact = f16::from_f32(x).to_bits();
                assert_eq!(found, exact, "{x:e}, {:#x}, on {}", x.to_bits(), entry.isa.name());
            }
        }
    }
}

#[test]
fn narrowing_on_a_sample() {
    narrow_f16(SAMPLE);
}

#[test]
#[ignore = "long"]
fn narrowing_on_every_float() {
    narrow_f16(1);
}

struct Turn<'a> {
    from: [&'a [f32]; TRANSPOSE],
    to: &'a mut [f32],
    stride: usize,
}

impl OnLanes for Turn<'_> {
    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        lanes.transpose(self.from, self.to, self.stride);
    }
}

#[test]
fn transposes_turn_their_block_and_touch_nothing_else() {
    let data: Vec<f32> = (0..8 * 13).map(|i| i as f32).collect();
    for entry in available() {
        for stride in [8, 9, 24, 48] {
            for last in [7 * stride + 8, 8 * stride + 5] {
                let mut to = vec![-1.0; last];
                // Rows that are longer than the block.
                let from = std::array::from_fn(|i| &data[13 * i..][..13]);
                enter(entry, Turn { from, to: &mut to, stride });
                for (at, &found) in to.iter().enumerate() {
                    let (row, column) = (at / stride, at % stride);
                    let turned = (row < 8 && column < 8).then(|| (13 * column + row) as f32);
                    assert_eq!(
                        found,
                        turned.unwrap_or(-1.0),
                        "at {at}, stride {stride}, {}",
                        entry.isa.name()
                    );
                }
            }
        }
    }
}

/// The lanes of every set are as many as the catalog's machine model says.
#[test]
fn widths_are_those_of_the_machine_model() {
    struct Width<'a>(&'a mut usize);
    impl OnLanes for Width<'_> {
        fn on<L: Lanes>(self, _: L) {
            *self.0 = <L::Simd as Simd>::F32_LANES;
        }
    }
    for entry in available() {
        let mut lanes = 0;
        enter(entry, Width(&mut lanes));
        assert_eq!(lanes, entry.isa.f32_lanes() as usize, "{}", entry.isa.name());
    }
}
