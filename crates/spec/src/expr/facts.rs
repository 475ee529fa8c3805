//! What is known about a value before any run: what proves that an int cannot fit or an index leaves its axis.

use regard_ir::exact;
use regard_ir::expr::{Binary, Type, Unary, Var};
use regard_ir::variant::Heads;

/// What is known about a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Facts {
    /// The value, if it is a constant.
    Bool(Option<bool>),
    Int(Ints),
    /// The value in binary32, if it is a constant.
    Float(Option<f32>),
}

/// The ints from `lo` to `hi`, both included, beside others that never occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ints {
    pub(super) lo: i64,
    pub(super) hi: i64,
    /// Whether both ends do occur in every run, whatever the problem.
    pub(super) attained: bool,
}

/// An operation's result is outside 32 bits, whatever its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfRange {
    pub(super) lo: i64,
    pub(super) hi: i64,
}

impl Facts {
    /// Nothing but the type.
    pub(super) const fn any(ty: Type) -> Self {
        match ty {
            Type::Bool => Facts::Bool(None),
            Type::Int => Facts::Int(Ints::ANY),
            Type::Float => Facts::Float(None),
        }
    }

    /// Of a variable.
    pub(super) fn var(var: Var, heads: Option<&Heads>) -> Self {
        let below = |n: u32| Facts::Int(Ints { lo: 0, hi: i64::from(n) - 1, attained: true });
        match (var, heads) {
            (Var::H, Some(heads)) => below(heads.query),
            (Var::G, Some(heads)) => below(heads.kv),
            (Var::S | Var::X, _) => Facts::Float(None),
            (Var::Q, _) => Facts::Int(Ints::ANY),
            _ => Facts::Int(Ints { lo: 0, ..Ints::ANY }),
        }
    }

    /// The int, if it is a constant.
    pub(super) const fn int(self) -> Option<i64> {
        match self {
            Facts::Int(Ints { lo, hi, .. }) if lo == hi => Some(lo),
            _ => None,
        }
    }
}

impl Ints {
    pub(super) const ANY: Self = Self { lo: i32::MIN as i64, hi: i32::MAX as i64, attained: false };

    pub(super) const fn point(value: i64) -> Self {
        Self { lo: value, hi: value, attained: true }
    }

    const fn is_point(self) -> bool {
        self.lo == self.hi
    }

    fn spanning(values: impl IntoIterator<Item = i64>, attained: bool) -> Self {
        let (lo, hi) =
            values.into_iter().fold((i64::MAX, i64::MIN), |(lo, hi), value| (lo.min(value), hi.max(value)));
        Self { lo, hi, attained }
    }

    /// What is left after wrapping.
    fn wrapped(self) -> Result<Self, OutOfRange> {
        let Self { lo, hi, .. } = self;
        if lo > Self::ANY.hi || hi < Self::ANY.lo {
            return Err(OutOfRange { lo, hi });
        }
        Ok(if lo < Self::ANY.lo || hi > Self::ANY.hi { Self::ANY } else { self })
    }
}

/// Facts of an operation of one operand.
pub(super) fn unary(op: Unary, a: Facts) -> Result<Facts, OutOfRange> {
    Ok(match (op, a) {
        (Unary::Not, Facts::Bool(a)) => Facts::Bool(a.map(|a| !a)),
        (Unary::Neg, Facts::Int(a)) => Facts::Int(Ints { lo: -a.hi, hi: -a.lo, ..a }.wrapped()?),
        (Unary::Abs, Facts::Int(a)) => {
            let ends = [a.lo.abs(), a.hi.abs()];
            let straddles = a.lo < 0 && a.hi > 0;
            let zero = straddles.then_some(0);
            let range = Ints::spanning(ends.into_iter().chain(zero), a.attained && !straddles);
            Facts::Int(range.wrapped()?)
        }
        (Unary::ToFloat, a) => Facts::Float(a.int().map(|a| a as f32)),
        (Unary::ToInt, Facts::Float(Some(a))) => Facts::Int(Ints::point(exact::to_int(a).into())),
        (Unary::ToInt, _) => Facts::Int(Ints::ANY),
        (op, Facts::Float(a)) => Facts::Float(a.map(|a| exact::unary(op, a))),
        (_, a) => a,
    })
}

