//! What a mask hides.

use regard_ir::expr::Var;
use regard_ir::inputs::Captured;
use regard_oracle::eval::{Scope, Value, eval};
use regard_testkit::{Case, Inputs};

/// The keys of the first sequence that the mask hides from query `query` in every head.
///
/// # Panics
/// If `inputs` are not the case's.
pub fn keys(case: &Case<'_>, inputs: &Inputs, query: u32) -> Vec<usize> {
    let Case { variant, problem, .. } = case;
    let data = inputs.captured();
    let captured = Captured::bind(variant.inputs, &data, &variant.heads, variant.source, problem)
        .expect("the inputs are the case's");
    let by_head = [Var::H, Var::G].into_iter().any(|var| variant.allow.reads(var));
    let is_hidden = |k: &usize| {
        (0..if by_head { variant.heads.query } else { 1 }).all(|h| {
            let scope = Scope {
                h: h as i32,
                g: (h / variant.heads.group()) as i32,
                q: problem.q_offset + query as i32,
                k: *k as i32,
                nq: problem.queries as i32,
                nk: problem.keys as i32,
                ..Scope::default()
            };
            eval(variant.allow, &scope, &captured) == Ok(Value::Bool(false))
        })
    };
    (0..problem.keys as usize).filter(is_hidden).collect()
}
