//! How large a cache will be.

use regard_ir::plan::Plan;
use regard_ir::spec::{CacheLayout, Spec};

use crate::cache::lookahead::{check_mechanism, learned_shape};
use crate::cache::states::StateShape;
use crate::cache::{CacheError, CacheLimits, capacity, cells};

/// How large a cache is, without the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSize {
    /// Tokens of a sequence that are held at once, at most: whole pages. Those that are in a state count as held.
    pub held_tokens: usize,
    /// Bytes of keys and values that it has room for: of all pages. Of a recurrence those of all states.
    pub bytes: usize,
    /// Cells of a sequence that a call can see at most.
    pub(crate) cells: usize,
}

impl CacheSize {
    pub(crate) fn new(spec: &Spec, plan: &Plan, limits: CacheLimits) -> Result<Self, CacheError> {
        check_mechanism(spec, None)?;
        if spec.cache.file && spec.cache.layout != CacheLayout::Contiguous {
            return Err(CacheError::FileLayout(spec.cache.layout));
        }
        if let Some(states) = StateShape::new(spec, limits) {
            states.store(limits)?;
            let bytes = states.bytes().and_then(|bytes| bytes.checked_mul(limits.sequences));
            let bytes = bytes.ok_or(CacheError::Limits(limits))?;
            return Ok(Self { held_tokens: limits.tokens, bytes, cells: 0 });
        }
        let capacity = capacity(spec, plan, limits)?;
        let variant = spec.variant();
        let page_bytes = plan.cache.shape(&variant).len().checked_mul(size_of::<u32>());
        let pages = capacity.all_pages(limits.sequences);
        let bytes = pages.zip(page_bytes).and_then(|(pages, page)| pages.checked_mul(page));
        let learned = learned_shape(spec, &plan.cache.shape(&variant), limits.tokens).map_or(Some(0), |it| {
            it.memory_len().checked_mul(size_of::<f32>())?.checked_mul(limits.sequences)
        });
        let bytes = bytes.zip(learned).and_then(|(pages, learned)| pages.checked_add(learned));
        let held_tokens = capacity.pages() as usize * plan.cache.tokens as usize;
        Ok(Self {
            held_tokens,
            bytes: bytes.ok_or(CacheError::Limits(limits))?,
            cells: cells(held_tokens, limits, plan.decode.key_cell),
        })
    }
}
