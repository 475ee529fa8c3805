//! A language model of which three layers in four are recurrent and one is softmax attention, as Qwen3-Next and Kimi Linear mix them.
//!
//! Its loop knows no mechanism: each layer has a kernel and a cache, and both kinds of cache are opened, extended, cut and forked by
//! the same calls. What a recurrent layer keeps does not grow with the text. Weights are random: it says nothing, but as fast and as
//! exactly as if it did.

use std::error::Error;

use regard::{
    Cache, CacheError, CacheLimits, InputData, Inputs, Kernel, MAX_FEW, NoFiles, Outputs, Pool, SequenceId,
    Step, Threads, View, ViewMut, Workspace, machine, parse,
};

use crate::linear::{Linear, normalise};

/// Channels of a token between layers.
const WIDTH: usize = 128;

/// Different tokens.
pub const TOKENS: usize = 256;

/// Softmax attention, every fourth layer.
const SOFTMAX: &str = "
heads    = { query = 8, kv = 2, dim = 32 }
position = { rope = { theta = 10_000 } }
mask     = 'causal'
";

/// A gated delta rule, all others.
const DELTA: &str = "
heads      = { query = 4, value = 8, dim = 32 }
qk_norm    = 'l2'
mask       = 'causal'
recurrence = { update = 'delta', decay = 'token' }
";

/// The model, and what it remembers of the texts that it is given.
pub struct Model {
    embedding: Linear,
    layers: Vec<Layer>,
    pool: Pool,
}

/// A text in each layer's cache.
#[derive(Clone, Debug)]
pub struct Text(Vec<SequenceId>);

/// What makes a number that a spec declares of a sum.
type Factor = fn(f32) -> f32;

struct Layer {
    kernel: Kernel,
    cache: Cache,
    step: Step,
    q: Linear,
    k: Linear,
    v: Linear,
    /// Inputs that a spec declares of each token and value head: of a recurrence its decays, which are logs, and how strongly it writes.
    inputs: Vec<(Linear, Factor)>,
    o: Linear,
}

impl Model {
    /// A model of so many layers, with room for texts of so many tokens, of whose last `drafts` all but one can be taken back.
    ///
    /// # Errors
    /// If memory is short.
    pub fn new(
        layers: usize,
        (texts, tokens): (usize, usize),
        drafts: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let mut seed = 7;
        let limits = CacheLimits { at_once: drafts, ..CacheLimits::new(texts, tokens) };
        let pool = Pool::new(2)?;
        let layers = (1..=layers).map(|n| {
            let text = if n.is_multiple_of(4) { SOFTMAX } else { DELTA };
            Layer::new(text, limits, pool.count(), &mut seed)
        });
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            embedding: Linear::random(WIDTH, TOKENS, &mut seed),
            pool,
        })
    }

    /// Opens a text without tokens.
    ///
    /// # Errors
    /// If there are as many as there is room for.
    pub fn open(&mut self) -> Result<Text, Box<dyn Error>> {
        let open = self.layers.iter_mut().map(|layer| layer.cache.open());
        Ok(Text(open.collect::<Result<_, _>>()?))
    }

    /// Opens a text that begins with all of another: a prompt that several answers share, or a state to come back to.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn fork(&mut self, text: &Text) -> Result<Text, Box<dyn Error>> {
        let forks = self.layers.iter_mut().zip(&text.0).map(|(layer, &sequence)| layer.cache.fork(sequence));
        Ok(Text(forks.collect::<Result<_, _>>()?))
    }

    /// Takes the last tokens of a text back, so that so many are left.
    ///
    /// # Errors
    /// If more than the last call's drafts are to go.
    pub fn truncate(&mut self, text: &Text, tokens: usize) -> Result<(), CacheError> {
        self.layers
            .iter_mut()
            .zip(&text.0)
            .try_for_each(|(layer, &sequence)| layer.cache.truncate(sequence, tokens))
    }

    /// Bytes that each layer's cache takes.
    pub fn cache_bytes(&self) -> Vec<usize> {
        self.layers.iter().map(|layer| layer.cache.bytes()).collect()
    }

    /// Reads tokens, however many, and gives for each of them how likely which token is to follow, `[token][next]`.
    ///
    /// # Errors
    /// If the text becomes longer than there is room for.
    pub fn read(&mut self, text: &Text, tokens: &[usize]) -> Result<Vec<f32>, Box<dyn Error>> {
        let mut hidden: Vec<f32> =
            tokens.iter().flat_map(|&token| self.embedding.row(token)).copied().collect();
        for (layer, &sequence) in self.layers.iter_mut().zip(&text.0) {
            let attended = layer.attend(sequence, &normalise(&hidden, WIDTH), &self.pool)?;
            hidden.iter_mut().zip(attended).for_each(|(to, x)| *to += x);
        }
        Ok(self.embedding.apply(&normalise(&hidden, WIDTH)))
    }
}

