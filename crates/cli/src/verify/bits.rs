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
    use regard::Dtype;

    use super::*;
    use crate::tensors::signature::Layout;

    fn outcome(dtype: Dtype, o: &[f32], lse: &[f32]) -> Outcome {
        let stored = |dtype, numbers: &[f32]| {
            Stored::nearest(dtype, numbers.to_vec(), [1, 1, 1, numbers.len()], Layout::Bhnd)
        };
        let lse = Some(stored(Dtype::F32, lse));
        Outcome { o: stored(dtype, o), lse, u: None, states: None, seconds: Vec::new() }
    }

    #[test]
    fn bits_are_told_apart_that_are_equal_as_numbers() {
        let ours = outcome(Dtype::F32, &[0.0, 1.0, f32::NAN], &[f32::NEG_INFINITY]);
        assert_eq!(differing(&ours, &ours), [0, 4]);
        assert_eq!(differing(&ours, &outcome(Dtype::F32, &[-0.0, 1.0, f32::NAN], &[f32::MIN])), [2, 4]);
    }

    #[test]
    fn sixteen_bits_count_as_well() {
        let of = |x: f32| outcome(Dtype::Bf16, &[x, 1.0], &[]);
        assert_eq!(differing(&of(1.0), &of(1.0)), [0, 2]);
        assert_eq!(differing(&of(1.0), &of(1.01)), [1, 2]);
    }
}
