//! What results say, put together for people: each measurement of ours beside the best of the others.

use std::collections::BTreeMap;

use regard_ir::plan::Dtype;

use super::crew::READ;
use super::history::{Entry, History, Line, OURS, Outcome, Round, Session};
use super::peers::{PEERS, peer};
use super::statistics::Spread;
use super::turns::{AVX2, PLAIN, read_limit, units};
use super::workload::{self, workload};

/// All that is known of one machine: of each round the newest measurement that has others, or else the newest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// The newest session.
    pub session: Session,
    /// For each number of threads, the highest rates that were seen in any round, in 10⁹ operations a second of each kind
    /// of unit: what else runs on a machine only takes from them.
    pub limits: BTreeMap<usize, BTreeMap<String, f64>>,
    /// In the order of the table of rounds.
    pub rows: Vec<Row>,
    /// Who could not compute something.
    pub failures: Vec<Failure>,
    /// What is to be known of the rows.
    pub remarks: Vec<String>,
}

/// Someone's way that did not work, and for which reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Who, and in which way.
    pub who: String,
    /// What was said.
    pub why: String,
    /// In which rounds.
    pub rounds: Vec<String>,
}

/// One measurement of ours, and who else computed the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The round.
    pub round: String,
    /// The workload.
    pub workload: String,
    /// Storage of q, k, v and o.
    pub dtype: String,
    /// How ours ran.
    pub way: String,
    /// The day.
    pub date: String,
    /// The commit of ours.
    pub commit: String,
    /// The kernel, its engine and instruction set.
    pub note: String,
    /// Seconds of a call of ours.
    pub seconds: Spread,
    /// Error and bound of ours.
    pub error: [f64; 2],
    /// 10⁹ operations a second.
    pub gflops: f64,
    /// Where keys and values are cached, 10⁹ bytes a second of those, q and o.
    pub gbs: Option<f64>,
    /// The unit that bounds it, and which share of its peak is reached.
    pub peak: Option<(String, f64)>,
    /// Everyone else's best way, fastest first.
    pub others: Vec<Other>,
    /// The share of the machine that other programs took.
    pub foreign: Option<f64>,
    /// Others whose answers are plainly wrong, with their errors.
    pub wrong: Vec<(String, f64)>,
}

/// Another implementation on the same workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Other {
    /// Who.
    pub who: String,
    /// In which way.
    pub way: String,
    /// Seconds of a call.
    pub seconds: Spread,
    /// Its largest relative error.
    pub error: f64,
}

impl Other {
    /// As a table has it.
    pub fn title(&self) -> &str {
        peer(&self.who).map_or(&self.who, |peer| peer.title)
    }
}

impl Row {
    /// How many times as long as ours the best other takes.
    pub fn ratio(&self) -> Option<f64> {
        self.others.first().map(|best| self.times(best))
    }

    /// How many times as long as ours another takes.
    pub fn times(&self, other: &Other) -> f64 {
        other.seconds.median / self.seconds.median
    }

    /// As [`Row::ratio`], of everyone's shortest samples, which other programs disturb least.
    pub fn ratio_of_shortest(&self) -> Option<f64> {
        let shortest = self.others.iter().map(|other| other.seconds.min).min_by(f64::total_cmp);
        Some(shortest? / self.seconds.min)
    }

    /// Where the kernel of ours is from, and its engine, as it said.
    pub fn kernel(&self) -> String {
        let of = |key: &str| self.note.split(", ").find_map(|part| part.strip_prefix(key));
        [of("kernel "), of("engine ")].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// Workload, storage, and the way if it is not the plain one.
    pub fn title(&self) -> String {
        match self.way.as_str() {
            PLAIN => format!("{} {}", self.workload, self.dtype),
            way => format!("{} {}, {way}", self.workload, self.dtype),
        }
    }
}

impl Machine {
    /// The row of a workload, a storage type and a way.
    pub fn row(&self, workload: &str, dtype: Dtype, way: &str) -> Option<&Row> {
        let is = |row: &&Row| (&*row.workload, &*row.dtype, &*row.way) == (workload, dtype.name(), way);
        self.rows.iter().find(is)
    }

    /// Whether any of its rows has others beside it.
    pub fn has_others(&self) -> bool {
        self.rows.iter().any(|row| !row.others.is_empty())
    }

