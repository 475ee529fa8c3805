//! Demonstrations and measurements that drive the command regard.
fn main() {}
