//! Norm and rotation of query and key rows, by numbers and by what must hold whatever the numbers.

use regard_ir::rows::{Frequencies, NormKind, Position, QkNorm, RopeLayout, RopeScaling};
use regard_ir::variant::{Heads, Source};
use regard_oracle::random::normal;

use crate::case::{Case, HeadRow, all_close, close};
use crate::trees::all;

fn rope(dim: u32, layout: RopeLayout) -> Position {
    let frequencies = Frequencies::Theta { theta: 100.0, scaling: RopeScaling::None };
    Position { frequencies, dim, layout, offset: 0, ids: None }
}

const RMS: QkNorm =
    QkNorm { kind: NormKind::Rms, eps: 0.0, learned: None, all_heads: false, after_rope: false };

fn one_head(dim: u32) -> Heads {
    Heads { query: 1, kv: 1, value: 1, dim, value_dim: 1 }
}

/// The score of the only query with the only key, where both are normalised or turned.
fn score(case: &Case) -> f64 {
    case.row(0, 0).lse.unwrap()
}

/// One query over one key, so that the lse is their score.
fn pair(dim: u32, q: &[f32], k: &[f32]) -> Case {
    Case::new(one_head(dim), all(), q, k, &[1.0])
}

/// Random rows of some length for each of the heads.
fn random(heads: Heads, queries: usize, keys: usize) -> Case {
    let draw = |seed, n: u32, len, d: u32| normal(seed).take((n * d) as usize * len).collect::<Vec<_>>();
    Case::new(
        heads,
        all(),
        &draw(1, heads.query, queries, heads.dim),
        &draw(2, heads.kv, keys, heads.dim),
        &draw(3, heads.value, keys, heads.value_dim),
    )
}

#[test]
fn a_pair_is_turned_by_position_times_frequency() {
    // The query at position 1 over keys at 0 and 1; q = (1, 0) turns to (cos 1, sin 1).
    let case = Case {
        position: Some(rope(2, RopeLayout::Half)),
        ..Case::new(one_head(2), all(), &[1.0, 0.0], &[1.0, 0.0, 0.0, 1.0], &[1.0, 0.0])
    };
    // Key 0 stays (1, 0): score cos 1. Key 1 turns from (0, 1) to (−sin 1, cos 1), at right angles to the query.
    let row = case.row(0, 0);
    close(row.lse.unwrap(), (1f64.cos().exp() + 1.0).ln());
    close(row.o[0], 1f64.cos().exp() / (1f64.cos().exp() + 1.0));
}

#[test]
fn later_pairs_turn_slower_and_offset_and_width_leave_channels_alone() {
    // Frequencies 1 and 100^(-1/2) = 0.1; the query is at 0, so that the key's turn is what is seen.
    let turned = |layout, offset, dim, q: [f32; 5]| {
        let position = Position { offset, ..rope(dim, layout) };
        let keys = [9.0, 9.0, 9.0, 9.0, 9.0, 2.0, 3.0, 5.0, 7.0, 11.0];
        let case = Case {
            position: Some(position),
            q_offset: Some(0),
            allow: {
                let mut e = crate::trees::Build::default();
                let (k, one) = (e.var(regard_ir::expr::Var::K), e.int(1));
                e.binary(regard_ir::expr::Binary::Eq, k, one);
                e.expr()
            },
            ..Case::new(one_head(5), all(), &q, &keys, &[0.0, 1.0])
        };
        score(&case)
    };
    let unit = |channel: usize| std::array::from_fn(|c| if c == channel { 1.0 } else { 0.0 });
    let channels = |layout, offset, dim| [0, 1, 2, 3, 4].map(|c| turned(layout, offset, dim, unit(c)));
    let turn =
        |x: f64, y: f64, angle: f64| [x * angle.cos() - y * angle.sin(), y * angle.cos() + x * angle.sin()];
    let ([a, c], [b, d]) = (turn(2.0, 5.0, 1.0), turn(3.0, 7.0, 0.1));
    all_close(&channels(RopeLayout::Half, 0, 4), &[a, b, c, d, 11.0]);
    let ([a, b], [c, d]) = (turn(2.0, 3.0, 1.0), turn(5.0, 7.0, 0.1));
    all_close(&channels(RopeLayout::Interleaved, 0, 4), &[a, b, c, d, 11.0]);
    let [a, b] = turn(5.0, 7.0, 1.0);
    all_close(&channels(RopeLayout::Interleaved, 2, 2), &[2.0, 3.0, a, b, 11.0]);
}

