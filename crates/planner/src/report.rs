//! Why a plan is as it is: every number with what bounds it, what was rejected, and what the engine does not use.

use core::fmt;

use regard_ir::machine::{Isa, Machine};
use regard_ir::plan::{Dtype, EngineKind, Pieces, Plan};
use regard_ir::rates::Origin;
use regard_ir::reach::Reach;
use regard_ir::variant::Heads;
use serde::Serialize;

use crate::inequality::{Amount, Inequality, Unit};

/// The reasons of a plan, as data; it displays as text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanReport {
    /// The spec's name.
    pub spec: String,
    /// Its heads.
    pub heads: Heads,
    /// The machine that the plan was made for.
    pub machine: Machine,
    /// The plan.
    pub plan: Plan,
    /// The engine's register tile: rows by keys.
    pub tile: [u32; 2],
    /// Where the rates come from that engines were compared by.
    pub rates: Origin,
    /// The engines that would have served, the fastest first.
    pub rejected: Vec<RejectedEngine>,
    /// The plan's numbers with their reasons.
    pub choices: Vec<Choice>,
    /// What else a reader should know.
    pub notes: Vec<Note>,
}

/// An engine that would have served.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RejectedEngine {
    /// The engine.
    pub engine: EngineKind,
    /// Its instruction set.
    pub isa: Isa,
    /// Its time on a problem of middling size by that of the engine that was taken, as predicted.
    pub times_as_long: f64,
}

/// One number of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// As the plan's field is called.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// Why it is not another.
    pub reason: Reason,
    /// The inequalities that bound it. One that does not hold could not be met by any candidate.
    pub bounds: Vec<Inequality>,
    /// The nearest candidates that were rejected.
    pub rejected: Vec<Rejected>,
}

/// A candidate that was not taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rejected {
    /// Its value.
    pub value: u64,
    /// The inequalities that it violates.
    pub violates: Vec<Inequality>,
}

/// The idea behind a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The largest power of two within the bounds.
    KeyBlock,
    /// The same, where the queries of a row tile alone pass the first-level cache.
    WideRowTile {
        /// Rows of the tile.
        rows: u32,
    },
    /// The fewest positions that make packing cheap, or as many as fit.
    QueryBlock {
        /// Rows of a pass.
        rows: u64,
        /// Rows of a row tile.
        tile_rows: u64,
    },
    /// The grid of sums.
    KeyCell,
    /// As [`Reason::KeyCell`], of weights that are rounded more coarsely than long sums.
    CoarseKeyCell,
    /// The fewest keys worth a classification.
    MaskStep,
    /// The error bound of f32.
    ChannelChain,
    /// No chain of f32 sums is too long for bf16.
    WholeRow,
    /// The most tokens of a page within the bound.
    Page,
    /// The spec says how many.
    PageAsAsked,
    /// Keys that are scored before their values are added up.
    DecodeChunk,
    /// The same of latents, which are read again as values.
    LatentChunk,
    /// The same of keys that all heads' pseudo-heads are mixed from.
    MixedChunk,
    /// What a cache keeps of pseudo-heads.
    CachedRows {
        /// Whether it keeps the rows of all pseudo-heads, and not what they are mixed from.
        mixed: bool,
        /// Whether the spec says so.
        asked: bool,
        /// Bytes of a token.
        token_bytes: u64,
        /// What they would be otherwise.
        otherwise_bytes: u64,
    },
    /// What threads share out.
    DecodeCell {
        /// Whether one head has all keys.
        of_one_head: bool,
    },
    /// Queries of sequences that share a prefix.
    DecodeStack,
    /// Queries that see a key from which on it is made of its latent.
    Crossover,
    /// Tokens of a recurrence that are products of matrices.
    Chunk {
        /// Multiply-adds of a token and value head, and what counts as such.
        products: u64,
    },
    /// Tokens that read and write a state where it is.
    OneByOne,
    /// States that are near when they are read.
    HeldStates {
        /// The cache.
        cache: &'static str,
    },
    /// Memory for what is packed once a run.
    PackAhead,
    /// The balance of threads.
    TasksPerThread,
    /// What bf16 tiles need of a 16-bit storage type.
    Pieces {
        /// The storage type.
        dtype: Dtype,
        /// The pieces.
        pieces: Pieces,
    },
    /// The fewest products of bf16 pieces that keep the bound of `precision = "fast"`.
    FastPieces {
        /// Products of pieces for one of a query and a key, and for one of a weight and a value.
        products: [u32; 2],
        /// The error that they were seen to leave.
        error: f64,
        /// The bound.
        bound: f64,
        /// What fewer products leave.
        rejected: Option<RejectedPieces>,
    },
}

/// A number of products that leaves too large an error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RejectedPieces {
    /// Products of pieces for one of a query and a key, and for one of a weight and a value.
    pub products: [u32; 2],
    /// The error that they were seen to leave.
    pub error: f64,
}

