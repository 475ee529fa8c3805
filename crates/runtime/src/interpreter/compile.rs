//! From expressions to lane programs.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use regard_ir::expr::{Binary, Node, NodeId, Op, Tree, Type, Unary, Var};
use regard_ir::variant::{Axis, InputShape};

use super::slots::{Kind, Sizes, Slot};
use super::{Instr, LaneOp, Program};

/// Compiles an expression. With `guarded`, indices are checked only where the caller's guard is set.
pub(super) fn program(tree: Tree<'_>, inputs: &[InputShape], guarded: bool) -> Program {
    let mut compiler = Compiler {
        tree,
        inputs,
        checks: vec![],
        body: vec![],
        next: Sizes::default(),
        memo: BTreeMap::new(),
    };
    compiler.find_checks();
    let guard = (guarded && compiler.checks(tree.root())).then(|| compiler.emit(LaneOp::Guard, Kind::Full));
    let result = compiler.value(tree.root(), guard);
    let (prologue, body): (Vec<_>, Vec<_>) =
        compiler.body.into_iter().partition(|instr| matches!(instr.to.kind, Kind::Uniform | Kind::Row));
    let mut program = Program { prologue, body, result, slots: compiler.next };
    reuse_slots(&mut program);
    program
}

struct Compiler<'a> {
    tree: Tree<'a>,
    inputs: &'a [InputShape],
    /// Whether evaluating a node may find a bad index, for each node.
    checks: Vec<bool>,
    body: Vec<Instr>,
    /// Slots given out so far; each instruction has one of its own until [`reuse_slots`].
    next: Sizes,
    /// Values that are already computed. The guard is part of the key only where an index is checked under it.
    memo: BTreeMap<(NodeId, Option<u32>), Slot>,
}

impl Compiler<'_> {
    fn emit(&mut self, op: LaneOp, kind: Kind) -> Slot {
        let count = self.next.count_mut(kind);
        let to = Slot { kind, index: *count as u16 };
        *count += 1;
        self.body.push(Instr { op, to });
        to
    }

    /// The slot of a node's value, evaluated where `guard` is set (everywhere, where absent).
    fn value(&mut self, id: NodeId, guard: Option<Slot>) -> Slot {
        let place = |guard: Slot| (guard.kind as u32) << 16 | guard.index as u32;
        let key = (id, if self.checks(id) { guard.map(place) } else { None });
        if let Some(&slot) = self.memo.get(&key) {
            return slot;
        }
        let slot = self.node(id, guard);
        self.memo.insert(key, slot);
        slot
    }

    fn node(&mut self, id: NodeId, guard: Option<Slot>) -> Slot {
        let tree = self.tree;
        let node = *tree.node(id);
        let operand = |id: NodeId| *tree.node(id);
        match node.op {
            Op::Bool(x) => self.emit(LaneOp::Literal(-(x as i32)), Kind::Uniform),
            Op::Int(x) => self.emit(LaneOp::Literal(x), Kind::Uniform),
            Op::Float(x) => self.emit(LaneOp::Literal((x as f32).to_bits() as i32), Kind::Uniform),
            Op::Var(Var::S) => self.emit(LaneOp::Score, Kind::Full),
            Op::Var(var) => {
                let kind = match var {
                    Var::H | Var::Q => Kind::Row,
                    Var::K => Kind::Key,
                    _ => Kind::Uniform,
                };
                self.emit(LaneOp::Var(var), kind)
            }
            Op::Unary(op, a) => {
                let slot = self.value(a, guard);
                self.emit(LaneOp::Unary { op, node, operand: operand(a), a: slot }, slot.kind)
            }
            Op::Alibi { head, heads } => {
                let a = self.value(head, guard);
                self.emit(LaneOp::Alibi { a, heads }, a.kind)
            }
            Op::Binary(op, left, right) => {
                let a = self.value(left, guard);
                let right_guard = match op {
                    Binary::And if self.checks(right) => Some(self.narrow(guard, a, true)),
                    Binary::Or if self.checks(right) => Some(self.narrow(guard, a, false)),
                    _ => guard,
                };
                let b = self.value(right, right_guard);
                self.emit(LaneOp::Binary { op, node, operand: operand(left), a, b }, a.kind.join(b.kind))
            }
            Op::Select(condition, yes, no) => {
                let c = self.value(condition, guard);
                let yes_guard = if self.checks(yes) { Some(self.narrow(guard, c, true)) } else { guard };
                let a = self.value(yes, yes_guard);
                let no_guard = if self.checks(no) { Some(self.narrow(guard, c, false)) } else { guard };
                let b = self.value(no, no_guard);
                self.emit(LaneOp::Select { c, a, b }, c.kind.join(a.kind).join(b.kind))
            }
            Op::Input { input, rank, index } => {
                let mut kind = Kind::Uniform;
                let mut slots = [Slot { kind, index: 0 }; regard_ir::expr::MAX_AXES];
                for (slot, &id) in slots.iter_mut().zip(&index[..rank as usize]) {
                    *slot = self.value(id, guard);
                    kind = kind.join(slot.kind);
                }
                if !self.in_range(input, &index[..rank as usize]) {
                    let kind = guard.map_or(kind, |guard| guard.kind.join(kind));
                    self.emit(LaneOp::Check { input, rank, index: slots, guard }, kind);
                }
                self.emit(LaneOp::Fetch { input, rank, index: slots }, kind)
            }
        }
    }

    /// The guard of what is evaluated only where `condition` is `wanted`.
    fn narrow(&mut self, guard: Option<Slot>, condition: Slot, wanted: bool) -> Slot {
        let node = Node { op: Op::Bool(true), ty: Type::Bool, exact: true };
        let condition = if wanted {
            condition
        } else {
            self.emit(LaneOp::Unary { op: Unary::Not, node, operand: node, a: condition }, condition.kind)
        };
        match guard {
            None => condition,
            Some(guard) => self.emit(
                LaneOp::Binary { op: Binary::And, node, operand: node, a: guard, b: condition },
                guard.kind.join(condition.kind),
            ),
        }
    }

    fn checks(&self, id: NodeId) -> bool {
        self.checks[id as usize]
    }

    fn find_checks(&mut self) {
        for node in self.tree.nodes() {
            let here = match node.op {
                Op::Input { input, rank, index } => !self.in_range(input, &index[..rank as usize]),
                _ => false,
            };
            let below = node.op.operands().any(|operand| self.checks(operand));
            self.checks.push(here || below);
        }
    }

    /// Whether every index is the variable of its axis, which cannot leave it. Not so for queries: an offset may put
    /// them outside.
    fn in_range(&self, input: u16, index: &[NodeId]) -> bool {
        let axes = self.inputs[input as usize].axes().iter();
        axes.zip(index).all(|(&axis, &id)| match (axis, self.tree.node(id).op) {
            (Axis::Batch, Op::Var(Var::B)) | (Axis::Head, Op::Var(Var::H)) => true,
            (Axis::KvHead, Op::Var(Var::G)) | (Axis::Key, Op::Var(Var::K)) => true,
            (Axis::Len(len), Op::Int(i)) => i >= 0 && (i as u32) < len,
            _ => false,
        })
    }
}

