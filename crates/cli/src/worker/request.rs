//! A request: a verb and `key=value` fields between tabs.

use std::fmt;
use std::str::FromStr;

/// One line of the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// What is to be done.
    pub(super) verb: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

/// A request that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// Something between tabs is not `key=value`.
    Field { found: String },
    /// A verb that there is not.
    Verb { found: String },
    /// A field that the verb needs.
    Missing { verb: String, key: &'static str },
    /// A field of another type.
    Value { key: &'static str, found: String, expected: String },
    /// A name that was not set up.
    Slot { found: String },
    /// A file that cannot be read or written.
    File { path: String, error: String },
    /// A file of another length.
    Length { path: String, found_bytes: usize, expected_bytes: u128 },
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRequest::Field { found } => write!(f, "found the field {found:?}, expected key=value"),
            BadRequest::Verb { found } => {
                write!(f, "found the verb {found:?}, expected setup, run, output, free or limits")
            }
            BadRequest::Missing { verb, key } => write!(f, "{verb} needs the field {key}="),
            BadRequest::Value { key, found, expected } => {
                write!(f, "{key}: found {found:?}, expected {expected}")
            }
            BadRequest::Slot { found } => write!(f, "slot {found:?} is not set up"),
            BadRequest::File { path, error } => write!(f, "{path}: {error}"),
            BadRequest::Length { path, found_bytes, expected_bytes } => {
                write!(f, "{path}: found {found_bytes} bytes, expected {expected_bytes}")
            }
        }
    }
}

impl<'a> Request<'a> {
    /// Takes a line apart.
    ///
    /// # Errors
    /// If a field has no `=`.
    pub(super) fn parse(line: &'a str) -> Result<Self, BadRequest> {
        let mut parts = line.trim_end_matches(['\r', '\n']).split('\t');
        let verb = parts.next().unwrap_or_default();
        let field =
            |part: &'a str| part.split_once('=').ok_or_else(|| BadRequest::Field { found: part.to_owned() });
        Ok(Self { verb, fields: parts.map(field).collect::<Result<_, _>>()? })
    }

    /// A field that may be absent; of several, the first.
    pub(super) fn optional(&self, key: &str) -> Option<&'a str> {
        self.fields.iter().find(|(name, _)| *name == key).map(|&(_, value)| value)
    }

    /// A field.
    ///
    /// # Errors
    /// If it is absent.
    pub(super) fn field(&self, key: &'static str) -> Result<&'a str, BadRequest> {
        self.optional(key).ok_or_else(|| BadRequest::Missing { verb: self.verb.to_owned(), key })
    }

    /// A field that is a number.
    ///
    /// # Errors
    /// If it is absent or no number.
    pub(super) fn number<T: FromStr>(&self, key: &'static str) -> Result<T, BadRequest> {
        let found = self.field(key)?;
        let wrong = |_| BadRequest::Value { key, found: found.to_owned(), expected: "a number".to_owned() };
        found.parse().map_err(wrong)
    }

    /// A field that names one of `all`.
    ///
    /// # Errors
    /// If it is absent or names none.
    pub(super) fn named<T: Copy>(
        &self,
        key: &'static str,
        all: &[T],
        name: fn(T) -> &'static str,
    ) -> Result<T, BadRequest> {
        let found = self.field(key)?;
        all.iter().copied().find(|&one| name(one) == found).ok_or_else(|| {
            let expected = all.iter().map(|&one| name(one)).collect::<Vec<_>>().join(", ");
            BadRequest::Value { key, found: found.to_owned(), expected: format!("one of {expected}") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_hold_spaces_and_signs() {
        let request = Request::parse("setup\tslot=a b\tspec=x=y.toml\tseconds=2e-2").unwrap();
        assert_eq!(
            (request.verb, request.field("slot"), request.field("spec")),
            ("setup", Ok("a b"), Ok("x=y.toml"))
        );
        assert_eq!(request.number::<f64>("seconds"), Ok(0.02));
        assert_eq!(request.optional("isa"), None);
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(
            Request::parse("run\tslot").unwrap_err().to_string(),
            "found the field \"slot\", expected key=value"
        );
        let request = Request::parse("run\tslot=1\tseconds=soon").unwrap();
        assert_eq!(request.field("path").unwrap_err().to_string(), "run needs the field path=");
        assert_eq!(
            request.number::<f64>("seconds").unwrap_err().to_string(),
            "seconds: found \"soon\", expected a number"
        );
        let named = request.named("slot", &[1, 2], |n| if n == 1 { "one" } else { "two" });
        assert_eq!(named.unwrap_err().to_string(), "slot: found \"1\", expected one of one, two");
    }
}
