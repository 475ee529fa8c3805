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
    "castle"
    "castle_window"
    "causal"
    "chunked"
    "cross"
    "deltanet"
    "dilated"
    "document"
    "gated"
    "gated_deltanet"
    "gla"
    "global"
    "gqa"
    "iha"
    "iha_global"
    "iha_window"
    "kda"
    "lightning"
    "linear_attention"
    "linear_attention_cross"
    "linear_attention_global"
    "linear_relu"
    "linear_squared_relu"
    "mamba2"
    "mha"
    "minilm"
    "mla"
    "models/bert"
    "models/bigbird"
    "models/bloom"
    "models/deepseek_v2_lite"
    "models/deepseek_v3"
    "models/differential"
    "models/falcon"
    "models/gemma2_global"
    "models/gemma2_local"
    "models/gemma3_global"
    "models/gemma3_local"
    "models/gpt2"
    "models/gpt_oss_full"
    "models/gpt_oss_local"
    "models/llama3"
    "models/llama3_1"
    "models/llama4_chunked"
    "models/llama4_global"
    "models/longformer"
    "models/mistral"
    "models/mixtral"
    "models/modernbert_global"
    "models/modernbert_local"
    "models/mpt"
    "models/olmo2"
    "models/packed_documents"
    "models/phi3"
    "models/phi3_128k"
    "models/pythia"
    "models/qwen3"
    "models/sigmoid_attention"
    "models/streaming_llm"
    "models/t5_decoder"
    "models/t5_encoder"
    "models/tree_mask"
    "models/vit"
    "models/whisper_cross"
    "models/whisper_decoder"
    "models/whisper_encoder"
    "mqa"
    "off_by_one"
    "output_norm"
    "prefix_lm"
    "qk_norm"
    "relu"
    "retnet"
    "rope"
    "rwkv6"
    "self_attention"
    "sigmoid"
    "simple_gla"
    "sliding_window"
    "softcap"
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
        let mut files: Vec<String> = ["", "models/"].into_iter().flat_map(stems).collect();
        files.sort();
        let names: Vec<&str> = ALL.iter().map(|shipped| shipped.name).collect();
        assert_eq!(names, files);
        for shipped in ALL {
            let spec = crate::shipped(shipped.name).unwrap_or_else(|errors| panic!("{errors}")).spec;
            assert_eq!(spec.name, shipped.name.trim_start_matches("models/"));
            assert!(!spec.summary.is_empty(), "{} has no summary", shipped.name);
        }
    }

    /// What a folder of specs holds, as specs of it are named.
    fn stems(folder: &str) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs").join(folder);
        let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
            .map(|path| format!("{folder}{}", path.file_stem().unwrap().to_str().unwrap()))
            .collect()
    }
}
