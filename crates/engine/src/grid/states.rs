//! What each head of each sequence keeps, however long the sequence is.

use core::marker::PhantomData;
use core::ops::Range;

use super::rows::Places;
use super::{Claim, Grid, GridError, MAX_TASKS, RowsMut, Shared, Task, check_counts};

/// What each head of each sequence keeps, however long the sequence is.
#[derive(Debug)]
pub struct StateRows<'a> {
    /// `[state][head][row]`: rows as wide as those of the outputs.
    pub rows: RowsMut<'a, f32>,
    /// Further rows, of a width of their own.
    pub norm: Option<RowsMut<'a, f32>>,
    /// Which state is that of each sequence; where absent, they are in the same order.
    pub of: Option<&'a [u32]>,
}

impl StateRows<'_> {
    /// The same for a while.
    pub fn reborrow(&mut self) -> StateRows<'_> {
        StateRows { rows: self.rows.reborrow(), norm: self.norm.as_mut().map(RowsMut::reborrow), of: self.of }
    }
}

/// [`StateRows`] that were checked.
pub(super) struct States<'a> {
    rows: Shared<'a, f32>,
    norm: Option<Shared<'a, f32>>,
    of: Option<&'a [u32]>,
}

impl<'a> Grid<'a> {
    /// With states, one of each sequence; packed sequences have one each.
    ///
    /// # Errors
    /// If two tasks are of one head or two sequences have one state, rows have other counts than the outputs along heads, overlap or
    /// leave their tensor, or there are too few.
    pub fn with_states(self, states: StateRows<'a>) -> Result<Self, GridError> {
        let StateRows { rows, norm, of } = states;
        let [batch, heads, _] = self.counts();
        let sequences = self.tasks.starts.map_or(batch, |starts| starts.len() - 1);
        let count = rows.counts[0];
        let there = match of {
            None => count == sequences,
            Some(of) => of.len() == sequences && of.iter().all(|&state| (state as usize) < count),
        };
        if !there {
            return Err(GridError::States { sequences, states: of.map_or(count, <[u32]>::len) });
        }
        if let Some(sequence) = of.and_then(first_repeated) {
            return Err(GridError::StateTwice { sequence });
        }
        check_counts(&rows, [count, heads, rows.counts[2]])?;
        if let Some(norm) = &norm {
            check_counts(norm, [count, heads, norm.counts[2]])?;
        }
        self.check_whole_heads()?;
        let (rows, norm) = (Shared::new(rows)?, norm.map(Shared::new).transpose()?);
        Ok(Self { states: Some(States { rows, norm, of }), ..self })
    }
}

/// Where a state is named for the second time, if one is: states past the first [`MAX_TASKS`] are taken for such.
fn first_repeated(of: &[u32]) -> Option<usize> {
    let mut seen = [0u64; MAX_TASKS as usize / 64];
    of.iter().position(|&state| {
        let Some(word) = seen.get_mut(state as usize / 64) else { return true };
        let bit = 1 << (state % 64);
        let is_there = *word & bit != 0;
        *word |= bit;
        is_there
    })
}

