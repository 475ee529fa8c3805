//! What engines exist, for planners: plain data on every target, whatever can be compiled for it.

use regard_ir::machine::Isa;
use regard_ir::plan::{Dtype, EngineKind};

use crate::engine::PANEL;

/// The register tile of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileShape {
    /// Rows of a full row tile.
    pub rows: u32,
    /// Keys of a key panel.
    pub keys: u32,
}

/// One engine on one instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The engine.
    pub engine: EngineKind,
    /// The instruction set that it is built for.
    pub isa: Isa,
    /// Storage types that it reads.
    pub dtypes: &'static [Dtype],
    /// Its register tile.
    pub tile: TileShape,
}

/// Every engine, the more capable instruction sets first.
pub const ENTRIES: &[Entry] =
    &[simd_f32(Isa::Avx512), simd_f32(Isa::Avx2), simd_f32(Isa::Neon), simd_f32(Isa::Scalar)];

const fn simd_f32(isa: Isa) -> Entry {
    let rows = 3 * isa.f32_lanes();
    Entry {
        engine: EngineKind::SimdF32,
        isa,
        dtypes: &Dtype::ALL,
        tile: TileShape { rows, keys: PANEL as u32 },
    }
}

/// The engines that a machine with `isa` can run, the more capable instruction sets first.
pub fn runnable(isa: Isa) -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().filter(move |entry| isa.includes(entry.isa))
}