/// What a reader should know beside the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// The machine has an instruction set that no engine uses for this storage type.
    Unused {
        /// What the machine has.
        machine: Isa,
        /// What is used.
        used: Isa,
        /// By which engine.
        engine: EngineKind,
        /// The storage type.
        dtype: Dtype,
    },
    /// The storage type is not the type of the products.
    Converted {
        /// The storage type.
        dtype: Dtype,
    },
    /// `precision = "fast"` changes nothing here.
    FastIsExact {
        /// The instruction set that has no tiles for it.
        isa: Isa,
    },
    /// The engine's unit is emulated.
    Emulated {
        /// The engine.
        engine: EngineKind,
    },
    /// Heads are mixed into pseudo-heads.
    PseudoHeads {
        /// Query heads, each of which has keys of its own then.
        query: u32,
        /// Heads that keys and values are mixed from.
        sources: u32,
        /// Positions of a token.
        per_token: u32,
    },
    /// The mask is `true`: no tile is classified or tested.
    NoMask,
    /// A pass does not end with a full row tile.
    RaggedRows {
        /// Rows of a pass.
        rows: u64,
        /// Rows of a row tile.
        tile_rows: u64,
    },
    /// A ring of so many tokens holds all that queries see.
    Ring(Reach),
    /// Keys learn from one query block after the other.
    WholeHeads,
    /// A state is handed from one chunk to the next.
    States,
    /// What the result's bits depend on.
    Bits,
}

