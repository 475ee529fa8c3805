//! A variant as kernels see it: what a spec says, borrowed and without names.

use crate::expr::{MAX_AXES, Node, Op, Tree, Var};
use crate::identity::Identity;
use crate::problem::Sequence;
use crate::rows::{Output, Position, QkNorm};

/// How many heads there are, how wide, and who shares keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Heads {
    /// Query heads, at least 1.
    pub query: u32,
    /// Key heads; divides `query`. Query head `h` reads key head `h / (query / kv)`.
    pub kv: u32,
    /// Value heads; divides `kv`. Key head `g` reads value head `g / (kv / value)`. Of a recurrence a multiple of `kv`: each has
    /// a state of its own, and value head `v` reads query and key head `v / (value / kv)`.
    pub value: u32,
    /// Width of a query or key row.
    pub dim: u32,
    /// Width of a value or output row.
    pub value_dim: u32,
}

impl Heads {
    /// Query heads per key head: those that share one pass over its keys.
    pub const fn group(&self) -> u32 {
        self.query / self.kv
    }
}

/// Whose keys and values the queries attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Source {
    /// Their own sequence: the queries are its last positions unless the caller says otherwise.
    SelfAttention,
    /// Another sequence.
    Cross,
}

/// How scores become weights.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Weights {
    /// exp(s) / (Σ exp(s) + sink).
    Softmax {
        /// What joins the sum without a value.
        sink: Sink,
    },
    /// sigmoid(s + bias), not divided. The bias is part of the modifier that kernels see.
    Sigmoid,
    /// max(s + bias, 0), not divided.
    Relu,
}

/// The term that joins a softmax's sum without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Sink {
    /// Nothing.
    None,
    /// exp(sink[h]): a captured f32 input has the logit of each query head.
    Learned {
        /// Which input.
        input: u16,
    },
    /// exp(0).
    One,
}

/// What turns q, k and v into o.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mechanism<'a> {
    /// Scores of q and k, weights of v.
    Plain,
    /// Keys and values compressed to a latent vector: MLA.
    Latent(Latent),
    /// Keys that keep learning from later tokens: CASTLE.
    Lookahead(Lookahead<'a>),
    /// Heads mixed and interleaved into pseudo-heads: IHA.
    Pseudo(Pseudo),
    /// A running state in place of scores and weights: linear attention.
    Recurrence(Recurrence),
}

/// A state of each value head, `[dim, value_dim]`, that tokens write and queries read.
///
/// S_t = A_t S_{t−1} + write_t, o_t = S_tᵀ (scale · φ(q_t)): a query reads what its own token has written. The feature map φ
/// is [`Variant::modify`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recurrence {
    /// Outputs are divided by the running sum of features, with this added to it; no scale then.
    pub normalize_eps: Option<f64>,
    /// What the state forgets before each write.
    pub decay: Decay,
    /// Where a write first removes what its key recalls: the captured f32 input of its strength, `[batch, value heads, tokens]`.
    pub delta: Option<u16>,
    /// Whether a query reads what tokens up to its own have written; else what all have.
    pub causal: bool,
    /// The captured input, `[batch, tokens]`, whose change from one token to the next restarts the state.
    pub restart: Option<u16>,
}

/// What a state forgets before each write: the natural logs of what it is multiplied by, none above 0, in a captured f32 input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Nothing.
    None,
    /// A constant of each head, `[value heads]`.
    Head(u16),
    /// A factor of each token, `[batch, value heads, tokens]`.
    Token(u16),
    /// A factor of each token and key channel, `[batch, value heads, tokens, dim]`.
    Channel(u16),
}

impl Decay {
    /// As it is written in specs.
    pub const fn name(self) -> &'static str {
        match self {
            Decay::None => "none",
            Decay::Head(_) => "head",
            Decay::Token(_) => "token",
            Decay::Channel(_) => "channel",
        }
    }

    /// The captured input.
    pub const fn input(self) -> Option<u16> {
        match self {
            Decay::None => None,
            Decay::Head(input) | Decay::Token(input) | Decay::Channel(input) => Some(input),
        }
    }
}

/// Keys and values compressed to a latent vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latent {
    /// Width of the latent vector.
    pub rank: u32,
    /// Width of q and k without position.
    pub nope_dim: u32,
    /// Width of the rotary part.
    pub rope_dim: u32,
    /// Width of a value row.
    pub value_dim: u32,
    /// Which form, or by cost.
    pub form: LatentForm,
}

/// Whether a latent is expanded to keys and values, or queries are brought to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatentForm {
    /// By cost.
    Auto,
    /// Keys and values are formed.
    Expanded,
    /// Queries are brought to the latent.
    Absorbed,
}

