//! What engines exist, for planners: plain data on every target, whatever can be compiled for it.

use regard_ir::machine::Isa;
use regard_ir::plan::{Dtype, EngineKind, Pieces};

use crate::engine::GROUP;
use crate::pack::PANEL;

/// The tile that an engine multiplies at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileShape {
    /// Rows of a full row tile.
    pub rows: u32,
    /// Rows that the last row tile of a pass is a multiple of.
    pub row_step: u32,
    /// Keys that a partial block is cut at multiples of.
    pub keys: u32,
    /// Whether each vector of a full row tile is multiplied by the keys alone that it may see.
    pub stairs: bool,
}

/// One engine on one instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The engine.
    pub engine: EngineKind,
    /// The instruction set that it is built for.
    pub isa: Isa,
    /// Its tile.
    pub tile: TileShape,
    /// Whether the set lacks the engine's unit, which is emulated: for tests, never for speed.
    pub emulated: bool,
}

/// Every engine, the more capable instruction sets first and emulated units last.
pub const ENTRIES: &[Entry] = &[
    amx_bf16(Isa::Amx),
    dot_bf16(Isa::Avx512Bf16),
    simd_f32(Isa::Avx512),
    simd_f32(Isa::Avx2),
    simd_f32(Isa::Neon),
    simd_f32(Isa::Scalar),
    dot_bf16(Isa::Avx2),
    dot_bf16(Isa::Neon),
    amx_bf16(Isa::Avx2),
    amx_bf16(Isa::Neon),
];

const fn simd_f32(isa: Isa) -> Entry {
    let row_step = isa.f32_lanes();
    // Where a tile of 8 keys has registers for all its sums.
    let stairs = isa.registers() >= 32;
    let tile = TileShape { rows: 3 * row_step, row_step, keys: PANEL as u32, stairs };
    Entry { engine: EngineKind::SimdF32, isa, tile, emulated: false }
}

const fn dot_bf16(isa: Isa) -> Entry {
    let Entry { tile, .. } = simd_f32(isa);
    Entry { engine: EngineKind::DotBf16, isa, tile, emulated: !matches!(isa, Isa::Avx512Bf16) }
}

const fn amx_bf16(isa: Isa) -> Entry {
    let tile = TileShape { rows: 32, row_step: 32, keys: GROUP as u32, stairs: false };
    Entry { engine: EngineKind::AmxBf16, isa, tile, emulated: !matches!(isa, Isa::Amx) }
}

impl Entry {
    /// What the engine must split operands of a storage type into to meet the bounds; `None` where that is nothing but a
    /// faster and less precise way than `precision = "exact"` allows.
    ///
    /// bf16 operands are whole, unless the variant asks for more, and products of pairs are made of nothing else. Two pieces
    /// hold f16's 11 bits, and its weights need as many: rounded to bf16 they alone would leave an error of 3.5e-3 where a row
    /// has few keys, and the bound is 2e-3.
    pub const fn exact(&self, dtype: Dtype) -> Option<Pieces> {
        match (self.engine, dtype) {
            (EngineKind::SimdF32, _) | (EngineKind::DotBf16 | EngineKind::AmxBf16, Dtype::Bf16) => {
                Some(Pieces::WHOLE)
            }
            (EngineKind::AmxBf16, Dtype::F16) => Some(Pieces { scores: 2, weights: 2, values: 2, order: 2 }),
            (EngineKind::DotBf16, _) | (EngineKind::AmxBf16, Dtype::F32) => None,
        }
    }

    /// Whether it computes a storage type with some precision.
    pub const fn serves(&self, dtype: Dtype) -> bool {
        self.exact(dtype).is_some() || self.splits()
    }

    /// Whether it computes recurrences of a storage type: matrix tiles multiply operands that are rounded to bf16, which is what
    /// the bounds of bf16 leave room for. Dots were tried, and were no faster
    /// than f32.
    pub const fn has_states(&self, dtype: Dtype) -> bool {
        matches!((self.engine, dtype), (EngineKind::SimdF32, _) | (EngineKind::AmxBf16, Dtype::Bf16))
    }

    /// Whether it can split operands of any storage type into pieces.
    pub const fn splits(&self) -> bool {
        matches!(self.engine, EngineKind::AmxBf16)
    }
}

/// The engine on vectors of the instruction set that another works beside.
pub fn vectors(entry: &Entry) -> Entry {
    let on_vectors = |other: &&Entry| other.engine == EngineKind::SimdF32;
    *runnable(entry.isa).find(on_vectors).unwrap_or(entry)
}

/// The engines that a machine with `isa` can run, the more capable instruction sets first and emulated units last.
pub fn runnable(isa: Isa) -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().filter(move |entry| isa.includes(entry.isa))
}
