//! The page that a person reads: every figure with the product that it is.

use std::io::Write;

use regard::{Dtype, Problem};
use regard_ir::spec::{self, Mechanism};
use regard_ir::text;
use regard_ir::variant::{Heads, Recurrence, Source};
use regard_ir::work::Work;

use crate::failure::Failure;
use crate::memory::Bytes;
use crate::timing::Seconds;

use super::Explained;
use super::figures::{self, Cache, Call, Input, Moved, Reach};
use super::formula::{self, Line};
use super::limits::Bound;
use super::pairs::{Known, Pairs};
use super::quantity::{Count, Product, Scaled};

/// Columns of the page.
const WIDTH: usize = 100;

/// Columns of a section's name.
const MARGIN: usize = 10;

/// Writes the page.
///
/// # Errors
/// If it cannot be written.
pub(super) fn page(shown: &Explained<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let mut page = Page { out };
    page.line(0, &format!("{}: {}", shown.spec, text::heads(&shown.heads)))?;
    if !shown.summary.is_empty() {
        page.line(0, shown.summary)?;
    }
    page.formula(shown)?;
    page.captured(&shown.captured)?;
    page.cache(shown)?;
    page.call("prefill", &shown.prefill, shown)?;
    if let Some(bytes) = shown.workspace_bytes {
        let threads = plural(shown.threads as u64, "thread");
        page.item("workspace", &format!("{} for {threads}", Bytes(bytes as u128)))?;
    } else {
        page.item("workspace", &format!("not known here: this processor does not run {}", shown.isa.name()))?;
    }
    if !shown.given.lengths {
        page.line(MARGIN, "--q and --k take other lengths, --batch other numbers of sequences.")?;
    }
    page.call("decode", &shown.decode, shown)?;
    page.limits(shown)
}

/// Where lines go.
struct Page<'a> {
    out: &'a mut dyn Write,
}

