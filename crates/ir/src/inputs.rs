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
///
/// Where sequences are packed, an input of sequences and tokens is too: its first token axis takes the place of both,
/// outermost, and the other axes follow in their order. A further token axis, or one of an input without sequences, is as
/// long as the longest sequence's.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    shapes: &'a [InputShape],
    data: &'a [InputData<'a>],
    lens: AxisLens<'a>,
}

/// How long each kind of axis is in one problem.
#[derive(Clone, Copy, Debug)]
struct AxisLens<'a> {
    batch: u32,
    head: u32,
    kv_head: u32,
    query: u32,
    key: u32,
    /// Where the axes `q` and `k` of each sequence begin, where sequences are packed.
    packed: Option<[&'a [i32]; 2]>,
}

impl<'a> AxisLens<'a> {
    const NONE: AxisLens<'static> =
        AxisLens { batch: 0, head: 0, kv_head: 0, query: 0, key: 0, packed: None };

    fn new(heads: &Heads, source: Source, problem: &Problem<'a>) -> Self {
        let packed = problem.packed.map(|packed| match source {
            Source::SelfAttention => [packed.cu_k(), packed.cu_k()],
            Source::Cross => [packed.cu_q(), packed.cu_k()],
        });
        Self {
            batch: problem.batch,
            head: heads.query,
            kv_head: heads.kv,
            query: problem.query_axis(source),
            key: problem.keys,
            packed,
        }
    }

    /// Elements of an input; saturates.
    fn elements(&self, shape: &InputShape) -> usize {
        let others = |n: usize, axis: usize| n.saturating_mul(self.of(shape.axes()[axis]) as usize);
        match self.packing(shape) {
            None => (0..shape.axes().len()).fold(1, others),
            Some(Packing { batch, token, starts }) => (0..shape.axes().len())
                .filter(|axis| ![batch, token].contains(axis))
                .fold(starts.last().map_or(0, |&end| end as usize), others),
        }
    }

    const fn of(&self, axis: Axis) -> u32 {
        match axis {
            Axis::Batch => self.batch,
            Axis::Head => self.head,
            Axis::KvHead => self.kv_head,
            Axis::Query => self.query,
            Axis::Key => self.key,
            Axis::Len(len) => len,
        }
    }

    /// How an input is packed; `None` where it is not.
    fn packing(&self, shape: &InputShape) -> Option<Packing<'a>> {
        let [by_query, by_key] = self.packed?;
        let batch = shape.axes().iter().position(|axis| *axis == Axis::Batch)?;
        let (token, starts) = shape.axes().iter().enumerate().find_map(|(i, axis)| match axis {
            Axis::Query => Some((i, by_query)),
            Axis::Key => Some((i, by_key)),
            _ => None,
        })?;
        Some(Packing { batch, token, starts })
    }

    /// How long an axis is in one sequence.
    fn in_sequence(&self, axis: Axis, sequence: usize) -> u32 {
        let len = |starts: &[i32]| match starts.get(sequence..sequence + 2) {
            Some(&[begin, end]) => (end - begin) as u32,
            _ => 0,
        };
        match (axis, self.packed) {
            (Axis::Query, Some([by_query, _])) => len(by_query),
            (Axis::Key, Some([_, by_key])) => len(by_key),
            _ => self.of(axis),
        }
    }
}

/// An input whose sequences lie one after the other.
struct Packing<'a> {
    /// Which axis is that of sequences.
    batch: usize,
    /// Which axis is packed with it.
    token: usize,
    /// The row of each sequence's first token.
    starts: &'a [i32],
}

/// How many elements each input has in a problem, in declaration order; saturates.
pub fn lens<'a>(
    shapes: &'a [InputShape],
    heads: &Heads,
    source: Source,
    problem: &Problem<'a>,
) -> impl Iterator<Item = usize> + use<'a> {
    let lens = AxisLens::new(heads, source, problem);
    shapes.iter().map(move |shape| lens.elements(shape))
}

impl<'a> Captured<'a> {
    /// No inputs.
    pub const NONE: Captured<'static> = Captured { shapes: &[], data: &[], lens: AxisLens::NONE };

    /// Binds `data`, one entry for each declared shape and in the same order, to a problem.
    ///
    /// # Errors
    /// If the count, an element type or a number of elements differs from the declaration.
    pub fn bind(
        shapes: &'a [InputShape],
        data: &'a [InputData<'a>],
        heads: &Heads,
        source: Source,
        problem: &Problem<'a>,
    ) -> Result<Self, BindError> {
        if shapes.len() != data.len() {
            return Err(BindError::Count { expected: shapes.len(), found: data.len() });
        }
        let lens = AxisLens::new(heads, source, problem);
        for (input, (shape, data)) in shapes.iter().zip(data).enumerate() {
            if shape.dtype != data.dtype() {
                return Err(BindError::Type { input, expected: shape.dtype, found: data.dtype() });
            }
            let expected = lens.elements(shape);
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

    /// The length of each axis of an input, for the sequence that an index names; 1 past its rank.
    pub fn dims(&self, input: usize, index: &[i32]) -> [u32; MAX_AXES] {
        let mut dims = [1; MAX_AXES];
        let axes = self.shapes[input].axes();
        let sequence = axes.iter().zip(index).find(|(axis, _)| **axis == Axis::Batch).map(|(_, &i)| i);
        for (dim, &axis) in dims.iter_mut().zip(axes) {
            *dim = match sequence {
                Some(i) if self.lens.packed.is_some() => self.lens.in_sequence(axis, i.max(0) as usize),
                _ => self.lens.of(axis),
            };
        }
        dims
    }

    /// The length of each axis of an input, where it is the same for all sequences; 1 past its rank.
    pub fn uniform_dims(&self, input: usize) -> Option<[u32; MAX_AXES]> {
        let packed = self.lens.packing(&self.shapes[input]).is_some();
        (!packed).then(|| self.dims(input, &[]))
    }

    /// The place of an element in [`Captured::data`], or `None` where an index leaves its axis.
    pub fn offset(&self, input: usize, index: &[i32]) -> Option<usize> {
        let shape = &self.shapes[input];
        if self.lens.packed.is_some()
            && let Some(packing) = self.lens.packing(shape)
        {
            return self.packed_offset(shape, &packing, index);
        }
        let mut offset = 0usize;
        for (&axis, &i) in shape.axes().iter().zip(index) {
            let len = self.lens.of(axis);
            if i < 0 || i as u32 >= len {
                return None;
            }
            offset = offset * len as usize + i as usize;
        }
        Some(offset)
    }

    #[cold]
    fn packed_offset(&self, shape: &InputShape, packing: &Packing<'_>, index: &[i32]) -> Option<usize> {
        let &Packing { batch, token, starts } = packing;
        let sequence = usize::try_from(*index.get(batch)?).ok()?;
        let inside = |axis: Axis, i: i32| i >= 0 && (i as u32) < self.lens.in_sequence(axis, sequence);
        let mut pairs = shape.axes().iter().zip(index);
        if sequence >= self.lens.batch as usize || !pairs.all(|(&axis, &i)| inside(axis, i)) {
            return None;
        }
        let mut offset = starts[sequence] as usize + index[token] as usize;
        for (at, (&axis, &i)) in shape.axes().iter().zip(index).enumerate() {
            if at != batch && at != token {
                offset = offset * self.lens.of(axis) as usize + i as usize;
            }
        }
        Some(offset)
    }
}
