//! Lines of memory that are asked for before they are read or written.

use regard_engine::element::Elements;
use regard_engine::engine::LINE;
use regard_engine::isa::Door;

/// Bytes of a line of a cache.
pub(crate) const LINE_BYTES: usize = LINE * size_of::<f32>();

/// Asks for the lines of some elements.
#[inline(always)]
pub(crate) fn ask<L: Door>(lanes: L, elements: Elements<'_>) {
    let bytes = elements.bytes();
    for at in (0..bytes.len()).step_by(LINE_BYTES) {
        lanes.prefetch_far(bytes.as_ptr().wrapping_add(at));
    }
}
