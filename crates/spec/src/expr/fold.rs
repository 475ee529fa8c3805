//! Constants that decide nothing, computed in f64.

use regard_ir::expr::{Binary, Op, Unary};

/// The value of an operation on floats, or of widening an int, whose operands `value` knows.
///
/// `None` where an operand is unknown, the operation is another, or the result is not a number: that is left to
/// happen when it is run.
pub(super) fn fold(op: Op, value: impl Fn(u16) -> Option<f64>) -> Option<f64> {
    let result = match op {
        Op::Unary(op, a) => unary(op, value(a)?)?,
        Op::Binary(op, a, b) => binary(op, value(a)?, value(b)?)?,
        _ => return None,
    };
    (!result.is_nan()).then_some(result)
}

fn unary(op: Unary, x: f64) -> Option<f64> {
    Some(match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::ToFloat => x,
        Unary::Floor => libm::floor(x),
        Unary::Ceil => libm::ceil(x),
        Unary::Sqrt => libm::sqrt(x),
        Unary::Exp => libm::exp(x),
        Unary::Exp2 => libm::exp2(x),
        Unary::Log => libm::log(x),
        Unary::Tanh => libm::tanh(x),
        Unary::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
        Unary::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::Softplus => x.max(0.0) + libm::log1p(libm::exp(-x.abs())),
        Unary::Elu if x > 0.0 => x,
        Unary::Elu => libm::expm1(x),
        Unary::Sin => libm::sin(x),
        Unary::Cos => libm::cos(x),
        Unary::Not | Unary::ToInt => return None,
    })
}

fn binary(op: Binary, a: f64, b: f64) -> Option<f64> {
    Some(match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Pow => libm::pow(a, b),
        Binary::Min if b < a => b,
        Binary::Max if b > a => b,
        Binary::Min | Binary::Max => a,
        _ => return None,
    })
}
