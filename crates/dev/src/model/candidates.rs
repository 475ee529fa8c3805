//! The planner's choice beside each engine that it passed over.

use std::io::Write;

use serde_json::Value;

use super::{Planned, Problem, median, planned, time};
use crate::command::Regard;
use crate::error::Error;

/// Problems that take less are not worth a choice, and their times say little.
const LEAST_S: f64 = 1e-3;

/// Engines that are predicted to take so many times as long are not timed.
const HOPELESS: f64 = 4.0;

/// What the choice may lose against the best candidate, in the median and at worst.
const BAR: [f64; 2] = [0.05, 0.25];

/// Times that the choice and a rival take turns.
const ROUNDS: usize = 3;

/// An engine on an instruction set.
struct Candidate {
    engine: String,
    isa: String,
    /// Its time by that of the choice, as predicted.
    times_as_long: f64,
}

/// Times the choice and its rivals in turn, and prints what the choice loses.
///
/// # Errors
/// If a command fails, or the losses pass the bar.
pub(super) fn compare(regard: &Regard, problems: &[Problem], out: &mut dyn Write) -> Result<(), Error> {
    writeln!(out, "\n| problem | storage | chosen | nearest rival | predicted | measured | loss |")?;
    writeln!(out, "|---|---|---|---|---:|---:|---:|")?;
    let mut losses = Vec::new();
    for problem in problems {
        let Planned { predicted_s, shown } = planned(regard, problem)?;
        let Some(chosen) = candidate(&shown["plan"]["plan"]) else { continue };
        let rejected = shown["plan"]["rejected"].as_array().into_iter().flatten();
        let rivals: Vec<_> =
            rejected.filter_map(candidate).filter(|rival| rival.times_as_long < HOPELESS).collect();
        if predicted_s < LEAST_S || rivals.is_empty() {
            continue;
        }
        // The nearest rival, by how many times as long as the choice it takes.
        let mut nearest = (f64::INFINITY, &rivals[0]);
        for rival in &rivals {
            let times = times_as_long(regard, problem, predicted_s, [rival, &chosen])?;
            if times < nearest.0 {
                nearest = (times, rival);
            }
        }
        let (times, rival) = nearest;
        let loss = (1.0 / times - 1.0).max(0.0);
        let Problem { name, dtype, .. } = problem;
        writeln!(
            out,
            "| {name} | {dtype} | {} {} | {} {} | {:.2} | {times:.2} | {:.1} % |",
            chosen.engine,
            chosen.isa,
            rival.engine,
            rival.isa,
            rival.times_as_long,
            100.0 * loss
        )?;
        out.flush()?;
        losses.push(loss);
    }
    losses.sort_by(f64::total_cmp);
    let Some(&worst) = losses.last() else {
        writeln!(out, "\nno engine of this machine comes near the chosen one")?;
        return Ok(());
    };
    let middle = median(&losses);
    writeln!(out, "\nloss: median {:.1} %, worst {:.1} %", 100.0 * middle, 100.0 * worst)?;
    if middle <= BAR[0] && worst <= BAR[1] { Ok(()) } else { Err(Error::Choice { middle, worst, bar: BAR }) }
}

/// An engine as the command prints it.
fn candidate(value: &Value) -> Option<Candidate> {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let times_as_long = value["times_as_long"].as_f64().unwrap_or(1.0);
    Some(Candidate { engine: text("engine")?, isa: text("isa")?, times_as_long })
}

/// How many times as long the first takes as the second: the median of the ratios of turns.
fn times_as_long(
    regard: &Regard,
    problem: &Problem,
    predicted_s: f64,
    pair: [&Candidate; 2],
) -> Result<f64, Error> {
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let [one, other] = pair.map(|Candidate { engine, isa, times_as_long }| {
            time(regard, problem, predicted_s * times_as_long, &["--engine", engine, "--isa", isa])
        });
        ratios.push(one? / other?);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(median(&ratios))
}
