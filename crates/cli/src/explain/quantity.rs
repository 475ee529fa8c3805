//! Numbers as a page shows them.

use std::fmt;

/// A count in groups of three digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count(pub(super) f64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:.0}", self.0);
        let mut grouped = String::new();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        f.pad(&grouped)
    }
}

/// A number with three digits and a decimal prefix, as in `8.59 G`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scaled(pub(super) f64);

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes = ["", "k", "M", "G", "T", "P", "E"];
        let (mut n, mut i) = (self.0, 0);
        // What would be written as 1000 belongs to the next prefix.
        while n >= 999.5 && i + 1 < prefixes.len() {
            n /= 1000.0;
            i += 1;
        }
        let decimals = match n {
            n if n == n.trunc() || n >= 99.95 => 0,
            n if n >= 9.995 => 1,
            _ => 2,
        };
        write!(f, "{n:.decimals$} {}", prefixes[i])
    }
}

/// A product of numbers, each with what it counts.
#[derive(Clone, Debug)]
pub(super) struct Product(pub(super) Vec<(u64, &'static str)>);

impl Product {
    /// What it comes to.
    pub(super) fn value(&self) -> f64 {
        self.0.iter().map(|&(n, _)| n as f64).product()
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &(n, what)) in self.0.iter().enumerate() {
            let times = if i == 0 { "" } else { " × " };
            let space = if what.is_empty() { "" } else { " " };
            write!(f, "{times}{}{space}{what}", Count(n as f64))?;
        }
        Ok(())
    }
}

/// A sum of products.
#[derive(Clone, Debug)]
pub(super) struct Sum(pub(super) Vec<Product>);

impl Sum {
    /// What it comes to.
    pub(super) fn value(&self) -> f64 {
        self.0.iter().map(Product::value).sum()
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, product) in self.0.iter().enumerate() {
            let plus = if i == 0 { "" } else { " + " };
            write!(f, "{plus}{product}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        let told = |n| Count(n).to_string();
        assert_eq!(
            [told(0.0), told(999.0), told(1000.0), told(8390656.0)],
            ["0", "999", "1,000", "8,390,656"]
        );
    }

    #[test]
    fn three_digits_are_enough() {
        let told = |n| Scaled(n).to_string();
        assert_eq!(
            [told(0.0), told(0.25), told(12.34), told(999.4), told(999.6), told(8.589e9), told(1.7e11)],
            ["0 ", "0.25 ", "12.3 ", "999 ", "1.00 k", "8.59 G", "170 G"]
        );
    }

    #[test]
    fn a_product_shows_its_factors() {
        let product = Product(vec![(8, "heads"), (4096, ""), (4, "B")]);
        assert_eq!(product.to_string(), "8 heads × 4,096 × 4 B");
        assert_eq!(product.value(), 131_072.0);
        let sum = Sum(vec![product, Product(vec![(8, "scales"), (4, "B")])]);
        assert_eq!(sum.to_string(), "8 heads × 4,096 × 4 B + 8 scales × 4 B");
        assert_eq!(sum.value(), 131_104.0);
    }
}
