//! Elements of q, k, v, o and a gate in one storage type, and without knowing which.

use std::borrow::Cow;

use half::{bf16, f16};
use regard_oracle::{Elements, Tensor4, TensorError};

use crate::tensors::element::Element;
use crate::tensors::stored::{Stored, StoredElements};
use crate::tensors::write::Output;

/// A storage type of kernels and of files.
pub(crate) trait Storage: Element + regard::Element {
    /// `elements` without their type.
    fn store(elements: Vec<Self>) -> StoredElements<'static>;

    /// The elements, if they are of this type.
    fn of<'a>(elements: &'a StoredElements<'_>) -> Option<&'a [Self]>;
}

impl Storage for f32 {
    fn store(elements: Vec<f32>) -> StoredElements<'static> {
        StoredElements::F32(Cow::Owned(elements))
    }

    fn of<'a>(elements: &'a StoredElements<'_>) -> Option<&'a [f32]> {
        match elements {
            StoredElements::F32(data) => Some(data),
            _ => None,
        }
    }
}

impl Storage for f16 {
    fn store(elements: Vec<f16>) -> StoredElements<'static> {
        StoredElements::F16(Cow::Owned(elements))
    }

    fn of<'a>(elements: &'a StoredElements<'_>) -> Option<&'a [f16]> {
        match elements {
            StoredElements::F16(data) => Some(data),
            _ => None,
        }
    }
}

impl Storage for bf16 {
    fn store(elements: Vec<bf16>) -> StoredElements<'static> {
        StoredElements::Bf16(Cow::Owned(elements))
    }

    fn of<'a>(elements: &'a StoredElements<'_>) -> Option<&'a [bf16]> {
        match elements {
            StoredElements::Bf16(data) => Some(data),
            _ => None,
        }
    }
}

impl Stored<'_> {
    /// The view that the oracle reads.
    ///
    /// # Errors
    /// If the elements are fewer than shape and strides reach to, which what is bound and what is written rule out.
    pub(crate) fn view(&self) -> Result<Tensor4<'_>, TensorError> {
        let elements = match &self.elements {
            StoredElements::F32(data) => Elements::F32(data),
            StoredElements::F16(data) => Elements::F16(data),
            StoredElements::Bf16(data) => Elements::Bf16(data),
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
