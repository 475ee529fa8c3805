//! Block sizes of the flash skeleton from the machine's caches, in the manner of BLIS.
//!
//! A pass is some query positions of all heads that share a key head. It holds its packed queries, in f32 its output for
//! the current key cell and in total, and one block of packed keys and values; a row tile of it holds its queries and a
//! block of scores. The pass belongs in the second-level cache, the row tile in the first. Matrix tiles keep the scores of
//! two parts of a block alone and read keys and values that are packed once a run: their blocks are as long as the
//! second-level cache allows, so that a row tile's output is seldom exchanged for the next one's.

use regard_engine::catalog::{Entry, TileShape};
use regard_ir::machine::{Isa, Machine};
use regard_ir::plan::{Blocks, EngineKind, Pieces};
use regard_ir::variant::Heads;

use crate::inequality::{Factor, Inequality, Limit, Unit, factor, term};
use crate::report::{Choice, Reason, Rejected};

/// Keys whose sums start from zero: long enough that a split of a long row costs little, short enough that no f32 sum
/// runs over thousands of keys.
const KEY_CELL: u32 = 1024;

/// The same where operands are pieces of bfloat16, which leave out more than any such sum.
const COARSE_KEY_CELL: u32 = 4096;

/// Channels of one chain of sums: a longer one would pass the error bound of f32. Half as long where a product and a sum
/// round apart: over 64 such channels an error of 2.2e-6 was met, over 32 it was 9e-7.
const fn channel_chain(isa: Isa) -> u32 {
    match isa {
        Isa::Scalar | Isa::WasmSimd => 32,
        Isa::Neon | Isa::Avx2 | Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => 64,
    }
}

/// Past this many keys in a block nothing is left to amortise, and masks and caches prefer small blocks.
const MAX_KEY_BLOCK: u32 = 256;

/// Fewer keys than this in a block cost more in loads and stores of the output than its row tile gains by staying in
/// the first-level cache.
const MIN_AMORTISING_KEYS: u32 = 32;

/// Cycles to pack one channel of a key and its value.
const PACK_CYCLES: u64 = 2;

/// Sums over heads take so many times as long as their multiply-adds would at their best.
const MIXED_PER_FMA: u64 = 2;

/// Bytes that a core reads in a cycle from beyond its second-level cache.
const READ_BYTES_PER_CYCLE: u64 = 8;

/// bf16 numbers that matrix tiles multiply and add in a cycle: 16 × 16 × 32 in 16 cycles.
const TILE_PRODUCTS_PER_CYCLE: u64 = 512;

/// Cycles to classify one step of a mask.
const CLASSIFY_CYCLES: u64 = 100;

/// f32 numbers that are multiplied and added in a cycle: x86 vectors have two ports, small cores one.
pub(crate) const fn fma_per_cycle(isa: Isa) -> u64 {
    let ports = match isa {
        Isa::Avx2 | Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => 2,
        Isa::Scalar | Isa::Neon | Isa::WasmSimd => 1,
    };
    ports * isa.f32_lanes() as u64
}

/// Operands, not split, that an engine multiplies and adds in a cycle at most.
pub(crate) const fn peak_products_per_cycle(entry: &Entry) -> u64 {
    match entry.engine {
        EngineKind::SimdF32 => fma_per_cycle(entry.isa),
        EngineKind::DotBf16 => 2 * fma_per_cycle(entry.isa),
        EngineKind::AmxBf16 => TILE_PRODUCTS_PER_CYCLE,
    }
}

/// What blocks are chosen for.
pub(crate) struct Target<'a> {
    pub(crate) heads: Heads,
    /// Heads that keys and values are mixed from; 0 where they are not.
    pub(crate) mixed: u32,
    pub(crate) machine: &'a Machine,
    pub(crate) entry: &'a Entry,
    pub(crate) pieces: Pieces,
    /// Whether keys learn from later tokens, a query block at a time.
    pub(crate) learns: bool,
}

const F32: Factor = factor(4, "B");

