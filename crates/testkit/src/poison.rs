//! Buffers that show a read or a write of a place that is not the tensor's own.

use core::fmt;
use core::ops::Range;

use half::{bf16, f16};
use regard_ir::plan::Dtype;
use regard_oracle::random::normal;
use regard_oracle::{Buffer, Tensor4};

use crate::place::{Layout, Place};

/// An input tensor whose margins and gaps are NaN.
#[derive(Clone, Debug)]
pub struct Input {
    buffer: Buffer,
    place: Place,
}

impl Input {
    /// `values` in the order batch, head, token, channel, rounded to `dtype`; NaN where they end early.
    pub fn new(
        dtype: Dtype,
        shape: [usize; 4],
        layout: Layout,
        values: impl IntoIterator<Item = f32>,
    ) -> Self {
        let place = Place::new(shape, layout);
        let mut placed = vec![f32::NAN; place.buffer_len()];
        for (at, value) in place.indices().zip(values) {
            placed[place.offset(at)] = value;
        }
        Self { buffer: Buffer::rounded(dtype, placed), place }
    }

    /// Some tokens of a tensor, one range after the other, as a tensor of their own.
    ///
    /// # Panics
    /// If the tensor has not so many.
    pub fn of_tokens(
        tensor: &Tensor4<'_>,
        (dtype, layout): (Dtype, Layout),
        tokens: &[Range<usize>],
    ) -> Self {
        let [batch, heads, _, width] = tensor.shape();
        let heads_of = (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h)));
        let rows = heads_of.flat_map(|(b, h)| tokens.iter().cloned().flatten().map(move |n| (b, h, n)));
        let values = rows.flat_map(|(b, h, n)| tensor.row(b, h, n)).map(|x| x as f32);
        let count = tokens.iter().map(ExactSizeIterator::len).sum();
        Self::new(dtype, [batch, heads, count, width], layout, values)
    }

    /// Independent N(0, 1) numbers.
    pub fn normal(dtype: Dtype, shape: [usize; 4], layout: Layout, seed: u64) -> Self {
        Self::new(dtype, shape, layout, normal(seed))
    }

    /// The tensor; its elements go on to the end of the margin behind it.
    pub fn view(&self) -> Tensor4<'_> {
        view(&self.buffer, &self.place)
    }

    /// Puts `value`, rounded, at an index `[batch, head, token, channel]`.
    ///
    /// # Panics
    /// If an index leaves its axis.
    pub fn set(&mut self, at: [usize; 4], value: f32) {
        put(&mut self.buffer, &self.place, at, value);
    }
}

impl Input {
    /// The tensor with each f32 changed, margins too; as it is where it is stored in 16 bits.
    pub(crate) fn map_f32(&self, change: impl FnMut(f32) -> f32) -> Self {
        let mut mapped = self.clone();
        if let Buffer::F32(data) = &mut mapped.buffer {
            let changed = data.iter().copied().map(change).collect();
            *data = changed;
        }
        mapped
    }
}

/// An output tensor that is canaries, as its margins and gaps are, until a kernel writes it.
#[derive(Clone, Debug)]
pub struct Output {
    buffer: Buffer,
    place: Place,
}

/// Stored elements that a kernel writes.
#[derive(Debug)]
pub enum ElementsMut<'a> {
    /// binary32.
    F32(&'a mut [f32]),
    /// binary16.
    F16(&'a mut [f16]),
    /// The upper half of a binary32.
    Bf16(&'a mut [bf16]),
}

/// A write too many or too few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoisonError {
    /// A place outside the tensor was written: so many elements from its first.
    Stray(isize),
    /// An element was not written: batch, head, token, channel.
    Unwritten([usize; 4]),
}

impl fmt::Display for PoisonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoisonError::Stray(at) => {
                write!(f, "element {at} from the start was written, which is outside the tensor")
            }
            PoisonError::Unwritten(at) => write!(f, "{at:?} was not written"),
        }
    }
}

impl std::error::Error for PoisonError {}

/// NaNs with a payload that no arithmetic makes.
const CANARY_F32: f32 = f32::from_bits(0x7fc5_a5a5);
const CANARY_F16: f16 = f16::from_bits(0x7ea5);
const CANARY_BF16: bf16 = bf16::from_bits(0x7fe5);

impl Output {
    /// An unwritten tensor.
    pub fn new(dtype: Dtype, shape: [usize; 4], layout: Layout) -> Self {
        let place = Place::new(shape, layout);
        let len = place.buffer_len();
        let buffer = match dtype {
            Dtype::F32 => Buffer::F32(vec![CANARY_F32; len]),
            Dtype::F16 => Buffer::F16(vec![CANARY_F16; len]),
            Dtype::Bf16 => Buffer::Bf16(vec![CANARY_BF16; len]),
        };
        Self { buffer, place }
    }

    /// Lengths of the axes batch, head, token, channel.
    pub fn shape(&self) -> [usize; 4] {
        self.place.shape
    }

    /// Elements from one index of an axis to the next.
    pub fn strides(&self) -> [usize; 4] {
        self.place.strides
    }

