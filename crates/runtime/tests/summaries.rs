//! Summaries of captured inputs against a look at every element, and what they make of document masks.

use regard_ir::expr::{Binary, Node, Op, Tree, Type, Var};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval::{InputRanges, Liveness, Range, Region, Span};
use regard_ir::problem::Problem;
use regard_ir::tiles;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Source};
use regard_runtime::summary::Summaries;

const HEADS: Heads = Heads { query: 4, kv: 2, value: 2, dim: 8, value_dim: 8 };
const NOTHING: Span = Span { lo: 0, hi: -1 };

const fn shape(dtype: InputType, axes: [Axis; 2], rank: u8) -> InputShape {
    let [a, b] = axes;
    InputShape { dtype, rank, axes: [a, b, Axis::Len(1), Axis::Len(1), Axis::Len(1), Axis::Len(1)] }
}

const fn node(op: Op, ty: Type) -> Node {
    Node { op, ty, exact: true }
}

/// `doc[b, q] == doc[b, k]`, where `doc` is the first input.
const SAME: &[Node] = &[
    node(Op::Var(Var::B), Type::Int),
    node(Op::Var(Var::Q), Type::Int),
    node(Op::Var(Var::K), Type::Int),
    node(Op::Input { input: 0, rank: 2, index: [0, 1, 0, 0, 0, 0] }, Type::Int),
    node(Op::Input { input: 0, rank: 2, index: [0, 2, 0, 0, 0, 0] }, Type::Int),
    node(Op::Binary(Binary::Eq, 3, 4), Type::Bool),
];