impl Latent {
    /// Heads of the expanded form: each query head has keys and values of its own.
    pub const fn expanded_heads(&self, query: u32) -> Heads {
        let dim = self.nope_dim + self.rope_dim;
        Heads { query, kv: query, value: query, dim, value_dim: self.value_dim }
    }

    /// Heads of the absorbed form: all query heads share the latents with their rotary keys, and of these the latents as values.
    pub const fn absorbed_heads(&self, query: u32) -> Heads {
        Heads { query, kv: 1, value: 1, dim: self.rank + self.rope_dim, value_dim: self.rank }
    }
}

impl LatentForm {
    /// Every form.
    pub const ALL: [LatentForm; 3] = [LatentForm::Auto, LatentForm::Expanded, LatentForm::Absorbed];

    /// As it is written in specs.
    pub const fn name(self) -> &'static str {
        match self {
            LatentForm::Auto => "auto",
            LatentForm::Expanded => "expanded",
            LatentForm::Absorbed => "absorbed",
        }
    }
}

/// Keys that keep learning from later tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lookahead<'a> {
    /// How many tokens a key keeps learning from; all later ones where absent.
    pub window: Option<u32>,
    /// Which tensors rope turns, a bit for each of [`Turned`].
    pub rotate: u8,
    /// Whether token `q` teaches key `k`, a bool: never where `q` is not later, or past the window.
    pub allow: Tree<'a>,
}

impl Lookahead<'_> {
    /// Whether rope turns a tensor.
    pub const fn turns(&self, tensor: Turned) -> bool {
        self.rotate & tensor.bit() != 0
    }
}

/// The tensors of lookahead keys that rope can turn: all but the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// Queries of keys as they are.
    QC,
    /// Keys as they are.
    KC,
    /// What a key asks of later tokens.
    QU,
    /// What a later token is asked by.
    KU,
    /// What a key learns from it.
    VU,
}

impl Turned {
    /// Every tensor.
    pub const ALL: [Turned; 5] = [Turned::QC, Turned::KC, Turned::QU, Turned::KU, Turned::VU];

    /// As it is called at the boundary and in specs.
    pub const fn name(self) -> &'static str {
        match self {
            Turned::QC => "q_c",
            Turned::KC => "k_c",
            Turned::QU => "q_u",
            Turned::KU => "k_u",
            Turned::VU => "v_u",
        }
    }

    /// Its bit in [`Lookahead::rotate`].
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Heads mixed and interleaved into pseudo-heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pseudo {
    /// Pseudo-heads of a head.
    pub heads: u32,
    /// Causality by token instead of by virtual position.
    pub causal_by_token: bool,
    /// Windows in tokens instead of virtual positions.
    pub window_in_tokens: bool,
    /// The captured f32 inputs `mix_q`, `mix_k` and `mix_v`: of each source head, head and pseudo-head, what the source's
    /// row is multiplied by.
    pub mix: [u16; 3],
    /// The captured f32 input `collapse`, `[heads, heads · pseudo-heads]`: what each pseudo-head's row adds to an output.
    pub collapse: u16,
    /// What a cache keeps of a token, or by cost.
    pub form: PseudoForm,
}

/// Whether a cache keeps what pseudo-heads are mixed from, or their rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PseudoForm {
    /// By cost.
    Auto,
    /// The rows of all pseudo-heads: mixed, normed and turned when they are appended.
    Expanded,
    /// Keys and values as they were given, which are mixed whenever they are read.
    Compact,
}

impl PseudoForm {
    /// Every form.
    pub const ALL: [PseudoForm; 3] = [PseudoForm::Auto, PseudoForm::Expanded, PseudoForm::Compact];

    /// As it is written in specs.
    pub const fn name(self) -> &'static str {
        match self {
            PseudoForm::Auto => "auto",
            PseudoForm::Expanded => "expanded",
            PseudoForm::Compact => "compact",
        }
    }
}

impl Pseudo {
    /// The heads that scores have: each query head has keys and values of its own, mixed from all.
    pub const fn heads(&self, heads: Heads) -> Heads {
        Heads { kv: heads.query, value: heads.query, ..heads }
    }
}

/// The type of a captured input's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum InputType {
    /// binary32.
    F32,
    /// 32-bit integers.
    I32,
    /// One byte each; anything but 0 is true.
    Bool,
}

impl InputType {
    /// As it is written in a spec.
    pub const fn name(self) -> &'static str {
        match self {
            InputType::F32 => "f32",
            InputType::I32 => "i32",
            InputType::Bool => "bool",
        }
    }
}

