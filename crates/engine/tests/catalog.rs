//! What the catalog says of engines, against the engines.

use regard_engine::Engine;
use regard_engine::any::{self, Visit};
use regard_engine::catalog::ENTRIES;
use regard_ir::plan::Dtype;

/// Storage types, those of which there are recurrences, rows of a row tile, the steps of rows and keys, and whether there are stairs.
struct Shown;

impl Visit for Shown {
    type Output = ([&'static [Dtype]; 2], [usize; 3], bool);

    fn visit<E: Engine>(self, _: E) -> Self::Output {
        ([E::STORAGE, E::STATES], [E::ROWS, E::ROW_STEP, E::KEY_STEP], E::HAS_STAIRS)
    }
}

#[test]
fn entries_are_what_engines_are() {
    let mut compared = 0;
    for entry in ENTRIES {
        let Ok(([storage, states], tile, has_stairs)) = any::with(entry.engine, entry.isa, Shown) else {
            println!("skipped {} on {}: not on this CPU", entry.engine.name(), entry.isa.name());
            continue;
        };
        let said: Vec<Dtype> = Dtype::ALL.into_iter().filter(|&dtype| entry.serves(dtype)).collect();
        assert_eq!(said, storage, "{entry:?}");
        let said: Vec<Dtype> = Dtype::ALL.into_iter().filter(|&dtype| entry.has_states(dtype)).collect();
        assert_eq!(said, states, "{entry:?}");
        assert_eq!(
            [entry.tile.rows, entry.tile.row_step, entry.tile.keys].map(|n| n as usize),
            tile,
            "{entry:?}"
        );
        assert_eq!(entry.tile.stairs, has_stairs, "{entry:?}");
        compared += 1;
    }
    assert!(compared > 0);
}
