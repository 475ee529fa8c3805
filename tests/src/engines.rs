//! The engines and instruction sets that tests run on.

use regard::{Dtype, EngineKind, machine};
use regard_engine::catalog::{ENTRIES, Entry};

/// Names instruction sets, with commas between them, that must not be skipped.
pub const REQUIRE: &str = "REGARD_REQUIRE";

/// As [`available`], one for each instruction set: what is done to lanes does not depend on the engine.
///
/// # Panics
/// As [`available`].
pub fn lanes() -> Vec<&'static Entry> {
    available().into_iter().filter(|entry| entry.engine == EngineKind::SimdF32).collect()
}

/// As [`available`], those alone that compute a storage type.
///
/// # Panics
/// As [`available`].
pub fn serving(dtype: Dtype) -> Vec<&'static Entry> {
    available().into_iter().filter(|entry| entry.serves(dtype)).collect()
}

/// The engines of this build on the instruction sets of this processor. What is skipped is said aloud.
///
/// # Panics
/// If a set that [`REQUIRE`] names would be skipped or does not exist.
pub fn available() -> Vec<&'static Entry> {
    let required = std::env::var(REQUIRE).unwrap_or_default();
    let required: Vec<&str> = required.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    for name in &required {
        let known = ENTRIES.iter().any(|entry| entry.isa.name() == *name);
        assert!(known, "{REQUIRE} names `{name}`, which no engine is built for");
    }
    let is_here = |entry: &&Entry| {
        let (isa, here) = (entry.isa.name(), machine::available(entry.engine, entry.isa));
        if !here {
            assert!(!required.contains(&isa), "{isa} is not on this CPU, but {REQUIRE} asks for it");
            println!("skipped {isa}: not on this CPU");
        }
        here
    };
    ENTRIES.iter().filter(is_here).collect()
}