#[test]
fn scores_depend_on_differences_of_positions_alone() {
    let case = Case { position: Some(rope(8, RopeLayout::Half)), ..random(one_head(8), 1, 1) };
    let at = |q: i32, k: i32| {
        let shifted = Case { position: case.position, ..case.clone() };
        // The key at position k by ids, the query at q by its offset, in cross-attention.
        let position = Position { ids: Some(0), ..rope(8, RopeLayout::Half) };
        let shifted = Case { source: Source::Cross, position: Some(position), ..shifted };
        score(&Case { q_offset: Some(q.into()), ..shifted.ids(&[k]) })
    };
    close(at(7, 3), at(1004, 1000));
    close(at(0, 0), at(31, 31));
    assert!((at(7, 3) - at(7, 4)).abs() > 1e-3);
}

#[test]
fn the_layouts_are_one_up_to_a_permutation_of_channels() {
    let heads = Heads { query: 2, kv: 1, value: 1, dim: 6, value_dim: 3 };
    let half = Case { position: Some(rope(6, RopeLayout::Half)), ..random(heads, 3, 5) };
    // Channels t and t + 3 go to 2t and 2t + 1.
    let permuted = |rows: &[f32]| -> Vec<f32> {
        rows.chunks(6).flat_map(|row| [0, 3, 1, 4, 2, 5].map(|c| row[c])).collect()
    };
    let interleaved = Case {
        position: Some(rope(6, RopeLayout::Interleaved)),
        q: permuted(&half.q),
        k: permuted(&half.k),
        ..half.clone()
    };
    for (h, i) in [(0, 0), (0, 2), (1, 1)] {
        let (a, b) = (half.row(h, i), interleaved.row(h, i));
        all_close(&a.o, &b.o);
        close(a.lse.unwrap(), b.lse.unwrap());
    }
}

#[test]
fn positions_by_ids_restart_with_each_document() {
    let heads = one_head(4);
    let with_ids = Position { ids: Some(0), ..rope(4, RopeLayout::Half) };
    let packed = random(heads, 5, 5);
    // Documents of 3 and 2 tokens: the second document alone gives the scores that it has in the pack.
    let pack = Case { position: Some(with_ids), ..packed.clone() }.ids(&[0, 1, 2, 0, 1]);
    let alone = Case {
        position: Some(rope(4, RopeLayout::Half)),
        allow: all(),
        ..Case::new(heads, all(), &packed.q[12..], &packed.k[12..], &packed.v[3..])
    };
    let in_document = {
        let mut e = crate::trees::Build::default();
        let (two, k) = (e.int(2), e.var(regard_ir::expr::Var::K));
        e.binary(regard_ir::expr::Binary::Lt, two, k);
        e.expr()
    };
    let pack = Case { allow: in_document, ..pack };
    for i in 0..2 {
        let (a, b) = (pack.row(0, 3 + i), alone.row(0, i));
        all_close(&a.o, &b.o);
        close(a.lse.unwrap(), b.lse.unwrap());
    }
}

#[test]
fn a_query_outside_the_positions_is_an_error() {
    let position = Position { ids: Some(0), ..rope(4, RopeLayout::Half) };
    let case = Case { position: Some(position), ..random(one_head(4), 3, 2) }.ids(&[0, 1]);
    let error = case.part_row(0, 0).unwrap_err();
    assert_eq!((error.input, error.axis, error.index, error.len), (0, 1, -1, 2));
    assert!(case.part_row(0, 1).is_ok());
    let past = Case { q_offset: Some(0), ..case.clone() }.part_row(0, 2).unwrap_err();
    assert_eq!((past.index, past.len), (2, 2));
    // In cross-attention keys alone read ids.
    assert!(Case { source: Source::Cross, ..case }.part_row(0, 2).is_ok());
}

#[test]
fn frequencies_may_be_given() {
    let given = Position { frequencies: Frequencies::Input(0), ..rope(4, RopeLayout::Half) };
    let case = random(one_head(4), 3, 3);
    let by_input = Case { position: Some(given), ..case.clone() }.input(&[1.0, 0.25]);
    let frequencies = Frequencies::Theta { theta: 16.0, scaling: RopeScaling::None };
    let by_base = Case { position: Some(Position { frequencies, ..given }), ..case };
    all_close(&by_input.row(0, 1).o, &by_base.row(0, 1).o);
}

#[test]
fn the_attention_factor_scales_what_is_turned() {
    let scaling = |attention_factor| RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor,
        original_max_position_embeddings: 64,
        truncate: true,
    };
    let case = |attention_factor| {
        let frequencies = Frequencies::Theta { theta: 100.0, scaling: scaling(attention_factor) };
        let position = Position { frequencies, ..rope(2, RopeLayout::Half) };
        Case { position: Some(position), ..pair(3, &[1.0, 2.0, 4.0], &[3.0, 5.0, 7.0]) }
    };
    // At position 0: 1·3 + 2·5 are of turned channels, 4·7 is not.
    close(score(&case(1.0)), 13.0 + 28.0);
    close(score(&case(1.5)), 1.5 * 1.5 * 13.0 + 28.0);
}

