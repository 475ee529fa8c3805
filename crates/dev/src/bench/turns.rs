//! A round: everyone is set up and held against the formula, then they take turns until all have enough samples.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use regard_ir::plan::Dtype;

use super::crew::{Crew, READ};
use super::history::{self, Entry, OURS, Outcome};
use super::load::{self, Load};
use super::reference::{Inputs, Judgement, Reference};
use super::statistics::Spread;
use super::workload::{Also, Company, Precision, Round, Workload, workload};
use crate::error::Error;

/// A setup may compile for minutes.
const SETUP_PATIENCE: Duration = Duration::from_secs(600);

/// A sample, or an output, of the slowest.
const PATIENCE: Duration = Duration::from_secs(180);

/// The least that a sample takes: above what clocks and wake-ups blur.
const SAMPLE_SECONDS: f64 = 0.02;

/// Samples of someone who is quick, of someone whose time is up, and of someone who takes very long.
const MOST_SAMPLES: usize = 25;
const SAMPLES: usize = 5;
const FEWEST_SAMPLES: usize = 2;

/// Someone who has taken so many times the allotted seconds stops at the fewest samples.
const VERY_LONG: f64 = 4.0;

/// Threads that spin after their work have gone to sleep by then.
const PAUSE: Duration = Duration::from_millis(8);

/// Someone's way of computing a workload.
struct Turn {
    who: &'static str,
    workload: &'static Workload,
    way: &'static str,
    note: String,
    samples: Vec<f64>,
    judged: Option<Judgement>,
    failure: Option<String>,
}

impl Turn {
    fn new(who: &'static str, workload: &'static Workload, way: &'static str) -> Self {
        Self { who, workload, way, note: String::new(), samples: Vec::new(), judged: None, failure: None }
    }

    fn precision(&self) -> Precision {
        if self.way == FAST { Precision::Fast } else { Precision::Exact }
    }

    /// Whether it needs another sample.
    fn goes_on(&self, seconds: f64) -> bool {
        let (n, spent) =
            (self.samples.len(), self.samples.iter().map(|s| s.max(SAMPLE_SECONDS)).sum::<f64>());
        let enough = n >= MOST_SAMPLES
            || n >= SAMPLES && spent > seconds
            || n >= FEWEST_SAMPLES && spent > VERY_LONG * seconds;
        self.failure.is_none() && !enough
    }

    fn entry(self) -> Entry {
        let outcome = match (self.failure, Spread::of(&self.samples), self.judged) {
            (None, Some(seconds), Some(Judgement { error, bound })) => {
                Outcome::Measured { seconds, error, bound: (self.who == OURS).then_some(bound) }
            }
            (failure, _, _) => Outcome::Failed(failure.unwrap_or_else(|| "gave no answer".to_owned())),
        };
        Entry {
            workload: self.workload.name.to_owned(),
            who: self.who.to_owned(),
            way: self.way.to_owned(),
            note: self.note,
            outcome,
        }
    }
}

/// How ours is called where it runs as it does by default, in pieces of bf16, and below its best instruction set.
pub const PLAIN: &str = "plain";
/// See [`PLAIN`].
pub const FAST: &str = "fast";
/// See [`PLAIN`].
pub const AVX2: &str = "avx2";

