//! Random trees of all operations: a mask and a modifier over a few queries and keys, whatever they read.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use regard_ir::expr::{Binary, Expr, MAX_AXES, Node, NodeId, Op, Type, Unary, Var};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval;
use regard_ir::problem::Problem;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Source, Variant};
use regard_oracle::eval::{IndexError, Value, eval};
use regard_tests::engines;

use crate::lanes::{self, Grid};
use crate::{Pointwise, all, holds, isa, point, same_bits, score, variant};

pub(crate) const HEADS: Heads = Heads { query: 4, kv: 2, value: 2, dim: 8, value_dim: 8 };
pub(crate) const KEYS: i32 = 12;
const QUERIES: i32 = 7;

/// What random trees read: `f32[q]`, `i32[b, k]`, `bool[4]`.
pub(crate) const SHAPES: [InputShape; 3] = [
    InputShape { dtype: InputType::F32, rank: 1, axes: axes([Axis::Query, Axis::Len(1)]) },
    InputShape { dtype: InputType::I32, rank: 2, axes: axes([Axis::Batch, Axis::Key]) },
    InputShape { dtype: InputType::Bool, rank: 1, axes: axes([Axis::Len(4), Axis::Len(1)]) },
];
const TYPES: [Type; 3] = [Type::Float, Type::Int, Type::Bool];

const fn axes([first, second]: [Axis; 2]) -> [Axis; MAX_AXES] {
    [first, second, Axis::Len(1), Axis::Len(1), Axis::Len(1), Axis::Len(1)]
}

/// Random typed trees, drawn from a list of numbers so that a failure shrinks. Without draws the first choice is taken,
/// which is a leaf everywhere.
struct Random<'a> {
    draws: std::slice::Iter<'a, u32>,
    nodes: Vec<Node>,
    /// Whether the score may be read.
    reads_score: bool,
}

impl Random<'_> {
    fn draw(&mut self, choices: usize) -> usize {
        self.draws.next().map_or(0, |&draw| draw as usize % choices)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.draw(from.len())]
    }

    fn push(&mut self, op: Op, ty: Type, exact: bool) -> NodeId {
        self.nodes.push(Node { op, ty, exact });
        (self.nodes.len() - 1) as NodeId
    }

    fn any(&mut self, ty: Type, depth: u32, exact: bool) -> NodeId {
        match ty {
            Type::Bool => self.bool(depth),
            Type::Int => self.int(depth),
            Type::Float => self.float(depth, exact),
        }
    }

    fn bool(&mut self, depth: u32) -> NodeId {
        let op = match self.draw(if depth == 0 { 2 } else { 9 }) {
            0 => Op::Bool(self.draw(2) == 1),
            1 => self.input(Type::Bool, depth),
            2 => Op::Unary(Unary::Not, self.bool(depth - 1)),
            3 => self.select(Type::Bool, depth, true),
            4 | 5 => {
                let op = self.pick(&[Binary::And, Binary::Or, Binary::Eq, Binary::Ne]);
                Op::Binary(op, self.bool(depth - 1), self.bool(depth - 1))
            }
            draw => {
                let op = self.pick(&[Binary::Lt, Binary::Le, Binary::Eq, Binary::Ne]);
                let ty = if draw == 6 { Type::Float } else { Type::Int };
                Op::Binary(op, self.any(ty, depth - 1, true), self.any(ty, depth - 1, true))
            }
        };
        self.push(op, Type::Bool, true)
    }

    fn int(&mut self, depth: u32) -> NodeId {
        let op = match self.draw(if depth == 0 { 4 } else { 11 }) {
            0 => Op::Int(self.pick(&[0, 1, 2, 3, 5, 8, -1, -3, i32::MIN, i32::MAX, i32::MAX - 7, 1 << 16])),
            1 | 2 => Op::Var(self.pick(&[Var::Q, Var::K, Var::B, Var::H, Var::G, Var::Nq, Var::Nk])),
            3 => self.input(Type::Int, depth),
            4 => Op::Unary(Unary::ToInt, self.float(depth - 1, true)),
            5 => Op::Unary(self.pick(&[Unary::Neg, Unary::Abs]), self.int(depth - 1)),
            6 => self.select(Type::Int, depth, true),
            _ => {
                let op = self.pick(&[
                    Binary::Add,
                    Binary::Sub,
                    Binary::Mul,
                    Binary::FloorDiv,
                    Binary::Rem,
                    Binary::Min,
                    Binary::Max,
                ]);
                Op::Binary(op, self.int(depth - 1), self.int(depth - 1))
            }
        };
        self.push(op, Type::Int, true)
    }

    fn float(&mut self, depth: u32, exact: bool) -> NodeId {
        let mut exact = exact;
        let op = match self.draw(if depth == 0 { 3 } else { 13 }) {
            0 => Op::Float(self.pick(&[
                0.0,
                1.0,
                -0.75,
                0.1,
                3.0,
                -2.0,
                1e30,
                1e-42,
                100.0,
                f64::INFINITY,
                -0.0,
            ])),
            1 if self.reads_score => Op::Var(Var::S),
            1 | 2 => {
                exact = true;
                self.input(Type::Float, depth)
            }
            3 | 4 => Op::Unary(Unary::ToFloat, self.int(depth - 1)),
            5 => self.select(Type::Float, depth, exact),
            6 => Op::Alibi { head: self.int(depth - 1), heads: self.pick(&[1, 4, 12]) },
            7..=9 => {
                let functions = Unary::ALL
                    .into_iter()
                    .filter(|op| !matches!(op, Unary::Not | Unary::ToFloat | Unary::ToInt));
                let op = self.pick(&functions.collect::<Vec<_>>());
                // What jumps decides something.
                exact |= matches!(op, Unary::Floor | Unary::Ceil);
                Op::Unary(op, self.float(depth - 1, exact))
            }
            _ => {
                let op = self.pick(&[
                    Binary::Add,
                    Binary::Sub,
                    Binary::Mul,
                    Binary::Div,
                    Binary::Pow,
                    Binary::Min,
                    Binary::Max,
                ]);
                Op::Binary(op, self.float(depth - 1, exact), self.float(depth - 1, exact))
            }
        };
        self.push(op, Type::Float, exact)
    }

    fn select(&mut self, ty: Type, depth: u32, exact: bool) -> Op {
        let condition = self.bool(depth - 1);
        Op::Select(condition, self.any(ty, depth - 1, exact), self.any(ty, depth - 1, exact))
    }

    fn input(&mut self, ty: Type, depth: u32) -> Op {
        let input = TYPES.iter().position(|&of| of == ty).expect("one of each");
        let rank = SHAPES[input].rank;
        let mut index = [0; MAX_AXES];
        for index in &mut index[..rank as usize] {
            *index = match self.draw(4) {
                0 => self.push(Op::Var(Var::K), Type::Int, true),
                1 => self.push(Op::Var(Var::Q), Type::Int, true),
                2 => self.push(Op::Var(Var::B), Type::Int, true),
                _ if depth > 0 => self.int(depth - 1),
                _ => self.push(Op::Int(1), Type::Int, true),
            };
        }
        Op::Input { input: input as u16, rank, index }
    }
}

