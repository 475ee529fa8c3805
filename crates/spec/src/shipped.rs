//! The specs that ship with the compiler, so that they can be named without a file.

/// A spec that ships with the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Its name: the path under `specs/`, without ending.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// The shipped spec of this name.
pub fn find(name: &str) -> Option<&'static Shipped> {
    ALL.iter().find(|shipped| shipped.name == name)
}

macro_rules! shipped {
    ($($name:literal)*) => {
        /// Every shipped spec, by name.
        pub const ALL: &[Shipped] = &[$(
            Shipped { name: $name, text: include_str!(concat!("../../../specs/", $name, ".toml")) },
        )*];
    };
}

shipped! {
    "alibi"
    "attention_sink"
    "causal"
    "chunked"
    "cross"
    "dilated"
    "document"
    "gated"
    "global"
    "gqa"
    "mha"
    "minilm"
    "mqa"
    "off_by_one"
    "output_norm"
    "prefix_lm"
    "qk_norm"
    "relu"
    "rope"
    "self_attention"
    "sigmoid"
    "sliding_window"
    "softcap_bias"
    "talking_output"
    "value_heads"
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_spec_ships_under_its_own_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs");
        let mut files: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_string())
            .collect();
        files.sort();
        let names: Vec<&str> = ALL.iter().map(|shipped| shipped.name).collect();
        assert_eq!(names, files);
        for shipped in ALL {
            let spec = crate::shipped(shipped.name).unwrap_or_else(|errors| panic!("{errors}")).spec;
            assert_eq!(spec.name, shipped.name);
            assert!(!spec.summary.is_empty(), "{} has no summary", shipped.name);
        }
    }
}
