//! Pseudo-heads: against plain attention on mixed rows, and where they must be plain attention themselves.

use regard_ir::expr::{Binary, Expr, Type, Unary, Var};
use regard_ir::rows::{Frequencies, NormKind, Output, OutputNorm, Position, QkNorm, RopeLayout, RopeScaling};
use regard_ir::variant::{Heads, Mechanism, Pseudo, PseudoForm};
use regard_oracle::Mismatch;

use crate::case::{Case, all_close};
use crate::trees::{Build, causal};

const ROPE: Position = Position {
    frequencies: Frequencies::Theta { theta: 100.0, scaling: RopeScaling::None },
    dim: 4,
    layout: RopeLayout::Half,
    offset: 0,
    ids: None,
};

/// Multiples of a quarter, so that mixing rounds nothing in f32.
fn draw(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| rng.i32(-4..=4) as f32 / 4.0).collect()
}

/// So many heads, 4 wide, on so many queries and keys, causal.
fn plain([query, kv]: [u32; 2], queries: usize, keys: usize) -> Case {
    let heads = Heads { query, kv, value: kv, dim: 4, value_dim: 3 };
    let rows = |seed, n: u32, len: usize, width: u32| draw(seed, (n * width) as usize * len);
    let (q, k, v) = (rows(1, query, queries, 4), rows(2, kv, keys, 4), rows(3, kv, keys, 3));
    Case { output: Output::default(), ..Case::new(heads, causal(), &q, &k, &v) }
}

/// The mixes of a case in pseudo-heads, and their collapse.
struct Mixes {
    heads: u32,
    /// `[source][head][pseudo-head]`, of q, k and v.
    mix: [Vec<f32>; 3],
    /// `[head][head of a pseudo-head][pseudo-head]`
    collapse: Vec<f32>,
}

impl Mixes {
    fn random(of: &Case, heads: u32) -> Self {
        let Heads { query, kv, .. } = of.heads;
        let len = |sources: u32| (sources * query * heads) as usize;
        let mix = [draw(4, len(query)), draw(5, len(kv)), draw(6, len(kv))];
        Self { heads, mix, collapse: draw(7, len(query)) }
    }

    /// Every pseudo-head is its head, and the output pseudo-head `p` of it.
    fn identity(of: &Case, heads: u32, p: u32) -> Self {
        let Heads { query, kv, .. } = of.heads;
        let is = |yes: bool| if yes { 1.0 } else { 0.0 };
        let mix = |sources: u32| {
            let places =
                (0..sources).flat_map(|source| (0..query * heads).map(move |to| (source, to / heads)));
            places.map(|(source, to)| is(to / (query / sources) == source)).collect()
        };
        let places = (0..query).flat_map(|to| (0..query * heads).map(move |from| (to, from)));
        Self {
            heads,
            mix: [mix(query), mix(kv), mix(kv)],
            collapse: places.map(|(to, from)| is(from == to * heads + p)).collect(),
        }
    }

    /// The case in pseudo-heads.
    fn applied(&self, case: Case) -> Case {
        let first = case.inputs.len() as u16;
        let pseudo = Pseudo {
            heads: self.heads,
            causal_by_token: false,
            window_in_tokens: false,
            mix: [first, first + 1, first + 2],
            collapse: first + 3,
            form: PseudoForm::Auto,
        };
        let [q, k, v] = &self.mix;
        let case = Case { mechanism: Mechanism::Pseudo(pseudo), ..case };
        case.input(q).input(k).input(v).input(&self.collapse)
    }

    /// Rows of virtual tokens of all heads, `[head][token · heads + pseudo-head]`, from rows of tokens.
    fn rows(&self, mix: &[f32], rows: &[f32], n_targets: usize, width: usize) -> Vec<f32> {
        let p = self.heads as usize;
        let sources = mix.len() / (n_targets * p);
        let len = rows.len() / (sources * width);
        let mut mixed = vec![0.0; n_targets * len * p * width];
        for (source, factors) in mix.chunks_exact(n_targets * p).enumerate() {
            for (target, factor) in factors.iter().enumerate() {
                for (i, x) in rows[source * len * width..][..len * width].iter().enumerate() {
                    let virtual_token = i / width * p + target % p;
                    mixed[(target / p * len * p + virtual_token) * width + i % width] += factor * x;
                }
            }
        }
        mixed
    }

    /// Plain attention on the rows of virtual tokens.
    fn spread(&self, case: &Case) -> Case {
        let Heads { query, dim, value_dim, .. } = case.heads;
        let heads = Heads { kv: query, value: query, ..case.heads };
        let rows = |mix: usize, rows: &[f32], width: u32| {
            self.rows(&self.mix[mix], rows, query as usize, width as usize)
        };
        let (q, k) = (rows(0, &case.q, dim), rows(1, &case.k, dim));
        let q_offset = case.q_offset.map(|offset| offset * i64::from(self.heads));
        Case { heads, q, k, v: rows(2, &case.v, value_dim), q_offset, ..case.clone() }
    }

    /// What the outputs of token `i` must be, from plain attention on the rows of virtual tokens.
    fn expected(&self, case: &Case, i: usize) -> Vec<Vec<f64>> {
        let (spread, p, n) = (self.spread(case), self.heads as usize, case.heads.query as usize);
        let sums: Vec<Vec<f64>> = (0..n * p).map(|at| spread.row(at / p, i * p + at % p).o).collect();
        let output = |factors: &[f32]| {
            let of =
                |c: usize| sums.iter().zip(factors).map(|(sum, &factor)| sum[c] * f64::from(factor)).sum();
            (0..case.heads.value_dim as usize).map(of).collect()
        };
        self.collapse.chunks_exact(n * p).map(output).collect()
    }
}