/// Measures a round: `seconds` for each who takes part, in files below `folder`.
///
/// # Errors
/// If files cannot be written, or the table has a mistake. What goes wrong with one of those who take part is noted as
/// what came of them.
pub(super) fn measure(
    round: &'static Round,
    crew: &mut Crew,
    seconds: f64,
    folder: &Path,
) -> Result<history::Round, Error> {
    let workloads = with_room(round, load::free_bytes());
    let bytes = |workload: &&Workload| workload.cached_bytes(round.dtype);
    let mut limits = crew.limits(round.threads, workloads.first().and_then(bytes))?;
    for workload in workloads.iter().skip(1) {
        if let Some(bytes) = bytes(workload) {
            limits.insert(read_limit(workload.name), crew.read_gbs(round.threads, bytes)?);
        }
    }
    let mut turns = Vec::new();
    for workload in workloads {
        let from = turns.len();
        turns.extend(ways(round, workload, crew, &limits));
        let inputs = Inputs::new(workload);
        let dir = folder.join(workload.name);
        inputs.write(workload, &dir)?;
        let reference = Reference::new(workload, &inputs, round.dtype)?;
        for (slot, turn) in turns.iter_mut().enumerate().skip(from) {
            if let Err(failure) = set_up(turn, slot, round, crew, &dir, &reference) {
                turn.failure = Some(failure);
            }
        }
        fs::remove_dir_all(&dir).map_err(Error::file(&dir))?;
    }
    let before = Load::now(&crew.processes());
    while turns.iter().any(|turn| turn.goes_on(seconds)) {
        for (slot, turn) in turns.iter_mut().enumerate().filter(|(_, turn)| turn.goes_on(seconds)) {
            match sample(turn, slot, round.threads, crew) {
                Ok(seconds) => turn.samples.push(seconds),
                Err(failure) => turn.failure = Some(failure),
            }
            thread::sleep(PAUSE);
        }
    }
    let foreign = Load::now(&crew.processes()).zip(before).map(|(now, before)| now.foreign_since(before));
    for (slot, turn) in turns.iter().enumerate() {
        // Whoever has ended holds nothing any more.
        if let Ok(worker) = crew.worker(turn.who, round.threads) {
            let _ = worker.ask("free", &[("slot", slot.to_string())], "ok", PATIENCE);
        }
    }
    let entries = turns.into_iter().map(Turn::entry).collect();
    Ok(history::Round { name: round.name(), threads: round.threads, limits, foreign, entries })
}

/// What the rate is called at which as many bytes are read as a further workload of a round has; that of the first is [`READ`].
pub(super) fn read_limit(workload: &str) -> String {
    format!("{READ} {workload}")
}

/// The workloads of a round that so much memory has room for; others are skipped aloud.
fn with_room(round: &Round, free_bytes: Option<f64>) -> Vec<&'static Workload> {
    let mut left = free_bytes.unwrap_or(f64::INFINITY);
    let has_room = |workload: &&Workload| {
        let cached = workload.cached_bytes(round.dtype).unwrap_or(0.0);
        let needed = cached + workload.drawn_bytes();
        if needed > left {
            let (name, dtype) = (workload.name, round.dtype.name());
            let (needed, left) = (needed / 1e9, left / 1e9);
            eprintln!("skipped {name} in {dtype}: it takes {needed:.1} GB of memory, {left:.1} GB are left");
            return false;
        }
        left -= cached;
        true
    };
    round.workloads.iter().filter_map(|name| workload(name)).filter(has_room).collect()
}

/// All ways of a workload, ours first.
fn ways(
    round: &Round,
    workload: &'static Workload,
    crew: &Crew,
    limits: &BTreeMap<String, f64>,
) -> Vec<Turn> {
    let has = |unit: &str| limits.contains_key(unit);
    let mut turns = vec![Turn::new(OURS, workload, PLAIN)];
    for also in round.also {
        match also {
            Also::Fast if has("tiles_bf16") => turns.push(Turn::new(OURS, workload, FAST)),
            Also::Fast => eprintln!("skipped {} {FAST}: no matrix tiles on this machine", workload.name),
            Also::Avx2 if has("fma_avx2") => turns.push(Turn::new(OURS, workload, AVX2)),
            Also::Avx2 => eprintln!("skipped {} {AVX2}: not on this machine", workload.name),
        }
    }
    if round.company == Company::Peers {
        for peer in crew.peers() {
            let ways = peer.ways(workload, round.dtype);
            turns.extend(ways.iter().map(|way| Turn::new(peer.name, workload, way)));
        }
    }
    turns
}

