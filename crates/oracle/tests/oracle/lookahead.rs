//! Lookahead keys against the parallel form of their definition, which has no state, and against what they are a case of.

use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::Problem;
use regard_ir::spec::Spec;
use regard_ir::variant::Source;
use regard_oracle::random::normal;
use regard_oracle::{Elements, Oracle, Tensor4, Tensors};
use regard_spec::{NoFiles, parse};

use crate::case::all_close;

const HEADS: usize = 2;
const TOKENS: usize = 23;
const DIM: usize = 6;
const VALUE_DIM: usize = 4;

/// Rows of the six tensors, and documents.
struct Rows {
    q_c: Vec<f32>,
    k_c: Vec<f32>,
    v_c: Vec<f32>,
    q_u: Vec<f32>,
    k_u: Vec<f32>,
    v_u: Vec<f32>,
    doc: Vec<i32>,
}

impl Rows {
    fn new() -> Self {
        let rows = |seed, width| normal(seed).take(HEADS * TOKENS * width).collect();
        let doc = (0..TOKENS).map(|token| i32::from(token >= 9) + i32::from(token >= 10)).collect();
        Self {
            q_c: rows(1, DIM),
            k_c: rows(2, DIM),
            v_c: rows(3, VALUE_DIM),
            q_u: rows(4, DIM),
            k_u: rows(5, DIM),
            v_u: rows(6, DIM),
            doc,
        }
    }

    /// The outputs of every row of every head, and the keys after the last token.
    fn evaluate(&self, lines: &str) -> Found {
        let spec = spec(lines);
        let (variant, shapes) = (spec.variant(), &spec.inputs.shapes);
        let problem = Problem::prefill(Source::SelfAttention, 1, TOKENS, TOKENS).unwrap();
        let data = vec![InputData::I32(&self.doc); shapes.len()];
        let captured = Captured::bind(shapes, &data, &variant.heads, variant.source, &problem).unwrap();
        let tensor = |rows, width| Tensor4::dense(Elements::F32(rows), [1, HEADS, TOKENS, width]).unwrap();
        let widths = [DIM, DIM, VALUE_DIM, DIM, DIM, DIM];
        let rows = [&self.q_c, &self.k_c, &self.v_c, &self.q_u, &self.k_u, &self.v_u];
        let operands: Vec<_> =
            rows.into_iter().zip(widths).map(|(rows, width)| tensor(rows, width)).collect();
        let operands = &operands[..variant.operands().count()];
        let oracle = Oracle::new(variant, problem, Tensors { operands, captured, gate: None }).unwrap();
        let mut found = Found::default();
        for h in 0..oracle.parts() {
            let part = oracle.part(h);
            // Later rows first: a row is its own, whichever came before it.
            let mut rows: Vec<_> = (0..TOKENS).rev().map(|i| part.row(i).unwrap()).collect();
            rows.reverse();
            assert_eq!(rows[3], part.row(3).unwrap());
            found.o.extend(rows.into_iter().flat_map(|row| row.o.concat()));
            found.u.extend(part.learned().unwrap().concat().concat());
        }
        found
    }
}

#[derive(Debug, Default)]
struct Found {
    o: Vec<f64>,
    u: Vec<f64>,
}

