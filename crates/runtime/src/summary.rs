//! What captured inputs hold over boxes of indices: a pyramid of least and greatest elements.
//!
//! A mask that reads data (`doc[b, q] == doc[b, k]`) can be settled over a tile only if the data's range there is
//! known. The pyramid of an input lies over its elements in row-major order, so that a run along the last axis is one
//! query of it, in O(log n). It is built once for each call in O(n), and only for the inputs that the mask reads.

use regard_ir::expr::{MAX_AXES, Tree};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval::{InputRanges, Range, Span};
use regard_ir::variant::{Axis, InputShape, InputType};

/// Entries that one entry of the level above covers.
const FAN: usize = 16;

/// Rows of a box that are looked up one by one; past it, the elements between its corners stand for the box.
const MAX_ROWS: u64 = 16;

/// Pyramids over the captured inputs that masks read.
///
/// The first spans are a directory: for each input, where its levels begin and end, or an empty span where it is not
/// summarised. Elements are kept as ints in the elements' order: floats by their bits, bools as 0 and 1.
#[derive(Clone, Copy, Debug)]
pub struct Summaries<'a> {
    captured: Captured<'a>,
    spans: &'a [Span],
}

impl<'a> Summaries<'a> {
    /// How many spans the pyramids of what masks read need, for inputs of so many elements.
    pub fn len<'m>(
        masks: impl Iterator<Item = Tree<'m>> + Clone,
        lens: impl Iterator<Item = usize>,
    ) -> usize {
        let spans = |(input, len)| 1 + if read(masks.clone(), input) { levels_len(len) } else { 0 };
        lens.enumerate().map(spans).sum()
    }

    /// Summarises what masks read into `spans`, of which there are [`Summaries::len`].
    ///
    /// # Panics
    /// If there is another number of spans.
    pub fn build<'m>(
        masks: impl Iterator<Item = Tree<'m>> + Clone,
        captured: Captured<'a>,
        spans: &'a mut [Span],
    ) -> Self {
        let len = Self::len(masks.clone(), captured.lens());
        assert_eq!(spans.len(), len, "as many spans as `Summaries::len` says");
        let (directory, mut rest) = spans.split_at_mut(captured.count());
        let mut begin = directory.len();
        for (input, entry) in directory.iter_mut().enumerate() {
            *entry = NOT_SUMMARISED;
            if !read(masks.clone(), input) {
                continue;
            }
            let data = captured.data(input);
            let (levels, others) = rest.split_at_mut(levels_len(data.len()));
            build_levels(data, levels);
            rest = others;
            let end = begin + levels.len();
            if let (Ok(lo), Ok(hi)) = (i32::try_from(begin), i32::try_from(end)) {
                *entry = Span { lo, hi };
            }
            begin = end;
        }
        Self { captured, spans }
    }

    /// Whether all between two corners lies inside the axes of an input.
    fn holds(&self, input: usize, first: &[i32], last: &[i32]) -> bool {
        let inside = |dims: [u32; MAX_AXES]| {
            let ends = first.iter().zip(last).zip(dims);
            ends.into_iter().all(|((&lo, &hi), dim)| lo >= 0 && (hi as i64) < dim as i64)
        };
        match self.captured.uniform_dims(input) {
            Some(dims) => inside(dims),
            // Sequences differ in length, so only boxes of a single one are looked into.
            None => {
                let dims = self.captured.dims(input, first);
                same_sequence(self.captured.shape(input), first, last) && inside(dims)
            }
        }
    }

    /// The least and the greatest of the elements from `begin` to before `end`, which are at least one.
    fn extent(&self, input: usize, levels: &[Span], begin: usize, end: usize) -> Span {
        let data = self.captured.data(input);
        let whole_begin = begin.next_multiple_of(FAN);
        let whole_end = end - end % FAN;
        if whole_begin >= whole_end || levels.is_empty() {
            return scan(data, begin, end);
        }
        let mut all = union(scan(data, begin, whole_begin), scan(data, whole_end, end));
        let (mut begin, mut end) = (whole_begin / FAN, whole_end / FAN);
        let mut len = data.len().div_ceil(FAN);
        let mut level = levels;
        loop {
            let (this, above) = level.split_at(len);
            let (whole_begin, whole_end) = (begin.next_multiple_of(FAN), end - end % FAN);
            if whole_begin >= whole_end || above.is_empty() {
                return union(all, hull(&this[begin..end]));
            }
            all = union(all, union(hull(&this[begin..whole_begin]), hull(&this[whole_end..end])));
            (begin, end) = (whole_begin / FAN, whole_end / FAN);
            len = len.div_ceil(FAN);
            level = above;
        }
    }
}

/// Whether some mask reads an input.
fn read<'m>(mut masks: impl Iterator<Item = Tree<'m>>, input: usize) -> bool {
    masks.any(|mask| mask.reads_input(input as u16))
}

