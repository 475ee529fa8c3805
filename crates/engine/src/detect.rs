//! What the processor can run and how large its caches are.

use regard_ir::machine::{Isa, Machine};
use regard_ir::rates::Rates;
use std::path::Path;
use std::string::String;
use std::{fs, thread};

/// The machine at hand.
///
/// Cache sizes come from the system, else from CPUID, else they are small ones that every server and desktop
/// processor exceeds; cores are those that this process may use.
pub fn host() -> Machine {
    let caches = from_sysfs().or_else(from_cpuid).unwrap_or(SMALL);
    Machine {
        isa: isa(),
        cores: thread::available_parallelism().map_or(1, |n| n.get() as u32),
        l1d_bytes: caches.l1d,
        l2_bytes: caches.l2,
        l3_bytes: caches.l3,
        rates: Rates::NONE,
    }
}

/// What the processor calls itself, with the numbers of its kind: a virtual machine may hide its name. "unknown" where
/// nothing tells.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub fn processor() -> String {
    let cpuid = raw_cpuid::CpuId::new();
    let name = cpuid.get_processor_brand_string().map(|brand| printable(brand.as_str()));
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| String::from("unknown"));
    match cpuid.get_feature_info() {
        Some(kind) => std::format!("{name}, family {} model {}", kind.family_id(), kind.model_id()),
        None => name,
    }
}

/// What the processor calls itself, or "unknown" where nothing tells.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
pub fn processor() -> String {
    let kind = fs::read_to_string("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1");
    kind.map(|kind| printable(&kind)).unwrap_or_else(|_| String::from("unknown"))
}

/// The letters, digits and marks of a text, trimmed.
fn printable(text: &str) -> String {
    let text: String = text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
    String::from(text.trim())
}

/// The most capable instruction set that is worth using.
#[cfg(target_arch = "x86_64")]
pub fn isa() -> Isa {
    use crate::amx_bf16::hardware::Amx;
    use crate::isa::avx2::Avx2;
    use crate::isa::avx512::{Avx512, Avx512Bf16};
    if Amx::detect().is_some() {
        Isa::Amx
    } else if Avx512Bf16::detect().is_some() && pairs_are_fast() {
        Isa::Avx512Bf16
    } else if Avx512::detect().is_some() {
        Isa::Avx512
    } else if Avx2::detect().is_some() {
        Isa::Avx2
    } else {
        Isa::Scalar
    }
}

/// Whether products of bf16 pairs run at the rate of f32 multiply-adds: AMD's do, Intel's at half of it, so that they gain
/// nothing.
#[cfg(target_arch = "x86_64")]
fn pairs_are_fast() -> bool {
    raw_cpuid::CpuId::new().get_vendor_info().is_some_and(|vendor| vendor.as_str() == "AuthenticAMD")
}

/// The most capable instruction set.
#[cfg(target_arch = "aarch64")]
pub fn isa() -> Isa {
    if crate::isa::neon::Neon::detect().is_some() { Isa::Neon } else { Isa::Scalar }
}

/// The most capable instruction set.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn isa() -> Isa {
    Isa::Scalar
}

/// Bytes that one core may count on at each level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Caches {
    l1d: u32,
    l2: u32,
    l3: u32,
}

const SMALL: Caches = Caches { l1d: 32 << 10, l2: 256 << 10, l3: 0 };

impl Caches {
    /// Enters one cache of `bytes` that `sharers` logical processors use, `threads` to a core.
    fn enter(&mut self, level: u32, bytes: u32, sharers: u32, threads: u32) {
        let cores = (sharers / threads.max(1)).max(1);
        match level {
            1 => self.l1d = bytes / cores,
            2 => self.l2 = bytes / cores,
            // The last level is shared on purpose: whole.
            3 => self.l3 = bytes,
            _ => {}
        }
    }
}

/// The caches of processor 0 as Linux describes them.
fn from_sysfs() -> Option<Caches> {
    let cpu = Path::new("/sys/devices/system/cpu/cpu0");
    let read = |path: &Path| Some(String::from(fs::read_to_string(path).ok()?.trim()));
    let threads = read(&cpu.join("topology/thread_siblings_list")).map_or(1, |list| count(&list));
    let mut caches = Caches { l1d: 0, l2: 0, l3: 0 };
    for index in 0..8 {
        let cache = cpu.join(std::format!("cache/index{index}"));
        let Some(kind) = read(&cache.join("type")) else { break };
        if kind == "Instruction" {
            continue;
        }
        let level = read(&cache.join("level"))?.parse().ok()?;
        let bytes = size(&read(&cache.join("size"))?)?;
        let sharers = read(&cache.join("shared_cpu_list")).map_or(1, |list| count(&list));
        caches.enter(level, bytes, sharers, threads);
    }
    (caches.l1d > 0).then_some(caches)
}

/// "32K" or "1M" in bytes.
fn size(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u32>().ok()?.checked_mul(unit)
}

/// How many processors a list such as "0-3,8" names; at least 1.
fn count(list: &str) -> u32 {
    let one = |part: &str| -> Option<u32> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        last.trim().parse::<u32>().ok()?.checked_sub(first.trim().parse().ok()?)?.checked_add(1)
    };
    list.split(',').filter_map(one).fold(0, u32::saturating_add).max(1)
}

/// The caches as the processor describes them.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn from_cpuid() -> Option<Caches> {
    let mut caches = Caches { l1d: 0, l2: 0, l3: 0 };
    for cache in raw_cpuid::CpuId::new().get_cache_parameters()? {
        if cache.cache_type() == raw_cpuid::CacheType::Instruction {
            continue;
        }
        let bytes = cache.sets() as u64
            * cache.associativity() as u64
            * cache.coherency_line_size() as u64
            * cache.physical_line_partitions() as u64;
        // CPUID counts identifiers, not processors, so only the last level is taken as shared.
        caches.enter(cache.level().into(), u32::try_from(bytes).ok()?, 1, 1);
    }
    (caches.l1d > 0).then_some(caches)
}

/// No processor description to ask.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
fn from_cpuid() -> Option<Caches> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_first_level_cache_and_a_core() {
        let host = host();
        assert!(host.l1d_bytes >= 4 << 10 && host.cores >= 1, "{host:?}");
        assert_eq!(host.isa, isa());
    }

    #[test]
    fn a_processor_has_a_line_of_plain_letters() {
        let name = processor();
        assert!(!name.is_empty() && name == printable(&name), "{name:?}");
        assert_eq!(printable(" A \u{7}CPU\n"), "A CPU");
    }

    #[test]
    fn system_lists_and_sizes_are_read() {
        assert_eq!((count("0"), count("0-3"), count("0-3,8,10-11"), count("junk")), (1, 4, 7, 1));
        assert_eq!(
            (size("48K"), size("2M"), size("512"), size("4X")),
            (Some(49152), Some(2 << 20), Some(512), None)
        );
    }

    #[test]
    fn a_shared_second_level_counts_by_core() {
        let mut caches = SMALL;
        caches.enter(2, 4 << 20, 8, 2);
        caches.enter(3, 32 << 20, 8, 2);
        assert_eq!(caches, Caches { l1d: 32 << 10, l2: 1 << 20, l3: 32 << 20 });
    }
}
