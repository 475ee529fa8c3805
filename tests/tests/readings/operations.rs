//! Every operation alone, over operands that are awkward for it, in every place that an operand can have: along the rows,
//! along the keys, or the same everywhere.

use regard_ir::expr::{Binary, Expr, MAX_AXES, Node, NodeId, Op, Type, Unary, Var};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval::{self, Region, Span, Unknown};
use regard_ir::problem::Problem;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Source};
use regard_oracle::eval::{Value, eval};
use regard_tests::engines;

use crate::lanes::{self, Grid};
use crate::{Pointwise, all, holds, isa, point, same_bits, score, variant};

const FLOATS: [f32; 30] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.75,
    1.5,
    2.0,
    -2.0,
    2.5,
    3.0,
    -3.5,
    0.1,
    -0.001,
    7.3,
    -15.6,
    63.0,
    -86.9,
    -87.6,
    88.9,
    127.5,
    -131.0,
    1e6,
    2147483648.0,
    1e30,
    -3e38,
    1e-42,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

const INTS: [i32; 30] = [
    0,
    1,
    -1,
    2,
    -2,
    3,
    -3,
    5,
    7,
    -7,
    8,
    11,
    -12,
    16,
    31,
    100,
    -100,
    511,
    65535,
    65536,
    -65536,
    46341,
    16777217,
    -16777219,
    1 << 30,
    i32::MAX - 1,
    i32::MAX,
    i32::MIN,
    i32::MIN + 1,
    -4,
];

const BOOLS: [u8; 30] =
    [0, 1, 0, 0, 1, 1, 0, 1, 0, 255, 0, 0, 1, 1, 1, 0, 2, 0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1];

/// How many operands of each type there are.
const COUNT: u32 = 30;

/// The captured inputs: operands of each type, and the ints that the oracle expects.
const SHAPES: [InputShape; 4] = [
    shape(InputType::F32, 1, [Axis::Len(COUNT), Axis::Len(1)]),
    shape(InputType::I32, 1, [Axis::Len(COUNT), Axis::Len(1)]),
    shape(InputType::Bool, 1, [Axis::Len(COUNT), Axis::Len(1)]),
    shape(InputType::I32, 2, [Axis::Len(COUNT), Axis::Len(COUNT)]),
];

const fn shape(dtype: InputType, rank: u8, [first, second]: [Axis; 2]) -> InputShape {
    let one = Axis::Len(1);
    InputShape { dtype, rank, axes: [first, second, one, one, one, one] }
}

const HEADS: Heads = Heads { query: 12, kv: 1, value: 1, dim: 1, value_dim: 1 };

/// Where an operand's index comes from.
#[derive(Clone, Copy, Debug)]
enum Along {
    Rows,
    Keys,
    Nothing(i32),
}

const PLACES: [(Along, Along); 7] = [
    (Along::Rows, Along::Keys),
    (Along::Keys, Along::Rows),
    (Along::Rows, Along::Rows),
    (Along::Keys, Along::Keys),
    (Along::Nothing(12), Along::Keys),
    (Along::Rows, Along::Nothing(5)),
    (Along::Nothing(9), Along::Nothing(6)),
];

#[derive(Default)]
struct Build(Vec<Node>);

impl Build {
    fn push(&mut self, op: Op, ty: Type, exact: bool) -> NodeId {
        self.0.push(Node { op, ty, exact });
        (self.0.len() - 1) as NodeId
    }

    fn index(&mut self, along: Along) -> NodeId {
        let op = match along {
            Along::Rows => Op::Var(Var::Q),
            Along::Keys => Op::Var(Var::K),
            Along::Nothing(at) => Op::Int(at),
        };
        self.push(op, Type::Int, true)
    }

    /// An operand, the element of its type's input.
    fn operand(&mut self, ty: Type, along: Along) -> NodeId {
        let input = match ty {
            Type::Float => 0,
            Type::Int => 1,
            Type::Bool => 2,
        };
        let at = self.index(along);
        self.push(Op::Input { input, rank: 1, index: [at, 0, 0, 0, 0, 0] }, ty, true)
    }
}

