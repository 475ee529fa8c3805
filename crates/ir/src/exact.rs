//! The one scalar routine behind each function of a float that decides something.
//!
//! Where a float is compared, indexes or becomes an int, every reading of an expression must round it alike, or a
//! mask would mean one thing to the oracle and another to a kernel. All of them call these functions; `libm` is
//! pure Rust and gives the same bits on every target. Arithmetic (`+ - * / sqrt`) needs no routine: IEEE fixes it.

use crate::expr::{Binary, Unary};

/// A function of one binary32. Not for `Not`, `ToFloat` and `ToInt`, which change the type.
pub fn unary(op: Unary, x: f32) -> f32 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => libm::fabsf(x),
        Unary::Floor => libm::floorf(x),
        Unary::Ceil => libm::ceilf(x),
        Unary::Sqrt => libm::sqrtf(x),
        Unary::Exp => libm::expf(x),
        Unary::Exp2 => libm::exp2f(x),
        Unary::Log => libm::logf(x),
        Unary::Tanh => libm::tanhf(x),
        Unary::Sigmoid => 1.0 / (1.0 + libm::expf(-x)),
        Unary::Gelu => 0.5 * x * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2)),
        Unary::Softplus => max(x, 0.0) + libm::log1pf(libm::expf(-libm::fabsf(x))),
        Unary::Elu => {
            if x > 0.0 {
                x
            } else {
                libm::expm1f(x)
            }
        }
        Unary::Sin => libm::sinf(x),
        Unary::Cos => libm::cosf(x),
        Unary::Not | Unary::ToFloat | Unary::ToInt => unreachable!("{op:?} is not a function of floats"),
    }
}

/// A function of two binary32. Not for comparisons, logic and integer division.
pub fn binary(op: Binary, a: f32, b: f32) -> f32 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Pow => libm::powf(a, b),
        Binary::Min => min(a, b),
        Binary::Max => max(a, b),
        _ => unreachable!("{op:?} is not a function of two floats with a float result"),
    }
}

/// A function of two ints with an int result, wrapping as the language says.
pub fn binary_int(op: Binary, a: i32, b: i32) -> i32 {
    match op {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::FloorDiv => floor_div(a, b),
        Binary::Rem => floor_rem(a, b),
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        _ => unreachable!("{op:?} is not a function of two ints with an int result"),
    }
}

/// `a // b`: rounded down, 0 by zero, wrapping.
pub fn floor_div(a: i32, b: i32) -> i32 {
    if b == 0 {
        return 0;
    }
    let quotient = a.wrapping_div(b);
    if a.wrapping_rem(b) != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient }
}

/// `a % b`: the sign of the divisor, 0 by zero.
pub fn floor_rem(a: i32, b: i32) -> i32 {
    if b == 0 {
        return 0;
    }
    let rem = a.wrapping_rem(b);
    if rem != 0 && (rem < 0) != (b < 0) { rem + b } else { rem }
}

/// `b < a ? b : a`.
pub fn min(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// `b > a ? b : a`.
pub fn max(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// `int(x)`: truncated, saturating, 0 for NaN.
pub fn to_int(x: f32) -> i32 {
    x as i32
}

/// The ALiBi slope of `head` among `heads`, both as the published series has them.
///
/// With n the largest power of two up to `heads`, the first n heads get 2^(−8(i+1)/n); the rest take every second
/// slope of the series for 2n heads. A head outside `0..heads` gets 0. Source: Press et al., *Train Short, Test
/// Long*, and its reference code.
pub fn alibi_slope(head: i32, heads: u32) -> f64 {
    if head < 0 || head as u32 >= heads {
        return 0.0;
    }
    let head = head as u32;
    let n = 1 << heads.ilog2();
    let (step, count) = if head < n { (head + 1, n) } else { (2 * (head - n) + 1, 2 * n) };
    libm::exp2(-8.0 * step as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_rounds_down_and_survives_the_corners() {
        assert_eq!((floor_div(7, 2), floor_rem(7, 2)), (3, 1));
        assert_eq!((floor_div(-7, 2), floor_rem(-7, 2)), (-4, 1));
        assert_eq!((floor_div(7, -2), floor_rem(7, -2)), (-4, -1));
        assert_eq!((floor_div(5, 0), floor_rem(5, 0)), (0, 0));
        assert_eq!((floor_div(i32::MIN, -1), floor_rem(i32::MIN, -1)), (i32::MIN, 0));
    }

    #[test]
    fn alibi_follows_the_published_series() {
        assert_eq!(alibi_slope(0, 8), 0.5);
        assert_eq!(alibi_slope(7, 8), 1.0 / 256.0);
        // 12 heads: the 8 slopes for 8, then slopes 0, 2, 4, 6 of the 16.
        assert_eq!(alibi_slope(8, 12), libm::exp2(-0.5));
        assert_eq!(alibi_slope(11, 12), libm::exp2(-3.5));
        assert_eq!(alibi_slope(12, 12), 0.0);
    }
}
