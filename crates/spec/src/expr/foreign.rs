//! What other languages write, and what is written here.

/// Symbols, which mean nothing here.
pub(super) const SYMBOLS: [(&str, &str); 10] = [
    ("&&", "&"),
    ("||", "|"),
    ("**", "^"),
    ("=", "=="),
    ("<>", "!="),
    ("~", "!"),
    ("≤", "<="),
    ("≥", ">="),
    ("≠", "!="),
    ("?", "if … then … else …"),
];

/// Words between operands or before one. A spec may use them as names, so they are explained where that is no help.
const OPERATORS: [(&str, &str); 4] = [("and", "&"), ("or", "|"), ("not", "!"), ("mod", "%")];

/// Names, which a spec may define; positions and score are named as by users of FlexAttention.
const NAMES: [(&str, &str); 11] = [
    ("True", "true"),
    ("False", "false"),
    ("q_idx", "q"),
    ("kv_idx", "k"),
    ("score", "s"),
    ("where", "select(cond, a, b)"),
    ("pow", "a ^ b"),
    ("ln", "log(x)"),
    ("exp10", "10 ^ x"),
    ("round", "floor(x + 0.5)"),
    ("trunc", "int(x)"),
];

/// What is written here for an operator that is a word elsewhere.
pub(super) fn operator(word: &str) -> Option<&'static str> {
    OPERATORS.iter().find(|(other, _)| *other == word).map(|&(_, ours)| ours)
}

/// What is written here for a name of other languages.
pub(super) fn name(word: &str) -> Option<&'static str> {
    NAMES.iter().find(|(other, _)| *other == word).map(|&(_, ours)| ours)
}