/// How far a float lane that decides nothing may be from the oracle: so many units in the last place of the result, and
/// so much beside.
#[derive(Clone, Copy)]
struct Tolerance {
    ulps: f64,
    beside: f64,
}

/// Lanes may flush what is below the smallest normal number, and the sigmoid what is near it.
const FLUSHED: f64 = 2.0 * f32::MIN_POSITIVE as f64;
const EXACT: Tolerance = Tolerance { ulps: 0.0, beside: 0.0 };
const ROUNDED: Tolerance = Tolerance { ulps: 0.5, beside: FLUSHED };
/// What the interval reading grants a scalar routine in binary32.
const ROUTINE: Tolerance = Tolerance { ulps: 4.0, beside: FLUSHED };

/// Operand types of an operation, and what its float results are held to.
fn of_unary(op: Unary) -> (&'static [Type], Tolerance) {
    const NUMBERS: &[Type] = &[Type::Int, Type::Float];
    const FLOAT: &[Type] = &[Type::Float];
    match op {
        Unary::Not => (&[Type::Bool], EXACT),
        Unary::Neg | Unary::Abs => (NUMBERS, EXACT),
        Unary::ToFloat => (&[Type::Int], ROUNDED),
        Unary::ToInt => (FLOAT, EXACT),
        Unary::Floor | Unary::Ceil => (FLOAT, EXACT),
        Unary::Sqrt => (FLOAT, ROUNDED),
        Unary::Exp => (FLOAT, Tolerance { ulps: 2.1, ..ROUTINE }),
        Unary::Tanh => (FLOAT, Tolerance { ulps: 1.6, ..ROUTINE }),
        Unary::Exp2 => (FLOAT, Tolerance { ulps: 1.7, ..ROUTINE }),
        Unary::Log | Unary::Sigmoid | Unary::Softplus | Unary::Elu | Unary::Sin | Unary::Cos => {
            (FLOAT, ROUTINE)
        }
        // 1 + erf cancels far below 0, where the result is x times what is left of a rounding.
        Unary::Gelu => (FLOAT, Tolerance { beside: 16.0 * f32::EPSILON as f64, ..ROUTINE }),
    }
}

/// The same for two operands of one type, and the type of the result where it is not theirs.
fn of_binary(op: Binary) -> (&'static [Type], Option<Type>, Tolerance) {
    const NUMBERS: &[Type] = &[Type::Int, Type::Float];
    match op {
        Binary::Add | Binary::Sub | Binary::Mul => (NUMBERS, None, ROUNDED),
        Binary::Div => (&[Type::Float], None, ROUNDED),
        Binary::FloorDiv | Binary::Rem => (&[Type::Int], None, EXACT),
        Binary::Pow => (&[Type::Float], None, ROUTINE),
        Binary::Min | Binary::Max => (NUMBERS, None, EXACT),
        Binary::And | Binary::Or => (&[Type::Bool], Some(Type::Bool), EXACT),
        Binary::Lt | Binary::Le => (NUMBERS, Some(Type::Bool), EXACT),
        Binary::Eq | Binary::Ne => (&[Type::Int, Type::Float, Type::Bool], Some(Type::Bool), EXACT),
    }
}

#[test]
fn operations_of_one_operand() {
    for op in Unary::ALL {
        let (types, tolerance) = of_unary(op);
        for (&ty, (along, _)) in types.iter().flat_map(|ty| PLACES.map(|place| (ty, place))) {
            let result = match op {
                Unary::ToFloat => Type::Float,
                Unary::ToInt => Type::Int,
                _ => ty,
            };
            for exact in [true, false].into_iter().filter(|exact| *exact || result == Type::Float) {
                let mut build = Build::default();
                let a = build.operand(ty, along);
                build.push(Op::Unary(op, a), result, exact);
                check(&format!("{op:?} of {ty:?} along {along:?}"), build, tolerance);
            }
        }
    }
}

