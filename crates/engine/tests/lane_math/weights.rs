//! Weights of scores: how precise coarse ones are, and what does not depend on the reference.

use super::*;

/// What makes weights that are rounded to bfloat16 next.
#[derive(Clone, Copy)]
struct Coarse;

impl Function for Coarse {
    #[inline(always)]
    fn call<L: Lanes>(self, x: F32<L>) -> F32<L> {
        regard_simd::exp2_coarse(x)
    }
}

/// What makes weights that are split into two pieces next.
#[derive(Clone, Copy)]
struct Fine;

impl Function for Fine {
    #[inline(always)]
    fn call<L: Lanes>(self, x: F32<L>) -> F32<L> {
        regard_simd::exp2_fine(x)
    }
}

#[test]
fn weights_are_as_precise_as_their_pieces_can_tell() {
    are_within(Coarse, 7.6e-5);
    are_within(Fine, 2e-7);
}

/// Compares powers of two with f64, on a sample of all floats up to 127.
fn are_within(function: impl Function, bound: f64) {
    const LEAST: f64 = f32::MIN_POSITIVE as f64;
    for entry in available() {
        for from in batches(SAMPLE, 0, 1) {
            let from: Vec<f32> = from.into_iter().map(|x| if x > 127.0 { -x } else { x }).collect();
            for (&x, found) in from.iter().zip(map(entry, function, &from)).filter(|(x, _)| x.is_finite()) {
                let exact = f64::from(x).exp2();
                let error = (f64::from(found) - exact).abs();
                let told = || format!("{x:e} on {}: {found:e} for {exact:e}", entry.isa.name());
                assert!(error <= if exact < LEAST { LEAST } else { bound * exact }, "{}", told());
            }
        }
        let [masked, nan] = [f32::NEG_INFINITY, f32::NAN].map(|x| map(entry, function, &[x; 16])[15]);
        assert!(masked == 0.0 && nan.is_nan(), "{masked} and {nan} on {}", entry.isa.name());
    }
}

/// A weight against one reference, times a power of two, has the bits of a weight against another.
#[test]
fn a_weight_does_not_depend_on_when_it_is_rescaled() {
    for entry in available() {
        for from in batches(SAMPLE * 64, 0, 1) {
            let near = map(entry, Weight(1.0), &from);
            for distance in [2.0f32, 3.0, 17.0, 90.0] {
                let far = map(entry, Weight(distance), &from);
                for ((&s, &near), far) in from.iter().zip(&near).zip(far) {
                    // Scores so large that the distance is rounded away have no such pair of references.
                    if s.abs() < 1e5 {
                        let scaled = near * (1.0 - distance).exp2();
                        let on = entry.isa.name();
                        assert_eq!(scaled.to_bits(), far.to_bits(), "{s:e} at {distance} on {on}");
                    }
                }
            }
        }
    }
}

/// The weight of a score against a fixed reference, in one of two ways.
#[derive(Clone, Copy)]
struct Fixed {
    reference: f32,
    is_near: bool,
}

impl Function for Fixed {
    #[inline(always)]
    fn call<L: Lanes>(self, s: F32<L>) -> F32<L> {
        let reference = s.like(self.reference);
        if self.is_near {
            regard_simd::softmax_weight_near(s, reference, reference - s.like(127.0))
        } else {
            regard_simd::softmax_weight(s, reference)
        }
    }
}

#[test]
fn a_weight_against_a_near_reference_has_the_bits_of_any() {
    let odd = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -0.0, f32::MIN, 1e-45];
    for entry in available() {
        for reference in [-regard_simd::NEAR, -1000.0, -1.0, 0.0, 3.0, 65_537.0, regard_simd::NEAR] {
            // Around the reference, and where weights come to 0.
            let around =
                (0..4096).flat_map(|i| [0.0, 125.0].map(|past| reference + 1.0 - past - i as f32 / 1024.0));
            let near: Vec<f32> = odd.into_iter().chain(around).collect();
            for mut from in batches(SAMPLE, 0, 1).chain([near]) {
                // A reference is not below the floor of a score.
                from.retain(|s| s.is_nan() || s.floor() <= reference);
                from.resize(from.len().next_multiple_of(16), reference);
                let [found, expected] =
                    [true, false].map(|is_near| map(entry, Fixed { reference, is_near }, &from));
                for ((s, found), expected) in from.iter().zip(found).zip(expected) {
                    let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
                    assert!(
                        same,
                        "{s:e} against {reference} on {}: {found:e}, {expected:e}",
                        entry.isa.name()
                    );
                }
            }
        }
    }
}

#[test]
fn weights_of_what_is_not_finite() {
    let scores = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -0.0].repeat(8);
    struct Against<'a>(&'a [f32], &'a mut [f32]);
    impl OnLanes for Against<'_> {
        #[inline(always)]
        fn on<L: Lanes>(self, lanes: L) {
            let reference = F32::splat(lanes, 3.0);
            for (s, w) in vectors(lanes, self.0).iter().zip(vectors_mut(lanes, self.1)) {
                *w = regard_simd::softmax_weight(F32::from_raw(lanes, *s), reference).raw();
            }
        }
    }
    for entry in available() {
        let mut weights = vec![1.0; scores.len()];
        enter(entry, Against(&scores, &mut weights));
        for weights in weights.chunks(4) {
            let [masked, infinite, nan, zero] = weights else { panic!("four of each") };
            assert_eq!((*masked, *zero), (0.0, 0.125), "on {}", entry.isa.name());
            assert!(infinite.is_nan() && nan.is_nan(), "on {}: {infinite} and {nan}", entry.isa.name());
        }
    }
}