/// Facts of an operation of two operands of one type, `a` evaluated first.
pub(super) fn binary(op: Binary, a: Facts, b: Facts) -> Result<Facts, OutOfRange> {
    Ok(match (a, b) {
        (Facts::Int(a), Facts::Int(b)) => match op {
            Binary::Lt | Binary::Le | Binary::Eq | Binary::Ne => {
                let both = a.is_point() && b.is_point();
                Facts::Bool(both.then(|| compare(op, &a.lo, &b.lo)))
            }
            _ => Facts::Int(ints(op, a, b).wrapped()?),
        },
        (Facts::Float(a), Facts::Float(b)) => {
            let both = a.zip(b);
            match op {
                Binary::Lt | Binary::Le | Binary::Eq | Binary::Ne => {
                    Facts::Bool(both.map(|(a, b)| compare(op, &a, &b)))
                }
                _ => Facts::Float(both.map(|(a, b)| exact::binary(op, a, b))),
            }
        }
        (Facts::Bool(a), Facts::Bool(b)) => Facts::Bool(match op {
            Binary::And => a.zip(b).map(|(a, b)| a && b),
            Binary::Or => a.zip(b).map(|(a, b)| a || b),
            _ => a.zip(b).map(|(a, b)| compare(op, &a, &b)),
        }),
        (a, _) => a,
    })
}

fn compare<T: PartialOrd>(op: Binary, a: &T, b: &T) -> bool {
    match op {
        Binary::Lt => a < b,
        Binary::Le => a <= b,
        Binary::Eq => a == b,
        _ => a != b,
    }
}

fn ints(op: Binary, a: Ints, b: Ints) -> Ints {
    // With one side constant these operations are monotone in the other, so its ends give the result's.
    let attained = a.attained && b.attained && (a.is_point() || b.is_point());
    let corners = |f: fn(i64, i64) -> i64| {
        Ints::spanning([f(a.lo, b.lo), f(a.lo, b.hi), f(a.hi, b.lo), f(a.hi, b.hi)], attained)
    };
    match op {
        Binary::Add => corners(|a, b| a + b),
        Binary::Sub => corners(|a, b| a - b),
        Binary::Mul => corners(|a, b| a * b),
        Binary::Min => corners(i64::min),
        Binary::Max => corners(i64::max),
        Binary::FloorDiv if b == Ints::point(0) => Ints::point(0),
        Binary::FloorDiv if b.is_point() => corners(floor_div),
        Binary::FloorDiv => {
            let most = a.lo.abs().max(a.hi.abs());
            Ints { lo: -most, hi: most, attained: false }
        }
        Binary::Rem if b.is_point() && a.is_point() => {
            Ints::point(exact::floor_rem(a.lo as i32, b.lo as i32).into())
        }
        Binary::Rem if b.is_point() && b.lo > a.hi && a.lo >= 0 => a,
        Binary::Rem => {
            let lo = (b.lo + 1).min(0);
            let hi = (b.hi - 1).max(0);
            Ints { lo, hi, attained: false }
        }
        _ => Ints::ANY,
    }
}

fn floor_div(a: i64, b: i64) -> i64 {
    let quotient = a / b;
    if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(lo: i64, hi: i64) -> Ints {
        Ints { lo, hi, attained: true }
    }

    /// Every operation over small ranges, against every pair of members.
    #[test]
    fn ranges_hold_every_result_and_attain_their_ends() {
        let ranges =
            [range(-3, 4), range(0, 5), range(-7, -2), range(3, 3), range(-2, -2), range(0, 0), range(2, 6)];
        let ops =
            [Binary::Add, Binary::Sub, Binary::Mul, Binary::Min, Binary::Max, Binary::FloorDiv, Binary::Rem];
        for (a, b) in ranges.iter().flat_map(|&a| ranges.map(|b| (a, b))) {
            for op in ops {
                let found = ints(op, a, b);
                let mut ends = (false, false);
                for (x, y) in (a.lo..=a.hi).flat_map(|x| (b.lo..=b.hi).map(move |y| (x, y))) {
                    let value = i64::from(exact::binary_int(op, x as i32, y as i32));
                    assert!(
                        (found.lo..=found.hi).contains(&value),
                        "{x} {op:?} {y} = {value} not in {found:?}"
                    );
                    ends = (ends.0 || value == found.lo, ends.1 || value == found.hi);
                }
                assert!(!found.attained || ends == (true, true), "{a:?} {op:?} {b:?} = {found:?}");
            }
        }
    }

    #[test]
    fn what_must_overflow_is_an_error_and_what_may_wraps() {
        let int = |lo, hi| Facts::Int(range(lo, hi));
        let max = i64::from(i32::MAX);
        assert_eq!(
            binary(Binary::Add, int(max, max), int(1, 2)),
            Err(OutOfRange { lo: max + 1, hi: max + 2 })
        );
        assert_eq!(binary(Binary::Add, int(max, max), int(0, 2)), Ok(Facts::Int(Ints::ANY)));
        let min = i64::from(i32::MIN);
        assert_eq!(unary(Unary::Neg, int(min, min)), Err(OutOfRange { lo: -min, hi: -min }));
        assert!(binary(Binary::FloorDiv, int(min, min), int(-1, -1)).is_err());
    }
}