fn spec(lines: &str) -> Spec {
    let text = format!("heads = {{ query = {HEADS}, dim = {DIM}, value_dim = {VALUE_DIM} }}\n{lines}\n");
    parse(&text, "t.toml", &NoFiles).unwrap_or_else(|errors| panic!("{errors}")).spec
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Row `at` of a tensor, turned by interleaved rope of base 100 where a position is given.
fn row(rows: &[f32], at: usize, turned: Option<usize>) -> Vec<f64> {
    let mut row: Vec<f64> = rows[at * DIM..][..DIM].iter().map(|&x| x.into()).collect();
    if let Some(position) = turned {
        for (t, pair) in row.chunks_exact_mut(2).enumerate() {
            let angle = position as f64 * 100f64.powf(-2.0 * t as f64 / DIM as f64);
            let (x, y) = (pair[0], pair[1]);
            pair[0] = x * angle.cos() - y * angle.sin();
            pair[1] = y * angle.cos() + x * angle.sin();
        }
    }
    row
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The parallel form: SU = ((QC VUᵀ) ⊙ tril) sigmoid(QU KUᵀ + M)ᵀ, with no lookahead key at all.
fn parallel(rows: &Rows, turned: [bool; 5], teaches: impl Fn(usize, usize) -> bool) -> Found {
    let scale = 1.0 / (DIM as f64).sqrt();
    let mut found = Found::default();
    for h in 0..HEADS {
        let of = |data: &[f32], which: usize| -> Vec<Vec<f64>> {
            (0..TOKENS).map(|t| row(data, h * TOKENS + t, turned[which].then_some(t))).collect()
        };
        let (q_c, k_c) = (of(&rows.q_c, 0), of(&rows.k_c, 1));
        let (q_u, k_u, v_u) = (of(&rows.q_u, 2), of(&rows.k_u, 3), of(&rows.v_u, 4));
        let taught = |s: usize, t: usize| {
            if s < t && teaches(s, t) { sigmoid(scale * dot(&q_u[s], &k_u[t])) } else { 0.0 }
        };
        for (i, query) in q_c.iter().enumerate() {
            let score = |s: usize| {
                let lookahead: f64 = (0..=i).map(|t| scale * dot(query, &v_u[t]) * taught(s, t)).sum();
                scale * dot(query, &k_c[s]) - lookahead * sigmoid(lookahead)
            };
            let weights: Vec<f64> = (0..=i).map(|s| score(s).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let value = |s: usize, c: usize| f64::from(rows.v_c[(h * TOKENS + s) * VALUE_DIM + c]);
            let o = (0..VALUE_DIM).map(|c| (0..=i).map(|s| weights[s] * value(s, c)).sum::<f64>() / sum);
            found.o.extend(o);
        }
        for s in 0..TOKENS {
            found.u.extend((0..DIM).map(|c| (0..TOKENS).map(|t| taught(s, t) * v_u[t][c]).sum::<f64>()));
        }
    }
    found
}

fn agree(lines: &str, turned: [bool; 5], teaches: impl Fn(usize, usize) -> bool) {
    let rows = Rows::new();
    let (found, expected) = (rows.evaluate(lines), parallel(&rows, turned, teaches));
    all_close(&found.o, &expected.o);
    all_close(&found.u, &expected.u);
}

#[test]
fn recursion_is_the_parallel_form() {
    agree("lookahead = {}", [false; 5], |_, _| true);
}

#[test]
fn a_window_ends_what_a_key_learns() {
    for window in [1, 5, 22] {
        agree(&format!("lookahead.window = {window}"), [false; 5], |s, t| t - s <= window);
    }
}

#[test]
fn rope_turns_what_the_table_names() {
    let rope = "position.rope = { theta = 100, layout = 'interleaved' }";
    agree(&format!("{rope}\nlookahead = {{}}"), [true; 5], |_, _| true);
    agree(
        &format!("{rope}\nlookahead.rotate = ['k_c', 'v_u']"),
        [false, true, false, false, true],
        |_, _| true,
    );
}

#[test]
fn tokens_of_other_documents_do_not_teach() {
    let doc = Rows::new().doc;
    let lines = "inputs.doc = 'i32[b, k]'\nlookahead.allow = 'same(doc)'";
    agree(lines, [false; 5], |s, t| doc[s] == doc[t]);
}

#[test]
fn a_window_over_all_tokens_is_none() {
    let rows = Rows::new();
    let [all, window] = ["lookahead = {}", "lookahead.window = 23"].map(|lines| rows.evaluate(lines));
    assert_eq!((all.o, all.u), (window.o, window.u));
}

#[test]
fn keys_that_learn_nothing_are_plain_ones() {
    let rows = Rows::new();
    let plain = rows.evaluate("mask = 'causal'");
    let silent = Rows { v_u: vec![0.0; rows.v_u.len()], ..Rows::new() };
    for found in [
        rows.evaluate("lookahead.window = 0"),
        rows.evaluate("lookahead.allow = 'false'"),
        silent.evaluate("lookahead = {}"),
    ] {
        all_close(&found.o, &plain.o);
        assert!(found.u.iter().all(|&u| u == 0.0));
    }
}

#[test]
fn masks_and_modifiers_are_for_the_combined_score() {
    let rows = Rows::new();
    let all = rows.evaluate("lookahead = {}");
    let window = rows.evaluate("lookahead = {}\nmask = 'window(4)'");
    // What keys learn does not depend on who attends to them.
    assert_eq!(all.u, window.u);
    all_close(&all.o[..4 * VALUE_DIM], &window.o[..4 * VALUE_DIM]);
    assert_ne!(all.o[5 * VALUE_DIM], window.o[5 * VALUE_DIM]);
    // A cap far above every score changes next to nothing, and a modifier of nothing but `s` nothing at all.
    let same = rows.evaluate("lookahead = {}\nscore.modify = 's + 0'");
    all_close(&all.o, &same.o);
    let zero = rows.evaluate("lookahead = {}\nscore.modify = '0 * s'");
    let first = f64::from(rows.v_c[0]);
    all_close(&zero.o[VALUE_DIM..VALUE_DIM + 1], &[(first + f64::from(rows.v_c[VALUE_DIM])) / 2.0]);
}
