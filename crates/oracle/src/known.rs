//! Rows that need not be computed again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::eval::IndexError;
use crate::formula::Row;

/// Rows of an oracle that were asked for before. Kernels of several engines, or several runs of one, are judged on the same inputs,
/// and what is right does not depend on which is judged.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<[usize; 2], Row>>);

impl Known {
    /// A row of a part, computed if it is asked for the first time.
    pub(crate) fn row(
        &self,
        at: [usize; 2],
        compute: impl FnOnce() -> Result<Row, IndexError>,
    ) -> Result<Row, IndexError> {
        let rows = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows().get(&at) {
            return Ok(row.clone());
        }
        let row = compute()?;
        rows().insert(at, row.clone());
        Ok(row)
    }
}
