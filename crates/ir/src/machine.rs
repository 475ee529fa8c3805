//! A machine as the planner knows it: instruction sets, cores, caches, and how fast it was seen to be.

use crate::rates::Rates;

/// An instruction set that an engine can be built for, from the least to the most capable of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Isa {
    /// No SIMD at all; every machine has it.
    Scalar,
    /// Arm Advanced SIMD, 128 bits.
    Neon,
    /// WebAssembly SIMD, 128 bits.
    WasmSimd,
    /// x86-64-v3 and F16C, 256 bits.
    Avx2,
    /// x86-64-v4, 512 bits.
    Avx512,
    /// Products of bf16 pairs beside AVX-512.
    Avx512Bf16,
    /// Matrix tiles beside AVX-512.
    Amx,
}

impl Isa {
    /// Every instruction set.
    pub const ALL: [Isa; 7] =
        [Isa::Scalar, Isa::Neon, Isa::WasmSimd, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// As it is written on the command line and in profiles.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Neon => "neon",
            Isa::WasmSimd => "wasm-simd",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512-bf16",
            Isa::Amx => "amx",
        }
    }

    /// f32 lanes of a vector register.
    pub const fn f32_lanes(self) -> u32 {
        match self {
            Isa::Scalar => 1,
            Isa::Neon | Isa::WasmSimd => 4,
            Isa::Avx2 => 8,
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => 16,
        }
    }

    /// Vector registers that a program can name.
    pub const fn registers(self) -> u32 {
        match self {
            Isa::Scalar | Isa::WasmSimd | Isa::Avx2 => 16,
            Isa::Neon | Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => 32,
        }
    }

    /// Whether a machine with this set runs code for `other` as well.
    pub const fn includes(self, other: Isa) -> bool {
        match other {
            Isa::Scalar => true,
            Isa::Neon => matches!(self, Isa::Neon),
            Isa::WasmSimd => matches!(self, Isa::WasmSimd),
            Isa::Avx2 => matches!(self, Isa::Avx2 | Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx),
            Isa::Avx512 => matches!(self, Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx),
            Isa::Avx512Bf16 => matches!(self, Isa::Avx512Bf16 | Isa::Amx),
            Isa::Amx => matches!(self, Isa::Amx),
        }
    }
}

/// A machine: the best instruction set it has, its cores, its caches, and what was measured on it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Machine {
    /// The most capable instruction set; [`Isa::includes`] says what else runs.
    pub isa: Isa,
    /// Cores that can work at once.
    pub cores: u32,
    /// First-level data cache of a core, in bytes.
    pub l1d_bytes: u32,
    /// Second-level cache of a core (or its share of one), in bytes; 0 where there is none.
    pub l2_bytes: u32,
    /// Last-level cache shared by the cores, in bytes; 0 where there is none.
    pub l3_bytes: u32,
    /// What was measured on it; nothing is no error.
    pub rates: Rates,
}

impl Machine {
    /// The cache that what is gone through again and again lives in, with its bytes: L2, or what there is.
    pub const fn pass_cache(&self) -> (&'static str, u32) {
        if self.l2_bytes > 0 { ("L2", self.l2_bytes) } else { ("L1d", self.l1d_bytes) }
    }

    /// The same machine with nothing above `ceiling`, as `--isa` asks. `None` where it does not include `ceiling`.
    pub fn with_ceiling(self, ceiling: Isa) -> Option<Self> {
        self.isa.includes(ceiling).then_some(Self { isa: ceiling, ..self })
    }
}
