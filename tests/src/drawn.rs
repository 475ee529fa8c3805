//! Random specs with scores and weights, as text: a list of numbers decides, so that a failure shrinks.

use std::fmt::Write;

use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, contextualize_config};

/// One half of so many random cases, as two threads share them: the same ones on every run, the second half from the seed and one.
/// `PROPTEST_RNG_SEED` and `PROPTEST_CASES`, of a half, ask for others. Failures are kept in a file of the package's folder.
pub fn half_of(cases: u32, seed: u64, half: u64, failures: &'static str) -> Config {
    let config = contextualize_config(Config {
        cases: cases / 2,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    });
    let rng_seed = match config.rng_seed {
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed.wrapping_add(half)),
        RngSeed::Random => RngSeed::Random,
    };
    let kept = FileFailurePersistence::Direct(failures);
    Config { failure_persistence: Some(Box::new(kept)), rng_seed, ..config }
}

/// What a spec is drawn from. Without numbers left the first choice is taken, which is the plainest everywhere.
#[derive(Clone, Debug)]
pub struct Draws<'a>(std::slice::Iter<'a, u32>);

impl<'a> Draws<'a> {
    /// Draws that are these numbers.
    pub fn new(draws: &'a [u32]) -> Self {
        Self(draws.iter())
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        self.0.next().map_or(0, |&draw| draw % n)
    }

    /// One of some.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }

    /// Whether it is heads.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 1
    }
}

/// Which keys a drawn spec's queries see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Any, of their own sequence or of another.
    Any,
    /// Of their own sequence, and but for a few specs no later ones: sequences can grow.
    Back,
}

/// Declared tensors, and expressions that read them.
struct Writer<'d, 'a> {
    draws: &'d mut Draws<'a>,
    /// Width of q and k rows.
    dim: u32,
    cross: bool,
    inputs: Vec<&'static str>,
}

/// The text of a spec.
pub fn text(draws: &mut Draws<'_>, sight: Sight) -> String {
    let mut text = String::new();
    let cross = sight == Sight::Any && draws.below(4) == 3;
    if cross {
        text.push_str("source = \"cross\"\n");
    }
    let (dim, latent) =
        if draws.below(5) == 4 { (latent(draws, &mut text), true) } else { (heads(draws, &mut text), false) };
    let mut writer = Writer { draws, dim, cross, inputs: Vec::new() };
    let mask = match sight {
        Sight::Any => writer.mask(3),
        Sight::Back => writer.mask_back(),
    };
    let (score, position) = (writer.score(), writer.position());
    let qk_norm = if latent { String::new() } else { writer.qk_norm(!position.is_empty()) };
    let tables = [score, position, qk_norm, writer.weights_and_output()];
    let _ = writeln!(text, "mask = \"{mask}\"");
    writer.inputs.sort_unstable();
    writer.inputs.dedup();
    if !writer.inputs.is_empty() {
        let _ = writeln!(text, "inputs = {{ {} }}", writer.inputs.join(", "));
    }
    text.extend(tables);
    text
}

/// Writes head counts and widths, and gives the width of q and k rows.
fn heads(draws: &mut Draws<'_>, text: &mut String) -> u32 {
    let value = draws.pick(&[1, 2, 3, 1]);
    let kv = value * draws.pick(&[1, 2, 3]);
    let query = kv * draws.pick(&[1, 2, 3, 5, 7]);
    let dim = draws.pick(&[8, 2, 4, 6, 10, 12, 16, 20, 24, 34, 40, 72]);
    // Narrower outputs can cancel in all their channels at once, and then no f32 sum meets a relative bound.
    let value_dim = draws.pick(&[8, 5, 6, 7, 9, 13, 16, 17, 24, 33, 40]);
    let _ = writeln!(
        text,
        "heads = {{ query = {query}, kv = {kv}, value = {value}, dim = {dim}, value_dim = {value_dim} }}"
    );
    dim
}