    /// The name of its picture, beside its results.
    pub fn plot_name(&self) -> String {
        format!("{}.svg", super::history::slug(&self.session))
    }
}

/// What files of results, oldest first, say of each machine; the machine measured last comes first.
pub fn machines(histories: &[History]) -> Vec<Machine> {
    let mut newest: BTreeMap<String, BTreeMap<String, (Session, Round)>> = BTreeMap::new();
    let mut sessions: BTreeMap<String, (usize, Session)> = BTreeMap::new();
    let mut remarks: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut place = 0;
    for history in histories {
        let mut current = None;
        for line in history.lines() {
            match (line, &current) {
                (Line::Session(session), _) => current = Some(session.clone()),
                (Line::Round(round), Some(session)) => {
                    let slug = super::history::slug(session);
                    place += 1;
                    sessions.insert(slug.clone(), (place, session.clone()));
                    let rounds = newest.entry(slug).or_default();
                    let has_others = |round: &Round| round.entries.iter().any(|entry| entry.who != OURS);
                    let displaces = |(_, known): &(Session, Round)| has_others(round) || !has_others(known);
                    if rounds.get(&round.name).is_none_or(displaces) {
                        rounds.insert(round.name.clone(), (session.clone(), round.clone()));
                    }
                }
                (Line::Remark(text), Some(session)) => {
                    let of = remarks.entry(super::history::slug(session)).or_default();
                    of.push((session.date.clone(), text.clone()));
                }
                (Line::Round(_) | Line::Remark(_) | Line::End, _) => {}
            }
        }
    }
    let mut machines: Vec<_> = newest
        .into_iter()
        .filter_map(|(slug, mut rounds)| {
            let (place, session) = sessions.remove(&slug)?;
            let mut machine = Machine { session, limits: highest(rounds.values()), ..Machine::default() };
            for round in workload::rounds() {
                if let Some((session, measured)) = rounds.remove(&round.name()) {
                    machine.rows.extend(rows(&measured, &session, round.dtype, &machine.limits));
                    note_failures(&measured, &mut machine.failures);
                }
            }
            // Of a day of which rows are left.
            let of_day = remarks.remove(&slug).unwrap_or_default().into_iter();
            let of_day = of_day.filter(|(date, _)| machine.rows.iter().any(|row| row.date == *date));
            machine.remarks = of_day.map(|(_, text)| text).collect();
            Some((place, machine))
        })
        .collect();
    machines.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
    machines.into_iter().map(|(_, machine)| machine).collect()
}

fn highest<'a>(rounds: impl Iterator<Item = &'a (Session, Round)>) -> BTreeMap<usize, BTreeMap<String, f64>> {
    let mut highest: BTreeMap<usize, BTreeMap<String, f64>> = BTreeMap::new();
    for (_, round) in rounds {
        let known = highest.entry(round.threads).or_default();
        for (unit, &rate) in &round.limits {
            let best = known.entry(unit.clone()).or_insert(rate);
            *best = best.max(rate);
        }
    }
    highest
}

/// A row for each way of ours.
fn rows(
    round: &Round,
    session: &Session,
    dtype: Dtype,
    limits: &BTreeMap<usize, BTreeMap<String, f64>>,
) -> Vec<Row> {
    let ours = round.entries.iter().filter(|entry| entry.who == OURS);
    ours.filter_map(|entry| {
        let Outcome::Measured { seconds, error, bound } = &entry.outcome else { return None };
        let of = workload(&entry.workload)?;
        let gflops = of.operations() / seconds.median / 1e9;
        let gbs = of.cached_bytes(dtype).map(|bytes| bytes / seconds.median / 1e9);
        let limits = limits.get(&round.threads);
        let peak = match gbs {
            // How fast bytes are read goes by how many: no other round tells.
            Some(gbs) => {
                let read = round.limits.get(&read_limit(&entry.workload)).or(round.limits.get(READ));
                read.map(|read| (READ.to_owned(), gbs / read))
            }
            None => units(dtype, &entry.way)
                .iter()
                .find_map(|unit| Some(((*unit).to_owned(), gflops / limits?.get(*unit)?))),
        };
        Some(Row {
            round: round.name.clone(),
            workload: entry.workload.clone(),
            dtype: dtype.name().to_owned(),
            way: entry.way.clone(),
            date: session.date.clone(),
            commit: session.commit.clone(),
            note: entry.note.clone(),
            seconds: *seconds,
            error: [*error, bound.unwrap_or(0.0)],
            gflops,
            gbs,
            peak,
            // Nobody else is held below what the machine has.
            others: if entry.way == AVX2 { Vec::new() } else { others(round, &entry.workload) },
            foreign: round.foreign,
            wrong: wrong(round, &entry.workload),
        })
    })
    .collect()
}