    /// The elements from the tensor's first to the end of the margin behind it.
    pub fn elements_mut(&mut self) -> ElementsMut<'_> {
        match &mut self.buffer {
            Buffer::F32(data) => ElementsMut::F32(&mut data[Place::START..]),
            Buffer::F16(data) => ElementsMut::F16(&mut data[Place::START..]),
            Buffer::Bf16(data) => ElementsMut::Bf16(&mut data[Place::START..]),
        }
    }

    /// Writes `value`, rounded, at an index `[batch, head, token, channel]`.
    ///
    /// # Panics
    /// If an index leaves its axis.
    pub fn set(&mut self, at: [usize; 4], value: f64) {
        put(&mut self.buffer, &self.place, at, value as f32);
    }

    /// The tensor, as far as it is written.
    pub fn view(&self) -> Tensor4<'_> {
        view(&self.buffer, &self.place)
    }

    /// Whether every element was written and nothing else.
    ///
    /// # Errors
    /// With the first place that was not written but should have been, or the other way round.
    pub fn check(&self) -> Result<(), PoisonError> {
        let mut own = vec![false; self.place.buffer_len()];
        for at in self.place.indices() {
            let offset = self.place.offset(at);
            own[offset] = true;
            if self.is_canary(offset) {
                return Err(PoisonError::Unwritten(at));
            }
        }
        match (0..own.len()).find(|&offset| !own[offset] && !self.is_canary(offset)) {
            Some(offset) => Err(PoisonError::Stray(offset as isize - Place::START as isize)),
            None => Ok(()),
        }
    }

    fn is_canary(&self, offset: usize) -> bool {
        match &self.buffer {
            Buffer::F32(data) => data[offset].to_bits() == CANARY_F32.to_bits(),
            Buffer::F16(data) => data[offset].to_bits() == CANARY_F16.to_bits(),
            Buffer::Bf16(data) => data[offset].to_bits() == CANARY_BF16.to_bits(),
        }
    }
}

fn put(buffer: &mut Buffer, place: &Place, at: [usize; 4], value: f32) {
    assert!(at.iter().zip(place.shape).all(|(&i, len)| i < len), "{at:?} of {:?}", place.shape);
    let offset = place.offset(at);
    match buffer {
        Buffer::F32(data) => data[offset] = value,
        Buffer::F16(data) => data[offset] = f16::from_f32(value),
        Buffer::Bf16(data) => data[offset] = bf16::from_f32(value),
    }
}

fn view<'a>(buffer: &'a Buffer, place: &Place) -> Tensor4<'a> {
    Tensor4::new(buffer.elements(Place::START), place.shape, place.strides)
        .expect("a place is made for its buffer")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 4] = [2, 3, 4, 5];

    #[test]
    fn a_view_has_its_values_in_every_layout() {
        for layout in Layout::ALL {
            for dtype in Dtype::ALL {
                let input = Input::new(dtype, SHAPE, layout, (0..120).map(|i| i as f32));
                let row = input.view().row(1, 2, 3);
                assert_eq!(row, [115.0, 116.0, 117.0, 118.0, 119.0], "{layout:?} {dtype:?}");
                let row = input.view().row(0, 1, 0);
                assert_eq!(row, [20.0, 21.0, 22.0, 23.0, 24.0], "{layout:?} {dtype:?}");
            }
        }
    }

    #[test]
    fn whatever_is_not_the_tensor_is_nan() {
        let input = Input::new(Dtype::F32, SHAPE, Layout::Gapped, [1.0; 120]);
        let Buffer::F32(data) = &input.buffer else { panic!("not f32") };
        assert_eq!(data.iter().filter(|x| !x.is_nan()).count(), 120);
        assert!(data[Place::START - 1].is_nan() && data[Place::START + 5].is_nan());
        assert!(data[data.len() - 256..].iter().all(|x| x.is_nan()));
    }

    #[test]
    fn set_reaches_the_index_that_is_named() {
        let mut input = Input::normal(Dtype::F16, SHAPE, Layout::Bnhd, 1);
        input.set([1, 0, 2, 4], f32::INFINITY);
        assert_eq!(input.view().row(1, 0, 2).last(), Some(&f64::INFINITY));
        let infinite = |b, h, n| input.view().row(b, h, n).iter().filter(|x| x.is_infinite()).count();
        let rows = (0..2).flat_map(|b| (0..3).flat_map(move |h| (0..4).map(move |n| (b, h, n))));
        assert_eq!(rows.map(|(b, h, n)| infinite(b, h, n)).sum::<usize>(), 1);
    }

    #[test]
    fn a_write_too_many_or_too_few_is_named() {
        for layout in Layout::ALL {
            for dtype in Dtype::ALL {
                let mut output = Output::new(dtype, SHAPE, layout);
                assert_eq!(output.check(), Err(PoisonError::Unwritten([0, 0, 0, 0])));
                let place = output.place;
                let write = |output: &mut Output, offset: usize| match &mut output.buffer {
                    Buffer::F32(data) => data[offset] = f32::NAN,
                    Buffer::F16(data) => data[offset] = f16::NAN,
                    Buffer::Bf16(data) => data[offset] = bf16::NAN,
                };
                for at in place.indices().filter(|&at| at != [1, 2, 0, 4]) {
                    write(&mut output, place.offset(at));
                }
                assert_eq!(output.check(), Err(PoisonError::Unwritten([1, 2, 0, 4])));
                write(&mut output, place.offset([1, 2, 0, 4]));
                assert_eq!(output.check(), Ok(()));
                write(&mut output, Place::START - 2);
                assert_eq!(output.check(), Err(PoisonError::Stray(-2)));
            }
        }
    }

    #[test]
    fn empty_tensors_have_margins_alone() {
        for shape in [[0, 3, 4, 5], [2, 3, 0, 5]] {
            let output = Output::new(Dtype::F32, shape, Layout::Gapped);
            assert_eq!(output.check(), Ok(()));
            assert_eq!(output.view().shape(), shape);
        }
    }
}