/// Writes head counts and the widths of latents, and gives the width of rotary rows.
fn latent(draws: &mut Draws<'_>, text: &mut String) -> u32 {
    let query = draws.pick(&[2, 1, 3, 5, 8]);
    let rank = draws.pick(&[16, 8, 10, 24, 33, 40, 72, 96]);
    let nope = draws.pick(&[8, 1, 5, 12, 17, 40]);
    let rope = draws.pick(&[8, 2, 4, 6, 16, 24]);
    let value = draws.pick(&[8, 5, 7, 13, 16, 33]);
    let form = draws.pick(&["auto", "expanded", "absorbed"]);
    let _ = writeln!(
        text,
        "heads = {{ query = {query} }}\nlatent = {{ rank = {rank}, nope_dim = {nope}, rope_dim = {rope}, value_dim = {value}, \
         form = \"{form}\" }}"
    );
    rope
}

impl Writer<'_, '_> {
    fn mask_back(&mut self) -> String {
        let (window, first) = (self.draws.pick(&[40, 1, 17, 64, 100, 300]), self.draws.pick(&[4, 1, 20]));
        let narrowed = match self.draws.below(8) {
            0..=2 => "causal".to_owned(),
            3 | 4 => format!("causal & window({window})"),
            5 | 6 => format!("causal & (window({window}) | first({first}))"),
            _ => return self.mask(3),
        };
        format!("{narrowed} & ({})", self.mask(2))
    }

    fn mask(&mut self, depth: u32) -> String {
        if depth > 0 {
            let side = |writer: &mut Self| writer.mask(depth - 1);
            match self.draws.below(8) {
                1 => return format!("({} & {})", side(self), side(self)),
                2 => return format!("({} | {})", side(self), side(self)),
                3 => return format!("!({})", side(self)),
                4 => {
                    let test = side(self);
                    return format!("(if {test} then {} else {})", side(self), side(self));
                }
                _ => {}
            }
        }
        let n = self.draws.pick(&[4, 1, 2, 7, 9, 20]);
        match self.draws.below(if self.cross { 12 } else { 13 }) {
            0 => "causal".to_owned(),
            1 => "all".to_owned(),
            2 => format!("window({n})"),
            3 => format!("first({n})"),
            4 => format!("chunk({n})"),
            5 => format!("dilated(3, {n})"),
            6 => format!("band({n}, 2)"),
            7 => format!("(q - k) % {n} < 2"),
            8 => "h % 2 == 0".to_owned(),
            9 => format!("k < {}[b]", self.input("len", "len = \"i32[b]\"")),
            10 => {
                let blocks = self.input("blocks", "blocks = \"bool[h, 64]\"");
                format!("{blocks}[h, (abs(q) // 4 * 8 + k // 4) % 64]")
            }
            11 => format!("{}[g, k]", self.input("seen", "seen = \"bool[g, k]\"")),
            _ => format!("same({})", self.input("doc", "doc = \"i32[b, k]\"")),
        }
    }

    fn score(&mut self) -> String {
        let scale = self.draws.pick(&["", "scale = 0.3, ", "scale = \"2 / dim\", "]);
        let modify = match self.draws.below(10) {
            0 => "s".to_owned(),
            1 => "softcap(s, 4)".to_owned(),
            2 => "s + alibi(h) * (k - q)".to_owned(),
            3 => format!("s + {}[h]", self.input("bias", "bias = \"f32[h]\"")),
            4 => {
                let table = self.input("table", "table = \"f32[h, 16]\"");
                format!("s + {table}[h, t5_bucket(k - q, 16, 30, true)]")
            }
            5 => format!("0.5 * s + {}[b, k]", self.input("shift", "shift = \"f32[b, k]\"")),
            6 => "if k == q then s + 1 else s".to_owned(),
            7 => "min(s, 1.5) - 0.02 * abs(k - q)".to_owned(),
            8 => "s / (1 + exp(-s))".to_owned(),
            _ => "tanh(s) + sin(0.1 * k)".to_owned(),
        };
        if scale.is_empty() && modify == "s" {
            return String::new();
        }
        format!("score = {{ {scale}modify = \"{modify}\" }}\n")
    }