#[test]
fn norms_by_hand() {
    // q = (3, 4): mean of squares 12.5, sum 25. k = (6, 8): 50 and 100. Their product is 50.
    let case = |norm| Case { qk_norm: Some(norm), ..pair(2, &[3.0, 4.0], &[6.0, 8.0]) };
    close(score(&case(RMS)), 50.0 / (12.5f64 * 50.0).sqrt());
    close(score(&case(QkNorm { kind: NormKind::L2, ..RMS })), 1.0);
    close(score(&case(QkNorm { eps: 3.5, ..RMS })), 50.0 / (16.0 * 53.5f64).sqrt());
    close(score(&case(QkNorm { kind: NormKind::L2, eps: 11.0, ..RMS })), 50.0 / (36.0 * 111.0f64).sqrt());
    let learned = QkNorm { learned: Some([1, 0]), kind: NormKind::L2, ..RMS };
    // (3·2, 4·1) / 5 and (6·1, 8·10) / 10: the factors of k are input 0, of q input 1.
    let case = case(learned).input(&[1.0, 10.0]).input(&[2.0, 1.0]);
    close(score(&case), (6.0 * 6.0 + 4.0 * 80.0) / 50.0);
}

#[test]
fn a_norm_over_all_heads_takes_a_token_together() {
    // q of token 0: heads (3, 0) and (0, 4), length 5 together. The one key head is (2, 0), of length 2.
    let heads = Heads { query: 2, kv: 1, value: 1, dim: 2, value_dim: 1 };
    let norm = QkNorm { kind: NormKind::L2, all_heads: true, learned: Some([0, 1]), ..RMS };
    let case =
        Case { qk_norm: Some(norm), ..Case::new(heads, all(), &[3.0, 0.0, 0.0, 4.0], &[1.0, 1.0], &[1.0]) };
    let case = case.input(&[1.0, 1.0, 1.0, 10.0]).input(&[1.0, 2.0]);
    let root = 2f64.sqrt();
    close(case.row(0, 0).lse.unwrap(), 3.0 / 5.0 / root);
    close(case.row(1, 0).lse.unwrap(), 40.0 / 5.0 * 2.0 / root);
}

#[test]
fn a_norm_with_factors_is_not_the_same_before_and_after_the_rotation() {
    // One query and key at position 1, by an offset: (1, 0) turns to (cos 1, sin 1).
    let norm = QkNorm { learned: Some([0, 1]), kind: NormKind::L2, ..RMS };
    let case = |after_rope| {
        let case = Case {
            position: Some(rope(2, RopeLayout::Half)),
            qk_norm: Some(QkNorm { after_rope, ..norm }),
            source: Source::Cross,
            q_offset: Some(1),
            ..pair(2, &[2.0, 0.0], &[1.0, 0.0])
        };
        case.input(&[3.0, 5.0]).input(&[1.0, 1.0])
    };
    close(score(&case(false)), 3.0 * 1f64.cos());
    close(score(&case(true)), 3.0 * 1f64.cos());
    // The key's second channel is seen by the query's only after the turn.
    let leaning = |after_rope| Case { k: vec![0.0, 1.0], ..case(after_rope) };
    close(score(&leaning(false)), 3.0 * 1f64.sin());
    close(score(&leaning(true)), 5.0 * 1f64.sin());
}

#[test]
fn rows_of_length_one_have_scores_of_at_most_one() {
    let heads = Heads { query: 4, kv: 2, value: 2, dim: 8, value_dim: 2 };
    let norm = QkNorm { kind: NormKind::L2, eps: 1e-6, ..RMS };
    let mut case = Case { qk_norm: Some(norm), ..random(heads, 5, 9) };
    case.q.iter_mut().for_each(|x| *x *= 1e4);
    for h in 0..4 {
        for i in 0..5 {
            let HeadRow { max_score, .. } = case.row(h, i);
            assert!(max_score <= 1.0, "head {h}, row {i}: {max_score}");
        }
    }
    assert!(Case { qk_norm: None, ..case }.row(0, 0).max_score > 1e3);
}

#[test]
fn a_masked_key_that_is_no_number_stays_without_effect() {
    let heads = one_head(4);
    let norm = QkNorm { eps: 1e-6, ..RMS };
    let tables = |case: Case| Case {
        position: Some(rope(4, RopeLayout::Half)),
        qk_norm: Some(norm),
        allow: crate::trees::causal(),
        ..case
    };
    let clean = tables(random(heads, 3, 3));
    let mut poisoned = clean.clone();
    poisoned.k[8..].fill(f32::NAN);
    poisoned.v[2] = f32::INFINITY;
    assert_eq!(clean.row(0, 1), poisoned.row(0, 1));
    assert!(poisoned.row(0, 2).o[0].is_nan());
}
