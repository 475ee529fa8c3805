//! The machine at hand, and the profiles of others.

pub use regard_engine::any::available;
pub use regard_engine::detect::host;
pub use regard_planner::profile::{BUILT_IN, Profile, ProfileError};
