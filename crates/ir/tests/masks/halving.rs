//! Recursive halving: which runs it finds, how few boxes it asks about, and that equal masks get equal tiles.

use crate::scalar::Build;
use regard_ir::expr::{Binary, NodeId, Tree, Type, Var};
use regard_ir::interval::{Liveness, Region, Span, Unknown};
use regard_ir::tiles::{self, Area, Tiles};

fn causal(tree: &mut Build) -> NodeId {
    let (k, q) = (tree.var(Var::K), tree.var(Var::Q));
    tree.test(Binary::Le, k, q)
}

/// `!(k > q)`; the compiler writes `k > q` as `q < k`.
fn negated(tree: &mut Build) -> NodeId {
    let (q, k) = (tree.var(Var::Q), tree.var(Var::K));
    let later = tree.test(Binary::Lt, q, k);
    tree.not(later)
}

/// `0 <= q - k`.
fn by_distance(tree: &mut Build) -> NodeId {
    let (zero, q, k) = (tree.int(0), tree.var(Var::Q), tree.var(Var::K));
    let distance = tree.arith(Binary::Sub, q, k);
    tree.test(Binary::Le, zero, distance)
}

/// `k < q + 1`.
fn by_successor(tree: &mut Build) -> NodeId {
    let (k, q, one) = (tree.var(Var::K), tree.var(Var::Q), tree.int(1));
    let next = tree.arith(Binary::Add, q, one);
    tree.test(Binary::Lt, k, next)
}

fn region(q: Span, nk: i32) -> Region {
    let point = Span::point(0);
    Region { b: point, h: point, g: point, q, k: Span { lo: 0, hi: nk - 1 }, nq: nk, nk }
}

type Runs = Vec<(u32, u32, Liveness)>;

/// The live runs of one query block, and how many boxes were classified.
fn runs(build: fn(&mut Build) -> NodeId, q: Span, nk: u32, block: u32) -> (Runs, usize) {
    let mut tree = Build::default();
    build(&mut tree);
    let tree = Tree::new(&tree.nodes);
    assert_eq!(tree.ty(), Type::Bool);
    let mut asked = 0;
    let classify = |k| {
        asked += 1;
        tiles::liveness(tree, &Region { k, ..region(q, nk as i32) }, &Unknown(&[]))
    };
    let found = tiles::runs(0..nk, block, classify).map(|(keys, liveness)| (keys.start, keys.end, liveness));
    (found.collect(), asked)
}

#[test]
fn causal_has_one_full_run_and_its_edge() {
    let (found, _) = runs(causal, Span { lo: 300, hi: 331 }, 1000, 64);
    assert_eq!(
        found,
        [(0, 256, Liveness::Full), (256, 320, Liveness::Partial), (320, 384, Liveness::Partial)]
    );
    let (found, _) = runs(causal, Span { lo: 990, hi: 999 }, 1000, 64);
    assert_eq!(found, [(0, 960, Liveness::Full), (960, 1000, Liveness::Partial)]);
}

#[test]
fn the_same_mask_written_differently_gets_the_same_tiles() {
    for nk in [1, 63, 64, 65, 1000] {
        for lo in (0..nk as i32).step_by(37) {
            let q = Span { lo, hi: lo + 36 };
            let expected = runs(causal, q, nk, 64);
            assert_eq!(runs(negated, q, nk, 64), expected);
            assert_eq!(runs(by_distance, q, nk, 64), expected);
            assert_eq!(runs(by_successor, q, nk, 64), expected);
        }
    }
}

#[test]
fn few_boxes_are_asked_about() {
    let nk = 1 << 20;
    let (found, asked) = runs(causal, Span { lo: 500_000, hi: 500_063 }, nk, 64);
    assert_eq!(found.iter().filter(|run| run.2 == Liveness::Partial).count(), 2);
    assert!(asked <= 64, "{asked} boxes for 16,384 blocks");
}

