//! Whether two kernels wrote the same: not nearly, to the bit.

use crate::execute::Outcome;
use crate::tensors::stored::{Stored, StoredElements};

/// How many elements of o and lse have other bits in `theirs` than in `ours`, and how many there are.
pub(super) fn differing(ours: &Outcome, theirs: &Outcome) -> [usize; 2] {
    let pairs = [(Some(&ours.o), Some(&theirs.o)), (ours.lse.as_ref(), theirs.lse.as_ref())];
    pairs.into_iter().fold([0; 2], |[differing, elements], (ours, theirs)| {
        let (ours, theirs) = (bits(ours), bits(theirs));
        let same = ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
        let all = ours.len().max(theirs.len());
        [differing + all - same, elements + all]
    })
}

fn bits(stored: Option<&Stored<'_>>) -> Vec<u32> {
    match stored.map(|stored| &stored.elements) {
        None => Vec::new(),
        Some(StoredElements::F32(data)) => data.iter().map(|x| x.to_bits()).collect(),
        Some(StoredElements::F16(data)) => data.iter().map(|x| x.to_bits().into()).collect(),
        Some(StoredElements::Bf16(data)) => data.iter().map(|x| x.to_bits().into()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::storage::Storage;

    fn outcome<T: Storage>(o: &[T], lse: &[f32]) -> Outcome {
        let stored = |elements, len| Stored { elements, shape: [1, 1, 1, len], strides: [len, len, len, 1] };
        let lse = stored(f32::store(lse.to_vec()), lse.len());
        Outcome {
            o: stored(T::store(o.to_vec()), o.len()),
            lse: Some(lse),
            u: None,
            states: None,
            seconds: Vec::new(),
        }
    }

    #[test]
    fn bits_are_told_apart_that_are_equal_as_numbers() {
        let ours = outcome(&[0.0f32, 1.0, f32::NAN], &[f32::NEG_INFINITY]);
        assert_eq!(differing(&ours, &ours), [0, 4]);
        assert_eq!(differing(&ours, &outcome(&[-0.0f32, 1.0, f32::NAN], &[f32::MIN])), [2, 4]);
    }

    #[test]
    fn sixteen_bits_count_as_well() {
        let of = |x: f32| outcome(&[bf16::from_f32(x), bf16::ONE], &[]);
        assert_eq!(differing(&of(1.0), &of(1.0)), [0, 2]);
        assert_eq!(differing(&of(1.0), &of(1.01)), [1, 2]);
    }
}