impl Layer {
    fn new(spec: &str, limits: CacheLimits, threads: usize, seed: &mut u64) -> Result<Self, Box<dyn Error>> {
        let spec = parse(spec, "layer", &NoFiles)?.spec;
        let kernel = Kernel::compile(&spec, &machine::host())?;
        let cache = kernel.cache(limits)?;
        let step = kernel.step(&cache, MAX_FEW as usize, threads)?;
        let heads = &spec.heads;
        let [query, key, value] =
            [(heads.query, heads.dim), (heads.kv, heads.dim), (heads.value, heads.value_dim)]
                .map(|(heads, width)| (heads * width) as usize);
        let out = (heads.query.max(heads.value) * heads.value_dim) as usize;
        let inputs = spec.inputs.names.iter().map(|name| {
            let make: fn(f32) -> f32 =
                if name == "decay" { |x| -0.1 * x.exp().ln_1p() } else { |x| 1.0 / (1.0 + (-x).exp()) };
            (Linear::random(WIDTH, heads.value as usize, seed), make)
        });
        Ok(Self {
            inputs: inputs.collect(),
            q: Linear::random(WIDTH, query, seed),
            k: Linear::random(WIDTH, key, seed),
            v: Linear::random(WIDTH, value, seed),
            o: Linear::random(out, WIDTH, seed),
            kernel,
            cache,
            step,
        })
    }

    /// Attends tokens to all of their sequence, themselves included, which the cache has from then on.
    fn attend(&mut self, sequence: SequenceId, x: &[f32], pool: &Pool) -> Result<Vec<f32>, Box<dyn Error>> {
        let tokens = x.len() / WIDTH;
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|linear| linear.apply(x));
        // What a spec declares lies head by head.
        let declared: Vec<Vec<f32>> =
            self.inputs.iter().map(|(linear, make)| turned(&linear.apply(x), tokens, *make)).collect();
        let captured: Vec<InputData<'_>> = declared.iter().map(|data| InputData::F32(data)).collect();

        let heads = self.kernel.spec().heads;
        let out_heads = heads.query.max(heads.value) as usize;
        let mut o = vec![0.0; tokens * out_heads * heads.value_dim as usize];
        let inputs = Inputs::new(
            rows(&q, heads.query, heads.dim, tokens)?,
            rows(&k, heads.kv, heads.dim, tokens)?,
            rows(&v, heads.value, heads.value_dim, tokens)?,
        )
        .captured(&captured);
        let width = heads.value_dim as usize;
        let strides = [0, width, out_heads * width];
        let outputs = Outputs { o: ViewMut::new(&mut o, [1, out_heads, tokens], strides, width)?, lse: None };

        let Self { kernel, cache, step, .. } = self;
        if tokens <= MAX_FEW as usize {
            kernel.decode_next(step, pool, (cache, &[sequence]), inputs, outputs)?;
        } else {
            let schedule = kernel.schedule_next(cache, sequence, tokens, &captured, pool.count())?;
            let workspace = &mut Workspace::new(&schedule);
            kernel.prefill_next(&schedule, pool, (cache, sequence), inputs, outputs, workspace)?;
        }
        Ok(self.o.apply(&o))
    }
}

/// Rows of tokens as kernels see them: head by head, where they lie.
fn rows(data: &[f32], heads: u32, width: u32, tokens: usize) -> Result<View<'_>, regard::ViewError> {
    let [heads, width] = [heads, width].map(|n| n as usize);
    View::new(data, [1, heads, tokens], [0, width, heads * width], width)
}

/// `[token][head]` numbers as `[head][token]`, each made of the one that it was.
fn turned(data: &[f32], tokens: usize, make: Factor) -> Vec<f32> {
    let heads = data.len().checked_div(tokens).unwrap_or(0);
    (0..heads).flat_map(|head| data.iter().skip(head).step_by(heads).map(|&x| make(x))).collect()
}
