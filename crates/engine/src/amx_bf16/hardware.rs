//! AMX, by inline assembly: the intrinsics are not stable.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.

use core::arch::asm;
use core::marker::PhantomData;

use super::unit::{SIDE, Source, Tiles, Unit, reach};
use crate::isa::avx512::Avx512;
use crate::isa::probe::Probe;

/// Proof that the processor has AMX for bf16 beside AVX-512, and that the system lets this process use it.
#[derive(Clone, Copy, Debug)]
pub struct Amx {
    lanes: Avx512,
}

impl Amx {
    /// The token, on a processor and a system that have it. The first call asks the system for permission.
    pub fn detect() -> Option<Self> {
        static PROBE: Probe = Probe::new();
        let lanes = Avx512::detect()?;
        PROBE.get(|| has_tiles() && permitted()).then_some(Self { lanes })
    }

    /// Its vectors.
    pub fn lanes(self) -> Avx512 {
        self.lanes
    }
}

/// Whether processor and system have bf16 tiles.
fn has_tiles() -> bool {
    /// Bits of XCR0: the system saves tile configuration and tile data.
    const TILE_STATE: u64 = 0b11 << 17;
    /// Bits of CPUID leaf 7's EDX: AMX-BF16 and AMX-TILE.
    const TILES: u32 = 1 << 22 | 1 << 24;
    let state = core::arch::x86_64::__cpuid(1);
    let saves = state.ecx >> 27 & 1 != 0;
    // SAFETY: bit 27 of leaf 1's ECX says that XGETBV is enabled.
    saves
        && core::arch::x86_64::__cpuid_count(7, 0).edx & TILES == TILES
        && unsafe { saved_state() } & TILE_STATE == TILE_STATE
}

/// XCR0.
///
/// # Safety
/// The system must have enabled XGETBV.
unsafe fn saved_state() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller vouches for the instruction, which reads one register.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Asks Linux for the tile data of this process, which it grants once for all threads.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: the call reads no memory of ours and changes nothing but which registers the process may use; the
    // system clobbers rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") TILE_DATA,
            out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

/// How other systems give permission is not known here.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The layout of a tile configuration.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight tiles of 16 rows of 64 bytes.
static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// This thread's tiles, as long as they are set up. Not `Send`: it is this thread's.
struct Configured(PhantomData<*const ()>);

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: AMX is there, or this would not exist. The instruction touches tiles alone; released, they need not be
        // saved when the system switches threads.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

impl Unit for Amx {
    type Tiles = AmxTiles;

    fn configure(self) -> impl Drop {
        // SAFETY: an `Amx` is made only by `detect`. The operand is a valid configuration of 64 bytes.
        unsafe {
            asm!("ldtilecfg [{config}]", config = in(reg) &CONFIG, options(nostack, preserves_flags, readonly))
        }
        Configured(PhantomData)
    }

    #[inline(always)]
    fn tiles(self) -> AmxTiles {
        AmxTiles(PhantomData)
    }
}

/// The tiles of the processor. Not `Send`: they are this thread's.
///
/// On a thread that has not set them up every instruction faults, which ends the process and corrupts nothing.
pub struct AmxTiles(PhantomData<*const ()>);

/// One block of assembly for the tile that is numbered by a constant, which it writes.
macro_rules! on_tile {
    ($tile:expr, $template:literal, $($operands:tt)*) => {
        match $tile {
            0 => asm!($template, t = const 0, out("tmm0") _, $($operands)*),
            1 => asm!($template, t = const 1, out("tmm1") _, $($operands)*),
            2 => asm!($template, t = const 2, out("tmm2") _, $($operands)*),
            3 => asm!($template, t = const 3, out("tmm3") _, $($operands)*),
            4 => asm!($template, t = const 4, out("tmm4") _, $($operands)*),
            5 => asm!($template, t = const 5, out("tmm5") _, $($operands)*),
            6 => asm!($template, t = const 6, out("tmm6") _, $($operands)*),
            7 => asm!($template, t = const 7, out("tmm7") _, $($operands)*),
            _ => unreachable!(),
        }
    };
}

const WORD: usize = size_of::<u32>();

impl Tiles for AmxTiles {
    #[inline(always)]
    fn zero<const T: usize>(&mut self) {
        const { assert!(T < 8) };
        // SAFETY: writes one tile.
        unsafe { on_tile!(T, "tilezero tmm{t}", options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn load<const T: usize>(&mut self, from: Source<'_>) {
        const { assert!(T < 8) };
        // SAFETY: reads SIDE rows of 64 bytes, which lie where the source says, and writes one tile.
        unsafe {
            on_tile!(T, "tileloadd tmm{t}, [{from} + {stride}]", from = in(reg) from.first(),
                stride = in(reg) from.stride() * WORD, options(nostack, preserves_flags, readonly));
        }
    }

    #[inline(always)]
    fn stream<const T: usize>(&mut self, from: Source<'_>) {
        const { assert!(T < 8) };
        // SAFETY: reads SIDE rows of 64 bytes, which lie where the source says, and writes one tile.
        unsafe {
            on_tile!(T, "tileloaddt1 tmm{t}, [{from} + {stride}]", from = in(reg) from.first(),
                stride = in(reg) from.stride() * WORD, options(nostack, preserves_flags, readonly));
        }
    }

    #[inline(always)]
    fn store<const T: usize>(&mut self, to: &mut [u32], stride: usize) {
        const { assert!(T < 8) };
        assert!(to.len() >= reach(stride), "a tile of rows {stride} words apart");
        // SAFETY: writes SIDE rows of 64 bytes, which the assertion found inside the slice.
        unsafe {
            asm!("tilestored [{to} + {stride}], tmm{t}", t = const T, to = in(reg) to.as_mut_ptr(),
                stride = in(reg) stride * WORD, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
        const { assert!(C < 8 && A < 8 && B < 8 && C != A && C != B && A != B) };
        // SAFETY: reads and writes tiles alone.
        unsafe {
            on_tile!(C, "tdpbf16ps tmm{t}, tmm{a}, tmm{b}", a = const A, b = const B,
                options(nomem, nostack, preserves_flags));
        }
    }
}

const _: () = assert!(SIDE * WORD == 64 && size_of::<Config>() == 64);
