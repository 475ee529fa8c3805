//! A kernel in a program that has no std, no allocator and no Rust entry point: what it needs is what links here.
#![no_std]
#![no_main]

mod attention;

use core::ffi::{c_char, c_int};

// SAFETY: this program has no other `main`, and the signature is that of C.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    if attention::gives_what_it_should() { 0 } else { 1 }
}

// The C library has the start code's entry and the memory functions that the compiler calls.
// SAFETY: nothing is declared.
#[link(name = "c")]
unsafe extern "C" {}

/// The precompiled compiler support names the handler that unwinding would call; this program aborts instead.
// SAFETY: std, which defines it otherwise, is not linked.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