fn random(draws: &[u32], ty: Type, exact: bool, reads_score: bool) -> Expr {
    let mut random = Random { draws: draws.iter(), nodes: vec![], reads_score };
    random.any(ty, 5, exact);
    Expr::new(random.nodes)
}

/// Calls `check` with the queries and keys that expressions are compared over: some queries lie outside the positions.
pub(crate) fn with_grid(check: impl FnOnce(&Grid<'_>)) {
    let floats: Vec<f32> = (0..KEYS).map(|i| if i == 9 { f32::NAN } else { i as f32 * 0.7 - 2.0 }).collect();
    let ids: Vec<i32> = (0..2 * KEYS).map(|i| i / 5 - 1).collect();
    let data = [InputData::F32(&floats), InputData::I32(&ids), InputData::Bool(&[1, 0, 9, 0])];
    let problem = Problem::prefill(Source::SelfAttention, 2, QUERIES as usize, KEYS as usize).expect("short");
    let captured = Captured::bind(&SHAPES, &data, &HEADS, Source::SelfAttention, &problem).expect("they fit");
    let rows: Vec<(i32, i32)> = (-2..KEYS + 2).flat_map(|q| [(q, 2), (q, 3)]).collect();
    check(&Grid { b: 1, g: 1, nq: QUERIES, nk: KEYS, rows: &rows, keys: 0..KEYS, captured: &captured });
}

pub(crate) fn scores(row: usize, key: i32) -> f32 {
    (row as f32 - 7.0) * 0.75 + key as f32 * 0.125
}

type Reading = Result<Value, IndexError>;

/// What the oracle makes of an expression at a point.
fn oracle(expression: &Expr, grid: &Grid<'_>, row: usize, key: i32) -> Reading {
    eval(expression.tree(), &grid.scope(grid.rows[row], key, scores(row, key)), grid.captured)
}

/// Compares the readings of a mask, by both entries of the code.
pub(crate) fn check_mask(mask: &Expr, grid: &Grid<'_>) {
    let score = score();
    let variant = variant(HEADS, mask.tree(), score.tree(), &SHAPES);
    for entry in engines::lanes() {
        for part in lanes::allow(entry, &variant, grid) {
            let mut refused = false;
            for (row, key, found) in part.points() {
                match oracle(mask, grid, row, key) {
                    Err(_) => refused = true,
                    Ok(value) => {
                        let at = point(&grid.scope(grid.rows[row], key, 0.0));
                        let range = interval::eval(mask.tree(), &at, &Pointwise(grid.captured));
                        assert!(
                            holds(range, value),
                            "{value:?} is not in {range:?}: {:?} {key}",
                            grid.rows[row]
                        );
                        assert_eq!(Value::Bool(found), value, "{}: {:?}, {key}", isa(entry), grid.rows[row]);
                    }
                }
            }
            assert_eq!(part.fault, refused, "{}: a fault where the oracle has none, or none", isa(entry));
        }
        for part in lanes::apply(entry, &variant, grid, true, &scores) {
            let mut refused = false;
            for (row, key, found) in part.points() {
                match oracle(mask, grid, row, key) {
                    Err(_) => refused = true,
                    Ok(value) => {
                        let allowed = value == Value::Bool(true);
                        let expected = if allowed { scores(row, key) } else { f32::NEG_INFINITY };
                        assert_eq!(found, expected, "{}: {:?}, {key}", isa(entry), grid.rows[row]);
                    }
                }
            }
            assert_eq!(part.fault, refused, "{}: a fault where the oracle has none, or none", isa(entry));
        }
    }
}

/// Compares the readings of a modifier behind a mask.
pub(crate) fn check_modifier(mask: &Expr, modify: &Expr, masked: bool, grid: &Grid<'_>) {
    let variant: Variant<'_> = variant(HEADS, mask.tree(), modify.tree(), &SHAPES);
    let exact = modify.tree().node(modify.tree().root()).exact;
    for entry in engines::lanes() {
        for part in lanes::apply(entry, &variant, grid, masked, &scores) {
            let mut refused = false;
            for (row, key, found) in part.points() {
                let allowed = if masked { oracle(mask, grid, row, key) } else { Ok(Value::Bool(true)) };
                let value = match allowed {
                    Ok(Value::Bool(true)) => oracle(modify, grid, row, key),
                    Ok(_) => {
                        assert_eq!(found, f32::NEG_INFINITY, "{}: {:?}, {key}", isa(entry), grid.rows[row]);
                        continue;
                    }
                    Err(error) => Err(error),
                };
                let Ok(value) = value else {
                    refused = true;
                    continue;
                };
                let Value::Float(x) = value else { panic!("a modifier is a float") };
                let at = point(&grid.scope(grid.rows[row], key, 0.0));
                let range = interval::eval(modify.tree(), &at, &Pointwise(grid.captured));
                let what = || format!("{}: {:?}, {key}", isa(entry), grid.rows[row]);
                assert!(holds(range, value), "the oracle's {x:e} is not in {range:?}, {}", what());
                assert!(
                    holds(range, Value::Float(found.into())),
                    "{found:e} is not in {range:?}, {}",
                    what()
                );
                assert!(!exact || same_bits(found, x), "{found:e}, not {x:e}, {}", what());
            }
            assert_eq!(part.fault, refused, "{}: a fault where the oracle has none, or none", isa(entry));
        }
    }
}

fn draws() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(any::<u32>(), 4..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn masks_agree(draws in draws()) {
        with_grid(|grid| check_mask(&random(&draws, Type::Bool, true, false), grid));
    }

    #[test]
    fn modifiers_agree(draws in draws(), exact: bool) {
        with_grid(|grid| check_modifier(&all(), &random(&draws, Type::Float, exact, true), false, grid));
    }

    #[test]
    fn modifiers_behind_masks_agree(mask in draws(), modify in draws()) {
        let (mask, modify) =
            (random(&mask, Type::Bool, true, false), random(&modify, Type::Float, false, true));
        with_grid(|grid| check_modifier(&mask, &modify, true, grid));
    }
}

/// What an operation is called. A new one does not compile before it is here, and does not pass before trees have it.
fn name(op: Op) -> String {
    match op {
        Op::Bool(_) => "bool".into(),
        Op::Int(_) => "int".into(),
        Op::Float(_) => "float".into(),
        Op::Var(var) => format!("{var:?}"),
        Op::Unary(op, _) => format!("{op:?}"),
        Op::Binary(op, _, _) => format!("{op:?}"),
        Op::Select(..) => "select".into(),
        Op::Alibi { .. } => "alibi".into(),
        Op::Input { .. } => "input".into(),
    }
}

#[test]
fn random_trees_have_every_operation() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut met = BTreeSet::new();
    for _ in 0..3000 {
        let draws = draws().new_tree(&mut runner).expect("draws").current();
        for ty in TYPES {
            let tree = random(&draws, ty, false, ty == Type::Float);
            met.extend(tree.tree().nodes().iter().map(|node| name(node.op)));
        }
    }
    let vars = [Var::B, Var::H, Var::G, Var::Q, Var::K, Var::Nq, Var::Nk, Var::S].map(Op::Var);
    let leaves = [Op::Bool(true), Op::Int(0), Op::Float(0.0), Op::Select(0, 0, 0)];
    let reads = [Op::Alibi { head: 0, heads: 1 }, Op::Input { input: 0, rank: 0, index: [0; MAX_AXES] }];
    let operations = Unary::ALL.map(|op| Op::Unary(op, 0)).into_iter();
    let all =
        operations.chain(Binary::ALL.map(|op| Op::Binary(op, 0, 0))).chain(vars).chain(leaves).chain(reads);
    let missing: Vec<String> = all.map(name).filter(|name| !met.contains(name)).collect();
    assert!(missing.is_empty(), "no random tree has {missing:?}");
}
