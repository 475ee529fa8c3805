//! What is asked of the processor once and remembered.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU8, Ordering};

use regard_simd::Prefetch;

/// An answer that does not change, once there is one.
pub(crate) struct Probe(AtomicU8);

impl Probe {
    const UNKNOWN: u8 = 0;
    const NO: u8 = 1;
    const YES: u8 = 2;

    /// Nothing was asked yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(Self::UNKNOWN))
    }

    /// The answer; `ask` is called unless it is known. Threads that ask at the same time may all call it.
    ///
    /// Runs ask each time, and on a virtual machine CPUID alone costs as much as a small problem.
    pub(crate) fn get(&self, ask: impl FnOnce() -> bool) -> bool {
        let mut answer = self.0.load(Ordering::Relaxed);
        if answer == Self::UNKNOWN {
            answer = if ask() { Self::YES } else { Self::NO };
            self.0.store(answer, Ordering::Relaxed);
        }
        answer == Self::YES
    }
}

/// How this processor is to be asked for long runs of lines.
///
/// AMD's family 26 (Zen 5) reads them faster from the first cache. Family 25 with AVX-512 (Zen 4) leaves off looking ahead by itself where
/// lines are asked for, and is fastest where they lie one after the other and nothing is. Without it (Zen 3) it drops what is asked for
/// far ahead. Of others nothing is known.
pub(crate) fn prefetch() -> Prefetch {
    static AMD: Probe = Probe::new();
    static LATE: Probe = Probe::new();
    static WIDE: Probe = Probe::new();
    if !AMD.get(|| __cpuid(0).ebx == AUTH) {
        return Prefetch::IntoSecond;
    }
    if LATE.get(|| family(__cpuid(1).eax) >= 26) {
        return Prefetch::IntoFirst;
    }
    // Where there is an instruction set to run there is leaf 7.
    if WIDE.get(|| __cpuid_count(7, 0).ebx & AVX512F != 0) { Prefetch::AtJumps } else { Prefetch::Close }
}

/// Bit of CPUID leaf 7's EBX: AVX-512F.
const AVX512F: u32 = 1 << 16;

/// The first four letters of "AuthenticAMD", as CPUID leaf 0's EBX has them.
const AUTH: u32 = u32::from_le_bytes(*b"Auth");

/// A processor's family, by CPUID leaf 1's EAX.
const fn family(signature: u32) -> u32 {
    match signature >> 8 & 0xf {
        0xf => 0xf + (signature >> 20 & 0xff),
        family => family,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_by_their_signatures() {
        // Zen 4 and Zen 5 servers, and a Xeon of the fourth generation.
        for (signature, expected) in [(0x00a1_0f11, 25), (0x00b0_0f21, 26), (0x0008_06f8, 6)] {
            assert_eq!(family(signature), expected, "{signature:#x}");
        }
    }
}
