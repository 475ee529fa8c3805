//! The keys at the top of a spec.

use regard_ir::plan::Dtype;

use super::key::{Absent, Key, Takes};

/// Every top-level key.
pub(crate) const KEYS: [Key; 21] = [
    Key::new(
        "name",
        Takes::Words("a line"),
        Absent::Words("the file's name without its ending"),
        "what the variant is called; not taken from a parent",
    ),
    Key::new("summary", Takes::Words("a line"), Absent::Words("none"), "the variant in a line; likewise"),
    Key::new(
        "extends",
        Takes::Words("a file (`\"base.toml\"`) or the name of a spec that ships (`\"causal\"`)"),
        Absent::Words("none"),
        "the spec to start from: a top-level key that is given here replaces the parent's whole",
    ),
    Key::new(
        "heads",
        TABLE,
        Absent::Required,
        "how many heads there are, how wide, and which share keys and values",
    ),
    Key::new(
        "source",
        Takes::OneOf(&SOURCES),
        Absent::Value("\"self\""),
        "whose keys and values are read: of the queries' own sequence, or of another",
    ),
    Key::new("position", TABLE, Absent::Words("no rotation"), "how positions turn the rows of q and k"),
    Key::new(
        "qk_norm",
        Takes::Words("a table, or its `kind`"),
        Absent::Words("no norm"),
        "how the rows of q and k are normalised",
    ),
    Key::new("score", TABLE, Absent::Words("its defaults"), "how scores are scaled and modified"),
    Key::new(
        "mask",
        Takes::Words("a table, or its `allow`"),
        Absent::Value("\"all\""),
        "which keys a query may attend to",
    ),
    Key::new(
        "weights",
        Takes::Words("a table, or its `kind`"),
        Absent::Value("\"softmax\""),
        "how scores become weights",
    ),
    Key::new(
        "recurrence",
        TABLE,
        Absent::Words("none"),
        "a running state in place of scores and weights: linear attention",
    ),
    Key::new("latent", TABLE, Absent::Words("none"), "keys and values compressed to one vector a token: MLA"),
    Key::new("lookahead", TABLE, Absent::Words("none"), "keys that go on learning from later tokens: CASTLE"),
    Key::new("pseudo", TABLE, Absent::Words("none"), "heads mixed into interleaved pseudo-heads: IHA"),
    Key::new("output", TABLE, Absent::Words("its defaults"), "what is done to the weighted sum"),
    Key::new(
        "project",
        Takes::Unsupported,
        Absent::Words("none"),
        "the layer around the attention: weight matrices before and after",
    ),
    Key::new(
        "cache",
        Takes::Words("a table, or its `layout`"),
        Absent::Words("its defaults"),
        "how keys and values are kept between decoding steps",
    ),
    Key::new(
        "inputs",
        Takes::Words("a table of declarations"),
        Absent::Words("none"),
        "tensors that expressions read, by name",
    ),
    Key::new(
        "define",
        Takes::Words("a table of definitions"),
        Absent::Words("the prelude alone"),
        "expressions by name, beside those of the prelude",
    ),
    Key::new(
        "dtype",
        Takes::OneOf(&DTYPES),
        Absent::Value("\"f32\""),
        "how q, k, v and o are stored; sums are f32",
    ),
    Key::new(
        "precision",
        Takes::OneOf(&PRECISIONS),
        Absent::Value("\"exact\""),
        "whether f32 products may be made of bf16 pieces",
    ),
];

const TABLE: Takes = Takes::Words("a table");
pub(super) const SOURCES: [&str; 2] = ["self", "cross"];
/// In the order of [`Dtype::ALL`].
pub(super) const DTYPES: [&str; 3] = [Dtype::F32.name(), Dtype::F16.name(), Dtype::Bf16.name()];
pub(super) const PRECISIONS: [&str; 2] = ["exact", "fast"];
