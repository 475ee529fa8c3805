//! Captured tensors: what masks and modifiers read beside positions.

use core::fmt;

use crate::expr::MAX_AXES;
use crate::problem::Problem;
use crate::variant::{Axis, Heads, InputShape, InputType, Source};

/// The elements of a captured input, row-major over its axes.
#[derive(Clone, Copy, Debug)]
pub enum InputData<'a> {
    /// binary32.
    F32(&'a [f32]),
    /// 32-bit integers.
    I32(&'a [i32]),
    /// Bytes; anything but 0 is true.
    Bool(&'a [u8]),
}

impl InputData<'_> {
    /// Number of elements.
    pub const fn len(&self) -> usize {
        match self {
            InputData::F32(data) => data.len(),
            InputData::I32(data) => data.len(),
            InputData::Bool(data) => data.len(),
        }
    }

    /// Whether there is no element.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements' type.
    pub const fn dtype(&self) -> InputType {
        match self {
            InputData::F32(_) => InputType::F32,
            InputData::I32(_) => InputType::I32,
            InputData::Bool(_) => InputType::Bool,
        }
    }
}

/// Captured inputs that do not fit what the spec declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindError {
    /// More or fewer tensors than declared.
    Count {
        /// How many the spec declares.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// Another element type.
    Type {
        /// Which input, in declaration order.
        input: usize,
        /// The declared type.
        expected: InputType,
        /// The type given.
        found: InputType,
    },
    /// Another number of elements than the axes need; `expected` saturates.
    Len {
        /// Which input, in declaration order.
        input: usize,
        /// Product of the axes for this problem.
        expected: usize,
        /// Elements given.
        found: usize,
    },
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::Count { expected, found } => {
                write!(f, "the spec declares {expected} captured inputs, {found} were given")
            }
            BindError::Type { input, expected, found } => {
                write!(f, "captured input {input} is {}, the spec declares {}", found.name(), expected.name())
            }
            BindError::Len { input, expected, found } => {
                write!(f, "captured input {input} has {found} elements, its axes need {expected}")
            }
        }
    }
}

impl core::error::Error for BindError {}

/// A problem's captured inputs, checked against their declarations.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    shapes: &'a [InputShape],
    data: &'a [InputData<'a>],
    lens: AxisLens,
}

/// How long each kind of axis is in one problem.
#[derive(Clone, Copy, Debug)]
struct AxisLens {
    batch: u32,
    head: u32,
    kv_head: u32,
    query: u32,
    key: u32,
}

impl AxisLens {
    fn new(heads: &Heads, source: Source, problem: &Problem) -> Self {
        Self {
            batch: problem.batch,
            head: heads.query,
            kv_head: heads.kv,
            query: problem.query_axis(source),
            key: problem.keys,
        }
    }

    /// Elements of an input; saturates.
    fn elements(self, shape: &InputShape) -> usize {
        shape.axes().iter().fold(1, |n: usize, &axis| n.saturating_mul(self.of(axis) as usize))
    }

    const fn of(self, axis: Axis) -> u32 {
        match axis {
            Axis::Batch => self.batch,
            Axis::Head => self.head,
            Axis::KvHead => self.kv_head,
            Axis::Query => self.query,
            Axis::Key => self.key,
            Axis::Len(len) => len,
        }
    }
}

/// How many elements each input has in a problem, in declaration order; saturates.
pub fn lens(
    shapes: &[InputShape],
    heads: &Heads,
    source: Source,
    problem: &Problem,
) -> impl Iterator<Item = usize> {
    let lens = AxisLens::new(heads, source, problem);
    shapes.iter().map(move |shape| lens.elements(shape))
}

impl<'a> Captured<'a> {
    /// No inputs.
    pub const NONE: Captured<'static> = Captured {
        shapes: &[],
        data: &[],
        lens: AxisLens { batch: 0, head: 0, kv_head: 0, query: 0, key: 0 },
    };

    /// Binds `data`, one entry for each declared shape and in the same order, to a problem.
    ///
    /// # Errors
    /// If the count, an element type or a number of elements differs from the declaration.
    pub fn bind(
        shapes: &'a [InputShape],
        data: &'a [InputData<'a>],
        heads: &Heads,
        source: Source,
        problem: &Problem,
    ) -> Result<Self, BindError> {
        if shapes.len() != data.len() {
            return Err(BindError::Count { expected: shapes.len(), found: data.len() });
        }
        let lens = AxisLens::new(heads, source, problem);
        for (input, (shape, data)) in shapes.iter().zip(data).enumerate() {
            if shape.dtype != data.dtype() {
                return Err(BindError::Type { input, expected: shape.dtype, found: data.dtype() });
            }
            let expected =
                shape.axes().iter().fold(1usize, |n, &axis| n.saturating_mul(lens.of(axis) as usize));
            if expected != data.len() {
                return Err(BindError::Len { input, expected, found: data.len() });
            }
        }
        Ok(Self { shapes, data, lens })
    }

    /// How many elements each input has, in declaration order.
    pub fn lens(&self) -> impl Iterator<Item = usize> {
        self.data.iter().map(InputData::len)
    }

    /// How many inputs there are.
    pub const fn count(&self) -> usize {
        self.data.len()
    }

    /// The declaration of an input.
    pub const fn shape(&self, input: usize) -> &'a InputShape {
        &self.shapes[input]
    }

    /// The elements of an input.
    pub const fn data(&self, input: usize) -> &'a InputData<'a> {
        &self.data[input]
    }

    /// The elements of an f32 input; `None` of another.
    pub const fn floats(&self, input: u16) -> Option<&'a [f32]> {
        match self.data[input as usize] {
            InputData::F32(data) => Some(data),
            _ => None,
        }
    }

    /// The length of each axis of an input; 1 past its rank.
    pub fn dims(&self, input: usize) -> [u32; MAX_AXES] {
        let mut dims = [1; MAX_AXES];
        for (dim, &axis) in dims.iter_mut().zip(self.shapes[input].axes()) {
            *dim = self.lens.of(axis);
        }
        dims
    }

    /// The place of an element in [`Captured::data`], or `None` where an index leaves its axis.
    pub fn offset(&self, input: usize, index: &[i32]) -> Option<usize> {
        let mut offset = 0usize;
        for (&axis, &i) in self.shapes[input].axes().iter().zip(index) {
            let len = self.lens.of(axis);
            if i < 0 || i as u32 >= len {
                return None;
            }
            offset = offset * len as usize + i as usize;
        }
        Some(offset)
    }
}
