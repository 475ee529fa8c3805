//! The identity of a variant: what two specs share when one kernel serves both.

use core::fmt;

/// A 128-bit hash of a resolved spec in canonical bytes, without name, summary, comments, dtype and precision.
///
/// The first byte of the canonical bytes is [`Identity::VERSION`], so that a change of encoding changes every hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(pub u128);

impl Identity {
    /// The version of the canonical encoding.
    pub const VERSION: u8 = 1;
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Identity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
