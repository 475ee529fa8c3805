//! The command regard: list, check, plan, run and verify attention variants.
fn main() {}
