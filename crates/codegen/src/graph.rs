//! Mask and modifier as one graph of values, each computed once.

use std::collections::{BTreeMap, BTreeSet};

use regard_ir::expr::{Type, Var};
use regard_ir::lanes::{Instr, Kind, LaneOp, Lowered, ValueId};

/// The values of a variant's expressions, operands first.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) values: Vec<Instr>,
    known: BTreeMap<String, ValueId>,
}

/// An expression over a graph.
pub(crate) struct Body {
    pub(crate) result: ValueId,
    pub(crate) checks: Vec<Check>,
}

/// An index of a captured input that must stay inside its axes where `guard` holds.
pub(crate) struct Check {
    pub(crate) input: u16,
    pub(crate) outside: ValueId,
    pub(crate) guard: Option<ValueId>,
}

impl Graph {
    /// Adds an expression; what the graph already computes is shared.
    pub(crate) fn add(&mut self, lowered: &Lowered) -> Body {
        let mut ids: Vec<ValueId> = Vec::with_capacity(lowered.instrs.len());
        let mut checks = vec![];
        for instr in &lowered.instrs {
            let op = instr.op.map(|operand| ids[operand as usize]);
            if let LaneOp::Check { input, outside, guard } = op {
                checks.push(Check { input, outside, guard });
                // Nothing reads a check, so its place among the values is never looked up.
                ids.push(outside);
                continue;
            }
            // Operations are told apart as `Debug` writes them, which has the sign of a zero.
            let next = self.values.len() as ValueId;
            let id = *self.known.entry(format!("{op:?}")).or_insert(next);
            if id == next {
                self.values.push(Instr { op, ..*instr });
            }
            ids.push(id);
        }
        Body { result: ids[lowered.result as usize], checks }
    }

    /// One value.
    pub(crate) fn value(&self, id: ValueId) -> &Instr {
        &self.values[id as usize]
    }

    /// Whether a value is written where it is used: literals, and what the place of a tile holds.
    pub(crate) fn is_leaf(&self, id: ValueId) -> bool {
        let Instr { op, kind, .. } = self.value(id);
        match op {
            LaneOp::Bool(_) | LaneOp::Int(_) | LaneOp::Float(_) | LaneOp::Score | LaneOp::Live => true,
            LaneOp::Var(_) => *kind == Kind::Uniform,
            _ => false,
        }
    }

    /// The values without a key that the bodies use: what is computed once a tile.
    pub(crate) fn row_values(&self, bodies: &[&Body]) -> BTreeSet<ValueId> {
        let mut row = BTreeSet::new();
        let mut queue: Vec<ValueId> = bodies.iter().flat_map(|body| body.roots()).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = queue.pop() {
            if self.is_leaf(id) || !seen.insert(id) {
                continue;
            }
            if self.value(id).kind.is_keyless() {
                row.insert(id);
            } else {
                queue.extend(self.value(id).op.operands());
            }
        }
        row
    }

    /// How a value would be called, if a name is to say what it is.
    pub(crate) fn wanted_name<'a>(&self, id: ValueId, inputs: &'a [Option<String>]) -> Option<&'a str> {
        match self.value(id).op {
            LaneOp::Var(Var::Q) => Some("q"),
            LaneOp::Var(Var::H) => Some("h"),
            LaneOp::Var(Var::K) => Some("k"),
            LaneOp::Alibi { .. } => Some("slope"),
            LaneOp::Fetch { input, .. } => inputs[input as usize].as_deref(),
            LaneOp::Outside { .. } => Some("outside"),
            _ => None,
        }
    }

    /// The lane type of a value.
    pub(crate) fn lane_type(&self, id: ValueId) -> &'static str {
        match self.value(id).ty {
            Type::Bool => "Mask<L>",
            Type::Int => "I32<L>",
            Type::Float => "F32<L>",
        }
    }
}

impl Body {
    /// The values that it needs: those of its checks, then the result.
    pub(crate) fn roots(&self) -> Vec<ValueId> {
        let checks = self.checks.iter().flat_map(|check| [Some(check.outside), check.guard]);
        checks.flatten().chain([self.result]).collect()
    }
}
