//! The keys that each vector of a row tile sees, where a mask's edge crosses the tile.

use core::ops::Range;

/// Vectors of a full row tile.
pub const VECTORS: usize = 3;

/// Which live keys of a step the vectors of a full row tile may see: vector `v` those from `begin[v]` to `end[v]`, and some keys are
/// seen by all. Neither end falls from one vector to the next. Weights of other keys are zero, so products may leave them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stairs {
    begin: [usize; VECTORS],
    end: [usize; VECTORS],
}

impl Stairs {
    /// The narrowest stairs over what each vector sees, counted from the first live key.
    pub fn over(seen: [Range<usize>; VECTORS]) -> Self {
        let (mut begin, mut end) = (seen.clone().map(|seen| seen.start), seen.map(|seen| seen.end));
        for v in 1..VECTORS {
            end[v] = end[v].max(end[v - 1]);
        }
        for v in (0..VECTORS - 1).rev() {
            begin[v] = begin[v].min(begin[v + 1]);
        }
        Self { begin: begin.map(|begin| begin.min(end[0])), end }
    }

    /// The vectors that see some of these keys: the first ones, or the last ones, or all.
    pub(crate) fn vectors(&self, keys: Range<usize>) -> Range<usize> {
        let ended = self.end.iter().filter(|&&end| end <= keys.start).count();
        let begun = self.begin.iter().filter(|&&begin| begin < keys.end).count();
        ended..begun.max(ended)
    }

    /// The runs of keys that the first vectors see, one and more, all, and the last ones, less and less of them; each in elements of
    /// `numbers` keys.
    pub(crate) fn runs(&self, numbers: usize) -> [Range<usize>; 2 * VECTORS - 1] {
        let Self { begin: [zeroth, first, all], end: [end, second, third] } = *self;
        let [zeroth, first, all] = [zeroth, first, all].map(|begin| begin / numbers);
        let [end, second, third] = [end, second, third].map(|end| end.div_ceil(numbers));
        [zeroth..first, first..all, all..end, end..second, second..third]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_edges_rise() {
        let causal = Stairs::over([0..16, 0..32, 0..48]);
        assert_eq!(causal.runs(1), [0..0, 0..0, 0..16, 16..32, 32..48]);
        assert_eq!([0..8, 8..16, 16..24, 40..48].map(|keys| causal.vectors(keys)), [0..3, 0..3, 1..3, 2..3]);
        let window = Stairs::over([0..64, 16..64, 32..64]);
        assert_eq!(window.runs(2), [0..8, 8..16, 16..32, 32..32, 32..32]);
        assert_eq!([0..8, 16..24, 32..40].map(|keys| window.vectors(keys)), [0..1, 0..2, 0..3]);
    }

    #[test]
    fn what_does_not_rise_is_covered() {
        // A narrow window: no key is seen by all.
        let narrow = Stairs::over([0..8, 16..24, 32..40]);
        assert_eq!(narrow.runs(1), [0..8, 8..8, 8..8, 8..24, 24..40]);
        // Rows of two heads: the second begins again.
        let heads = Stairs::over([0..16, 0..32, 0..16]);
        assert_eq!(heads.runs(1), [0..0, 0..0, 0..16, 16..32, 32..32]);
        // A vector that sees nothing.
        let blind = Stairs::over([0..0, 0..8, 0..16]);
        assert_eq!(blind.runs(1), [0..0, 0..0, 0..0, 0..8, 8..16]);
        for (stairs, seen) in [(narrow, [0..8, 16..24, 32..40]), (heads, [0..16, 0..32, 0..16])] {
            for (v, seen) in seen.into_iter().enumerate() {
                for key in seen {
                    assert!(stairs.vectors(key..key + 1).contains(&v), "{stairs:?} {v} {key}");
                }
            }
        }
    }
}