#[test]
fn a_run_that_begins_inside_a_block_is_clipped() {
    let classify = |k: Span| if k.hi < 90 { Liveness::Full } else { Liveness::Partial };
    assert_eq!(
        tiles::runs(70..130, 32, classify).collect::<Vec<_>>(),
        [(70..96, Liveness::Partial), (96..128, Liveness::Partial), (128..130, Liveness::Partial)]
    );
    assert_eq!(tiles::runs(40..40, 32, |_| Liveness::Full).count(), 0);
}

#[test]
fn full_runs_are_merged_across_halves_only_where_they_touch() {
    let classify = |k: Span| match (k.lo / 8, k.hi / 8) {
        (a, b) if a <= 3 && b >= 3 => {
            if a == b {
                Liveness::Dead
            } else {
                Liveness::Partial
            }
        }
        _ => Liveness::Full,
    };
    let found = tiles::runs(0..64, 8, classify).map(|(keys, _)| keys);
    assert_eq!(found.collect::<Vec<_>>(), [0..24, 32..64]);
}

#[test]
fn runs_of_every_pattern_are_those_of_a_scan() {
    // Each pattern of eight blocks in which a block is dead, full or partial, and keys that end inside the last one.
    for pattern in 0..3u32.pow(8) {
        let kind = |block: u32| match pattern / 3u32.pow(block) % 3 {
            0 => Liveness::Dead,
            1 => Liveness::Full,
            _ => Liveness::Partial,
        };
        let classify = |k: Span| {
            let mut kinds = (k.lo as u32 / 4..=k.hi as u32 / 4).map(kind);
            let first = kinds.next().expect("a block");
            if kinds.all(|other| other == first) { first } else { Liveness::Partial }
        };
        let mut expected: Runs = Vec::new();
        for block in 0..8 {
            let (start, end) = (4 * block, (4 * block + 4).min(31));
            match (kind(block), expected.last_mut()) {
                (Liveness::Dead, _) => {}
                (Liveness::Full, Some((_, last, Liveness::Full))) if *last == start => *last = end,
                (liveness, _) => expected.push((start, end, liveness)),
            }
        }
        let found = tiles::runs(0..31, 4, classify).map(|(keys, liveness)| (keys.start, keys.end, liveness));
        assert!(found.eq(expected), "pattern {pattern}");
    }
}

#[test]
fn areas_and_counts_of_a_triangle() {
    let mut tree = Build::default();
    causal(&mut tree);
    let tree = Tree::new(&tree.nodes);
    let all = region(Span { lo: 0, hi: 1023 }, 1024);
    let area = tiles::live_area(tree, &all, 16, &Unknown(&[]));
    assert_eq!(area.partial, 64 * 16 * 16);
    assert_eq!(area.full, (1024 * 1024 - 64 * 16 * 16) / 2);
    assert_eq!(area.live(), 1024 * 1024 / 2);
    // 8 rows of 128 queries, 16 columns of 64 keys: two partial columns in each row.
    let counted = tiles::count(tree, &all, (128, 64), &Unknown(&[]), &mut 1000);
    assert_eq!(counted, Tiles { dead: 56, full: 56, partial: 16 });
    let hurried = tiles::count(tree, &all, (128, 64), &Unknown(&[]), &mut 3);
    assert_eq!(hurried.dead + hurried.full + hurried.partial, 128, "every tile is counted");
    assert!(hurried.partial > 16, "what is not settled counts as partial");
}

#[test]
fn an_empty_box_is_dead() {
    let mut tree = Build::default();
    causal(&mut tree);
    let tree = Tree::new(&tree.nodes);
    let empty = region(Span { lo: 0, hi: 63 }, 0);
    assert_eq!(tiles::liveness(tree, &empty, &Unknown(&[])), Liveness::Dead);
    assert_eq!(tiles::live_area(tree, &empty, 16, &Unknown(&[])), Area::default());
    assert_eq!(tiles::count(tree, &empty, (16, 16), &Unknown(&[]), &mut 1000), Tiles::default());
}
