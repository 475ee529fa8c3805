//! What is asked of the processor once and remembered.

use core::sync::atomic::{AtomicU8, Ordering};

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
