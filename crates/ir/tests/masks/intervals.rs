//! The interval reading against the scalar one: no value leaves its range, so no tile is full or dead that is not.

use crate::random::Random;
use crate::scalar::{Build, Exhaustive, Lanes, Scalar, Value, holds, points};
use proptest::prelude::*;
use regard_ir::expr::{Binary, Node, NodeId, Op, Tree, Type, Unary, Var};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval::{Liveness, Region, Span, Unknown, eval};
use regard_ir::problem::Problem;
use regard_ir::tiles;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Source};

const HEADS: Heads = Heads { query: 4, kv: 2, value: 2, dim: 8, value_dim: 8 };
const KEYS: usize = 12;
const SHAPES: [InputShape; 3] = [
    InputShape { dtype: InputType::F32, rank: 1, axes: axes([Axis::Query, Axis::Len(1)]) },
    InputShape { dtype: InputType::I32, rank: 2, axes: axes([Axis::Batch, Axis::Key]) },
    InputShape { dtype: InputType::Bool, rank: 1, axes: axes([Axis::Len(4), Axis::Len(1)]) },
];

const fn axes([first, second]: [Axis; 2]) -> [Axis; 6] {
    [first, second, Axis::Len(1), Axis::Len(1), Axis::Len(1), Axis::Len(1)]
}

/// A box near the start of the positions, or near the end of what 32 bits count.
fn region() -> impl Strategy<Value = Region> {
    let edge = prop_oneof![4 => -3i32..12, 1 => Just(i32::MAX - 9), 1 => Just(i32::MIN)];
    let side = (edge, 0i32..5);
    (side.clone(), side, 0i32..2, 0i32..2, 0i32..3).prop_map(|((q, nq), (k, nk), b, g, heads)| Region {
        b: Span { lo: 0, hi: b },
        h: Span { lo: 0, hi: heads },
        g: Span::point(g),
        q: Span { lo: q, hi: q + nq },
        k: Span { lo: k, hi: k + nk },
        nq: 7,
        nk: KEYS as i32,
    })
}

