//! Exponentials that are the sum of two floats, and products of them.

use regard_engine::engine::LINE;
use regard_ir::machine::Isa;
use regard_simd::{F32, Lanes, exp_parts, times_parts, vectors, vectors_mut};

use crate::{OnLanes, SAMPLE, available, batches, enter};

/// Both parts of an exponential.
struct Parts<'a> {
    from: &'a [f32],
    to: [&'a mut [f32]; 2],
}

impl OnLanes for Parts<'_> {
    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let [below, rest] = self.to.map(|to| vectors_mut(lanes, to));
        for (i, &x) in vectors(lanes, self.from).iter().enumerate() {
            let parts = exp_parts(F32::from_raw(lanes, x));
            (below[i], rest[i]) = (parts[0].raw(), parts[1].raw());
        }
    }
}

/// The sum of both parts; the second is positive, and small beside the first.
fn within(step: usize) {
    for entry in available() {
        let (mut worst, mut worst_small) = ((0.0, 0.0), (0.0, 0.0));
        for from in batches(step, 0, 1) {
            let from: Vec<f32> = from.into_iter().filter(|x| *x <= 0.0).collect();
            let from = &from[..from.len() / LINE * LINE];
            let [mut below, mut rest] = [(); 2].map(|()| vec![0.0; from.len()]);
            enter(entry, Parts { from, to: [&mut below, &mut rest] });
            for ((&x, below), rest) in from.iter().zip(below).zip(rest) {
                let (at, exact) = (f64::from(x), f64::from(x).exp());
                let off = (f64::from(below) + f64::from(rest) - exact).abs();
                let on = entry.isa.name();
                // Around 2^−100.5 and 2^−125.5 one or the other may be. Without a rest a unit of the float is missing, 1.2e-7 at most.
                if exact < 2f64.powi(-100) {
                    assert!(rest == 0.0 || exact > 2f64.powi(-101), "{rest:e} at {x:e} on {on}");
                    let is_near = off <= 1.6e-7 * exact || below == 0.0 && exact < 2f64.powi(-125);
                    assert!(is_near, "{below:e} at {x:e} on {on}");
                    continue;
                }
                assert!(rest > 0.0 && rest < 1.3e-7 * below, "{below:e} and {rest:e} at {x:e} on {on}");
                if off / exact > worst.0 {
                    worst = (off / exact, at);
                }
                if at > -0.3 && off > worst_small.0 * at * at + 1e-13 {
                    worst_small = (off / (at * at), at);
                }
            }
        }
        println!("exp_parts on {}: {worst:?}, of x² {worst_small:?}", entry.isa.name());
        assert!(worst.0 <= 4e-8 && worst_small.0 <= 1e-7, "{worst:?} {worst_small:?}");
    }
}

#[test]
fn exp_parts_on_a_sample() {
    within(SAMPLE);
}

#[test]
#[ignore = "long"]
fn exp_parts_on_every_float() {
    within(1);
}

/// What is left after so many times the same, as [`Parts`] are of one.
struct Powers<'a> {
    times: usize,
    of: Parts<'a>,
}

impl OnLanes for Powers<'_> {
    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let Self { times, of: Parts { from, to } } = self;
        let [below, rest] = to.map(|to| vectors_mut(lanes, to));
        for (i, &x) in vectors(lanes, from).iter().enumerate() {
            let parts = exp_parts(F32::from_raw(lanes, x));
            let mut all = parts;
            for _ in 1..times {
                all = times_parts(all, parts);
            }
            (below[i], rest[i]) = (all[0].raw(), all[1].raw());
        }
    }
}

/// Errors of products are those of their factors alone, where the instruction set fuses, and the second part stays positive.
#[test]
fn products_of_parts_keep_their_digits() {
    const TIMES: usize = 64;
    let from: [f32; LINE] = core::array::from_fn(|i| -((1 + i * i) as f32) / 4096.0);
    for entry in available() {
        let [mut below, mut rest] = [[0.0; LINE]; 2];
        enter(entry, Powers { times: TIMES, of: Parts { from: &from, to: [&mut below, &mut rest] } });
        // Unfused, what rounding takes of a product is not seen.
        let unseen = if entry.isa == Isa::Scalar { 6e-8 } else { 0.0 };
        for ((&x, below), rest) in from.iter().zip(below).zip(rest) {
            let exact = (f64::from(x) * TIMES as f64).exp();
            let off = (f64::from(below) + f64::from(rest) - exact).abs() / exact;
            let allowed = TIMES as f64 * (1e-7 * f64::from(x * x) + unseen);
            assert!(off < allowed && rest > 0.0, "{off:e} at {x} on {}", entry.isa.name());
        }
    }
}
