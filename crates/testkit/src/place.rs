//! Where the elements of a tensor lie in its buffer.

/// The order of a tensor's axes in memory; views have batch, head, token, channel in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Batch, head, token, channel.
    Bhnd,
    /// Batch, token, head, channel.
    Bnhd,
    /// As `Bhnd`, with foreign elements after each row, each head and each sequence.
    Gapped,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 3] = [Layout::Bhnd, Layout::Bnhd, Layout::Gapped];

    /// Elements from one index of each axis to the next, for a tensor `[batch, head, token, channel]`.
    pub fn strides(self, shape: [usize; 4]) -> [usize; 4] {
        let [_, h, n, d] = shape;
        match self {
            Layout::Bhnd => [h * n * d, n * d, d, 1],
            Layout::Bnhd => [n * h * d, d, h * d, 1],
            Layout::Gapped => {
                let row = d + 5;
                let head = n * row + 7;
                [h * head + 11, head, row, 1]
            }
        }
    }
}

/// Foreign elements before and after a tensor: more than any tile reaches.
const MARGIN: usize = 256;

/// A tensor's place between two margins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) shape: [usize; 4],
    pub(crate) strides: [usize; 4],
}

impl Place {
    pub(crate) fn new(shape: [usize; 4], layout: Layout) -> Self {
        Self { shape, strides: layout.strides(shape) }
    }

    /// Where the tensor starts in its buffer.
    pub(crate) const START: usize = MARGIN;

    /// Elements of the buffer, margins included.
    pub(crate) fn buffer_len(&self) -> usize {
        let last = self.indices().map(|at| self.offset(at)).max();
        last.map_or(0, |last| last + 1 - MARGIN) + 2 * MARGIN
    }

    /// Where an element lies in the buffer.
    pub(crate) fn offset(&self, at: [usize; 4]) -> usize {
        MARGIN + at.iter().zip(self.strides).map(|(i, stride)| i * stride).sum::<usize>()
    }

    /// All indices, the channel fastest.
    pub(crate) fn indices(&self) -> impl Iterator<Item = [usize; 4]> + use<> {
        let shape = self.shape;
        let mut next = [0; 4];
        (0..shape.iter().product()).map(move |_| {
            let at = next;
            for (i, len) in next.iter_mut().zip(shape).rev() {
                *i += 1;
                if *i < len {
                    break;
                }
                *i = 0;
            }
            at
        })
    }
}
