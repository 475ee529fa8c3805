//! What the system tells about the computer at hand, beyond what a plan needs.

use sysinfo::{
    MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System, get_current_pid,
};

/// Bytes that this process could take without another being pressed; a container's limit counts. `None` where the
/// system does not say.
pub(crate) fn free_memory_bytes() -> Option<u64> {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory).ok()?;
    let container = system.cgroup_limits().map(|limits| limits.free_memory);
    [Some(system.available_memory()), container].into_iter().flatten().filter(|&free| free > 0).min()
}

/// Bytes of memory that this process has now; `None` where the system does not say.
pub(crate) fn resident_bytes() -> Option<u64> {
    let process = get_current_pid().ok()?;
    let mut system = System::new().ok()?;
    let memory = ProcessRefreshKind::nothing().with_memory().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), false, memory);
    system.process(process).map(|process| process.memory())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_is_written_to_is_resident() {
        // Other tests take and give back memory meanwhile: only what this one holds is certain.
        let written = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(resident_bytes().unwrap() >= written.len() as u64);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_says_how_much_memory_is_free() {
        assert!(free_memory_bytes().unwrap() > 1 << 20);
    }
}