/// Checks every node of the list as the root of the expression that ends there.
fn check(nodes: &[Node], region: &Region, lanes: Lanes) -> Result<(), TestCaseError> {
    let floats: Vec<f32> = (0..KEYS).map(|i| if i == 9 { f32::NAN } else { i as f32 * 0.7 - 2.0 }).collect();
    let ids: Vec<i32> = (0..2 * KEYS as i32).map(|i| i / 5 - 1).collect();
    let data = [InputData::F32(&floats), InputData::I32(&ids), InputData::Bool(&[1, 0, 1, 1])];
    let problem = Problem::prefill(Source::SelfAttention, 2, 7, KEYS).expect("small");
    let inputs = Captured::bind(&SHAPES, &data, &HEADS, Source::SelfAttention, &problem).expect("they fit");
    for root in 0..nodes.len() {
        let tree = Tree::new(&nodes[..=root]);
        let range = eval(tree, region, &Exhaustive(&inputs));
        let blind = eval(tree, region, &Unknown(&SHAPES));
        for at in points(region) {
            // A point whose index leaves an axis has no value.
            let Some(value) = (Scalar { nodes, at, inputs: &inputs, lanes }).value(root as NodeId) else {
                continue;
            };
            prop_assert!(
                holds(range, value),
                "node {root} at {at:?} is {value:?}, not in {range:?}: {nodes:?}"
            );
            prop_assert!(
                holds(blind, value),
                "node {root} at {at:?} is {value:?}, not in {blind:?}: {nodes:?}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mask_leaves_its_range(draws in proptest::collection::vec(any::<u32>(), 4..60), region in region()) {
        let mut random = Random::new(&draws);
        random.bool(5);
        check(&random.tree.nodes, &region, Lanes::F32)?;
    }

    #[test]
    fn no_modifier_leaves_its_range(
        draws in proptest::collection::vec(any::<u32>(), 4..60),
        region in region(),
        lanes in prop_oneof![Just(Lanes::F32), Just(Lanes::F64)],
    ) {
        let mut random = Random::new(&draws);
        random.float(5, false);
        check(&random.tree.nodes, &region, lanes)?;
    }
}

/// Builds a mask and says what it is over queries `q` and keys `k`.
fn over(build: impl Fn(&mut Build) -> NodeId, q: (i32, i32), k: (i32, i32)) -> Liveness {
    let mut tree = Build::default();
    build(&mut tree);
    let region = Region {
        b: Span::point(0),
        h: Span { lo: 0, hi: 3 },
        g: Span::point(0),
        q: Span { lo: q.0, hi: q.1 },
        k: Span { lo: k.0, hi: k.1 },
        nq: 4096,
        nk: 4096,
    };
    tiles::liveness(Tree::new(&tree.nodes), &region, &Unknown(&[]))
}

fn distance(tree: &mut Build) -> NodeId {
    let (q, k) = (tree.var(Var::Q), tree.var(Var::K));
    tree.arith(Binary::Sub, q, k)
}

#[test]
fn a_window_is_tight() {
    let window = |tree: &mut Build| {
        let distance = distance(tree);
        let abs = tree.push(Op::Unary(Unary::Abs, distance), Type::Int, true);
        let width = tree.int(100);
        tree.test(Binary::Lt, abs, width)
    };
    assert_eq!(over(window, (100, 149), (50, 99)), Liveness::Full);
    assert_eq!(over(window, (100, 149), (49, 99)), Liveness::Partial);
    assert_eq!(over(window, (200, 249), (50, 100)), Liveness::Dead);
    assert_eq!(over(window, (200, 249), (50, 101)), Liveness::Partial);
}

#[test]
fn a_chunk_is_tight() {
    let chunk = |tree: &mut Build| {
        let (q, k, n) = (tree.var(Var::Q), tree.var(Var::K), tree.int(64));
        let (q, k) = (tree.arith(Binary::FloorDiv, q, n), tree.arith(Binary::FloorDiv, k, n));
        tree.test(Binary::Eq, q, k)
    };
    assert_eq!(over(chunk, (64, 127), (64, 127)), Liveness::Full);
    assert_eq!(over(chunk, (64, 127), (0, 63)), Liveness::Dead);
    assert_eq!(over(chunk, (64, 127), (63, 64)), Liveness::Partial);
}

#[test]
fn a_stride_is_tight_inside_a_period() {
    let stride = |tree: &mut Build| {
        let (distance, n) = (distance(tree), tree.int(8));
        let rest = tree.arith(Binary::Rem, distance, n);
        let zero = tree.int(0);
        tree.test(Binary::Eq, rest, zero)
    };
    assert_eq!(over(stride, (16, 16), (8, 8)), Liveness::Full);
    assert_eq!(over(stride, (16, 16), (9, 15)), Liveness::Dead);
    assert_eq!(over(stride, (16, 17), (9, 15)), Liveness::Partial);
}

#[test]
fn guards_hide_the_side_that_cannot_matter() {
    // k < 64 | 1 // 0 == q: where the left side is decided, the right one does not blur it.
    let guarded = |tree: &mut Build| {
        let (k, n) = (tree.var(Var::K), tree.int(64));
        let left = tree.test(Binary::Lt, k, n);
        let right = {
            let distance = distance(tree);
            let zero = tree.int(0);
            tree.test(Binary::Eq, distance, zero)
        };
        tree.test(Binary::Or, left, right)
    };
    assert_eq!(over(guarded, (0, 63), (0, 63)), Liveness::Full);
    assert_eq!(over(guarded, (0, 63), (64, 127)), Liveness::Dead);
}

#[test]
fn a_wrapping_sum_is_never_decided() {
    // k < q + 1 where q + 1 wraps for the last query alone.
    let wraps = |tree: &mut Build| {
        let (k, q, one) = (tree.var(Var::K), tree.var(Var::Q), tree.int(1));
        let next = tree.arith(Binary::Add, q, one);
        tree.test(Binary::Lt, k, next)
    };
    assert_eq!(over(wraps, (i32::MAX - 8, i32::MAX - 1), (0, 7)), Liveness::Full);
    assert_eq!(over(wraps, (i32::MAX - 8, i32::MAX), (0, 7)), Liveness::Partial);
}

#[test]
fn nan_decides_nothing() {
    let data = [InputData::F32(&[1.0, f32::NAN, 3.0, 4.0])];
    let shapes = [InputShape { dtype: InputType::F32, rank: 1, axes: axes([Axis::Key, Axis::Len(1)]) }];
    let problem = Problem::prefill(Source::SelfAttention, 1, 4, 4).expect("small");
    let inputs = Captured::bind(&shapes, &data, &HEADS, Source::SelfAttention, &problem).expect("they fit");
    let mut tree = Build::default();
    let k = tree.var(Var::K);
    let read = tree.push(Op::Input { input: 0, rank: 1, index: [k, 0, 0, 0, 0, 0] }, Type::Float, true);
    let ten = tree.push(Op::Float(10.0), Type::Float, true);
    tree.test(Binary::Lt, read, ten);
    let over = |lo, hi| {
        let point = Span::point(0);
        let region = Region { b: point, h: point, g: point, q: point, k: Span { lo, hi }, nq: 4, nk: 4 };
        tiles::liveness(Tree::new(&tree.nodes), &region, &Exhaustive(&inputs))
    };
    assert_eq!(over(2, 3), Liveness::Full);
    assert_eq!(over(0, 3), Liveness::Partial);
    assert_eq!(over(1, 1), Liveness::Dead);
    assert_eq!(over(2, 4), Liveness::Partial, "an index outside the axis decides nothing");
}

#[test]
fn the_scalar_reading_follows_the_language() {
    let mut tree = Build::default();
    let (a, b) = (tree.int(-7), tree.int(2));
    let root = tree.arith(Binary::FloorDiv, a, b);
    let at = points(&Region {
        b: Span::point(0),
        h: Span::point(0),
        g: Span::point(0),
        q: Span::point(0),
        k: Span::point(0),
        nq: 1,
        nk: 1,
    })
    .next()
    .expect("one point");
    let value = Scalar { nodes: &tree.nodes, at, inputs: &Captured::NONE, lanes: Lanes::F64 }.value(root);
    assert_eq!(value, Some(Value::Int(-4)));
}
