//! Cells: some chunks of tokens that only add to a state, which may decay.
//!
//! What the tokens of a cell add is summed up from zero. The state that enters one of its chunks is that which the cell begins with,
//! decayed, and that sum. So few sums are as large as a state, and rounding takes little of long sequences; and what a cell adds is
//! known before the state that it begins with is, so that cells can be shared out ([`super::scan`]).

use regard_engine::isa::Door;
use regard_simd::{F32, vectors, vectors_mut};

use super::kept;
use super::memory::{Layout, Memory};
use super::rows::add_rows;

/// Begins a cell, to which nothing was added.
pub(super) fn begin(memory: &mut Memory<'_>) {
    memory.added.iter_mut().for_each(|added| added.fill(0.0));
    kept::all(&mut memory.kept);
}

/// Leaves in `memory.entering` the state of a head, and its sum of features, after what the cell has added so far.
#[inline(always)]
pub(super) fn enter<L: Door>(lanes: L, layout: &Layout, memory: &mut Memory<'_>, head: usize) {
    let Layout { dims, width, .. } = *layout;
    let Memory { states, norms, added: [added, norms_added], kept, entering: [state, norm], .. } = memory;
    let (size, rows) = (dims * width, head * dims..(head + 1) * dims);
    let [most, rest] = [&kept[0][rows.clone()], &kept[1][rows]];
    let [states, added] = [&**states, added].map(|all| &all[head * size..][..size]);
    let rows = states.chunks_exact(width).zip(added.chunks_exact(width)).zip(state.chunks_exact_mut(width));
    for (((from, added), to), (&most, &rest)) in rows.zip(most.iter().zip(rest)) {
        let keep = [F32::splat(lanes, most), F32::splat(lanes, rest)];
        let pairs = vectors(lanes, from).iter().zip(vectors(lanes, added));
        for (to, (&from, &added)) in vectors_mut(lanes, to).iter_mut().zip(pairs) {
            *to = kept::decayed(F32::from_raw(lanes, from), keep, F32::from_raw(lanes, added)).raw();
        }
    }
    let [norms, added] = [&**norms, norms_added].map(|all| &all[head * dims..][..dims]);
    norm.copy_from_slice(norms);
    add_rows(lanes, added, None, Some([most, rest]), norm);
}

/// Ends a cell: the states of so many heads are those after its last token.
#[inline(always)]
pub(super) fn end<L: Door>(lanes: L, layout: &Layout, memory: &mut Memory<'_>, heads: usize) {
    let Layout { dims, width, .. } = *layout;
    for head in 0..heads {
        enter(lanes, layout, memory, head);
        let Memory { states, norms, entering: [state, norm], .. } = memory;
        states[head * dims * width..][..dims * width].copy_from_slice(state);
        norms[head * dims..][..dims].copy_from_slice(norm);
    }
}

/// Counts in what a chunk of a head has left of the rows of its state.
#[inline(always)]
pub(super) fn keep<L: Door>(lanes: L, layout: &Layout, memory: &mut Memory<'_>, head: usize) {
    let Memory { kept, keep, .. } = memory;
    let rows = head * layout.dims..(head + 1) * layout.dims;
    let [most, rest] = kept;
    kept::times(lanes, [&mut most[rows.clone()], &mut rest[rows]], [keep[0], keep[1]]);
}