impl Target<'_> {
    const fn tile(&self) -> TileShape {
        self.entry.tile
    }

    /// Whether blocks are sized for keys and values that are packed once a run; else for passes that pack their own, which
    /// are those of problems of one query block or of too many keys.
    const fn packs_ahead(&self) -> bool {
        matches!(self.entry.engine, EngineKind::AmxBf16)
    }

    /// Bytes of a packed channel.
    fn operand(&self) -> Factor {
        match self.entry.engine {
            EngineKind::SimdF32 => F32,
            EngineKind::DotBf16 | EngineKind::AmxBf16 => {
                factor(2 * u64::from(self.pieces.scores.max(self.pieces.values)), "B")
            }
        }
    }

    /// Numbers that are multiplied and added in a cycle.
    fn products_per_cycle(&self) -> u64 {
        let [scores, values] = self.pieces.products();
        peak_products_per_cycle(self.entry) * 2 / u64::from(scores + values)
    }

    /// Block sizes with the reason for each.
    pub(crate) fn choose(&self) -> (Blocks, Vec<Choice>) {
        let key_block = self.key_block();
        let keys = key_block.value as u32;
        let query_block = self.query_block(keys);
        let query_block = if self.learns { self.taught_block(query_block) } else { query_block };
        let mask_step = self.mask_step(keys);
        let (chain, reason) = match self.entry.engine {
            EngineKind::DotBf16 => (self.heads.dim, Reason::WholeRow),
            EngineKind::SimdF32 | EngineKind::AmxBf16 => {
                (channel_chain(self.entry.isa), Reason::ChannelChain)
            }
        };
        let channel_chain = Choice::fixed("channel_chain", chain.into(), reason);
        let key_cell = self.key_cell();
        let blocks = Blocks {
            query_block: query_block.value as u32,
            key_block: keys,
            key_cell: key_cell.value as u32,
            mask_step: mask_step.value as u32,
            channel_chain: channel_chain.value as u32,
        };
        (blocks, vec![key_block, query_block, key_cell, mask_step, channel_chain])
    }

    /// Few merges where sums may be long; where keys learn, threads share cells out.
    fn key_cell(&self) -> Choice {
        let is_coarse = matches!(self.entry.engine, EngineKind::AmxBf16);
        let (keys, reason) = match is_coarse && !self.learns {
            true => (COARSE_KEY_CELL, Reason::CoarseKeyCell),
            false => (KEY_CELL, Reason::KeyCell),
        };
        Choice::fixed("key_cell", keys.into(), reason)
    }

    /// The most keys, in powers of two, that keep the row tile in L1d and the packed block in its share of the pass.
    fn key_block(&self) -> Choice {
        let least = self.tile().keys.next_power_of_two();
        let tile_can_stay = self.row_tile(MIN_AMORTISING_KEYS.max(least)).holds();
        let bounds = |keys| {
            if self.packs_ahead() {
                return vec![self.panels(keys)];
            }
            let mut bounds = vec![self.scores(keys), self.panels(keys)];
            if tile_can_stay {
                bounds.insert(1, self.row_tile(keys));
            }
            bounds
        };
        let mut keys = least;
        let mut rejected = Vec::new();
        let most = if self.packs_ahead() { KEY_CELL } else { MAX_KEY_BLOCK.min(KEY_CELL) };
        while keys < most {
            let violated: Vec<_> = bounds(2 * keys).into_iter().filter(|bound| !bound.holds()).collect();
            if !violated.is_empty() {
                rejected.push(Rejected { value: 2 * keys as u64, violates: violated });
                break;
            }
            keys *= 2;
        }
        let reason = if tile_can_stay || self.packs_ahead() {
            Reason::KeyBlock
        } else {
            Reason::WideRowTile { rows: self.tile().rows }
        };
        Choice { name: "key_block", value: keys as u64, reason, bounds: bounds(keys), rejected }
    }

    /// The fewest positions that make packing cheap, or as many as fit.
    fn query_block(&self, keys: u32) -> Choice {
        let group = self.heads.group();
        let TileShape { rows: tile_rows, row_step: lanes, .. } = self.tile();
        let even = tile_rows / gcd(tile_rows, group);
        // Whole vectors and whole row tiles where the cache has room for one such step, else what comes nearest.
        let steps = [lcm(lanes, even), lanes, even, 1];
        let step = steps.into_iter().find(|&step| self.pass(step, keys).holds()).unwrap_or(1);
        let (mut positions, mut rejected) = (step, Vec::new());
        while !self.packing(positions).holds() {
            let next = self.pass(positions + step, keys);
            if !next.holds() {
                rejected.push(Rejected { value: (positions + step) as u64, violates: vec![next] });
                break;
            }
            rejected = vec![Rejected { value: positions as u64, violates: vec![self.packing(positions)] }];
            positions += step;
        }
        let rows = positions as u64 * group as u64;
        Choice {
            name: "query_block",
            value: positions as u64,
            reason: Reason::QueryBlock { rows, tile_rows: tile_rows as u64 },
            bounds: vec![self.pass(positions, keys), self.packing(positions)],
            rejected,
        }
    }

    /// No more tokens than a key has channels, in whole row tiles: what queries find in their own block is a product as deep as
    /// it is long.
    fn taught_block(&self, chosen: Choice) -> Choice {
        let dim = u64::from(self.heads.dim);
        let rows = u64::from(self.tile().rows);
        let most = (dim / rows * rows).max(rows);
        let bound = Inequality {
            terms: vec![term("what a query finds in its own block", &[factor(chosen.value, "tokens")])],
            limit: Limit {
                what: "what it finds at a key, or a row tile",
                value: most,
                numerator: 1,
                denominator: 1,
            },
            unit: Unit::Products,
        };
        if bound.holds() {
            return chosen;
        }
        let rejected = vec![Rejected { value: chosen.value, violates: vec![bound] }];
        let reason = Reason::QueryBlock { rows: most, tile_rows: rows };
        let bounds = vec![self.pass(most as u32, self.key_block().value as u32)];
        Choice { value: most, reason, bounds, rejected, ..chosen }
    }

    /// The fewest keys, in whole panels, whose products cost much more than classifying them.
    fn mask_step(&self, keys: u32) -> Choice {
        let mut step = self.tile().keys.min(keys);
        let mut rejected = Vec::new();
        while !self.classifying(step).holds() && 2 * step <= keys.min(32) {
            rejected.push(Rejected { value: step as u64, violates: vec![self.classifying(step)] });
            step *= 2;
        }
        let bounds = vec![self.classifying(step)];
        Choice { name: "mask_step", value: step as u64, reason: Reason::MaskStep, bounds, rejected }
    }

    fn scores(&self, keys: u32) -> Inequality {
        let scores = [factor(keys as u64, "keys"), factor(self.tile().rows as u64, "rows"), F32];
        Inequality { terms: vec![term("scores", &scores)], limit: self.l1d(1, 2), unit: Unit::Bytes }
    }

    fn row_tile(&self, keys: u32) -> Inequality {
        let rows = factor(self.tile().rows as u64, "rows");
        let dim = factor(self.heads.dim as u64, "");
        let terms = vec![
            term("scores", &[factor(keys as u64, "keys"), rows, F32]),
            term("Q", &[rows, dim, self.operand()]),
            term("a panel of K", &[factor(self.tile().keys as u64, "keys"), dim, self.operand()]),
        ];
        Inequality { terms, limit: self.l1d(1, 1), unit: Unit::Bytes }
    }

    fn panels(&self, keys: u32) -> Inequality {
        let widths = self.heads.dim as u64 + self.heads.value_dim as u64;
        let panels = [factor(keys as u64, "keys"), factor(widths, ""), self.operand()];
        Inequality {
            terms: vec![term("packed K and V", &panels)],
            limit: self.pass_cache(1, if self.packs_ahead() { 4 } else { 8 }),
            unit: Unit::Bytes,
        }
    }

    fn pass(&self, positions: u32, keys: u32) -> Inequality {
        let rows = factor(positions as u64 * self.heads.group() as u64, "rows");
        let (dim, value_dim) = (self.heads.dim as u64, self.heads.value_dim as u64);
        let terms = vec![
            term("Q", &[rows, factor(dim, ""), self.operand()]),
            term("O", &[factor(2, ""), rows, factor(value_dim, ""), F32]),
            term("K and V", &[factor(keys as u64, "keys"), factor(dim + value_dim, ""), self.operand()]),
        ];
        Inequality { terms, limit: self.pass_cache(3, 4), unit: Unit::Bytes }
    }

    /// Per channel of a key: packing it, or reading what is packed, against the products of all rows with it.
    fn packing(&self, positions: u32) -> Inequality {
        let rows = positions as u64 * self.heads.group() as u64;
        let denominator = if self.packs_ahead() { 4 } else { 8 };
        let limit = Limit { what: "its products with all rows", value: rows, numerator: 1, denominator };
        if self.packs_ahead() {
            let read = [self.operand(), factor(self.products_per_cycle() / READ_BYTES_PER_CYCLE, "")];
            let terms = vec![term("reading a channel of a key", &read)];
            return Inequality { terms, limit, unit: Unit::Products };
        }
        match self.mixed {
            0 => self.overhead("packing a channel of a key", PACK_CYCLES, limit),
            sources => {
                let mixing = (MIXED_PER_FMA * u64::from(sources)).div_ceil(fma_per_cycle(self.entry.isa));
                self.overhead("mixing and packing a channel of a key", PACK_CYCLES + mixing, limit)
            }
        }
    }

    /// Per step of a partial block and row tile.
    fn classifying(&self, step: u32) -> Inequality {
        let widths = self.heads.dim as u64 + self.heads.value_dim as u64;
        let products = step as u64 * self.tile().rows as u64 * widths;
        let limit = Limit { what: "a step's products", value: products, numerator: 1, denominator: 16 };
        self.overhead("classifying", CLASSIFY_CYCLES, limit)
    }

    /// Cycles, as the products that the engine would do in them, against products.
    fn overhead(&self, what: &'static str, cycles: u64, limit: Limit) -> Inequality {
        let lost = [factor(cycles, "cycles"), factor(self.products_per_cycle(), "")];
        Inequality { terms: vec![term(what, &lost)], limit, unit: Unit::Products }
    }

    const fn l1d(&self, numerator: u64, denominator: u64) -> Limit {
        Limit { what: "L1d", value: self.machine.l1d_bytes as u64, numerator, denominator }
    }

    const fn pass_cache(&self, numerator: u64, denominator: u64) -> Limit {
        let (what, bytes) = self.machine.pass_cache();
        Limit { what, value: bytes as u64, numerator, denominator }
    }
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

const fn lcm(a: u32, b: u32) -> u32 {
    a / gcd(a, b) * b
}
