//! Memory that may not be there: sizes come from users, so each allocation that grows with them can fail.

use std::fmt;

/// More memory than the system gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory {
    /// What it is for.
    pub(crate) what: &'static str,
    /// How much was asked for.
    pub(crate) bytes: u128,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} would take {}, more memory than there is", self.what, Bytes(self.bytes))
    }
}

/// A number of bytes in the unit that suits it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes(pub(crate) u128);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let unit = (self.0.checked_ilog2().unwrap_or(0) / 10).min(units.len() as u32);
        match unit.checked_sub(1) {
            None => write!(f, "{} B", self.0),
            Some(i) => write!(f, "{:.1} {}", self.0 as f64 / 2f64.powi(10 * unit as i32), units[i as usize]),
        }
    }
}

/// `len` default elements.
///
/// # Errors
/// If the system does not give the memory.
pub(crate) fn zeroed<T: Default + Clone>(what: &'static str, len: u128) -> Result<Vec<T>, OutOfMemory> {
    let mut elements = reserved(what, len)?;
    // What was reserved fits `usize`.
    elements.resize(len as usize, T::default());
    Ok(elements)
}

/// Room for `len` elements.
///
/// # Errors
/// If the system does not give the memory.
pub(crate) fn reserved<T>(what: &'static str, len: u128) -> Result<Vec<T>, OutOfMemory> {
    let fail = OutOfMemory { what, bytes: len.saturating_mul(size_of::<T>() as u128) };
    let len = usize::try_from(len).map_err(|_| fail)?;
    let mut elements = Vec::new();
    elements.try_reserve_exact(len).map_err(|_| fail)?;
    Ok(elements)
}

/// Asks whether the system would give `bytes` at once, before they are filled piece by piece.
///
/// # Errors
/// If it would not.
pub(crate) fn ask(what: &'static str, bytes: u128) -> Result<(), OutOfMemory> {
    reserved::<u8>(what, bytes).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_is_an_error_with_its_size() {
        for len in [1 << 60, 1 << 64, u128::MAX] {
            let error = zeroed::<f32>("the tensors", len).unwrap_err();
            assert_eq!(error.bytes, len.saturating_mul(4));
        }
        assert_eq!(zeroed::<f32>("the tensors", 3), Ok(vec![0.0; 3]));
        let error = OutOfMemory { what: "the tensors", bytes: 3 << 40 };
        assert_eq!(error.to_string(), "the tensors would take 3.0 TiB, more memory than there is");
    }

    #[test]
    fn bytes_are_told_in_their_unit() {
        let told = |bytes| Bytes(bytes).to_string();
        assert_eq!(
            [told(0), told(1023), told(1024), told(1536 << 10)],
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]
        );
    }
}