fn assert_close(found: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).for_each(|(found, expected)| all_close(found, expected));
}

/// `k <= q & q - k < width`
fn window(width: i32) -> Expr {
    let mut e = Build::default();
    let (k, q) = (e.var(Var::K), e.var(Var::Q));
    let (causal, distance, width) = (e.binary(Binary::Le, k, q), e.binary(Binary::Sub, q, k), e.int(width));
    let near = e.binary(Binary::Lt, distance, width);
    e.binary(Binary::And, causal, near);
    e.expr()
}

/// `k // heads <= q // heads`
fn by_token(heads: i32) -> Expr {
    let mut e = Build::default();
    let (k, q, heads) = (e.var(Var::K), e.var(Var::Q), e.int(heads));
    let (k, q) = (e.binary(Binary::FloorDiv, k, heads), e.binary(Binary::FloorDiv, q, heads));
    e.binary(Binary::Le, k, q);
    e.expr()
}

#[test]
fn they_are_attention_between_virtual_tokens_collapsed() {
    let norm = QkNorm { kind: NormKind::Rms, eps: 1e-3, learned: None, all_heads: false, after_rope: false };
    for (heads, pseudo_heads) in [([1, 1], 3), ([3, 3], 2), ([4, 2], 3), ([2, 1], 1)] {
        for (position, qk_norm, allow, q_offset) in [
            (None, None, causal(), None),
            (Some(ROPE), None, window(5), None),
            (Some(ROPE), Some(norm), by_token(pseudo_heads as i32), Some(1)),
        ] {
            let case = Case { position, qk_norm, allow, q_offset, ..plain(heads, 3, 5) };
            let mixes = Mixes::random(&case, pseudo_heads);
            let found = mixes.applied(case.clone());
            for i in 0..3 {
                assert_close(&found.part_row(0, i).unwrap().o, &mixes.expected(&case, i));
            }
        }
    }
}

#[test]
fn one_pseudo_head_that_is_its_head_is_plain_attention() {
    for heads in [[3, 3], [4, 2]] {
        let case = Case { position: Some(ROPE), ..plain(heads, 4, 6) };
        let found = Mixes::identity(&case, 1, 0).applied(case.clone());
        for i in 0..4 {
            for (h, o) in found.part_row(0, i).unwrap().o.iter().enumerate() {
                assert_eq!(*o, case.row(h, i).o);
            }
        }
    }
}

#[test]
fn the_last_pseudo_head_of_equal_ones_is_plain_attention() {
    // It alone sees as many virtual tokens of its own token as of each before it.
    let case = plain([2, 2], 5, 5);
    let last = Mixes::identity(&case, 3, 2).applied(case.clone());
    let first = Mixes::identity(&case, 3, 0).applied(case.clone());
    for i in 0..5 {
        let expected: Vec<Vec<f64>> = (0..2).map(|h| case.row(h, i).o).collect();
        assert_close(&last.part_row(0, i).unwrap().o, &expected);
        assert_eq!(first.part_row(0, i).unwrap().o == expected, i == 0);
    }
}

#[test]
fn equal_pseudo_heads_that_see_whole_tokens_are_plain_attention() {
    let case = plain([2, 1], 5, 5);
    for p in 0..3 {
        let found = Mixes::identity(&case, 3, p).applied(Case { allow: by_token(3), ..case.clone() });
        for i in 0..5 {
            let expected: Vec<Vec<f64>> = (0..2).map(|h| case.row(h, i).o).collect();
            assert_close(&found.part_row(0, i).unwrap().o, &expected);
        }
    }
}

#[test]
fn outputs_are_normed_after_the_collapse_and_have_no_lse() {
    let case = plain([2, 2], 3, 3);
    let mixes = Mixes::random(&case, 2);
    let output = Output { norm: Some(OutputNorm { eps: 0.0, learned: None }), ..Output::default() };
    let found = mixes.applied(Case { output, ..case.clone() }).part_row(0, 2).unwrap();
    for (o, expected) in found.o.iter().zip(mixes.expected(&case, 2)) {
        let rms = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
        all_close(o, &expected.iter().map(|x| x / rms).collect::<Vec<_>>());
    }
    assert_eq!((found.lse, found.max_scores.len()), (None, 2));
}

#[test]
fn expressions_count_virtual_tokens() {
    // Every score is the number of keys, of queries and the position of the query, so that all of them weigh alike.
    let mut e = Build::default();
    let (nq, nk, q) = (e.var(Var::Nq), e.var(Var::Nk), e.var(Var::Q));
    let sum = e.binary(Binary::Add, nq, nk);
    let sum = e.binary(Binary::Add, sum, q);
    e.unary(Unary::ToFloat, sum, Type::Float, false);
    let case = Case { modify: e.expr(), ..plain([1, 1], 2, 3) };
    // Token 1 is the last of three: its last pseudo-head is at 8, of 6 queries on 9 keys.
    let found = Mixes::identity(&case, 3, 0).applied(case).part_row(0, 1).unwrap();
    assert_eq!(found.max_scores, [6.0 + 9.0 + 8.0]);
}

#[test]
fn mixes_of_other_lengths_and_positions_past_32_bits_are_refused() {
    let case = plain([2, 1], 2, 2);
    let mut mixes = Mixes::random(&case, 2);
    mixes.mix[1].pop();
    assert!(matches!(mixes.applied(case.clone()).refused(), Mismatch::Input { name: "mix_k", .. }));
    let far = Case { q_offset: Some(1 << 30), ..case };
    let refused = Mixes::random(&far, 2).applied(far).refused().to_string();
    assert!(refused.contains("outside 32-bit positions"), "{refused}");
}
