//! Every kind of error and note, its stable code and the rule it belongs to.

use std::fmt;

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The spec cannot be used.
    Error,
    /// The spec means what it says; the author may not have meant it.
    Note,
}

/// What is known about a code, for documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeInfo {
    /// The code.
    pub code: Code,
    /// Whether it stops a spec from being used.
    pub severity: Severity,
    /// The part of the language whose rule it reports.
    pub rule: &'static str,
    /// What it says, in a line.
    pub description: &'static str,
}

macro_rules! codes {
    ($($code:ident $severity:ident $rule:literal $description:literal)*) => {
        /// The code of a kind of error or note. A code that is given up is never given to another kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $description] $code,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &[CodeInfo] = &[$(CodeInfo {
                code: Code::$code,
                severity: Severity::$severity,
                rule: $rule,
                description: $description,
            },)*];

            /// As it is written: `S014`.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$code => stringify!($code),)* }
            }
        }
    };
}

codes! {
    S001 Error "files" "A file cannot be read."
    S002 Error "files" "A file is not UTF-8."
    S003 Error "files" "A file is larger than 1 MiB."
    S004 Error "toml" "The file is not TOML."
    S005 Error "toml" "A key is given twice."
    S006 Error "tables" "A key is not of the language."
    S007 Error "tables" "A value is not one of those that its key can have."
    S008 Error "tables" "A value has the wrong type."
    S009 Error "tables" "A required key is missing."
    S010 Error "tables" "A number is out of its range."
    S011 Error "heads" "Head counts do not divide as grouping needs."
    S012 Error "tables" "A table or value of the language that is not supported yet."
    S013 Error "extends" "Specs extend each other in a cycle."
    S014 Error "names" "A name is not known."
    S015 Error "extends" "No spec of this name ships with the compiler."
    S016 Error "syntax" "A character or operator is not of the expression language."
    S017 Error "syntax" "An expression does not follow the grammar."
    S018 Error "syntax" "A number is malformed."
    S019 Error "types" "A number is outside its type."
    S020 Error "limits" "An expression is longer than 64 KiB."
    S021 Error "limits" "An expression is nested more than 128 deep."
    S022 Error "limits" "An expression has more than 10,000 nodes after expansion."
    S023 Error "limits" "An expression is nested more than 512 deep after expansion."
    S024 Error "names" "A function or definition is used with another number of arguments."
    S025 Error "names" "A name is used as what it is not."
    S026 Error "names" "A variable or input cannot be read here."
    S027 Error "define" "Definitions use each other in a cycle."
    S028 Error "define" "The head of a definition is malformed."
    S029 Error "names" "A name is already taken."
    S030 Error "types" "An operand has the wrong type."
    S031 Error "types" "An expression has the wrong type for its place."
    S032 Error "types" "The two sides of a choice have different types."
    S033 Error "types" "An int is provably outside 32 bits."
    S034 Error "types" "A divisor is always zero."
    S035 Error "inputs" "An input is read with another number of indices than it has axes."
    S036 Error "inputs" "An index provably leaves its axis."
    S037 Error "functions" "A function cannot take this argument."
    S038 Error "score" "The scale is not a finite number."
    S039 Error "inputs" "The declaration of an input is malformed."
    S040 Error "limits" "An input has more than six axes."
    S041 Error "limits" "A spec declares more than 256 inputs."
    S042 Error "limits" "More than 32 specs extend one another."
    S043 Error "tables" "A key has no meaning beside another."
    S044 Error "position" "The rotary channels do not fit a head."
    S045 Error "inputs" "A table names an input of another type or other axes than it reads."
    S046 Error "tables" "A name or summary is more than a line."
    S101 Note "score" "The modifier adds a term that grows with `k` alone."
    S102 Note "score" "The modifier jumps in `s`."
    S103 Note "define" "A definition replaces one of the prelude."
}

impl Code {
    /// What is known about it.
    pub fn info(self) -> &'static CodeInfo {
        &Self::ALL[self as usize]
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_finds_each_code() {
        for (i, info) in Code::ALL.iter().enumerate() {
            assert_eq!(info.code as usize, i);
            assert_eq!(info.code.info(), info);
        }
        assert!(Code::ALL.is_sorted_by(|a, b| a.code.name() < b.code.name()));
    }
}