#[test]
fn operations_of_two_operands() {
    for op in Binary::ALL {
        let (types, result, tolerance) = of_binary(op);
        for (&ty, (left, right)) in types.iter().flat_map(|ty| PLACES.map(|place| (ty, place))) {
            let result = result.unwrap_or(ty);
            for exact in [true, false].into_iter().filter(|exact| *exact || result == Type::Float) {
                let mut build = Build::default();
                let (a, b) = (build.operand(ty, left), build.operand(ty, right));
                build.push(Op::Binary(op, a, b), result, exact);
                check(&format!("{op:?} of {ty:?} along {left:?} and {right:?}"), build, tolerance);
            }
        }
    }
}

#[test]
fn select() {
    for (ty, (left, right)) in
        [Type::Bool, Type::Int, Type::Float].into_iter().flat_map(|ty| PLACES.map(|place| (ty, place)))
    {
        for condition in [left, right] {
            let mut build = Build::default();
            let condition = build.operand(Type::Bool, condition);
            let (a, b) = (build.operand(ty, left), build.operand(ty, right));
            build.push(Op::Select(condition, a, b), ty, true);
            check(&format!("select of {ty:?} along {left:?} and {right:?}"), build, EXACT);
        }
    }
}

#[test]
fn alibi() {
    for ((along, _), heads) in PLACES.into_iter().flat_map(|place| [1, 8, 12, 40].map(|n| (place, n))) {
        for exact in [true, false] {
            let mut build = Build::default();
            let head = build.operand(Type::Int, along);
            build.push(Op::Alibi { head, heads }, Type::Float, exact);
            check(&format!("alibi among {heads} along {along:?}"), build, ROUNDED);
        }
    }
}

#[test]
fn literals() {
    for x in FLOATS {
        for exact in [true, false] {
            let mut build = Build::default();
            build.push(Op::Float(x.into()), Type::Float, exact);
            check(&format!("literal {x:e}"), build, EXACT);
        }
    }
    for x in INTS {
        let mut build = Build::default();
        build.push(Op::Int(x), Type::Int, true);
        check(&format!("literal {x}"), build, EXACT);
    }
    for x in [false, true] {
        let mut build = Build::default();
        build.push(Op::Bool(x), Type::Bool, true);
        check(&format!("literal {x}"), build, EXACT);
    }
}

#[test]
fn variables() {
    // The element of a feature map is no variable of a mask or modifier, and a score none of a mask.
    for var in [Var::B, Var::H, Var::G, Var::Q, Var::K, Var::Nq, Var::Nk] {
        let mut build = Build::default();
        build.push(Op::Var(var), Type::Int, true);
        check(&format!("{var:?}"), build, EXACT);
    }
    let mut build = Build::default();
    let s = build.push(Op::Var(Var::S), Type::Float, false);
    build.push(Op::Unary(Unary::Neg, s), Type::Float, false);
    check("the score", build, EXACT);
}