impl InputRanges for Summaries<'_> {
    fn range(&self, input: usize, index: &[Span]) -> Range {
        let dtype = self.captured.shape(input).dtype;
        let entry = self.spans[input];
        let mut first = [0; MAX_AXES];
        let mut last = [0; MAX_AXES];
        for (axis, span) in index.iter().enumerate() {
            (first[axis], last[axis]) = (span.lo, span.hi);
        }
        if entry.lo > entry.hi || !self.holds(input, &first[..index.len()], &last[..index.len()]) {
            return Range::any(dtype);
        }
        let levels = &self.spans[entry.lo as usize..entry.hi as usize];
        let run = |first: &[i32], last: &[i32]| {
            let offset = |at| self.captured.offset(input, at);
            match (offset(first), offset(last)) {
                (Some(begin), Some(last)) => self.extent(input, levels, begin, last + 1),
                _ => Span::ALL,
            }
        };
        let (rank, outer) = (index.len(), index.len().saturating_sub(1));
        let rows = index[..outer].iter().fold(1u64, |rows, span| rows.saturating_mul(span.len()));
        if rows > MAX_ROWS {
            return decode(dtype, run(&first[..rank], &last[..rank]));
        }
        let mut all = NOTHING;
        let mut row = first;
        loop {
            let mut row_end = row;
            row_end[outer] = last[outer];
            all = union(all, run(&row[..rank], &row_end[..rank]));
            let Some(axis) = (0..outer).rev().find(|&axis| row[axis] < last[axis]) else { break };
            row[axis] += 1;
            row[axis + 1..outer].copy_from_slice(&first[axis + 1..outer]);
        }
        decode(dtype, all)
    }
}

fn same_sequence(shape: &InputShape, first: &[i32], last: &[i32]) -> bool {
    let batch = shape.axes().iter().position(|axis| *axis == Axis::Batch);
    batch.is_none_or(|batch| first[batch] == last[batch])
}

/// The neutral element of [`union`].
const NOTHING: Span = Span { lo: i32::MAX, hi: i32::MIN };

/// A directory entry of an input that has no pyramid.
const NOT_SUMMARISED: Span = NOTHING;

/// Entries of all levels above `len` elements; a level of at most [`FAN`] is the last.
fn levels_len(mut len: usize) -> usize {
    let mut sum = 0;
    while len > FAN {
        len = len.div_ceil(FAN);
        sum += len;
    }
    sum
}

fn build_levels(data: &InputData<'_>, levels: &mut [Span]) {
    if levels.is_empty() {
        return;
    }
    let mut len = data.len().div_ceil(FAN);
    for (i, entry) in levels[..len].iter_mut().enumerate() {
        *entry = scan(data, i * FAN, ((i + 1) * FAN).min(data.len()));
    }
    let mut level = levels;
    loop {
        let (this, above) = level.split_at_mut(len);
        if above.is_empty() {
            return;
        }
        for (entry, below) in above.iter_mut().zip(this.chunks(FAN)) {
            *entry = hull(below);
        }
        len = len.div_ceil(FAN);
        level = above;
    }
}

fn scan(data: &InputData<'_>, begin: usize, end: usize) -> Span {
    match data {
        InputData::F32(data) => bounds(data[begin..end].iter().map(|&x| float_key(x))),
        InputData::I32(data) => bounds(data[begin..end].iter().copied()),
        InputData::Bool(data) => bounds(data[begin..end].iter().map(|&x| (x != 0) as i32)),
    }
}

fn bounds(keys: impl Iterator<Item = i32>) -> Span {
    keys.fold(NOTHING, |all, key| union(all, Span::point(key)))
}

fn hull(spans: &[Span]) -> Span {
    spans.iter().fold(NOTHING, |all, &span| union(all, span))
}

fn union(a: Span, b: Span) -> Span {
    Span { lo: a.lo.min(b.lo), hi: a.hi.max(b.hi) }
}

/// An int in the order of the floats; every NaN is the greatest.
fn float_key(x: f32) -> i32 {
    if x.is_nan() { i32::MAX } else { flip(x.to_bits() as i32) }
}

fn flip(bits: i32) -> i32 {
    if bits < 0 { bits ^ i32::MAX } else { bits }
}

fn decode(dtype: InputType, keys: Span) -> Range {
    match dtype {
        InputType::I32 => Range::Int(keys),
        InputType::Bool => Range::Bool { can_be_false: keys.lo <= 0, can_be_true: keys.hi >= 1 },
        InputType::F32 => {
            let infinity = float_key(f32::INFINITY);
            let float = |key: i32| f32::from_bits(flip(key.min(infinity)) as u32) as f64;
            // What lies below a NaN is not kept, so the greatest number may be any.
            Range::Float { lo: float(keys.lo), hi: float(keys.hi), nan: keys.hi > infinity }
        }
    }
}