fn others(round: &Round, workload: &str) -> Vec<Other> {
    let mut others: Vec<_> = PEERS
        .iter()
        .filter_map(|peer| {
            let own =
                round.entries.iter().filter(|entry| entry.who == peer.name && entry.workload == workload);
            let measured = own.filter(|entry| !entry.is_wrong()).filter_map(|entry| match &entry.outcome {
                Outcome::Measured { seconds, error, .. } => Some(Other {
                    who: entry.who.clone(),
                    way: entry.way.clone(),
                    seconds: *seconds,
                    error: *error,
                }),
                Outcome::Failed(_) => None,
            });
            measured.min_by(|a, b| a.seconds.median.total_cmp(&b.seconds.median))
        })
        .collect();
    others.sort_by(|a, b| a.seconds.median.total_cmp(&b.seconds.median));
    others
}

fn wrong(round: &Round, workload: &str) -> Vec<(String, f64)> {
    let wrong = round.entries.iter().filter(|entry| entry.who != OURS && entry.workload == workload);
    wrong
        .filter(|entry| entry.is_wrong())
        .filter_map(|entry| match entry.outcome {
            Outcome::Measured { error, .. } => Some((format!("{} {}", entry.who, entry.way), error)),
            Outcome::Failed(_) => None,
        })
        .collect()
}

/// Adds who failed to those that failed before, the same reason once.
fn note_failures(round: &Round, failures: &mut Vec<Failure>) {
    for entry in &round.entries {
        let Outcome::Failed(why) = &entry.outcome else { continue };
        let who = format!("{} {}", entry.who, entry.way);
        match failures.iter_mut().find(|known| known.who == who && known.why == *why) {
            Some(known) => known.rounds.push(round.name.clone()),
            None => failures.push(Failure { who, why: why.clone(), rounds: vec![round.name.clone()] }),
        }
    }
}

/// Says on stdout what came of a round.
pub(super) fn tell(round: &Round) {
    let dtype = Dtype::ALL.into_iter().find(|dtype| round.name.ends_with(&format!("/{}", dtype.name())));
    let limits = BTreeMap::from([(round.threads, round.limits.clone())]);
    let rows = rows(round, &Session::default(), dtype.unwrap_or(Dtype::F32), &limits);
    for row in &rows {
        let peak = row
            .peak
            .as_ref()
            .map_or(String::new(), |(unit, share)| format!(", {:.0} % of {unit}", 100.0 * share));
        let others = row.others.iter().map(|other| format!("  {} {:.2}x", other.who, row.times(other)));
        // What is cached is compared with the round's first.
        let first = rows.first().filter(|first| row.gbs.is_some() && first.workload != row.workload);
        let beside = first.map_or(String::new(), |first| {
            format!(", {:.2} times {}", row.seconds.median / first.seconds.median, first.workload)
        });
        println!(
            "{:28} {:>10}{peak}{beside}{}",
            row.title(),
            time(row.seconds.median),
            others.collect::<String>()
        );
    }
    for Entry { who, way, workload, outcome, .. } in &round.entries {
        match outcome {
            Outcome::Failed(why) => eprintln!("skipped {who} {way} on {workload}: {why}"),
            Outcome::Measured { error, bound: Some(bound), .. } if error > bound => {
                eprintln!("FAILED {who} {way} on {workload}: error {error:.1e}, at most {bound:.1e}");
            }
            Outcome::Measured { .. } => {}
        }
    }
}