/// Compares the readings of an expression for all pairs of operands.
fn check(what: &str, build: Build, tolerance: Tolerance) {
    let expression = Expr::new(build.0);
    let (tree, root) = (expression.tree(), *expression.tree().node(expression.tree().root()));
    let problem = Problem::prefill(Source::SelfAttention, 1, 30, 30).expect("short");
    let mut expected = vec![0; (COUNT * COUNT) as usize];
    let data = [InputData::F32(&FLOATS), InputData::I32(&INTS), InputData::Bool(&BOOLS)];
    let shapes = &SHAPES[..3];
    let captured = Captured::bind(shapes, &data, &HEADS, Source::SelfAttention, &problem).expect("they fit");
    let rows: Vec<(i32, i32)> = (0..COUNT as i32).map(|q| (q, q % 12)).collect();
    let scores = |row: usize, key: i32| FLOATS[(row + key as usize) % FLOATS.len()];
    let grid = Grid { b: 0, g: 0, nq: 30, nk: 30, rows: &rows, keys: 0..COUNT as i32, captured: &captured };
    let oracle = |row: usize, key: i32| {
        let scope = grid.scope(rows[row], key, scores(row, key));
        eval(tree, &scope, &captured).expect("every index lies in its axis")
    };

    let everywhere = Region {
        b: Span::point(0),
        h: Span { lo: 0, hi: 11 },
        g: Span::point(0),
        q: Span { lo: 0, hi: COUNT as i32 - 1 },
        k: Span { lo: 0, hi: COUNT as i32 - 1 },
        nq: 30,
        nk: 30,
    };
    let whole = interval::eval(tree, &everywhere, &Unknown(shapes));
    for (row, key) in (0..rows.len()).flat_map(|row| (0..COUNT as i32).map(move |key| (row, key))) {
        let (value, scope) = (oracle(row, key), grid.scope(rows[row], key, 0.0));
        let range = interval::eval(tree, &point(&scope), &Pointwise(&captured));
        assert!(holds(range, value), "{what}: {value:?} is not in {range:?} at row {row}, key {key}");
        assert!(holds(whole, value), "{what}: {value:?} is not in {whole:?} at row {row}, key {key}");
        if let Value::Int(value) = value {
            expected[row * COUNT as usize + key as usize] = value;
        }
    }

    let data = [data[0], data[1], data[2], InputData::I32(&expected)];
    let captured = Captured::bind(&SHAPES, &data, &HEADS, Source::SelfAttention, &problem).expect("they fit");
    let grid = Grid { captured: &captured, keys: grid.keys.clone(), ..grid };
    let (all, score) = (all(), score());
    for entry in engines::lanes() {
        match root.ty {
            Type::Float => {
                let variant = variant(HEADS, all.tree(), tree, &SHAPES);
                for (row, key, found) in points(&lanes::apply(entry, &variant, &grid, false, &scores)) {
                    let Value::Float(value) = oracle(row, key) else { panic!("{what} is a float") };
                    let same =
                        if root.exact { same_bits(found, value) } else { within(found, value, tolerance) };
                    let exact = root.exact;
                    assert!(
                        same,
                        "{what}, exact: {exact}, on {}: {found:e} at row {row}, key {key}, where the oracle has {value:e}",
                        isa(entry)
                    );
                }
            }
            Type::Int | Type::Bool => {
                let mask =
                    if root.ty == Type::Int { equals_expected(&expression) } else { expression.clone() };
                let variant = variant(HEADS, mask.tree(), score.tree(), &SHAPES);
                for (row, key, found) in points(&lanes::allow(entry, &variant, &grid)) {
                    let value = oracle(row, key);
                    let expected = value != Value::Bool(false);
                    assert_eq!(found, expected, "{what} on {}: row {row}, key {key}: {value:?}", isa(entry));
                }
            }
        }
    }
}

/// The points of all parts, none of which reported a fault.
fn points<T: Copy>(parts: &[lanes::Part<T>]) -> impl Iterator<Item = (usize, i32, T)> {
    assert!(parts.iter().all(|part| !part.fault), "every index lies in its axis");
    parts.iter().flat_map(|part| part.points())
}

/// `expression == expected[q, k]`.
fn equals_expected(expression: &Expr) -> Expr {
    let mut build = Build(expression.tree().nodes().to_vec());
    let root = expression.tree().root();
    let (q, k) = (build.index(Along::Rows), build.index(Along::Keys));
    let mut index = [0; MAX_AXES];
    index[..2].copy_from_slice(&[q, k]);
    let expected = build.push(Op::Input { input: 3, rank: 2, index }, Type::Int, true);
    build.push(Op::Binary(Binary::Eq, root, expected), Type::Bool, true);
    Expr::new(build.0)
}

fn within(found: f32, oracle: f64, tolerance: Tolerance) -> bool {
    if found.is_nan() || oracle.is_nan() {
        return found.is_nan() && oracle.is_nan();
    }
    // An f64 beyond binary32 is an infinity there, which stands for 2^128.
    let over = 2f64.powi(128);
    let (found, oracle) = (f64::from(found).clamp(-over, over), oracle.clamp(-over, over));
    let exponent = oracle.abs().max(f32::MIN_POSITIVE.into()).log2().floor();
    (found - oracle).abs() <= tolerance.ulps * 2f64.powf(exponent - 23.0) + tolerance.beside
}
