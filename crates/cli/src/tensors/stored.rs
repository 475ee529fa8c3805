//! Tensors as they lie in a file, or in memory of their own.

use std::borrow::Cow;

use half::{bf16, f16};
use regard_ir::inputs::InputData;

/// States of a recurrence, in f32.
#[derive(Debug)]
pub(crate) struct StoredStates<'t> {
    /// `[sequence, value head, dim, value_dim]`.
    pub(crate) state: Stored<'t>,
    /// Sums of features, `[sequence, value head, 1, dim]`, of a spec that divides by them.
    pub(crate) norm: Option<Stored<'t>>,
}

/// An operand, o, lse or a gate.
#[derive(Debug)]
pub(crate) struct Stored<'t> {
    /// Its elements.
    pub(crate) elements: StoredElements<'t>,
    /// Lengths of the axes batch, head, token, channel.
    pub(crate) shape: [usize; 4],
    /// Elements from one index of those axes to the next.
    pub(crate) strides: [usize; 4],
}

/// Elements in a storage type.
#[derive(Debug)]
pub(crate) enum StoredElements<'t> {
    /// binary32.
    F32(Cow<'t, [f32]>),
    /// binary16.
    F16(Cow<'t, [f16]>),
    /// The upper half of a binary32.
    Bf16(Cow<'t, [bf16]>),
}

/// Elements of a captured input.
#[derive(Debug)]
pub(crate) enum CapturedElements<'t> {
    /// binary32.
    F32(Cow<'t, [f32]>),
    /// 32-bit integers.
    I32(Cow<'t, [i32]>),
    /// Bytes; anything but 0 is true.
    Bool(Cow<'t, [u8]>),
}

impl CapturedElements<'_> {
    /// The view that a problem binds.
    pub(crate) fn data(&self) -> InputData<'_> {
        match self {
            CapturedElements::F32(data) => InputData::F32(data),
            CapturedElements::I32(data) => InputData::I32(data),
            CapturedElements::Bool(data) => InputData::Bool(data),
        }
    }
}