/// Seconds in the unit that suits them.
pub fn time(seconds: f64) -> String {
    let (factor, unit) = match seconds {
        s if s < 1e-3 => (1e6, "µs"),
        s if s < 1.0 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    let number = seconds * factor;
    let digits = if number < 10.0 { 2 } else { usize::from(number < 1000.0) };
    format!("{number:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ours: f64, others: &[(&str, &str, f64, f64)]) -> Line {
        let entry = |who: &str, way: &str, seconds: f64, error, bound| Entry {
            workload: "gqa-512".to_owned(),
            who: who.to_owned(),
            way: way.to_owned(),
            note: String::new(),
            outcome: Outcome::Measured { seconds: Spread::of(&[seconds]).unwrap(), error, bound },
        };
        let mut entries = vec![entry(OURS, PLAIN, ours, 1e-7, Some(1e-6))];
        entries
            .extend(others.iter().map(|&(who, way, seconds, error)| entry(who, way, seconds, error, None)));
        let limits = BTreeMap::from([("fma".to_owned(), 100.0 / ours)]);
        Line::Round(Round { name: "gqa-512/f32".to_owned(), threads: 2, limits, foreign: None, entries })
    }

    fn one(rounds: Vec<Line>) -> Row {
        let lines =
            rounds.into_iter().flat_map(|round| [Line::Session(Session::default()), round, Line::End]);
        let mut machines = machines(&[History::with(lines.collect())]);
        assert_eq!((machines.len(), machines[0].rows.len()), (1, 1));
        machines[0].rows.remove(0)
    }

    #[test]
    fn the_fastest_way_of_each_counts_and_a_wrong_one_does_not() {
        let others = [
            ("torch-sdpa", "sdpa", 3.0, 1e-6),
            ("torch-sdpa", "sdpa-repeat", 2.0, 1e-6),
            ("vllm", "paged", 1.5, 1e-6),
            ("ggml", "flash", 0.1, 0.7),
        ];
        let row = one(vec![round(1.0, &others)]);
        let found: Vec<_> = row.others.iter().map(|other| (&*other.who, &*other.way)).collect();
        assert_eq!(found, [("vllm", "paged"), ("torch-sdpa", "sdpa-repeat")]);
        assert_eq!(row.ratio(), Some(1.5));
        assert_eq!(row.wrong, [("ggml flash".to_owned(), 0.7)]);
    }

    #[test]
    fn what_is_cached_is_held_against_the_rate_of_as_many_bytes() {
        let Line::Round(round) = round(1.0, &[]) else { panic!() };
        let share = |limits: &[(&str, f64)]| {
            let limits = limits.iter().map(|&(name, rate)| (name.to_owned(), rate)).collect();
            let entry = Entry { workload: "decode-1x8192-few".to_owned(), ..round.entries[0].clone() };
            let round = Round { limits, entries: vec![entry], ..round.clone() };
            rows(&round, &Session::default(), Dtype::F32, &BTreeMap::new())[0].peak.clone().unwrap().1
        };
        let own = share(&[("read", 40.0), ("read decode-1x8192-few", 20.0)]);
        assert_eq!(own, 2.0 * share(&[("read", 40.0), ("read decode-1x8192", 20.0)]));
    }

    #[test]
    fn the_newest_counts_unless_it_lacks_the_others() {
        let others = [("vllm", "paged", 1.5, 1e-6)];
        let median = |rounds| one(rounds).seconds.median;
        assert_eq!(median(vec![round(1.0, &[]), round(2.0, &[])]), 2.0);
        assert_eq!(median(vec![round(1.0, &others), round(2.0, &others)]), 2.0);
        assert_eq!(median(vec![round(1.0, &others), round(2.0, &[])]), 1.0);
    }

    #[test]
    fn a_remark_stays_as_long_as_a_row_of_its_day() {
        let of_day = |date: &str| Line::Session(Session { date: date.to_owned(), ..Session::default() });
        let remark = Line::Remark("asleep".to_owned());
        let mut lines = vec![of_day("2026-11-25"), round(1.0, &[]), remark];
        assert_eq!(machines(&[History::with(lines.clone())])[0].remarks, ["asleep"]);
        lines.extend([of_day("2026-11-26"), round(1.0, &[])]);
        assert_eq!(machines(&[History::with(lines)])[0].remarks, [""; 0]);
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!([2.345e-6, 0.01234, 0.65, 12.5].map(time), ["2.35 µs", "12.3 ms", "650.0 ms", "12.5 s"]);
    }
}
