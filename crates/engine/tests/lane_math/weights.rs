//! Weights of scores: how precise coarse ones are, and what does not depend on the reference.

use super::*;

/// Weights that are rounded to bfloat16 next.
#[derive(Clone, Copy)]
struct CoarseWeight(f32);

impl Function for CoarseWeight {
    #[inline(always)]
    fn call<L: Lanes>(self, s: F32<L>) -> F32<L> {
        regard_simd::softmax_weight_coarse(s, s.floor() + s.like(self.0))
    }
}

#[test]
fn coarse_weights_are_as_precise_as_bfloat16_can_tell() {
    const LEAST: f64 = f32::MIN_POSITIVE as f64;
    for entry in available() {
        for from in batches(SAMPLE, 0, 1) {
            for distance in [1.0, 100.0, 140.0] {
                let found = map(entry, CoarseWeight(distance), &from);
                for (&s, found) in from.iter().zip(found).filter(|(s, _)| s.is_finite()) {
                    let exact = weight(s.into(), distance.into());
                    let error = (f64::from(found) - exact).abs();
                    let told =
                        || format!("{s:e} at {distance} on {}: {found:e} for {exact:e}", entry.isa.name());
                    assert!(error <= if exact < LEAST { LEAST } else { 7.6e-5 * exact }, "{}", told());
                }
            }
        }
        let [masked, nan] = [f32::NEG_INFINITY, f32::NAN].map(|s| {
            let found = map(entry, Fixed, &[s; 16]);
            found[15]
        });
        assert!(masked == 0.0 && nan.is_nan(), "{masked} and {nan} on {}", entry.isa.name());
    }
}

/// The same against a fixed reference.
#[derive(Clone, Copy)]
struct Fixed;

impl Function for Fixed {
    #[inline(always)]
    fn call<L: Lanes>(self, s: F32<L>) -> F32<L> {
        regard_simd::softmax_weight_coarse(s, s.like(3.0))
    }
}

/// A weight against one reference, times a power of two, has the bits of a weight against another.
#[test]
fn a_weight_does_not_depend_on_when_it_is_rescaled() {
    for entry in available() {
        for from in batches(SAMPLE * 64, 0, 1) {
            let near = [map(entry, Weight(1.0), &from), map(entry, CoarseWeight(1.0), &from)];
            for distance in [2.0f32, 3.0, 17.0, 90.0] {
                let far = [map(entry, Weight(distance), &from), map(entry, CoarseWeight(distance), &from)];
                for (near, far) in near.iter().zip(far) {
                    for ((&s, &near), far) in from.iter().zip(near).zip(far) {
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