    fn position(&mut self) -> String {
        if self.draws.below(2) == 0 {
            return String::new();
        }
        let dim = self.dim;
        let layout = self.draws.pick(&["", ", layout = \"interleaved\""]);
        let width = self.draws.pick(&[dim, 2, dim / 2 / 2 * 2]).max(2);
        let offset = self.draws.pick(&[0, dim - width, (dim - width) / 2]);
        let rows = format!("dim = {width}{layout}, offset = {offset}");
        let mut table = match self.draws.below(6) {
            0 => format!("rope = {{ theta = 10000, {rows} }}"),
            1 => format!("rope = {{ theta = 500, {rows} }}, scaling = {{ kind = \"linear\", factor = 2.5 }}"),
            2 => format!(
                "rope = {{ theta = 500, {rows} }}, scaling = {{ kind = \"llama3\", factor = 8, low_freq_factor = 1, \
                 high_freq_factor = 4, original_max_position_embeddings = 32 }}"
            ),
            3 => format!(
                "rope = {{ theta = 10000, {rows} }}, scaling = {{ kind = \"yarn\", factor = 4, \
                 original_max_position_embeddings = 64 }}"
            ),
            4 => format!(
                "rope = {{ theta = 150, {rows} }}, scaling = {{ kind = \"yarn\", factor = 2, truncate = false, \
                 original_max_position_embeddings = 640 }}"
            ),
            _ => match width {
                2 => format!("rope = {{ freqs = \"{}\", {rows} }}", self.input("f1", "f1 = \"f32[1]\"")),
                4 => format!("rope = {{ freqs = \"{}\", {rows} }}", self.input("f2", "f2 = \"f32[2]\"")),
                _ => format!("rope = {{ theta = 2, {rows} }}"),
            },
        };
        if !self.cross && self.draws.below(3) == 2 {
            let _ = write!(table, ", ids = \"{}\"", self.input("at", "at = \"i32[b, k]\""));
        }
        format!("position = {{ {table} }}\n")
    }

    fn qk_norm(&mut self, turned: bool) -> String {
        if self.draws.below(2) == 0 {
            return String::new();
        }
        let kind = self.draws.pick(&["rms", "l2"]);
        let after_rope = if turned { ", after_rope = true" } else { "" };
        let rest = [", learned = true", ", axis = \"all\"", ", eps = 0.01", after_rope];
        let rest: String = rest.into_iter().filter(|_| self.draws.coin()).collect();
        format!("qk_norm = {{ kind = \"{kind}\"{rest} }}\n")
    }

    fn weights_and_output(&mut self) -> String {
        let (weights, has_lse) = match self.draws.below(8) {
            0 | 1 => ("", true),
            2 => ("weights = { sink = \"one\" }\n", true),
            3 => ("weights = { sink = \"learned\" }\n", true),
            4 => ("weights = { kind = \"sigmoid\" }\n", false),
            5 => ("weights = { kind = \"sigmoid\", bias = \"-log(nk + 1)\" }\n", false),
            6 => ("weights = { kind = \"relu\", bias = 0.5 }\n", false),
            _ => ("weights = { kind = \"relu\" }\n", false),
        };
        let mut output = Vec::new();
        if has_lse && self.draws.coin() {
            output.push("lse = true");
        }
        output.push(self.draws.pick(&["", "", "mix = \"learned\"", "mix = 2", "mix = 7"]));
        output.push(self.draws.pick(&["", "", "norm = \"rms\"", "norm = \"rms\", norm_learned = false"]));
        output.push(self.draws.pick(&[
            "",
            "",
            "gate = \"elementwise\"",
            "gate = \"head\"",
            "gate = \"elementwise\", gate_act = \"silu\"",
            "gate = \"head\", gate_act = \"silu\"",
        ]));
        output.retain(|part| !part.is_empty());
        let output =
            if output.is_empty() { String::new() } else { format!("output = {{ {} }}\n", output.join(", ")) };
        format!("{weights}{output}")
    }

    /// Declares a tensor and gives its name.
    fn input(&mut self, name: &'static str, declaration: &'static str) -> &'static str {
        self.inputs.push(declaration);
        name
    }
}
