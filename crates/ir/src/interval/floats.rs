//! Intervals of floats.
//!
//! An exact float is binary32: `+ - * / sqrt`, rounded once, are monotone, so their ends are the ends' results; the
//! other routines are within a few units in the last place of monotone functions and their ends are moved apart by
//! as much. A float that is not exact is an f64 in one reading and an f32 lane in another; its interval holds both,
//! with margins wider than any lane routine's error.

use super::Span;
use crate::exact;
use crate::expr::{Binary, Unary};

/// Floats from `lo` to `hi`, and NaN if `nan`. Where NaN is all that it holds, `lo` is inf and `hi` is −inf.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Floats {
    pub(super) lo: f64,
    pub(super) hi: f64,
    pub(super) nan: bool,
}

/// How far a computed end may be from the value that it bounds.
#[derive(Clone, Copy)]
struct Margin {
    relative: f64,
    absolute: f64,
}

impl Margin {
    const NONE: Margin = Margin { relative: 0.0, absolute: 0.0 };
    /// 8 units in the last place of a binary32, or of its subnormals: the routines of [`exact`] err by less than 4.
    const ROUTINE: Margin =
        Margin { relative: 1.0 / (1 << 20) as f64, absolute: 8.0 * f32::from_bits(1) as f64 };
    /// 64 units in the last place of an f32 lane, which may flush what is below the smallest normal number.
    const LANES: Margin = Margin { relative: 1.0 / (1 << 17) as f64, absolute: f32::MIN_POSITIVE as f64 };

    const fn rounded_once(exact: bool) -> Self {
        if exact { Margin::NONE } else { Margin::LANES }
    }

    const fn routine(exact: bool) -> Self {
        if exact { Margin::ROUTINE } else { Margin::LANES }
    }
}

impl Floats {
    pub(super) const ANY: Floats = Floats { lo: f64::NEG_INFINITY, hi: f64::INFINITY, nan: true };
    const NAN: Floats = Floats { lo: f64::INFINITY, hi: f64::NEG_INFINITY, nan: true };

    const fn new(lo: f64, hi: f64) -> Self {
        Self { lo, hi, nan: false }
    }

    const fn or_nan(self, nan: bool) -> Self {
        Self { nan: self.nan || nan, ..self }
    }

    pub(super) fn literal(value: f64, exact: bool) -> Self {
        match value {
            _ if value.is_nan() => Self::NAN,
            _ if exact => Self::new(value as f32 as f64, value as f32 as f64),
            _ => Self::new(value, value).widened(Margin::LANES),
        }
    }

    pub(super) fn of_ints(span: Span, exact: bool) -> Self {
        if exact {
            Self::new(span.lo as f32 as f64, span.hi as f32 as f64)
        } else {
            Self::new(span.lo as f64, span.hi as f64).widened(Margin::LANES)
        }
    }