/// Gives slots of the body that are read no more to later instructions.
///
/// A chunk of scores is large, and a long expression has many intermediate values: without this, scratch would grow
/// with the expression. The prologue's slots stay, because the body runs once for each chunk.
fn reuse_slots(program: &mut Program) {
    let in_body = |slot: Slot| matches!(slot.kind, Kind::Key | Kind::Full);
    let mut last_use = BTreeMap::new();
    for (at, instr) in program.body.iter().enumerate() {
        for slot in instr.op.operands() {
            last_use.insert((slot.kind as u8, slot.index), at);
        }
    }
    let key = |slot: Slot| (slot.kind as u8, slot.index);
    last_use.insert(key(program.result), usize::MAX);
    program.slots.key = 0;
    program.slots.full = 0;
    let mut free: BTreeMap<u8, Vec<u16>> = BTreeMap::new();
    let mut renamed: BTreeMap<(u8, u16), u16> = BTreeMap::new();
    for at in 0..program.body.len() {
        let instr = &mut program.body[at];
        let old = instr.to;
        // The result's slot is taken before the operands' are given back: an instruction never reads where it writes.
        let index = free.entry(old.kind as u8).or_default().pop().unwrap_or_else(|| {
            let count = program.slots.count_mut(old.kind);
            *count += 1;
            (*count - 1) as u16
        });
        renamed.insert(key(old), index);
        instr.to.index = index;
        let ended: Vec<Slot> = instr
            .op
            .operands()
            .filter(|&slot| in_body(slot) && last_use.get(&key(slot)) == Some(&at))
            .collect();
        instr.op.rename(|slot| {
            if in_body(*slot)
                && let Some(&index) = renamed.get(&key(*slot))
            {
                slot.index = index;
            }
        });
        let unread = (!last_use.contains_key(&key(old))).then_some(old);
        let mut given: Vec<(u8, u16)> = ended.into_iter().chain(unread).map(key).collect();
        given.sort_unstable();
        given.dedup();
        for slot in given {
            free.entry(slot.0).or_default().push(renamed[&slot]);
        }
    }
    if in_body(program.result) {
        program.result.index = renamed[&key(program.result)];
    }
}

impl LaneOp {
    /// The slots that it reads.
    fn operands(&self) -> impl Iterator<Item = Slot> {
        let mut slots = vec![];
        self.clone().rename(|slot| slots.push(*slot));
        slots.into_iter()
    }

    /// Calls `f` with each slot that it reads.
    fn rename(&mut self, mut f: impl FnMut(&mut Slot)) {
        match self {
            LaneOp::Literal(_) | LaneOp::Var(_) | LaneOp::Score | LaneOp::Guard => {}
            LaneOp::Unary { a, .. } | LaneOp::Alibi { a, .. } => f(a),
            LaneOp::Binary { a, b, .. } => {
                f(a);
                f(b);
            }
            LaneOp::Select { c, a, b } => {
                f(c);
                f(a);
                f(b);
            }
            LaneOp::Fetch { rank, index, .. } => index[..*rank as usize].iter_mut().for_each(f),
            LaneOp::Check { rank, index, guard, .. } => {
                index[..*rank as usize].iter_mut().for_each(&mut f);
                guard.iter_mut().for_each(f);
            }
        }
    }
}
