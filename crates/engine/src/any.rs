//! From a plan's engine and instruction set to code: the one place where they meet.

use core::fmt;

use regard_ir::machine::Isa;
use regard_ir::plan::EngineKind;

#[cfg(target_arch = "x86_64")]
use crate::amx_bf16::hardware::Amx;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::amx_bf16::{AmxBf16, emulated::Emulated};
use crate::dot_bf16::DotBf16;
use crate::engine::Engine;
#[cfg(target_arch = "x86_64")]
use crate::isa::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use crate::isa::avx512::{Avx512, Avx512Bf16};
#[cfg(target_arch = "aarch64")]
use crate::isa::neon::Neon;
use crate::isa::scalar::Scalar;
use crate::simd_f32::SimdF32;

/// Something that is done with an engine, whichever it is.
pub trait Visit {
    /// What it gives.
    type Output;

    /// Does it.
    fn visit<E: Engine>(self, engine: E) -> Self::Output;
}

/// An engine that this processor, or this build, does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// The engine.
    pub engine: EngineKind,
    /// The instruction set.
    pub isa: Isa,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}: not on this CPU", self.engine.name(), self.isa.name())
    }
}

impl core::error::Error for Unavailable {}

/// Calls `visit` with the engine on the instruction set.
///
/// # Errors
/// If the processor does not have the set, or the target cannot be compiled for it.
pub fn with<V: Visit>(engine: EngineKind, isa: Isa, visit: V) -> Result<V::Output, Unavailable> {
    match (engine, isa) {
        (EngineKind::SimdF32, Isa::Scalar) => Ok(visit.visit(SimdF32(Scalar))),
        #[cfg(target_arch = "x86_64")]
        (EngineKind::SimdF32, Isa::Avx2) if let Some(lanes) = Avx2::detect() => {
            Ok(visit.visit(SimdF32(lanes)))
        }
        #[cfg(target_arch = "x86_64")]
        (EngineKind::SimdF32, Isa::Avx512) if let Some(lanes) = Avx512::detect() => {
            Ok(visit.visit(SimdF32(lanes)))
        }
        #[cfg(target_arch = "aarch64")]
        (EngineKind::SimdF32, Isa::Neon) if let Some(lanes) = Neon::detect() => {
            Ok(visit.visit(SimdF32(lanes)))
        }
        #[cfg(target_arch = "x86_64")]
        (EngineKind::DotBf16, Isa::Avx512Bf16) if let Some(lanes) = Avx512Bf16::detect() => {
            Ok(visit.visit(DotBf16(lanes)))
        }
        #[cfg(target_arch = "x86_64")]
        (EngineKind::DotBf16, Isa::Avx2) if let Some(lanes) = Avx2::detect() => {
            Ok(visit.visit(DotBf16(lanes)))
        }
        #[cfg(target_arch = "aarch64")]
        (EngineKind::DotBf16, Isa::Neon) if let Some(lanes) = Neon::detect() => {
            Ok(visit.visit(DotBf16(lanes)))
        }
        #[cfg(target_arch = "x86_64")]
        (EngineKind::AmxBf16, Isa::Amx) if let Some(unit) = Amx::detect() => {
            Ok(visit.visit(AmxBf16 { unit, lanes: unit.lanes() }))
        }
        #[cfg(target_arch = "x86_64")]
        (EngineKind::AmxBf16, Isa::Avx2) if let Some(lanes) = Avx2::detect() => {
            Ok(visit.visit(AmxBf16 { unit: Emulated, lanes }))
        }
        #[cfg(target_arch = "aarch64")]
        (EngineKind::AmxBf16, Isa::Neon) if let Some(lanes) = Neon::detect() => {
            Ok(visit.visit(AmxBf16 { unit: Emulated, lanes }))
        }
        _ => Err(Unavailable { engine, isa }),
    }
}

/// Whether [`with`] would succeed.
pub fn available(engine: EngineKind, isa: Isa) -> bool {
    struct Nothing;
    impl Visit for Nothing {
        type Output = ();
        fn visit<E: Engine>(self, _: E) {}
    }
    with(engine, isa, Nothing).is_ok()
}
