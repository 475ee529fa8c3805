//! The fold of a softmax that has neither mask nor modifier, by itself: for whoever times an engine's steps as runs take
//! them.

use regard_engine::isa::Door;
use regard_engine::{Engine, Fold};
use regard_ir::inputs::Captured;
use regard_ir::variant::{Sink, Weights};

use super::fold::{Steps, Sums, TileFold, Units};
use crate::code::{Code, Fault, Keys as LaneKeys, Place};

/// What the rows of a tile have summed up, `[width]` each, and room to work in.
#[derive(Debug)]
pub struct PlainRows<'a> {
    /// References of the rows in log2 units, integral; −inf before their first key.
    pub references: &'a mut [f32],
    /// Sums of their weights.
    pub totals: &'a mut [f32],
    /// What outputs are multiplied by where references move.
    pub factors: &'a mut [f32],
    /// Whether no key came before.
    pub fresh: bool,
}

/// The fold of a row tile of `rows`, whose scores come in log2 units; those of an engine that gives them unscaled are
/// brought there by `scale`.
pub fn plain_fold<'a, E: Engine>(rows: PlainRows<'a>, scale: f32) -> impl Fold<E::Lanes> + use<'a, E> {
    static NO_FAULT: Fault = Fault::new();
    let PlainRows { references, totals, factors, fresh } = rows;
    TileFold::<E::Lanes> {
        code: &Plain,
        weights: Weights::Softmax { sink: Sink::None },
        place: Place {
            b: 0,
            g: 0,
            heads: 0,
            nq: 0,
            nk: 0,
            q: &[],
            h: &[],
            first_key: 0,
            keys: LaneKeys::Rows,
            captured: &Captured::NONE,
            fault: &NO_FAULT,
        },
        steps: Steps::default(),
        step_keys: 1,
        width: references.len(),
        units: Units { scale: None, log2: if E::UNSCALED { scale } else { 1.0 }, slack: E::SLACK },
        learned: None,
        fresh,
        sums: Sums { reference: references, total: totals },
        factors,
        scratch: &mut [],
    }
}

/// No mask and no modifier.
struct Plain;

impl<L: Door> Code<L> for Plain {
    fn modifies(&self) -> bool {
        false
    }

    fn scratch_len(&self, _: usize) -> usize {
        0
    }

    fn apply(&self, _: L, _: &Place<'_>, _: &mut [f32], _: bool, _: &mut [i32]) {}

    fn allow(&self, _: L, _: &Place<'_>, allowed: &mut [i32], _: &mut [i32]) {
        allowed.fill(1);
    }
}
