//! The runtime in a program that has no std, no allocator and no Rust entry point: what it needs is what links here.
#![no_std]
#![no_main]

use core::ffi::{c_char, c_int};

/// Calls into the runtime; whether it gave what it should.
fn work() -> bool {
    use regard_runtime as _;
    true
}

// SAFETY: this program has no other `main`, and the signature is that of C.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    if work() { 0 } else { 1 }
}

// The C library has the start code's entry and the memory functions that the compiler calls.
// SAFETY: nothing is declared.
#[link(name = "c")]
unsafe extern "C" {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
