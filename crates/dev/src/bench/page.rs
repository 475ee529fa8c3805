//! docs/bench.md: the results of each machine as tables.

mod caches;

use std::fmt::Write;

use regard_ir::plan::Dtype;

use super::history::{FOLDER, OURS, PLAINLY_WRONG, PLAINLY_WRONG_IN_8_BITS};
use super::peers::PEERS;
use super::summary::{Failure, Machine, Row, time};
use super::turns::{AVX2, PLAIN};
use super::workload::{Company, WORKLOADS, rounds};

const HEAD: &str = "\
# Beside other implementations

Made by `cargo xtask bench` from the results in docs/bench, of each round the newest; docs/measuring.md says how they are
measured. Times are medians of samples that alternate with everyone else's. *Ratio* is how many times as long as regard the
best of the others takes: above 1, regard is faster. Behind it is the same of everyone's shortest samples, which other
programs disturb least; *load* is the share of the machine that such programs took. *Peak* is the share of what the
machine's units of that kind multiply; of decoding, where keys and values are cached, it is that of how fast as many bytes
were read in the same round. Every answer is held against the formula in f64 on the same tensors, rounded to the storage type.
";

/// The rows that the project is measured by, in its order: workload, storage types.
#[rustfmt::skip]
const BAR: &[(&str, &[Dtype])] = &[
    ("gqa-4096",       &[Dtype::Bf16, Dtype::F32, Dtype::F16]),
    ("window-8192",    &[Dtype::F32, Dtype::Bf16]),
    ("gemma2-4096",    &[Dtype::F32, Dtype::Bf16]),
    ("documents-4096", &[Dtype::F32, Dtype::Bf16]),
    ("alibi-2048",     &[Dtype::F32, Dtype::Bf16]),
    ("bert-512",       &[Dtype::F32, Dtype::Bf16]),
    ("bert-2048",      &[Dtype::F32, Dtype::Bf16]),
    ("vit-197",        &[Dtype::F32, Dtype::Bf16]),
    ("linear-4096",    &[Dtype::F32, Dtype::Bf16]),
    ("delta-4096",     &[Dtype::F32, Dtype::Bf16]),
    ("delta-4096-128", &[Dtype::F32, Dtype::Bf16]),
    ("decode-1x1024",  &[Dtype::F32, Dtype::Bf16]),
    ("decode-1x4096",  &[Dtype::F32, Dtype::Bf16, Dtype::F16]),
    ("decode-1x16384", &[Dtype::F32, Dtype::Bf16]),
    ("decode-1x65536", &[Dtype::F32, Dtype::Bf16]),
    ("decode-8x16384", &[Dtype::F32, Dtype::Bf16]),
    ("decode-1x65536-8bit", &[Dtype::Bf16]),
];

/// The page.
pub fn page(machines: &[Machine]) -> String {
    let mut page = HEAD.to_owned();
    for machine in machines {
        page.push_str(&about(machine));
        page.push_str(&measurements(machine));
        page.push_str(&caches::table(machine));
        page.push_str(&bar(machine));
        page.push_str(&left_out(machine));
    }
    page.push_str(&legend());
    page
}

