//! Workloads as specs, as words for people, and as fields of requests to other implementations.

use std::fmt::Write;

use super::{Cache, Call, Latents, Mask, Precision, Prefix, Recurrence, Score, Workload};

impl Workload {
    /// The spec, as a user would write it.
    pub fn spec(&self, precision: Precision) -> String {
        let Self { name, heads, kv_heads, dim, .. } = self;
        let mut text = format!("name = \"{}\"\n", name.replace('-', "_"));
        let kv = if kv_heads == heads { String::new() } else { format!("kv = {kv_heads}, ") };
        // Writing to a string does not fail.
        let _ = match self.latents {
            None => writeln!(text, "heads = {{ query = {heads}, {kv}dim = {dim} }}"),
            Some(Latents { rank, nope, value }) => writeln!(
                text,
                "heads = {{ query = {heads} }}\nlatent = {{ rank = {rank}, nope_dim = {nope}, rope_dim = {}, value_dim = {value} }}",
                self.rope(),
            ),
        };
        if precision == Precision::Fast {
            text.push_str("precision = \"fast\"\n");
        }
        match self.score {
            Score::Plain => {}
            Score::Softcap(cap) => {
                let _ = writeln!(text, "score = {{ modify = \"softcap(s, {cap})\" }}");
            }
            Score::Alibi => text.push_str("score = { modify = \"s + alibi(h) * (k - q)\" }\n"),
        }
        match self.recurrence {
            None => {}
            Some(Recurrence::Sum) => text.push_str("recurrence = {}\n"),
            Some(Recurrence::GatedDelta) => {
                text.push_str("qk_norm = \"l2\"\nrecurrence = { update = \"delta\", decay = \"token\" }\n");
            }
        }
        let dtype = self.codec().map(|codec| format!("dtype = \"{}\"", codec.name()));
        let layout = match self.prefix() {
            Prefix::Shared(_) => Some("layout = \"paged\"".to_owned()),
            Prefix::Own | Prefix::Copied(_) => None,
        };
        let cache: Vec<_> = dtype.into_iter().chain(layout).collect();
        if !cache.is_empty() {
            let _ = writeln!(text, "cache = {{ {} }}", cache.join(", "));
        }
        match self.mask {
            Mask::None => {}
            Mask::Causal => text.push_str("mask = \"causal\"\n"),
            Mask::Window(keys) => {
                let _ = writeln!(text, "mask = \"causal & window({keys})\"");
            }
            Mask::Documents(_) => {
                text.push_str("inputs = { doc = \"i32[b, k]\" }\nmask = \"causal & same(doc)\"\n");
            }
        }
        text
    }

    /// In words, for a table.
    pub fn words(&self) -> String {
        let Self { heads, kv_heads, dim, tokens, .. } = self;
        let mask = match self.mask {
            Mask::None => "both directions".to_owned(),
            Mask::Causal => "causal".to_owned(),
            Mask::Window(keys) => format!("causal, window of {keys}"),
            Mask::Documents(lengths) => format!("causal, {} documents", lengths.len()),
        };
        let score = match self.score {
            Score::Plain => String::new(),
            Score::Softcap(cap) => format!(", softcap {cap}"),
            Score::Alibi => ", ALiBi".to_owned(),
        };
        let of = match heads {
            1 => "1 head".to_owned(),
            _ if kv_heads == heads => format!("{heads} heads"),
            _ => format!("{heads} heads over {kv_heads}"),
        };
        let dim = match self.latents {
            None => dim.to_string(),
            Some(Latents { rank, value, .. }) => {
                format!("{dim} and {value} over latents of {rank} + {}", self.rope())
            }
        };
        match self.call {
            Call::Prefill => {
                let recurrence = match self.recurrence {
                    None => "",
                    Some(Recurrence::Sum) => ", linear",
                    Some(Recurrence::GatedDelta) => ", gated delta rule",
                };
                format!("{of} of {dim}, {tokens} tokens, {mask}{score}{recurrence}")
            }
            Call::Decode { sequences, queries, prefix, cache } => {
                let each = if queries == 1 { "a query".to_owned() } else { format!("{queries} queries") };
                let each =
                    if sequences == 1 { each } else { format!("{each} of each of {sequences} sequences") };
                let bits = match cache {
                    Cache::Same => "",
                    Cache::Bits8 => " in 8 bits",
                    Cache::Bits4 => " in 4 bits",
                };
                let prefix = match prefix {
                    Prefix::Own => String::new(),
                    Prefix::Copied(common) => format!(", the first {common} the same, a copy for each"),
                    Prefix::Shared(common) => format!(", the first {common} shared"),
                };
                format!("{of} of {dim}, {each} on {tokens} cached keys{bits}{prefix}, {mask}{score}")
            }
        }
    }

    /// What another implementation is told of the problem, as fields of a request.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("heads", self.heads.to_string()),
            ("kv_heads", self.kv_heads.to_string()),
            ("dim", self.dim.to_string()),
            ("tokens", self.tokens.to_string()),
        ];
        if let Some(Latents { rank, nope, value }) = self.latents {
            let sizes = [("rank", rank), ("nope", nope), ("value", value)];
            fields.extend(sizes.map(|(name, size)| (name, size.to_string())));
        }
        if let Call::Decode { sequences, queries, cache, .. } = self.call {
            if queries == 1 {
                fields.push(("phase", "decode".to_owned()));
            } else {
                fields.push(("phase", "few".to_owned()));
                fields.push(("queries", queries.to_string()));
            }
            fields.push(("batch", sequences.to_string()));
            if self.common() > 0 {
                fields.push(("shared", self.common().to_string()));
            }
            match cache {
                Cache::Same => {}
                Cache::Bits8 => fields.push(("cache_bits", "8".to_owned())),
                Cache::Bits4 => fields.push(("cache_bits", "4".to_owned())),
            }
        }
        if self.mask != Mask::None {
            fields.push(("causal", "1".to_owned()));
        }
        match self.mask {
            Mask::Window(keys) => fields.push(("window", keys.to_string())),
            Mask::Documents(lengths) => {
                let lengths: Vec<_> = lengths.iter().map(u32::to_string).collect();
                fields.push(("documents", lengths.join(",")));
            }
            Mask::None | Mask::Causal => {}
        }
        match self.score {
            Score::Plain => {}
            Score::Softcap(cap) => fields.push(("softcap", cap.to_string())),
            Score::Alibi => fields.push(("alibi", "1".to_owned())),
        }
        match self.recurrence {
            None => {}
            Some(Recurrence::Sum) => fields.push(("recurrence", "sum".to_owned())),
            Some(Recurrence::GatedDelta) => fields.push(("recurrence", "gated-delta".to_owned())),
        }
        fields
    }
}