impl Claim<'_> {
    /// Whether there are states.
    pub const fn has_states(&self) -> bool {
        self.grid.states.is_some()
    }

    /// Rows of the state of one of the heads: the channels of them that are claimed. `None` where there are no states.
    ///
    /// # Panics
    /// If there are no such rows.
    #[inline(always)]
    pub fn state(&mut self, head_in_group: usize, rows: Range<usize>) -> Option<MatrixMut<'_>> {
        let States { rows: all, of, .. } = self.grid.states.as_ref()?;
        let Range { start, end } = self.part.channels;
        let place = self.state_place(head_in_group, *of);
        assert!(start <= end && end <= all.places.width, "channels of the row");
        // SAFETY: the rows lie in the data that `Grid::with_states` was given, apart from all others; they are of a head of this
        // task's sequence, of which there is no other task and whose state no other sequence has (`Grid::with_states` checked), the
        // task was given out once, or its parts were, whose heads or channels are apart (`Parts`; strips, blocks and cells are
        // of grids without states, or have no heads here), and `&mut self` keeps them to one borrow.
        Some(unsafe { all.matrix(place, rows, start..end) })
    }

    /// Further rows of one of the heads, if all of its channels are claimed; `None` where there are none.
    ///
    /// # Panics
    /// If some channels of the head are another claim's, or there are no such rows.
    pub fn norm(&mut self, head_in_group: usize, rows: Range<usize>) -> Option<MatrixMut<'_>> {
        let States { norm, of, .. } = self.grid.states.as_ref()?;
        let norm = norm.as_ref()?;
        assert!(self.part.channels == self.grid.whole().channels, "rows of all channels");
        let place = self.state_place(head_in_group, *of);
        // SAFETY: as for `state`; the claim is the only one of the head (compared above).
        Some(unsafe { norm.matrix(place, rows, 0..norm.places.width) })
    }

    /// Which state is that of one of the heads.
    #[inline(always)]
    fn state_place(&self, head_in_group: usize, of: Option<&[u32]>) -> [usize; 2] {
        assert!(self.part.heads.contains(&head_in_group), "a head of the task");
        let Task { sequence, kv_head, .. } = self.task;
        let state = of.map_or(sequence, |of| of[sequence as usize]);
        [state as usize, kv_head as usize * self.grid.tasks.group + head_in_group]
    }
}

impl Shared<'_, f32> {
    /// Some channels of some rows of a head.
    ///
    /// # Safety
    /// Nobody else has them for as long as the matrix is there. The channels are of the rows.
    ///
    /// # Panics
    /// If there are no such rows.
    #[inline(always)]
    unsafe fn matrix<'m>(
        &self,
        [state, head]: [usize; 2],
        rows: Range<usize>,
        channels: Range<usize>,
    ) -> MatrixMut<'m> {
        let Places { counts: [states, heads, count], strides, .. } = self.places;
        let is_there = state < states && head < heads && rows.start <= rows.end && rows.end <= count;
        assert!(is_there, "rows {rows:?} of {count}, head {head} of {heads}, state {state} of {states}");
        let offset: usize = [state, head, rows.start].iter().zip(strides).map(|(at, by)| at * by).sum();
        let start = self.start.wrapping_add(offset + channels.start);
        // SAFETY: `new` checked that all rows lie inside the data, apart from each other; the caller has these alone.
        unsafe { MatrixMut::from_raw(start, strides[2], [rows.len(), channels.len()]) }
    }
}

/// Rows of floats, so far apart, to be read and written.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    width: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl<'a> MatrixMut<'a> {
    /// The first `width` floats of rows that are `stride` apart.
    ///
    /// # Panics
    /// If a row is wider than rows are apart.
    pub fn new(data: &'a mut [f32], stride: usize, width: usize) -> Self {
        assert!(width <= stride, "rows of {width}, {stride} apart");
        let rows = data.len().checked_div(stride).unwrap_or(0);
        Self { start: data.as_mut_ptr(), stride, rows, width, lifetime: PhantomData }
    }

    /// `rows` rows of `width`.
    ///
    /// # Safety
    /// They lie in memory that nobody else reads or writes while the matrix is there.
    #[inline(always)]
    const unsafe fn from_raw(start: *mut f32, stride: usize, [rows, width]: [usize; 2]) -> Self {
        Self { start, stride, rows, width, lifetime: PhantomData }
    }

    /// The same matrix for a while, in a value of its own: where it lies need not be looked up after each write.
    #[inline(always)]
    pub const fn reborrow(&mut self) -> MatrixMut<'_> {
        MatrixMut { lifetime: PhantomData, ..*self }
    }

    /// Floats of a row.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Floats from one row to the next.
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        if row >= self.rows {
            no_row(row, self.rows);
        }
        // SAFETY: the row is one of those that whoever made the matrix has for `'a`, and `&mut self` keeps it to one borrow.
        unsafe { core::slice::from_raw_parts_mut(self.start.wrapping_add(row * self.stride), self.width) }
    }
}

/// Panics. Numbers are passed by value: a message beside a loop would have them written to memory in each turn.
#[cold]
#[inline(never)]
fn no_row(row: usize, rows: usize) -> ! {
    panic!("row {row} of {rows}")
}
