//! Tensors as they are stored, read as f64.

use core::fmt;

use half::{bf16, f16};
use regard_ir::plan::Dtype;

/// Stored elements, borrowed.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// binary32.
    F32(&'a [f32]),
    /// binary16.
    F16(&'a [f16]),
    /// The upper half of a binary32.
    Bf16(&'a [bf16]),
}

impl<'a> Elements<'a> {
    /// Number of elements.
    pub const fn len(self) -> usize {
        match self {
            Elements::F32(data) => data.len(),
            Elements::F16(data) => data.len(),
            Elements::Bf16(data) => data.len(),
        }
    }

    /// Whether there is no element.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The elements' type.
    pub const fn dtype(self) -> Dtype {
        match self {
            Elements::F32(_) => Dtype::F32,
            Elements::F16(_) => Dtype::F16,
            Elements::Bf16(_) => Dtype::Bf16,
        }
    }

    /// `len` elements from `start`, `stride` apart, exactly.
    fn gather(self, start: usize, len: usize, stride: usize) -> Vec<f64> {
        fn from<T: Copy + Into<f32>>(data: &[T], start: usize, len: usize, stride: usize) -> Vec<f64> {
            match stride {
                1 => data[start..start + len].iter().map(|&x| f64::from(x.into())).collect(),
                _ => (0..len).map(|i| f64::from(data[start + i * stride].into())).collect(),
            }
        }
        match self {
            Elements::F32(data) => from(data, start, len, stride),
            Elements::F16(data) => from(data, start, len, stride),
            Elements::Bf16(data) => from(data, start, len, stride),
        }
    }
}

/// Stored elements, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum Buffer {
    /// binary32.
    F32(Vec<f32>),
    /// binary16.
    F16(Vec<f16>),
    /// The upper half of a binary32.
    Bf16(Vec<bf16>),
}

impl Buffer {
    /// `values`, each rounded to the nearest of `dtype`.
    pub fn rounded(dtype: Dtype, values: impl IntoIterator<Item = f32>) -> Self {
        let values = values.into_iter();
        match dtype {
            Dtype::F32 => Buffer::F32(values.collect()),
            Dtype::F16 => Buffer::F16(values.map(f16::from_f32).collect()),
            Dtype::Bf16 => Buffer::Bf16(values.map(bf16::from_f32).collect()),
        }
    }

    /// The elements from `start` on.
    ///
    /// # Panics
    /// If `start` is past the end.
    pub fn elements(&self, start: usize) -> Elements<'_> {
        match self {
            Buffer::F32(data) => Elements::F32(&data[start..]),
            Buffer::F16(data) => Elements::F16(&data[start..]),
            Buffer::Bf16(data) => Elements::Bf16(&data[start..]),
        }
    }
}

/// A view whose last element lies outside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorError {
    /// Lengths of the axes.
    pub shape: [usize; 4],
    /// Elements from one index of an axis to the next.
    pub strides: [usize; 4],
    /// Elements there are.
    pub len: usize,
}

impl fmt::Display for TensorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, strides, len } = self;
        write!(f, "a view of shape {shape:?} with strides {strides:?} leaves its {len} elements")
    }
}

impl std::error::Error for TensorError {}

/// A strided view with axes batch, head, token, channel.
#[derive(Clone, Copy, Debug)]
pub struct Tensor4<'a> {
    elements: Elements<'a>,
    shape: [usize; 4],
    strides: [usize; 4],
}

impl<'a> Tensor4<'a> {
    /// A view that starts at the first of `elements`; strides count elements.
    ///
    /// # Errors
    /// If the view is not empty and its last element lies outside `elements`.
    pub fn new(elements: Elements<'a>, shape: [usize; 4], strides: [usize; 4]) -> Result<Self, TensorError> {
        let last = shape.iter().zip(strides).try_fold(0usize, |at, (&len, stride)| {
            len.saturating_sub(1).checked_mul(stride).and_then(|step| at.checked_add(step))
        });
        if !shape.contains(&0) && last.is_none_or(|last| last >= elements.len()) {
            return Err(TensorError { shape, strides, len: elements.len() });
        }
        Ok(Self { elements, shape, strides })
    }

    /// A row-major view `[b, h, n, d]`.
    ///
    /// # Errors
    /// If there are fewer elements than the shape holds.
    pub fn dense(elements: Elements<'a>, shape: [usize; 4]) -> Result<Self, TensorError> {
        let [_, h, n, d] = shape;
        let rows = n.saturating_mul(d);
        Self::new(elements, shape, [h.saturating_mul(rows), rows, d, 1])
    }

    /// Lengths of the axes batch, head, token, channel.
    pub const fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Elements from one index of an axis to the next.
    pub const fn strides(&self) -> [usize; 4] {
        self.strides
    }

    /// The elements that the view starts in.
    pub const fn elements(&self) -> Elements<'a> {
        self.elements
    }

    /// The elements' type.
    pub const fn dtype(&self) -> Dtype {
        self.elements.dtype()
    }

    /// The channels of one token of one head.
    ///
    /// # Panics
    /// If an index leaves its axis.
    pub fn row(&self, b: usize, h: usize, n: usize) -> Vec<f64> {
        let [batch, heads, tokens, channels] = self.shape;
        assert!(b < batch && h < heads && n < tokens, "row [{b}, {h}, {n}] of a tensor {:?}", self.shape);
        if channels == 0 {
            return Vec::new();
        }
        let start = b * self.strides[0] + h * self.strides[1] + n * self.strides[2];
        self.elements.gather(start, channels, self.strides[3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_rows_are_read_where_they_lie() {
        let data: Vec<f32> = (0..24).map(|i| i as f32).collect();
        // [b, n, h, d] = [1, 3, 2, 4] read as [1, 2, 3, 4].
        let view = Tensor4::new(Elements::F32(&data), [1, 2, 3, 4], [24, 4, 8, 1]).unwrap();
        assert_eq!(view.row(0, 1, 2), [20.0, 21.0, 22.0, 23.0]);
    }

    #[test]
    fn a_view_past_its_data_is_refused() {
        let data = [f16::ONE; 7];
        let refused = Tensor4::dense(Elements::F16(&data), [1, 1, 2, 4]).unwrap_err();
        assert_eq!(refused.len, 7);
        let huge = Tensor4::dense(Elements::F16(&data), [2, usize::MAX, usize::MAX, 2]).unwrap_err();
        assert_eq!(huge.shape, [2, usize::MAX, usize::MAX, 2]);
        assert!(Tensor4::dense(Elements::F16(&[]), [3, 2, 0, 4]).is_ok());
    }
}
