//! The scalar reading of expressions.

use crate::trees::Build;
use regard_ir::exact;
use regard_ir::expr::{Binary, Op, Type, Unary, Var};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::Problem;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Source};
use regard_oracle::eval::{Scope, Value, eval};

fn value(build: impl FnOnce(&mut Build), scope: &Scope) -> Value {
    let mut tree = Build::default();
    build(&mut tree);
    eval(tree.expr().tree(), scope, &Captured::NONE).unwrap()
}

#[test]
fn ints_wrap_and_divide_as_the_language_says() {
    let int = |op, a, b| {
        let of = |e: &mut Build| {
            let (a, b) = (e.int(a), e.int(b));
            e.binary(op, a, b);
        };
        value(of, &Scope::default())
    };
    assert_eq!(int(Binary::Add, i32::MAX, 1), Value::Int(i32::MIN));
    assert_eq!(int(Binary::Mul, 65536, 65536), Value::Int(0));
    assert_eq!(int(Binary::FloorDiv, -7, 2), Value::Int(-4));
    assert_eq!(int(Binary::Rem, -7, 2), Value::Int(1));
    assert_eq!(int(Binary::FloorDiv, 7, 0), Value::Int(0));
    let abs = |e: &mut Build| {
        let a = e.int(i32::MIN);
        e.unary(Unary::Abs, a, Type::Int, true);
    };
    assert_eq!(value(abs, &Scope::default()), Value::Int(i32::MIN));
}

#[test]
fn only_deciding_floats_are_rounded_to_binary32() {
    let tenth_squared = |exact| {
        let of = |e: &mut Build| {
            let a = e.float(0.1, exact);
            e.add(Op::Binary(Binary::Mul, a, a), Type::Float, exact);
        };
        value(of, &Scope::default())
    };
    assert_eq!(tenth_squared(false), Value::Float(0.1 * 0.1));
    assert_eq!(tenth_squared(true), Value::Float(f64::from(0.1f32 * 0.1f32)));
}

#[test]
fn a_comparison_of_scores_is_made_in_binary32() {
    // 0.1 in f64 is not 0.1 in binary32, but rounds to it.
    let equal = |e: &mut Build| {
        let s = e.add(Op::Var(Var::S), Type::Float, true);
        let tenth = e.float(0.1, true);
        e.binary(Binary::Eq, s, tenth);
    };
    assert_eq!(value(equal, &Scope { s: 0.1, ..Scope::default() }), Value::Bool(true));
}

#[test]
fn every_float_function_agrees_with_the_exact_routine() {
    let functions =
        Unary::ALL.into_iter().filter(|op| !matches!(op, Unary::Not | Unary::ToFloat | Unary::ToInt));
    for op in functions {
        for x in [-2.5f32, -1.0, -0.3, 0.0, 0.4, 1.0, 3.7] {
            let of = |exact| {
                let of = |e: &mut Build| {
                    let a = e.float(x.into(), exact);
                    e.unary(op, a, Type::Float, exact);
                };
                match value(of, &Scope::default()) {
                    Value::Float(y) => y,
                    other => panic!("{op:?} gave {other:?}"),
                }
            };
            let (wide, narrow) = (of(false), of(true));
            assert_eq!(narrow.to_bits(), f64::from(exact::unary(op, x)).to_bits(), "{op:?}({x})");
            let tolerance = 4.0 * f64::from(f32::EPSILON) * wide.abs().max(1.0);
            let same =
                wide.is_nan() && narrow.is_nan() || wide == narrow || (wide - narrow).abs() <= tolerance;
            assert!(same, "{op:?}({x}): {wide} in f64, {narrow} in binary32");
        }
    }
}

#[test]
fn min_and_max_keep_a_nan_on_the_left_and_drop_one_on_the_right() {
    for op in [Binary::Min, Binary::Max] {
        for exact in [false, true] {
            let of = |a, b| {
                let of = |e: &mut Build| {
                    let (a, b) = (e.float(a, exact), e.float(b, exact));
                    e.add(Op::Binary(op, a, b), Type::Float, exact);
                };
                value(of, &Scope::default())
            };
            assert!(matches!(of(f64::NAN, 1.0), Value::Float(x) if x.is_nan()));
            assert_eq!(of(1.0, f64::NAN), Value::Float(1.0));
        }
    }
}

#[test]
fn softplus_and_sigmoid_survive_large_arguments() {
    let of = |op, x| {
        let of = |e: &mut Build| {
            let a = e.float(x, false);
            e.unary(op, a, Type::Float, false);
        };
        value(of, &Scope::default())
    };
    assert_eq!(of(Unary::Softplus, 1e4), Value::Float(1e4));
    assert_eq!(of(Unary::Softplus, -1e4), Value::Float(0.0));
    assert_eq!(of(Unary::Sigmoid, -1e4), Value::Float(0.0));
    assert_eq!(of(Unary::Sigmoid, 1e4), Value::Float(1.0));
}

const LEN_8: InputShape = {
    let mut axes = [Axis::Len(1); regard_ir::expr::MAX_AXES];
    axes[0] = Axis::Len(8);
    InputShape { dtype: InputType::Bool, rank: 1, axes }
};

const HEADS: Heads = Heads { query: 1, kv: 1, value: 1, dim: 1, value_dim: 1 };

#[test]
fn a_guard_keeps_an_index_from_being_read() {
    let data = [InputData::Bool(&[0, 0, 0, 0, 0, 0, 0, 7])];
    let shapes = [LEN_8];
    let problem = Problem::prefill(Source::SelfAttention, 1, 1, 64).unwrap();
    let captured = Captured::bind(&shapes, &data, &HEADS, Source::SelfAttention, &problem).unwrap();
    // `k >= 8 | table[k]`
    let mut e = Build::default();
    let (eight, k) = (e.int(8), e.var(Var::K));
    let past = e.binary(Binary::Le, eight, k);
    let read = e.input(0, Type::Bool, &[k]);
    e.binary(Binary::Or, past, read);
    let guarded = e.expr();
    let at = |k| Scope { k, ..Scope::default() };
    assert_eq!(eval(guarded.tree(), &at(9), &captured), Ok(Value::Bool(true)));
    assert_eq!(eval(guarded.tree(), &at(7), &captured), Ok(Value::Bool(true)), "any byte but 0 is true");
    assert_eq!(eval(guarded.tree(), &at(6), &captured), Ok(Value::Bool(false)));

    // `if k < 8 then table[k] else false`, and `table[k]` alone.
    let mut e = Build::default();
    let (k, eight) = (e.var(Var::K), e.int(8));
    let inside = e.binary(Binary::Lt, k, eight);
    let read = e.input(0, Type::Bool, &[k]);
    let no = e.add(Op::Bool(false), Type::Bool, true);
    e.add(Op::Select(inside, read, no), Type::Bool, true);
    assert_eq!(eval(e.expr().tree(), &at(8), &captured), Ok(Value::Bool(false)));

    let mut e = Build::default();
    let k = e.var(Var::K);
    e.input(0, Type::Bool, &[k]);
    let bare = e.expr();
    for outside in [-1, 8] {
        let error = eval(bare.tree(), &at(outside), &captured).unwrap_err();
        assert_eq!((error.input, error.axis, error.index, error.len), (0, 0, outside, 8));
    }
}

#[test]
fn alibi_is_the_slope_of_a_head() {
    let of = |e: &mut Build| {
        let head = e.var(Var::H);
        e.add(Op::Alibi { head, heads: 8 }, Type::Float, false);
    };
    assert_eq!(value(of, &Scope { h: 1, ..Scope::default() }), Value::Float(0.25));
}