/// Builds summaries for a mask that reads input 0 and hands them over.
fn with(
    shapes: &[InputShape],
    data: &[InputData<'_>],
    (batch, keys): (usize, usize),
    f: impl FnOnce(&Summaries<'_>),
) {
    let problem = Problem::prefill(Source::SelfAttention, batch, keys, keys).expect("small");
    let captured = Captured::bind(shapes, data, &HEADS, Source::SelfAttention, &problem).expect("they fit");
    let allow = Tree::new(SAME);
    let mut spans = vec![NOTHING; Summaries::len([allow].into_iter(), captured.lens())];
    f(&Summaries::build([allow].into_iter(), captured, &mut spans));
}

/// Numbers that look random, the same each time.
fn noise(i: usize) -> u32 {
    (i as u32).wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(0x85eb_ca6b)
}

#[test]
fn ints_along_the_last_axis_are_exact() {
    for keys in [1, 15, 16, 17, 255, 256, 257, 5000] {
        let ids: Vec<i32> = (0..2 * keys).map(|i| noise(i) as i32).collect();
        let shapes = [shape(InputType::I32, [Axis::Batch, Axis::Key], 2)];
        with(&shapes, &[InputData::I32(&ids)], (2, keys), |summaries| {
            for i in 0..400 {
                let (row, a, b) =
                    (noise(i) as usize % 2, noise(i + 1) as usize % keys, noise(i + 7) as usize % keys);
                let (lo, hi) = (a.min(b), a.max(b));
                let index = [Span::point(row as i32), Span { lo: lo as i32, hi: hi as i32 }];
                let row = &ids[row * keys + lo..=row * keys + hi];
                let (lo, hi) = (*row.iter().min().expect("one"), *row.iter().max().expect("one"));
                assert_eq!(summaries.range(0, &index), Range::Int(Span { lo, hi }), "{index:?} of {keys}");
            }
        });
    }
}

#[test]
fn boxes_of_few_rows_are_exact_and_of_many_sound() {
    let grid: Vec<i32> = (0..100 * 64).map(|i| i / 64 * 1000 + i % 64).collect();
    let shapes = [shape(InputType::I32, [Axis::Len(100), Axis::Key], 2)];
    with(&shapes, &[InputData::I32(&grid)], (1, 64), |summaries| {
        let few = [Span { lo: 3, hi: 6 }, Span { lo: 10, hi: 20 }];
        assert_eq!(summaries.range(0, &few), Range::Int(Span { lo: 3010, hi: 6020 }));
        let many = [Span { lo: 3, hi: 60 }, Span { lo: 10, hi: 20 }];
        // Whole rows lie between the corners.
        assert_eq!(summaries.range(0, &many), Range::Int(Span { lo: 3010, hi: 60_020 }));
        let wide = [Span { lo: 0, hi: 99 }, Span { lo: 0, hi: 63 }];
        assert_eq!(summaries.range(0, &wide), Range::Int(Span { lo: 0, hi: 99_063 }));
    });
}

#[test]
fn floats_keep_their_order_and_their_nan() {
    let mut data: Vec<f32> = (0..200).map(|i| if i % 2 == 0 { i as f32 } else { -(i as f32) }).collect();
    data[150] = f32::NAN;
    data[20] = f32::NEG_INFINITY;
    let shapes = [shape(InputType::F32, [Axis::Key, Axis::Len(1)], 1)];
    with(&shapes, &[InputData::F32(&data)], (1, 200), |summaries| {
        let range = |lo, hi| summaries.range(0, &[Span { lo, hi }]);
        assert_eq!(range(30, 139), Range::Float { lo: -139.0, hi: 138.0, nan: false });
        assert_eq!(range(0, 139), Range::Float { lo: f64::NEG_INFINITY, hi: 138.0, nan: false });
        assert_eq!(range(30, 199), Range::Float { lo: -199.0, hi: f64::INFINITY, nan: true });
    });
}

#[test]
fn bools_scalars_and_unread_inputs() {
    let flags = [0, 0, 0, 7, 1, 1];
    let shapes = [
        shape(InputType::Bool, [Axis::Key, Axis::Len(1)], 1),
        shape(InputType::I32, [Axis::Len(1), Axis::Len(1)], 0),
    ];
    with(&shapes, &[InputData::Bool(&flags), InputData::I32(&[5])], (1, 6), |summaries| {
        let range = |lo, hi| summaries.range(0, &[Span { lo, hi }]);
        assert_eq!(range(0, 2), Range::Bool { can_be_false: true, can_be_true: false });
        assert_eq!(range(3, 5), Range::Bool { can_be_false: false, can_be_true: true });
        assert_eq!(range(0, 5), Range::Bool { can_be_false: true, can_be_true: true });
        // The mask reads input 0 alone: the other costs nothing and tells nothing.
        assert_eq!(summaries.range(1, &[]), Range::Int(Span::ALL));
    });
    let scalar = [shape(InputType::I32, [Axis::Len(1), Axis::Len(1)], 0)];
    with(&scalar, &[InputData::I32(&[5])], (1, 6), |summaries| {
        assert_eq!(summaries.range(0, &[]), Range::Int(Span::point(5)));
    });
}

#[test]
fn an_index_outside_its_axis_says_nothing() {
    let ids = [7; 64];
    let shapes = [shape(InputType::I32, [Axis::Batch, Axis::Key], 2)];
    with(&shapes, &[InputData::I32(&ids)], (1, 64), |summaries| {
        for (lo, hi) in [(-1, 3), (60, 64), (i32::MIN, i32::MAX), (100, 120)] {
            assert_eq!(summaries.range(0, &[Span::point(0), Span { lo, hi }]), Range::Int(Span::ALL));
        }
        assert_eq!(summaries.range(0, &[Span::point(0), Span { lo: 0, hi: 63 }]), Range::Int(Span::point(7)));
    });
}

#[test]
fn documents_make_full_and_dead_tiles() {
    // Documents of 300, 500 and 224 positions.
    let ids: Vec<i32> = (0..1024).map(|i| if i < 300 { 0 } else { 1 + (i >= 800) as i32 }).collect();
    let shapes = [shape(InputType::I32, [Axis::Batch, Axis::Key], 2)];
    with(&shapes, &[InputData::I32(&ids)], (1, 1024), |summaries| {
        let point = Span::point(0);
        let runs = |q| {
            let classify = |k| {
                let region = Region { b: point, h: point, g: point, q, k, nq: 1024, nk: 1024 };
                tiles::liveness(Tree::new(SAME), &region, summaries)
            };
            tiles::runs(0..1024, 64, classify).collect::<Vec<_>>()
        };
        assert_eq!(
            runs(Span { lo: 400, hi: 431 }),
            [(256..320, Liveness::Partial), (320..768, Liveness::Full), (768..832, Liveness::Partial),]
        );
        assert_eq!(runs(Span { lo: 0, hi: 63 }), [(0..256, Liveness::Full), (256..320, Liveness::Partial)]);
    });
}