    pub(super) fn to_int(self) -> Span {
        if self.has_no_number() {
            return Span::point(0);
        }
        let span = Span { lo: self.lo as i32, hi: self.hi as i32 };
        if self.nan { Span { lo: span.lo.min(0), hi: span.hi.max(0) } } else { span }
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi), nan: self.nan || other.nan }
    }

    pub(super) fn unary(self, op: Unary, exact: bool) -> Self {
        if self.has_no_number() {
            return Self::NAN;
        }
        let numbers = match op {
            Unary::Neg => Self::new(-self.hi, -self.lo),
            Unary::Abs => self.abs(),
            Unary::Floor => Self::new(libm::floor(self.lo), libm::floor(self.hi)),
            Unary::Ceil => Self::new(libm::ceil(self.lo), libm::ceil(self.hi)),
            Unary::Sqrt => {
                self.where_not_negative(|x| x.monotone(Unary::Sqrt, exact, Margin::rounded_once(exact)))
            }
            Unary::Log => self.where_not_negative(|x| x.monotone(Unary::Log, exact, Margin::routine(exact))),
            Unary::Exp | Unary::Exp2 | Unary::Softplus => {
                self.monotone(op, exact, Margin::routine(exact)).at_least(0.0)
            }
            Unary::Sigmoid => {
                let Floats { lo, hi, nan } = self.monotone(op, exact, Margin::routine(exact)).at_least(0.0);
                Self { lo, hi: hi.min(1.0), nan }
            }
            Unary::Tanh | Unary::Elu => self.monotone(op, exact, Margin::routine(exact)),
            Unary::Gelu => self.gelu(exact),
            Unary::Sin => self.wave(op, core::f64::consts::FRAC_PI_2),
            Unary::Cos => self.wave(op, 0.0),
            Unary::Not | Unary::ToFloat | Unary::ToInt => Self::ANY,
        };
        numbers.or_nan(self.nan)
    }

    pub(super) fn binary(self, op: Binary, other: Self, exact: bool) -> Self {
        let (a, b) = (self, other);
        match op {
            // A NaN on the left stays, one on the right leaves the left side.
            Binary::Min if a.has_no_number() || b.has_no_number() => a,
            Binary::Max if a.has_no_number() || b.has_no_number() => a,
            Binary::Min => {
                Self { lo: a.lo.min(b.lo), hi: if b.nan { a.hi } else { a.hi.min(b.hi) }, nan: a.nan }
            }
            Binary::Max => {
                Self { lo: if b.nan { a.lo } else { a.lo.max(b.lo) }, hi: a.hi.max(b.hi), nan: a.nan }
            }
            Binary::Pow => a.pow(b, exact),
            _ if a.has_no_number() || b.has_no_number() => Self::NAN,
            Binary::Add => a.plus(b, exact),
            Binary::Sub => a.plus(Self { lo: -b.hi, hi: -b.lo, nan: b.nan }, exact),
            Binary::Mul => {
                let nan = a.has_zero() && b.has_infinity() || b.has_zero() && a.has_infinity();
                // 0 · inf at a corner stands for the zeros beside it.
                let product = |x, y| zero_if_nan(point(Binary::Mul, x, y, exact));
                a.corners(b, Margin::rounded_once(exact), product).or_nan(nan || a.nan || b.nan)
            }
            Binary::Div => {
                let indefinite = a.has_infinity() && b.has_infinity();
                let numbers = if b.has_zero() || indefinite {
                    Self::new(f64::NEG_INFINITY, f64::INFINITY).or_nan(indefinite || a.has_zero())
                } else {
                    a.corners(b, Margin::rounded_once(exact), |x, y| point(Binary::Div, x, y, exact))
                };
                numbers.or_nan(a.nan || b.nan)
            }
            _ => Self::ANY,
        }
    }

    fn plus(self, other: Self, exact: bool) -> Self {
        let (a, b) = (self, other);
        let lo = point(Binary::Add, a.lo, b.lo, exact);
        let hi = point(Binary::Add, a.hi, b.hi, exact);
        let opposite = a.hi == f64::INFINITY && b.lo == f64::NEG_INFINITY
            || a.lo == f64::NEG_INFINITY && b.hi == f64::INFINITY;
        let numbers = Self::new(
            if lo.is_nan() { f64::NEG_INFINITY } else { lo },
            if hi.is_nan() { f64::INFINITY } else { hi },
        );
        numbers.widened(Margin::rounded_once(exact)).or_nan(opposite || a.nan || b.nan)
    }

    /// `powf`: corners where the base is positive or the exponent one whole number; otherwise by signs alone.
    fn pow(self, exponent: Self, exact: bool) -> Self {
        let (a, b) = (self, exponent);
        let margin = Margin::routine(exact);
        let corner = |x, y| exact::binary(Binary::Pow, x as f32, y as f32) as f64;
        let finite = !a.has_infinity() && !b.has_infinity();
        let whole = exact && b.lo == b.hi && libm::trunc(b.lo) == b.lo && b.lo > 0.0 && b.lo < 128.0;
        let numbers = if a.has_no_number() || b.has_no_number() {
            Self::NAN
        } else if exact && finite && a.lo > 0.0 {
            a.corners(b, margin, corner).at_least(0.0)
        } else if whole {
            let base = if b.lo % 2.0 == 0.0 { a.abs() } else { a };
            base.corners(b, margin, corner)
        } else if a.lo >= 0.0 && exact {
            // A negative power of −0 is −inf.
            Self::new(if a.lo > 0.0 || b.lo >= 0.0 { 0.0 } else { f64::NEG_INFINITY }, f64::INFINITY)
        } else {
            Self::ANY
        };
        // NaN to the power 0 and 1 to the power NaN are 1.
        if a.nan || b.nan { numbers.union(Self::new(1.0, 1.0).or_nan(true)) } else { numbers }
    }

    /// Not monotone: its least value, −0.16997, is at −0.7518. At −inf the formula multiplies by 0.
    fn gelu(self, exact: bool) -> Self {
        let Floats { lo, hi, .. } = self.monotone(Unary::Gelu, exact, Margin::routine(exact));
        Self {
            lo: if self.lo >= 0.0 { lo } else { -0.17 },
            hi: if self.hi > 0.0 { hi } else { 0.0 },
            nan: self.lo == f64::NEG_INFINITY,
        }
        .widened(Margin::LANES)
    }

    /// Sine or cosine, whose maxima are at `crest` + 2πn and minima half a turn later.
    fn wave(self, op: Unary, crest: f64) -> Self {
        const TURN: f64 = core::f64::consts::TAU;
        let all = Self::new(-1.0, 1.0).or_nan(self.has_infinity());
        // Past 2^16 a binary32 argument is too coarse for the search of extrema to matter.
        if self.lo < -65536.0 || self.hi > 65536.0 || self.hi - self.lo >= TURN {
            return all;
        }
        let passes =
            |at: f64| libm::floor((self.hi + 1e-6 - at) / TURN) >= libm::ceil((self.lo - 1e-6 - at) / TURN);
        let (a, b) = (exact::unary(op, self.lo as f32) as f64, exact::unary(op, self.hi as f32) as f64);
        // An argument up to 2^16 is rounded by at most 2^-8 where the float is not exact.
        let slack = 1e-6 + self.lo.abs().max(self.hi.abs()) / (1 << 23) as f64;
        Self::new(
            if passes(crest + TURN / 2.0) { -1.0 } else { (a.min(b) - slack).max(-1.0) },
            if passes(crest) { 1.0 } else { (a.max(b) + slack).min(1.0) },
        )
    }

    fn abs(self) -> Self {
        let (lo, hi) = (self.lo.abs(), self.hi.abs());
        Self { lo: if self.has_zero() { 0.0 } else { lo.min(hi) }, hi: lo.max(hi), nan: self.nan }
    }

    /// `f` of the part from zero up; what is below zero gives NaN.
    fn where_not_negative(self, f: impl Fn(Self) -> Self) -> Self {
        if self.hi < 0.0 {
            return Self::NAN;
        }
        f(self.at_least(0.0)).or_nan(self.lo < 0.0)
    }

    /// An increasing function of the ends. Lanes round their argument first, so theirs move outwards.
    fn monotone(self, op: Unary, exact: bool, margin: Margin) -> Self {
        let (mut lo, mut hi) = (self.lo as f32, self.hi as f32);
        if !exact {
            (lo, hi) = (lo.next_down(), hi.next_up());
            if self.lo >= 0.0 {
                lo = lo.max(0.0);
            }
        }
        Self::new(exact::unary(op, lo) as f64, exact::unary(op, hi) as f64).widened(margin)
    }

    fn corners(self, other: Self, margin: Margin, f: impl Fn(f64, f64) -> f64) -> Self {
        let (a, b) = (self, other);
        let ends = [f(a.lo, b.lo), f(a.lo, b.hi), f(a.hi, b.lo), f(a.hi, b.hi)];
        Self::new(
            ends.into_iter().fold(f64::INFINITY, f64::min),
            ends.into_iter().fold(f64::NEG_INFINITY, f64::max),
        )
        .widened(margin)
    }

    /// Moves the ends apart. An end that overflowed may stand for a finite value, and in lanes the other way round.
    fn widened(self, margin: Margin) -> Self {
        const MAX: f64 = f32::MAX as f64;
        let Margin { relative, absolute } = margin;
        if absolute == 0.0 {
            return self;
        }
        let lo = self.lo.min(MAX);
        let hi = self.hi.max(-MAX);
        let (lo, hi) = (lo - lo.abs() * relative - absolute, hi + hi.abs() * relative + absolute);
        Self {
            lo: if lo < -MAX { f64::NEG_INFINITY } else { lo },
            hi: if hi > MAX { f64::INFINITY } else { hi },
            nan: self.nan,
        }
    }

    fn at_least(self, least: f64) -> Self {
        Self { lo: self.lo.max(least), hi: self.hi.max(least), nan: self.nan }
    }

    fn has_no_number(self) -> bool {
        self.lo > self.hi
    }

    fn has_zero(self) -> bool {
        self.lo <= 0.0 && self.hi >= 0.0
    }

    fn has_infinity(self) -> bool {
        self.lo == f64::NEG_INFINITY || self.hi == f64::INFINITY
    }
}

/// Arithmetic at one point: binary32 where the float is exact.
fn point(op: Binary, x: f64, y: f64, exact: bool) -> f64 {
    if exact {
        return exact::binary(op, x as f32, y as f32) as f64;
    }
    match op {
        Binary::Add => x + y,
        Binary::Mul => x * y,
        _ => x / y,
    }
}

fn zero_if_nan(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x }
}
