//! What a mask hides.

use regard_ir::expr::Var;
use regard_ir::inputs::Captured;
use regard_oracle::eval::{Scope, Value, eval};
use regard_testkit::{Case, Inputs};

/// The keys of the first sequence that the mask hides from query `query` in every head: of tokens that are several positions,
/// those all of whose positions are hidden from all of the query's.
///
/// # Panics
/// If `inputs` are not the case's.
pub fn keys(case: &Case<'_>, inputs: &Inputs, query: u32) -> Vec<usize> {
    let (variant, positions) = (case.variant.scored(), case.positions());
    let (problem, per_token) = (&positions.view(), variant.per_token() as i32);
    let data = inputs.captured();
    let captured = Captured::bind(variant.inputs, &data, &variant.heads, variant.source, problem)
        .expect("the inputs are the case's");
    let by_head = [Var::H, Var::G].into_iter().any(|var| variant.allow.reads(var));
    let is_hidden = |q: i32, k: i32| {
        (0..if by_head { variant.heads.query } else { 1 }).all(|h| {
            let scope = Scope {
                h: h as i32,
                g: (h / variant.heads.group()) as i32,
                q: problem.q_offset + q,
                k,
                nq: problem.queries as i32,
                nk: problem.keys as i32,
                ..Scope::default()
            };
            eval(variant.allow, &scope, &captured) == Ok(Value::Bool(false))
        })
    };
    let of_token = |token: i32| token * per_token..(token + 1) * per_token;
    let all = |k: &usize| of_token(*k as i32).all(|k| of_token(query as i32).all(|q| is_hidden(q, k)));
    (0..case.problem.keys as usize).filter(all).collect()
}
