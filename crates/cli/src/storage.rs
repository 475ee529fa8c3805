//! Elements of q, k, v, o and a gate, whatever type they are stored in.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};
use regard::{Dtype, Elements, ElementsMut, View, ViewMut};
use regard_oracle::{Tensor4, TensorError};

use crate::failure::Failure;
use crate::memory::{self, OutOfMemory};
use crate::tensors::signature::Layout;
use crate::tensors::stored::{Stored, StoredElements};
use crate::tensors::write::Output;

/// How many elements a shape has; saturates.
pub(crate) fn elements(shape: [usize; 4]) -> u128 {
    shape.iter().fold(1, |product: u128, &n| product.saturating_mul(n as u128))
}

impl StoredElements<'static> {
    /// So many zeros.
    ///
    /// # Errors
    /// If the system does not give the memory.
    fn zeroed(what: &'static str, dtype: Dtype, len: u128) -> Result<Self, OutOfMemory> {
        Ok(match dtype {
            Dtype::F32 => Self::F32(Cow::Owned(memory::zeroed(what, len)?)),
            Dtype::F16 => Self::F16(Cow::Owned(memory::zeroed(what, len)?)),
            Dtype::Bf16 => Self::Bf16(Cow::Owned(memory::zeroed(what, len)?)),
        })
    }

    /// The nearest to some numbers.
    pub(crate) fn nearest(dtype: Dtype, numbers: Vec<f32>) -> Self {
        match dtype {
            Dtype::F32 => Self::F32(Cow::Owned(numbers)),
            Dtype::F16 => Self::F16(numbers.into_iter().map(f16::from_f32).collect()),
            Dtype::Bf16 => Self::Bf16(numbers.into_iter().map(bf16::from_f32).collect()),
        }
    }
}

impl StoredElements<'_> {
    /// As kernels read them.
    pub(crate) fn all(&self) -> Elements<'_> {
        match self {
            StoredElements::F32(data) => Elements::F32(data),
            StoredElements::F16(data) => Elements::F16(data),
            StoredElements::Bf16(data) => Elements::Bf16(data),
        }
    }

    /// As floats.
    pub(crate) fn floats(&self) -> impl Iterator<Item = f32> {
        self.all().floats()
    }

    /// A copy of some.
    ///
    /// # Panics
    /// If there are not so many.
    pub(crate) fn part(&self, range: Range<usize>) -> StoredElements<'static> {
        match self {
            StoredElements::F32(data) => StoredElements::F32(Cow::Owned(data[range].to_vec())),
            StoredElements::F16(data) => StoredElements::F16(Cow::Owned(data[range].to_vec())),
            StoredElements::Bf16(data) => StoredElements::Bf16(Cow::Owned(data[range].to_vec())),
        }
    }
}

impl Stored<'static> {
    /// Zeros of a shape.
    ///
    /// # Errors
    /// If the system does not give the memory.
    pub(crate) fn zeroed(
        what: &'static str,
        dtype: Dtype,
        shape: [usize; 4],
        layout: Layout,
    ) -> Result<Self, OutOfMemory> {
        let elements = StoredElements::zeroed(what, dtype, elements(shape))?;
        Ok(Self { elements, shape, strides: layout.strides(shape) })
    }

    /// Numbers of a shape, rounded to a type.
    pub(crate) fn nearest(dtype: Dtype, numbers: Vec<f32>, shape: [usize; 4], layout: Layout) -> Self {
        Self { elements: StoredElements::nearest(dtype, numbers), shape, strides: layout.strides(shape) }
    }

    /// The view that a kernel writes.
    ///
    /// # Errors
    /// If there are fewer elements than the shape says, which what is allocated rules out.
    pub(crate) fn rows_mut(&mut self) -> Result<ViewMut<'_>, Failure> {
        let ([b, h, n, width], [sb, sh, sn, _]) = (self.shape, self.strides);
        let elements = match &mut self.elements {
            StoredElements::F32(data) => ElementsMut::F32(data.to_mut()),
            StoredElements::F16(data) => ElementsMut::F16(data.to_mut()),
            StoredElements::Bf16(data) => ElementsMut::Bf16(data.to_mut()),
        };
        ViewMut::of(elements, [b, h, n], [sb, sh, sn], width).map_err(|error| Failure::Bug(error.to_string()))
    }
}

impl Stored<'_> {
    /// The view that a kernel reads.
    ///
    /// # Errors
    /// If the elements are fewer than the shape says, which what is bound rules out.
    pub(crate) fn rows(&self) -> Result<View<'_>, Failure> {
        let ([b, h, n, width], [sb, sh, sn, _]) = (self.shape, self.strides);
        View::of(self.elements.all(), [b, h, n], [sb, sh, sn], width)
            .map_err(|error| Failure::Bug(error.to_string()))
    }

    /// The view that the oracle reads.
    ///
    /// # Errors
    /// If the elements are fewer than shape and strides reach to, which what is bound and what is written rule out.
    pub(crate) fn view(&self) -> Result<Tensor4<'_>, TensorError> {
        let elements = match &self.elements {
            StoredElements::F32(data) => regard_oracle::Elements::F32(data),
            StoredElements::F16(data) => regard_oracle::Elements::F16(data),
            StoredElements::Bf16(data) => regard_oracle::Elements::Bf16(data),
        };
        Tensor4::new(elements, self.shape, self.strides)
    }

    /// The tensor as a file stores it; `shape` is in the file's order.
    pub(crate) fn output(&self, shape: &[usize]) -> Output<'_> {
        match &self.elements {
            StoredElements::F32(data) => Output::new(shape, data),
            StoredElements::F16(data) => Output::new(shape, data),
            StoredElements::Bf16(data) => Output::new(shape, data),
        }
    }
}