impl Page<'_> {
    /// The first line of a section, after a gap.
    fn section(&mut self, name: &str, first: &str) -> Result<(), Failure> {
        writeln!(self.out)?;
        self.wrapped(&format!("{name:<MARGIN$}"), MARGIN, first)
    }

    /// A line of a section, or of none.
    fn line(&mut self, indent: usize, line: &str) -> Result<(), Failure> {
        self.wrapped(&" ".repeat(indent), indent, line)
    }

    /// A named line inside a section.
    fn item(&mut self, name: &str, is: &str) -> Result<(), Failure> {
        let lead = format!("{:MARGIN$}  {name:<11}", "");
        let indent = lead.chars().count();
        self.wrapped(&lead, indent, is)
    }

    fn wrapped(&mut self, lead: &str, indent: usize, text: &str) -> Result<(), Failure> {
        let indent = " ".repeat(indent);
        let options = textwrap::Options::new(WIDTH).initial_indent(lead).subsequent_indent(&indent);
        for line in textwrap::wrap(text, options) {
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn formula(&mut self, shown: &Explained<'_>) -> Result<(), Failure> {
        self.section("formula", &formula::context(shown.given.spec))?;
        shown.formula.iter().try_for_each(|Line { name, is }| self.item(name, &format!("= {is}")))
    }

    fn captured(&mut self, inputs: &[Input]) -> Result<(), Failure> {
        for (i, Input { name, declared, read_by }) in inputs.iter().enumerate() {
            let read_by = match read_by[..] {
                [] => "nothing".to_owned(),
                _ => format!("the {}", read_by.join(" and the ")),
            };
            let line = format!("{name}: {declared}, read by {read_by}");
            if i == 0 { self.section("captured", &line)? } else { self.line(MARGIN, &line)? }
        }
        Ok(())
    }

    fn states(&mut self, shown: &Explained<'_>, recurrence: &Recurrence) -> Result<(), Failure> {
        self.section("state", "of one sequence, in f32, however many tokens there are")?;
        let Heads { value, dim, value_dim, .. } = shown.heads;
        let heads = (u64::from(value), if value == 1 { "head" } else { "heads" });
        let state = Product(vec![heads, (dim.into(), ""), (value_dim.into(), ""), (4, "B")]);
        self.item("S", &format!("{state} = {}", size(state.value())))?;
        if recurrence.normalize_eps.is_some() {
            let norm = Product(vec![heads, (dim.into(), ""), (4, "B")]);
            self.item("z", &format!("{norm} = {}", size(norm.value())))?;
        }
        let sequences = plural(shown.prefill.problem.batch.into(), "sequence");
        self.item("in all", &format!("{sequences}: {}", size(shown.cache.bytes)))
    }

    fn cache(&mut self, shown: &Explained<'_>) -> Result<(), Failure> {
        if let Mechanism::Recurrence(recurrence) = &shown.given.spec.mechanism {
            return self.states(shown, recurrence);
        }
        let Cache { k, v, bytes_per_token, tokens, bytes, ref reach, .. } = shown.cache;
        let stored = if k == v { k.to_owned() } else { format!("{k} (K) and {v} (V)") };
        self.section("cache", &format!("of one token, in {stored}"))?;
        let cache = shown.given.spec.cache;
        let rows = figures::cached_rows(shown.given.spec, cache, shown.dtype, &shown.given.page);
        for (name, row) in &rows {
            self.item(name, &format!("{row} = {}", whole(row.value())))?;
        }
        let others: Vec<_> = Dtype::ALL
            .iter()
            .filter(|dtype| dtype.name() != stored)
            .map(|&dtype| {
                let rows =
                    figures::cached_rows(shown.given.spec, spec::Cache::DEFAULT, dtype, &shown.given.page);
                let bytes = rows.iter().map(|(_, row)| row.value()).sum();
                format!("{} in {}", whole(bytes), dtype.name())
            })
            .collect();
        let together = if rows.len() > 2 { "together" } else { "K and V" };
        self.item(together, &format!("{} ({})", whole(bytes_per_token as f64), others.join(", ")))?;
        if let Some(layout) = text::cache_layout(cache) {
            self.item("layout", &layout)?;
        }
        let Problem { batch, keys, .. } = shown.prefill.problem;
        let sequences = plural(batch.into(), "sequence");
        self.item(
            "in all",
            &format!(
                "{sequences} × {} = {} × {} = {}",
                plural(keys.into(), "token"),
                plural(tokens, "token"),
                whole(bytes_per_token as f64),
                size(bytes)
            ),
        )?;
        self.reach(reach, shown)
    }

    fn reach(&mut self, reach: &[Reach], shown: &Explained<'_>) -> Result<(), Failure> {
        let by = match shown.given.spec.source {
            Source::SelfAttention => "the last one, or any after it,",
            Source::Cross => "some query",
        };
        let [first, rest @ ..] = reach else { return Ok(()) };
        if reach.iter().all(|reach| reach.tokens == u64::from(reach.of)) {
            return self.item("reach", &format!("all are kept: {by} may see every one"));
        }
        let told = format!(
            "of {} tokens {by} may see {}: {}",
            Count(first.of.into()),
            Count(first.tokens as f64),
            first.told()
        );
        self.item("reach", &told)?;
        for reach in rest {
            let told = format!(
                "of {} tokens {}: {}",
                Count(reach.of.into()),
                Count(reach.tokens as f64),
                reach.told()
            );
            self.item("", &told)?;
        }
        let Cache { bytes_per_token, .. } = shown.cache;
        let batch = shown.prefill.problem.batch;
        let kept = first.tokens as f64 * batch as f64 * bytes_per_token as f64;
        let told = format!(
            "a cache of those alone: {} × {} × {} = {}",
            plural(batch.into(), "sequence"),
            plural(first.tokens, "token"),
            whole(bytes_per_token as f64),
            size(kept)
        );
        self.item("", &told)
    }

    fn call(&mut self, name: &str, call: &Call, shown: &Explained<'_>) -> Result<(), Failure> {
        let Call { problem, pairs, work, moved, tokens } = call;
        let Problem { batch, queries, keys, .. } = *problem;
        let queries_of = match queries {
            1 => "1 query".to_owned(),
            n => format!("{} queries", Count(n.into())),
        };
        let each = if batch == 1 { "" } else { " each" };
        let sequences = plural(batch.into(), "sequence");
        self.section(
            name,
            &format!("{sequences} of {queries_of} over {}{each}", plural(keys.into(), "key")),
        )?;

        let heads = &shown.heads;
        let positions = u64::from(shown.given.spec.variant().per_token());
        let Pairs { allowed, all, known } = *pairs;
        let (about, how) = match known {
            Known::Exact => ("", ""),
            Known::AtMost => ("at most ", "; the mask reads tensors, which may forbid more"),
            Known::Estimate => ("about ", "; estimated, the boundary of the mask is too long to count"),
        };
        let share = if all > 0.0 { format!(" ({:.2} %)", 100.0 * allowed / all) } else { String::new() };
        let product = Product(vec![
            (batch.into(), ""),
            (heads.query.into(), if heads.query == 1 { "head" } else { "heads" }),
            (u64::from(queries) * positions, ""),
            (u64::from(keys) * positions, ""),
        ]);
        // An estimate has few digits that mean something.
        let number = |n: f64| match known {
            Known::Estimate => format!("{n:.2e}"),
            Known::Exact | Known::AtMost => Count(n).to_string(),
        };
        let each = per_token(*tokens, |n| format!("{}FLOP", Scaled(work.flops / n)));
        let flops = Scaled(work.flops);
        let told = if let Mechanism::Recurrence(recurrence) = &shown.given.spec.mechanism {
            let updates = if recurrence.delta.is_some() { "2 × " } else { "" };
            let Heads { value, dim, value_dim, .. } = *heads;
            let (reads, writes) = (plural(queries.into(), "read"), plural(keys.into(), "write"));
            format!(
                "2 × {dim} × {value_dim} × {value} × {batch} × ({reads} + {updates}{writes}) = {flops}FLOP{each}"
            )
        } else {
            let told = format!("{about}{} of {product} = {}{share}{how}", number(allowed), number(all));
            self.item("pairs", &told)?;
            format!("2 × ({} + {}) × {} = {flops}FLOP{each}", heads.dim, heads.value_dim, number(allowed))
        };
        self.item("operations", &told)?;
        for (i, Moved { what, product, bytes }) in moved.iter().enumerate() {
            let name = if i == 0 { "bytes" } else { "" };
            self.item(name, &format!("{what}: {product} = {}", size(*bytes)))?;
        }
        let total = work.bytes();
        let told = format!(
            "in all {} B = {}{}",
            Count(total),
            size(total),
            per_token(*tokens, |n| size(total / n).to_string())
        );
        self.item("", &told)?;
        if let Some(intensity) = call.intensity() {
            let told =
                format!("{}FLOP / {}B = {}FLOP/B", Scaled(work.flops), Scaled(total), Scaled(intensity));
            self.item("intensity", &told)?;
        }
        Ok(())
    }

    fn limits(&mut self, shown: &Explained<'_>) -> Result<(), Failure> {
        let Some(limits) = &shown.limits else {
            return self.section("limits", NOT_MEASURED);
        };
        let threads = plural(shown.threads as u64, "thread");
        let isa = shown.isa.name();
        let how = "a call takes at least the longer of the times of its operations and of its bytes";
        self.section("limits", &format!("of this machine, {isa} with {threads}, measured just now: {how}"))?;
        self.bound("prefill", &shown.prefill, &limits.prefill)?;
        self.bound("decode", &shown.decode, &limits.decode)
    }

    fn bound(&mut self, name: &str, call: &Call, bound: &Bound) -> Result<(), Failure> {
        let Bound {
            products_gflops,
            level,
            read_gbs,
            read_write_gbs,
            operations_s,
            bytes_s,
            limit,
            at_least_s,
        } = *bound;
        let Work { flops, read_bytes, written_bytes } = call.work;
        let told =
            format!("{}FLOP / {products_gflops:.0} GFLOP/s = {}", Scaled(flops), Seconds(operations_s));
        self.item(name, &told)?;
        // Each byte that is written goes with one that is read; what is read beyond those is read alone.
        let alone = (read_bytes - written_bytes).max(0.0);
        let told = format!(
            "2 × {}B written / {read_write_gbs:.1} GB/s + {}B more read / {read_gbs:.1} GB/s = {}, data in {level}",
            Scaled(written_bytes),
            Scaled(alone),
            Seconds(bytes_s)
        );
        self.item("", &told)?;
        let by = match limit {
            "fma" => "multiply-adds",
            "dot" => "products of bf16 pairs",
            "tile" => "products of bf16 tiles",
            "read" => "reading",
            _ => "reading and writing",
        };
        let rate = match at_least_s > 0.0 && call.tokens > 0 {
            false => String::new(),
            true => match call.tokens as f64 / at_least_s {
                rate if rate < 100.0 => format!(", at most {rate:.1} tokens/s"),
                rate => format!(", at most {} tokens/s", Count(rate)),
            },
        };
        self.item("", &format!("bound by {by}: at least {}{rate}", Seconds(at_least_s)))
    }
}

/// Why there is no time on the page.
const NOT_MEASURED: &str = "no times: rates are measured on the machine at hand, and these figures are for the one that \
                            --machine names";

/// `, 3 a token`, where there are tokens.
fn per_token(tokens: u64, told: impl Fn(f64) -> String) -> String {
    match tokens {
        0 | 1 => String::new(),
        n => format!("; / {} = {} a token", plural(n, "token"), told(n as f64)),
    }
}

/// A number of bytes in the unit that suits it.
fn size(bytes: f64) -> Bytes {
    Bytes(bytes as u128)
}

/// A number of bytes to the last one.
fn whole(bytes: f64) -> String {
    format!("{} B", Count(bytes))
}

/// A count and what it counts.
fn plural(n: u64, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {what}{plural}", Count(n as f64))
}