/// One axis of a captured input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Axis {
    /// `b`, as long as the batch.
    Batch,
    /// `h`, as long as there are query heads.
    Head,
    /// `g`, as long as there are key heads.
    KvHead,
    /// `q`: all nk positions in self-attention, nq in cross-attention.
    Query,
    /// `k`: nk.
    Key,
    /// A number of its own.
    Len(u32),
}

/// The type and axes of a captured input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct InputShape {
    /// Type of the elements.
    pub dtype: InputType,
    /// Number of axes; 0 is a scalar.
    pub rank: u8,
    /// The axes, outermost first; entries past `rank` are `Len(1)` and mean nothing.
    pub axes: [Axis; MAX_AXES],
}

impl InputShape {
    /// An input with these axes, outermost first.
    ///
    /// # Panics
    /// If there are more than [`MAX_AXES`]; in a `const` that is a compile error.
    pub const fn new(dtype: InputType, axes: &[Axis]) -> Self {
        assert!(axes.len() <= MAX_AXES, "an input has at most six axes");
        let mut all = [Axis::Len(1); MAX_AXES];
        let (own, _) = all.split_at_mut(axes.len());
        own.copy_from_slice(axes);
        Self { dtype, rank: axes.len() as u8, axes: all }
    }

    /// The axes that exist.
    pub fn axes(&self) -> &[Axis] {
        &self.axes[..self.rank as usize]
    }
}

/// One variant with scores and weights, as the planner, the oracle and the kernels read it.
///
/// Borrowed from a spec, or a constant of a generated module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variant<'a> {
    /// Identity of the spec that it was made from.
    pub identity: Identity,
    /// Head counts and widths.
    pub heads: Heads,
    /// Self or cross.
    pub source: Source,
    /// How positions enter the rows of q and k.
    pub position: Option<Position>,
    /// How the rows of q and k are normalised.
    pub qk_norm: Option<QkNorm>,
    /// Factor of every query·key product.
    pub scale: f64,
    /// The score modifier, a float that may read [`Var::S`](crate::expr::Var::S); just that variable when nothing
    /// is modified. Of a recurrence, which has no scores, the feature map, which reads [`Var::X`](crate::expr::Var::X).
    pub modify: Tree<'a>,
    /// The mask, a bool: whether the query may attend to the key.
    pub allow: Tree<'a>,
    /// How scores become weights.
    pub weights: Weights,
    /// What turns q, k and v into o.
    pub mechanism: Mechanism<'a>,
    /// What happens to the weighted sums, and whether the log of the weights' sum is an output too.
    pub output: Output,
    /// Captured inputs, in the order that expressions count them; those of learned tables come last.
    pub inputs: &'a [InputShape],
}