fn about(machine: &Machine) -> String {
    let session = &machine.session;
    let mut text = format!("\n## {}, {}, {} cores\n\n", session.cpu, session.isa, session.cores);
    let dates: Vec<_> = machine.rows.iter().map(|row| row.date.as_str()).collect();
    let (first, last) =
        (dates.iter().min().copied().unwrap_or(""), dates.iter().max().copied().unwrap_or(""));
    let when = if first == last { first.to_owned() } else { format!("{first} to {last}") };
    let mut commits: Vec<&str> = Vec::new();
    for row in &machine.rows {
        if !commits.contains(&row.commit.as_str()) {
            commits.push(&row.commit);
        }
    }
    let _ = writeln!(text, "{when}, commit {}. Last run: `{}`.\n", commits.join(", "), session.command);
    let versions = session.versions.iter().filter(|(name, _)| *name != OURS);
    let versions: Vec<_> = versions.map(|(name, version)| format!("{name} {version}")).collect();
    if !versions.is_empty() {
        let _ = writeln!(text, "Others: {}.\n", versions.join(", "));
    }
    for remark in &machine.remarks {
        let _ = writeln!(text, "**Remark.** {remark}\n");
    }
    text.push_str("| GFLOP/s at most |");
    let units = ["fma", "fma_avx2", "dot_bf16", "tiles_bf16"];
    let names = ["f32 multiply-adds", "of AVX2", "bf16 dots", "bf16 tiles"];
    let present: Vec<_> = units
        .iter()
        .zip(names)
        .filter(|(unit, _)| machine.limits.values().any(|rates| rates.contains_key(**unit)))
        .collect();
    for (_, name) in &present {
        let _ = write!(text, " {name} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(present.len()));
    for (threads, rates) in &machine.limits {
        let plural = if *threads == 1 { "" } else { "s" };
        let _ = write!(text, "| {threads} thread{plural} |");
        for (unit, _) in &present {
            let _ = write!(text, " {:.0} |", rates.get(**unit).copied().unwrap_or(0.0));
        }
        text.push('\n');
    }
    if machine.has_others() {
        let plot = machine.plot_name();
        let _ = writeln!(text, "\n![How many times as long as regard others take](bench/{plot})");
    }
    text.push('\n');
    text
}

fn measurements(machine: &Machine) -> String {
    let (decoded, others): (Vec<_>, Vec<_>) = machine.rows.iter().partition(|row| row.gbs.is_some());
    let mut sections = Vec::new();
    if !others.is_empty() {
        sections.push(format!("### Every measurement\n\n{}", table("GFLOP/s", &others, |row| row.gflops)));
    }
    if !decoded.is_empty() {
        let rate = |row: &Row| row.gbs.unwrap_or(0.0);
        sections.push(format!("### Decoding\n\n{}", table("GB/s", &decoded, rate)));
    }
    sections.join("\n")
}

/// Measurements and their rates.
fn table(unit: &str, rows: &[&Row], rate: impl Fn(&Row) -> f64) -> String {
    let mut text = format!(
        "| workload | storage | kernel | regard | quartiles | {unit} | peak | best other | ratio | the rest | load |\n"
    );
    text.push_str("|---|---|---|---:|---:|---:|---:|---|---:|---|---:|\n");
    for row in rows {
        let storage =
            if row.way == PLAIN { row.dtype.clone() } else { format!("{}, {}", row.dtype, row.way) };
        let (best, ratio, rest) = beside(row);
        let peak = row.peak.as_ref().map_or(String::new(), |(unit, share)| {
            format!("{:.0} % {}", 100.0 * share, unit.replace('_', " "))
        });
        let load = row.foreign.map_or(String::new(), |share| format!("{:.0} %", 100.0 * share));
        let _ = writeln!(
            text,
            "| {} | {storage} | {} | {} | {} to {} | {:.0} | {peak} | {best} | {ratio} | {rest} | {load} |",
            row.workload,
            row.kernel(),
            time(row.seconds.median),
            time(row.seconds.lower),
            time(row.seconds.upper),
            rate(row),
        );
    }
    text
}

/// The best of the others, its ratio, and the rest with theirs.
fn beside(row: &Row) -> (String, String, String) {
    let Some((best, rest)) = row.others.split_first() else { return Default::default() };
    let rest: Vec<_> =
        rest.iter().map(|other| format!("{} {:.2}", other.title(), row.times(other))).collect();
    (format!("{}, {}", best.title(), time(best.seconds.median)), ratio(row), rest.join(", "))
}

/// The ratio of medians and that of the shortest samples; nothing where there are no others.
fn ratio(row: &Row) -> String {
    let ratios = row.ratio().zip(row.ratio_of_shortest());
    ratios.map_or(String::new(), |(medians, shortest)| format!("{medians:.2} ({shortest:.2})"))
}

fn bar(machine: &Machine) -> String {
    let mut text = String::from("\n### The bar\n\n| | f32 | bf16 | f16 |\n|---|---:|---:|---:|\n");
    let cell = |row: Option<&Row>| row.map_or(String::new(), ratio);
    for (workload, dtypes) in BAR {
        let cells = [Dtype::F32, Dtype::Bf16, Dtype::F16].map(|dtype| match dtypes.contains(&dtype) {
            true => cell(machine.row(workload, dtype, PLAIN)),
            false => String::new(),
        });
        let _ = writeln!(text, "| {workload}, ratio | {} |", cells.join(" | "));
    }
    for (title, rows) in [("small-64, one thread", "small-64"), ("small-128, one thread", "small-128")] {
        let cells = [Dtype::F32, Dtype::Bf16].map(|dtype| {
            machine.row(rows, dtype, PLAIN).map_or(String::new(), |row| time(row.seconds.median))
        });
        let _ = writeln!(text, "| {title} | {} | |", cells.join(" | "));
    }
    if let Some((_, share)) = machine.row("gqa-4096", Dtype::F32, AVX2).and_then(|row| row.peak.as_ref()) {
        let _ = writeln!(text, "| gqa-4096 with AVX2 alone, of its peak | {:.0} % | | |", 100.0 * share);
    }
    for width in WORKLOADS.iter().filter(|workload| workload.name.starts_with("width-")) {
        let cells = [Dtype::F32, Dtype::Bf16].map(|dtype| {
            let rate = |name: &str| machine.row(name, dtype, PLAIN).map(|row| row.gflops);
            let relative = rate(width.name).zip(rate("width-128")).map(|(rate, of)| 100.0 * rate / of);
            relative.map_or(String::new(), |percent| format!("{percent:.0} %"))
        });
        let _ = writeln!(
            text,
            "| rate at {}, of that at 128 | {} | |",
            width.name.replace('-', " "),
            cells.join(" | ")
        );
    }
    text
}

/// Everything that is not in the tables, and why.
fn left_out(machine: &Machine) -> String {
    let mut lines: Vec<_> =
        machine.session.skipped.iter().map(|(who, why)| format!("{who}: {why}")).collect();
    for row in &machine.rows {
        let wrong = row.wrong.iter();
        let wrong =
            wrong.map(|(who, error)| format!("{who} on {}: plainly wrong, error {error:.1e}", row.title()));
        lines.extend(wrong);
        let [error, bound] = row.error;
        if error > bound {
            lines.push(format!("regard on {}: error {error:.1e}, at most {bound:.1e}", row.title()));
        }
    }
    let failures = machine.failures.iter();
    lines.extend(failures.map(|failure| {
        let Failure { who, why, rounds } = failure;
        format!("{who} on {}: {why}", rounds.join(", "))
    }));
    if lines.is_empty() {
        return String::new();
    }
    format!("\n### Left out\n\n* {}\n", lines.join("\n* "))
}

/// What names of workloads mean.
fn legend() -> String {
    let mut text = String::from(
        "\n## The workloads\n\nOne sequence, whose queries are its keys, unless those are cached.\n\n",
    );
    text.push_str("| | | threads |\n|---|---|---:|\n");
    for workload in WORKLOADS {
        let round = rounds().find(|round| round.workloads.contains(&workload.name));
        let threads = round.map_or(0, |round| round.threads);
        let alone = round.is_some_and(|round| round.company == Company::Alone);
        let words = workload.words() + if alone { "; regard alone" } else { "" };
        let _ = writeln!(text, "| {} | {words} | {threads} |", workload.name);
    }
    let names: Vec<_> = PEERS.iter().map(|peer| format!("{} ({})", peer.title, peer.name)).collect();
    let _ = writeln!(
        text,
        "\nOthers: {}. Of someone's several ways the fastest counts; an answer whose relative error is above {PLAINLY_WRONG} \
         does not, or above {PLAINLY_WRONG_IN_8_BITS} where keys and values are cached in 8 bits. Results are in {FOLDER}, one file for each machine and date, with every sample's quartiles, every error \
         and what each said of the kernel that it ran.",
        names.join(", ")
    );
    text
}

#[cfg(test)]
mod tests;