impl Choice {
    /// A number that no inequality bounds.
    pub(crate) fn fixed(name: &'static str, value: u64, reason: Reason) -> Self {
        Self { name, value, reason, bounds: Vec::new(), rejected: Vec::new() }
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Heads { query, kv, dim, value_dim, .. } = self.heads;
        writeln!(f, "plan of {}: {query} query heads over {kv}, widths {dim} and {value_dim}", self.spec)?;
        let Machine { isa, cores, l1d_bytes, l2_bytes, l3_bytes, rates: _ } = self.machine;
        write!(f, "machine          = {}, {}", isa.name(), Count(cores as u64, "core"))?;
        for (name, bytes) in [("L1d", l1d_bytes), ("L2", l2_bytes), ("L3", l3_bytes)] {
            if bytes > 0 {
                write!(f, ", {name} {}", Amount(bytes as u64, Unit::Bytes))?;
            }
        }
        let Plan { engine, isa, dtype, .. } = self.plan;
        let [rows, keys] = self.tile;
        writeln!(
            f,
            ", {} rates\nengine           = {} on {}, {} storage, tiles of {rows} rows by {keys} keys",
            self.rates.name(),
            engine.name(),
            isa.name(),
            dtype.name()
        )?;
        for RejectedEngine { engine, isa, times_as_long } in &self.rejected {
            let (engine, isa) = (engine.name(), isa.name());
            writeln!(f, "{:24} not {engine} on {isa}: {times_as_long:.1} times as long", "")?;
        }
        self.choices.iter().try_for_each(|choice| choice.fmt(f))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} = {:<5} {}", self.name, self.value, self.reason)?;
        let mut line = |text: &dyn fmt::Display| writeln!(f, "{:24} {text}", "");
        for bound in &self.bounds {
            if bound.holds() {
                line(bound)?;
            } else {
                line(&format_args!("{bound}; not met"))?;
            }
        }
        for Rejected { value, violates } in &self.rejected {
            for bound in violates {
                line(&format_args!("not {value}: {bound}"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::KeyBlock => f.write_str("the largest power of two with:"),
            Reason::WideRowTile { rows } => {
                write!(
                    f,
                    "the queries of {rows} rows pass L1d and stream from L2; the largest power of two with:"
                )
            }
            Reason::QueryBlock { rows, tile_rows } => {
                write!(f, "{rows} rows, {} of {tile_rows}:", Count(rows.div_ceil(*tile_rows), "row tile"))
            }
            Reason::KeyCell => {
                f.write_str("sums start anew here whatever the threads; a split of keys is whole cells")
            }
            Reason::CoarseKeyCell => f.write_str(
                "sums start anew here whatever the threads; those of so many keys are more precise than bf16 pieces",
            ),
            Reason::MaskStep => f.write_str("keys of a partial block that are classified together:"),
            Reason::ChannelChain => {
                f.write_str("channels of one chain of f32 sums: a longer one would pass the error bound")
            }
            Reason::WholeRow => {
                f.write_str("channels of one chain of f32 sums: bf16 leaves errors beside which those of a whole row are nothing")
            }
            Reason::Pieces { dtype: Dtype::F16, pieces } => {
                let [scores, outputs] = pieces.products();
                let what = "bf16 pieces of f16 operands and of weights";
                write!(f, "{what}, {scores} and {outputs} products for one: weights of one piece pass the bound")
            }
            Reason::Pieces { dtype, pieces } => {
                let dtype = dtype.name();
                match pieces.scores {
                    1 => write!(f, "{dtype} operands are multiplied whole")?,
                    _ => write!(f, "of queries and keys, which are no {dtype} numbers once they are turned or normed")?,
                }
                match pieces.weights {
                    1 => f.write_str(", weights as bf16"),
                    _ => f.write_str(", and two of weights, as outputs may cancel"),
                }
            }
            Reason::FastPieces { products: [scores, outputs], error, bound, rejected } => {
                write!(
                    f,
                    "bf16 pieces of f32 queries and keys, {scores} and {outputs} products for one: an error of {error:.1e}, bound {bound:.0e}"
                )?;
                match rejected {
                    Some(RejectedPieces { products: [scores, outputs], error }) => {
                        write!(f, "; not {scores} and {outputs}: {error:.1e}")
                    }
                    None => Ok(()),
                }
            }
            Reason::Page => f.write_str("tokens that a cache keeps together, at most 64 with:"),
            Reason::PageAsAsked => f.write_str("tokens that a cache keeps together, as the spec says"),
            Reason::DecodeChunk => f.write_str("cached keys that are scored before their values are added up: whole pages"),
            Reason::LatentChunk => f.write_str("cached latents that are scored, and then read again as values: whole pages with:"),
            Reason::MixedChunk => {
                f.write_str("cached tokens whose rows are mixed and used by all heads before the next are read, with:")
            }
            &Reason::CachedRows { mixed, asked, token_bytes, otherwise_bytes } => {
                let bytes = |bytes| Amount(bytes, Unit::Bytes);
                let [what, other] = match mixed {
                    true => ["those of all pseudo-heads", "what they are mixed from"],
                    false => ["what pseudo-heads are mixed from in each call", "these"],
                };
                let asked = if asked { ", as the spec says" } else { "" };
                write!(
                    f,
                    "rows of a token and head that a cache keeps{asked}: {what}, {} a token where {other} would be {}",
                    bytes(token_bytes),
                    bytes(otherwise_bytes)
                )
            }
            Reason::DecodeCell { of_one_head } => {
                f.write_str("cached keys whose sums start anew whatever the threads, which share out these")?;
                if *of_one_head { f.write_str("; few, as one head has all keys") } else { Ok(()) }
            }
            Reason::DecodeStack => {
                f.write_str("rows of sequences with a prefix in common that take one pass over its keys")
            }
            Reason::Crossover => f.write_str(
                "queries that see a key from which on keys and values are made of latents; queries of fewer are brought to these:",
            ),
            Reason::Chunk { products } => write!(
                f,
                "tokens whose recurrence is products of matrices, the cheapest at {products} multiply-adds a token and head, with:"
            ),
            Reason::OneByOne => f.write_str("tokens at most that are taken one after the other, each with a pass over the state where it is"),
            Reason::HeldStates { cache } => write!(
                f,
                "bytes of a thread's states that its {cache} holds from token to token: more are asked for before they are read"
            ),
            Reason::PackAhead => f.write_str(
                "at most, 16 times the last cache, of keys and values packed once a run where a sequence has several query blocks",
            ),
            Reason::TasksPerThread => {
                f.write_str("at most; the last tasks even out to about 1/32 of a thread's work")
            }
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Unused { machine, used, engine, dtype } => {
                write!(f, "no engine of this build uses {} for {}", machine.name(), dtype.name())?;
                if *dtype == Dtype::Bf16 {
                    f.write_str(" where rows are turned or normed, or outputs may cancel")?;
                }
                write!(f, ": {} runs on {}", engine.name(), used.name())
            }
            Note::Converted { dtype } => {
                write!(f, "{} is converted to f32 while it is packed; products and sums are f32", dtype.name())
            }
            Note::Emulated { engine } => write!(
                f,
                "the matrix unit of {} is emulated on this instruction set: to be tested, not to be fast",
                engine.name()
            ),
            Note::FastIsExact { isa } => write!(
                f,
                "precision fast changes nothing on {}: f32 products of bf16 pieces need matrix tiles",
                isa.name()
            ),
            Note::PseudoHeads { query, sources, per_token } => write!(
                f,
                "queries and keys are virtual tokens, {per_token} to a token: each of {query} heads has keys of its own, mixed \
                 from {sources} while they are packed"
            ),
            Note::NoMask => f.write_str("the mask is true everywhere: every tile is full, none has mask code"),
            Note::WholeHeads => f.write_str(
                "keys learn from one query block after the other: a task is a whole head of a sequence, whose keys are shared out \
                 in cells where heads are too few for the threads",
            ),
            Note::States => f.write_str(
                "a state is handed from one chunk to the next: a task is a whole sequence and key head, of which threads share out value \
                 heads and, where these are few, channels of values",
            ),
            Note::RaggedRows { rows, tile_rows } => write!(
                f,
                "{rows} rows are no multiple of {tile_rows}: the last row tile of a pass holds {} of {tile_rows}",
                rows % tile_rows
            ),
            Note::Ring(Reach { first: 0, back }) => {
                write!(f, "a query sees none but the last {back} keys: a cache of layout ring holds them for ever")
            }
            Note::Ring(Reach { first, back }) => write!(
                f,
                "a query sees none but the first {first} and the last {back} keys: a cache of layout ring holds them for ever"
            ),
            Note::Bits => f.write_str(
                "engine and blocks follow from spec, machine, storage and phase alone: threads and batch change no bit",
            ),
        }
    }
}

/// A count with its noun.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}