impl<'a> Variant<'a> {
    /// The same where keys and values are formed of latents: rows end in their rotary channels.
    pub fn expanded(&self, latent: &Latent) -> Variant<'a> {
        self.formed(latent.expanded_heads(self.heads.query), latent.nope_dim)
    }

    /// The same where queries are brought to the latents, and outputs back from them.
    pub fn absorbed(&self, latent: &Latent) -> Variant<'a> {
        self.formed(latent.absorbed_heads(self.heads.query), latent.rank)
    }

    /// Heads of what a cache keeps: of latents one row a token, whose first channels are values.
    pub const fn cached_heads(&self) -> Heads {
        match &self.mechanism {
            Mechanism::Latent(latent) => latent.absorbed_heads(self.heads.query),
            Mechanism::Plain | Mechanism::Lookahead(_) | Mechanism::Pseudo(_) | Mechanism::Recurrence(_) => {
                self.heads
            }
        }
    }

    /// With rows whose rotary channels begin at `offset`.
    fn formed(&self, heads: Heads, offset: u32) -> Variant<'a> {
        let turned = |position: Position| Position { offset: position.offset + offset, ..position };
        Variant { heads, position: self.position.map(turned), ..*self }
    }

    /// Who teaches lookahead keys, of a variant with such.
    pub const fn teaches(&self) -> Option<Tree<'a>> {
        match self.mechanism {
            Mechanism::Lookahead(lookahead) => Some(lookahead.allow),
            Mechanism::Plain | Mechanism::Latent(_) | Mechanism::Pseudo(_) | Mechanism::Recurrence(_) => None,
        }
    }

    /// Whether the code of another variant's mask and modifier is this one's too: their expressions are the same, and so are the
    /// inputs that these read. Code goes by the number of heads that it runs with, so slopes of each one's own are the same.
    pub fn has_code_of(&self, other: &Variant<'_>) -> bool {
        self.has_mask_of(other) && self.means_alike(other, (self.modify, other.modify))
    }

    /// Whether another variant's mask is this one's too, and what keys are taught by.
    pub fn has_mask_of(&self, other: &Variant<'_>) -> bool {
        let teach_alike = match (self.teaches(), other.teaches()) {
            (Some(own), Some(others)) => self.means_alike(other, (own, others)),
            (own, others) => own == others,
        };
        self.means_alike(other, (self.allow, other.allow)) && teach_alike
    }

    /// Whether another variant's modifier is this one's too, and does not ask which scores the mask lets through: it is of scores
    /// and reads no input, of which only those that a query sees are read.
    pub fn has_free_modifier_of(&self, other: &Variant<'_>) -> bool {
        self.element() == Var::S
            && self.means_alike(other, (self.modify, other.modify))
            && self.inputs_read(self.modify).next().is_none()
    }

    /// Whether an expression of this variant and one of another are the same, the slopes of each those of its own heads, and so
    /// are the inputs that they read.
    fn means_alike(&self, other: &Variant<'_>, (own, others): (Tree<'_>, Tree<'_>)) -> bool {
        let alike = |(a, b): (&Node, &Node)| match (a.op, b.op) {
            (Op::Alibi { head: at, heads }, Op::Alibi { head: others_at, heads: others_heads }) => {
                let each_has_its_own = [heads, others_heads] == [self.heads.query, other.heads.query];
                each_has_its_own && (at, a.ty, a.exact) == (others_at, b.ty, b.exact)
            }
            _ => a == b,
        };
        own.nodes().len() == others.nodes().len()
            && own.nodes().iter().zip(others.nodes()).all(alike)
            && self.inputs_read(own).all(|input| self.inputs.get(input) == other.inputs.get(input))
    }

    fn inputs_read(&self, tree: Tree<'a>) -> impl Iterator<Item = usize> {
        (0..self.inputs.len()).filter(move |&input| tree.reads_input(input as u16))
    }

    /// What heads are mixed into, where they are mixed into pseudo-heads.
    pub const fn pseudo(&self) -> Option<Pseudo> {
        match self.mechanism {
            Mechanism::Pseudo(pseudo) => Some(pseudo),
            _ => None,
        }
    }

    /// Positions of a token: one, or as many as there are pseudo-heads.
    pub const fn per_token(&self) -> u32 {
        match self.pseudo() {
            Some(pseudo) => pseudo.heads,
            None => 1,
        }
    }

    /// The variant whose scores these are: where heads are mixed into pseudo-heads, that of the mixed rows, on problems that
    /// count virtual tokens; else the variant itself.
    pub const fn scored(self) -> Self {
        match self.pseudo() {
            Some(pseudo) => Self { heads: pseudo.heads(self.heads), ..self },
            None => self,
        }
    }

    /// Heads of the weighted sums: of a recurrence one of each state.
    pub const fn sum_heads(&self) -> u32 {
        match self.mechanism {
            Mechanism::Recurrence(_) => self.heads.value,
            _ => self.heads.query,
        }
    }

    /// Heads of the result: as many as there are sums, unless they are mixed to another number.
    pub fn output_heads(&self) -> u32 {
        self.output.mix.map_or(self.sum_heads(), |mix| mix.heads)
    }

    /// Whether there must be a query for each key that is given.
    pub const fn pairs_queries(&self) -> bool {
        match self.mechanism {
            Mechanism::Lookahead(_) => true,
            Mechanism::Recurrence(recurrence) => recurrence.causal,
            Mechanism::Plain | Mechanism::Latent(_) | Mechanism::Pseudo(_) => false,
        }
    }

    /// What there is of a recurrence.
    pub const fn recurrence(&self) -> Option<Recurrence> {
        match self.mechanism {
            Mechanism::Recurrence(recurrence) => Some(recurrence),
            _ => None,
        }
    }

    /// Tokens of a sequence that came before those of a call, whose keys are in its state and not at hand. Positions count from them.
    pub const fn tokens_before(&self, of: &Sequence) -> i32 {
        match self.mechanism {
            Mechanism::Recurrence(Recurrence { causal: true, .. }) => of.q_offset,
            _ => 0,
        }
    }

    /// Whether mask and modifier are of scores: [`Variant::modify`] is then of [`Var::S`], else of [`Var::X`].
    pub const fn element(&self) -> Var {
        match self.mechanism {
            Mechanism::Recurrence(_) => Var::X,
            _ => Var::S,
        }
    }

    /// The masks: of queries, and of lookahead keys who teaches whom.
    pub fn masks(&self) -> impl Iterator<Item = Tree<'a>> + Clone {
        let teaches = match self.mechanism {
            Mechanism::Lookahead(lookahead) => Some(lookahead.allow),
            _ => None,
        };
        [Some(self.allow), teaches].into_iter().flatten()
    }
}