/// Sets one up, and holds its answer against the formula.
fn set_up(
    turn: &mut Turn,
    slot: usize,
    round: &Round,
    crew: &mut Crew,
    dir: &Path,
    reference: &Reference,
) -> Result<(), String> {
    let text = |path: &Path| path.display().to_string();
    let mut fields = vec![
        ("slot", slot.to_string()),
        ("way", turn.way.to_owned()),
        ("dtype", round.dtype.name().to_owned()),
        ("dir", text(dir)),
    ];
    fields.extend(turn.workload.fields());
    if turn.who == OURS {
        let spec = if turn.way == FAST { "fast.toml" } else { "spec.toml" };
        fields.push(("spec", text(&dir.join(spec))));
        if turn.way == AVX2 {
            fields.push(("isa", AVX2.to_owned()));
        }
    }
    let worker = crew.worker(turn.who, round.threads).map_err(|error| error.to_string())?;
    let about = worker.ask("setup", &fields, "ok", SETUP_PATIENCE).map_err(|error| error.to_string())?;
    turn.note = about
        .into_iter()
        .map(|(key, value)| if key == "note" { value } else { format!("{key} {value}") })
        .collect::<Vec<_>>()
        .join(", ");
    // One call, so that there is an answer.
    let once = [("slot", slot.to_string()), ("seconds", "0".to_owned())];
    worker.ask("run", &once, "time", PATIENCE).map_err(|error| error.to_string())?;
    let path = dir.join("answer.f32");
    let output = [("slot", slot.to_string()), ("path", text(&path))];
    worker.ask("output", &output, "ok", PATIENCE).map_err(|error| error.to_string())?;
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let answer: Vec<_> = bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
    turn.judged = reference.judge(&answer, turn.precision());
    match turn.judged {
        Some(_) => Ok(()),
        None => Err(format!("gave an answer of {} numbers", answer.len())),
    }
}

fn sample(turn: &Turn, slot: usize, threads: usize, crew: &mut Crew) -> Result<f64, String> {
    let fields = [("slot", slot.to_string()), ("seconds", SAMPLE_SECONDS.to_string())];
    let worker = crew.worker(turn.who, threads).map_err(|error| error.to_string())?;
    let answer = worker.ask("run", &fields, "time", PATIENCE).map_err(|error| error.to_string())?;
    let seconds = answer.get("seconds").and_then(|text| text.parse::<f64>().ok());
    seconds.filter(|seconds| seconds.is_finite()).ok_or_else(|| format!("answered {answer:?} to run"))
}

/// The kind of unit that bounds ours, among those that a machine has, in the order of preference.
pub fn units(dtype: Dtype, way: &str) -> &'static [&'static str] {
    match (dtype, way) {
        (_, AVX2) => &["fma_avx2"],
        (_, FAST) => &["tiles_bf16"],
        (Dtype::F32, _) => &["fma"],
        (Dtype::Bf16, _) => &["tiles_bf16", "dot_bf16", "fma"],
        (Dtype::F16, _) => &["tiles_bf16", "fma"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workload::rounds;

    #[test]
    fn what_memory_has_no_room_for_is_skipped() {
        let names = |round: &str, gigabytes: f64| {
            let round = rounds().find(|it| it.name() == round).unwrap();
            with_room(round, Some(gigabytes * 1e9)).iter().map(|it| it.name).collect::<Vec<_>>()
        };
        // A copy for each takes 8.6 GB in f32.
        assert_eq!(names("decode-64x16448/f32", 24.0), ["decode-64x16448", "decode-64x16448-shared"]);
        assert_eq!(names("decode-64x16448/f32", 8.0), ["decode-64x16448-shared"]);
        assert_eq!(names("decode-64x16448/bf16", 8.0).len(), 2);
        assert_eq!(names("vit-197/f32", 0.1), ["vit-197"]);
    }

    #[test]
    fn the_quick_get_more_samples_than_the_slow() {
        let count = |each: f64| {
            let mut turn = Turn::new(OURS, workload("vit-197").unwrap(), PLAIN);
            while turn.goes_on(1.0) {
                turn.samples.push(each);
            }
            turn.samples.len()
        };
        assert_eq!([count(1e-6), count(0.1), count(0.5), count(3.0)], [25, 11, 5, 2]);
    }
}
