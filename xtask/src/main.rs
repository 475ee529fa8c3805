//! Tasks of the regard workspace.
fn main() {}
