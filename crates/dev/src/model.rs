//! The cost model against the clock: what was predicted beside what was measured, and what the planner took beside the best
//! of what it could have taken.
//!
//! Both drive the command `regard`, so that they hold what a user gets. The machine is calibrated first, in a cache folder of
//! its own below target/model. One thread is timed, by the time that the processor spent where the system tells it: the rest of
//! the machine need not be idle then. A run's time is the difference between a command that runs often and one that runs once.

mod candidates;
mod inputs;
mod processor_time;
mod workloads;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use crate::command::{Profile, Regard, line};
use crate::error::Error;
use workloads::{Problem, WORKLOADS};

/// The folder of the calibration, the specs and the tensors.
const FOLDER: &str = "target/model";

/// Seconds that the timed runs of one command take together, about: a hundred ticks of the clock.
const SECONDS: f64 = 1.0;

/// Calibrates, measures, and prints both comparisons as Markdown.
///
/// # Errors
/// If a command fails, a file cannot be written, or the planner's choice is past its bar.
pub fn run(root: &Path) -> Result<(), Error> {
    let folder = root.join(FOLDER);
    let regard = Regard::build(root, Profile::Release)?.with_env("XDG_CACHE_HOME", &folder);
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    regard.show(&["calibrate"])?;
    let mut problems = Vec::new();
    for workload in &WORKLOADS {
        problems.extend(workload.problems(&folder)?);
    }
    let mut out = io::stdout().lock();
    predictions(&regard, &problems, &mut out)?;
    candidates::compare(&regard, &problems, &mut out)
}

/// What `regard plan` says of a problem.
struct Planned {
    predicted_s: f64,
    shown: Value,
}

fn planned(regard: &Regard, problem: &Problem) -> Result<Planned, Error> {
    let (spec, keys) = (problem.spec.display().to_string(), problem.keys.to_string());
    let args = ["plan", &spec, "--q", &keys, "--threads", "1", "--json"];
    let missing = |missing| Error::Json { command: line(&args), missing };
    let shown = regard.json(&args)?.into_iter().next().ok_or_else(|| missing("plan"))?;
    let predicted_s = shown["predicted"]["seconds"].as_f64().ok_or_else(|| missing("predicted"))?;
    Ok(Planned { predicted_s, shown })
}

/// Seconds of one run of a problem that takes about `about` seconds, with flags that say more.
fn time(regard: &Regard, problem: &Problem, about: f64, more: &[&str]) -> Result<f64, Error> {
    let path = |path: &Path| path.display().to_string();
    let (spec, inputs) = (path(&problem.spec), path(&problem.inputs));
    let output = path(&problem.inputs.with_extension("out"));
    let repeated = |repeat: u32| {
        let repeat = repeat.to_string();
        let files = ["run", &spec, "-i", &inputs, "-o", &output];
        let args = [&files[..], &["--threads", "1", "--repeat", &repeat, "--json"], more].concat();
        let before = processor_time::of_children();
        let lines = regard.json(&args)?;
        let spent = processor_time::of_children().zip(before).map(|(after, before)| after - before);
        let fastest = lines.first().and_then(|timing| timing["min_s"].as_f64());
        let missing = || Error::Json { command: line(&args), missing: "min_s" };
        Ok::<_, Error>((spent, fastest.ok_or_else(missing)?))
    };
    let often = (SECONDS / about).clamp(2.0, 1e4) as u32;
    let (once, _) = repeated(1)?;
    let (many, fastest) = repeated(1 + often)?;
    Ok(match once.zip(many) {
        Some((once, many)) => (many - once) / f64::from(often),
        None => fastest,
    })
}

/// Prints a line for each problem.
fn predictions(regard: &Regard, problems: &[Problem], out: &mut dyn Write) -> Result<(), Error> {
    writeln!(out, "\n| problem | storage | predicted, ms | measured, ms | measured / predicted |")?;
    writeln!(out, "|---|---|---:|---:|---:|")?;
    let mut ratios = Vec::new();
    for problem in problems {
        let Planned { predicted_s, .. } = planned(regard, problem)?;
        let measured_s = time(regard, problem, predicted_s, &[])?;
        let ratio = measured_s / predicted_s;
        let [predicted, measured] = [predicted_s, measured_s].map(|seconds| format!("{:.2}", 1e3 * seconds));
        let Problem { name, dtype, .. } = problem;
        writeln!(out, "| {name} | {dtype} | {predicted} | {measured} | {ratio:.2} |")?;
        out.flush()?;
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let end = |ratio: Option<&f64>| ratio.copied().unwrap_or(f64::NAN);
    let (least, most) = (end(ratios.first()), end(ratios.last()));
    writeln!(out, "\nmeasured / predicted: median {:.2}, from {least:.2} to {most:.2}", median(&ratios))?;
    Ok(())
}

/// The median of sorted numbers.
fn median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    match sorted.get(n / 2) {
        None => f64::NAN,
        Some(&upper) if n % 2 == 1 => upper,
        Some(&upper) => (sorted[n / 2 - 1] + upper) / 2.0,
    }
}
