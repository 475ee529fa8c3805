//! Indices outside an axis: reported exactly where the language looks at them, by lanes as by the oracle.

use regard_ir::expr::{Binary, Expr, Node, NodeId, Op, Type, Var};
use regard_ir::spec::Spec;
use regard_tests::specs;

use crate::trees::{KEYS, check_mask, check_modifier, with_grid};
use crate::{all, score};

/// The mask and modifier of a spec that reads what random trees read.
fn spec(mask: &str, modify: &str) -> Spec {
    specs::parse(&format!(
        "heads = {{ query = 4, kv = 2, dim = 8 }}\ninputs = {{ f = 'f32[q]', ids = 'i32[b, k]', open = 'bool[4]' }}\n\
         mask = '{mask}'\nscore = {{ modify = '{modify}' }}"
    ))
}

#[test]
fn guards_of_masks() {
    for mask in [
        // Queries lie from −2 to past the last position.
        "f[q] > 0",
        "q < 0 | q >= nk | f[q] > 0",
        "0 <= q & q < nk & f[q] > 0",
        "if q >= 0 then (if q < nk then f[q] > 0 else true) else false",
        "q >= 0 & f[q] > 0",
        "f[q] > 0 & q >= 0",
        // Along the keys, and from the data.
        "open[k]",
        "k < 4 & open[k]",
        "k >= 4 | !open[k]",
        "open[k % 4]",
        "open[ids[b, k]]",
        "ids[b, k] >= 0 & ids[b, k] < 4 & open[ids[b, k]]",
        "ids[b, k] >= 0 & (ids[b, k] > 3 | open[ids[b, k]])",
        // An index in an index: the guard is inside.
        "ids[b, if k < 5 then k else k - 5] == 2",
        "ids[b, if k < 5 then k else k + 8] == 2",
        "k < 5 & ids[b, k + 7] == 2 | k >= 5 & ids[b, k - 5] == 2",
        // The same read under two guards, and under one of them alone.
        "(k < 4 & open[k]) | (k >= 2 & open[k])",
        "(k < 4 & open[k]) == (k < 2 & open[k + 2])",
        "select(k < 2, open[k], k < 6 & open[k - 2])",
        "q < 0 & open[q + 3] | q >= 0",
        "k <= q & f[q] > f[k]",
        "0 <= k <= q < nk & f[q] > f[k]",
    ] {
        let spec = spec(mask, "s");
        with_grid(|grid| check_mask(&spec.allow, grid));
    }
}

#[test]
fn guards_of_modifiers() {
    for mask in ["true", "0 <= q < nk", "k < 4", "k <= q", "k > 99", "q >= 0 & open[k % 4]"] {
        for modify in [
            "s + f[q]",
            "if 0 <= q & q < nk then s + f[q] else s",
            "select(k < 4 & open[min(k, 3)], s, -s)",
            "select(open[k], s, -s)",
            "if k < 2 then s else if open[k - 2] then s * 2 else s * 3",
            "s + f[k] * ids[b, k]",
            "s + f[q - k]",
        ] {
            let spec = spec(mask, modify);
            with_grid(|grid| check_modifier(&spec.allow, &spec.modify, true, grid));
            with_grid(|grid| check_modifier(&spec.allow, &spec.modify, false, grid));
        }
    }
}

/// One node that is read under two guards: each looks at it where it is open, and nowhere else.
#[test]
fn a_shared_read_under_two_guards() {
    let mut nodes = vec![];
    let mut push = |op, ty| -> NodeId {
        nodes.push(Node { op, ty, exact: true });
        (nodes.len() - 1) as NodeId
    };
    let k = push(Op::Var(Var::K), Type::Int);
    let read = push(Op::Input { input: 2, rank: 1, index: [k, 0, 0, 0, 0, 0] }, Type::Bool);
    let (two, four) = (push(Op::Int(2), Type::Int), push(Op::Int(4), Type::Int));
    let below_two = push(Op::Binary(Binary::Lt, k, two), Type::Bool);
    let below_four = push(Op::Binary(Binary::Lt, k, four), Type::Bool);
    let first = push(Op::Binary(Binary::And, below_two, read), Type::Bool);
    let second = push(Op::Binary(Binary::And, below_four, read), Type::Bool);
    push(Op::Binary(Binary::Or, first, second), Type::Bool);
    let mask = Expr::new(nodes);
    with_grid(|grid| {
        assert_eq!(grid.keys, 0..KEYS);
        check_mask(&mask, grid);
        check_modifier(&mask, &score(), true, grid);
        check_modifier(&all(), &score(), false, grid);
    });
}
