//! Everyone who is measured, each a process that stays alive from one round to the next.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use super::history::{OURS, Session};
use super::peers::environment::Environment;
use super::peers::{PEERS, Peer, peer};
use super::protocol::{Fields, Worker, WorkerError};
use crate::command::Regard;
use crate::error::Error;

/// Seconds that measuring a machine's peaks may take.
const LIMITS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// How fast bytes are read, among the limits.
pub(super) const READ: &str = "read";

/// The workers, and how they are started.
pub(super) struct Crew {
    regard: Regard,
    environment: Option<Environment>,
    /// Where logs go.
    folder: PathBuf,
    workers: HashMap<(String, usize), Worker>,
    peers: Vec<&'static Peer>,
}

impl Crew {
    /// Ours, and each peer that can be had; the others are told, and noted in the session, with the reason.
    ///
    /// # Errors
    /// If ours does not start.
    pub(super) fn muster(
        regard: Regard,
        mut environment: Option<Environment>,
        folder: PathBuf,
        threads: usize,
        session: &mut Session,
    ) -> Result<Self, Error> {
        let mut found = Vec::new();
        if let Some(environment) = &mut environment {
            for peer in PEERS {
                match peer.prepare(environment) {
                    Ok(()) => found.push(peer),
                    Err(reason) => skip(session, peer.name, reason),
                }
            }
        }
        let mut crew = Self { regard, environment, folder, workers: HashMap::new(), peers: Vec::new() };
        let about = crew.about(threads, &[])?;
        let text = |key: &str| about.get(key).cloned().unwrap_or_default();
        (session.cpu, session.isa) = (text("cpu"), text("isa"));
        session.cores = text("cores").parse().unwrap_or(0);
        for peer in found {
            match crew.worker(peer.name, threads) {
                Ok(worker) => {
                    session.versions.insert(peer.name.to_owned(), worker.version.clone());
                    crew.peers.push(peer);
                }
                Err(error) => skip(session, peer.name, error.to_string()),
            }
        }
        let ours = crew.worker(OURS, threads).map_err(Error::Worker)?;
        session.versions.insert(OURS.to_owned(), ours.version.clone());
        Ok(crew)
    }

    /// The peers that can be had.
    pub(super) fn peers(&self) -> &[&'static Peer] {
        &self.peers
    }

    /// Someone's process with so many threads, started if it is not there or has ended.
    ///
    /// # Errors
    /// If it does not start.
    pub(super) fn worker(&mut self, who: &str, threads: usize) -> Result<&mut Worker, WorkerError> {
        let key = (who.to_owned(), threads);
        if self.workers.get_mut(&key).is_none_or(|worker| !worker.is_alive()) {
            let command = match (peer(who), &self.environment) {
                (Some(peer), Some(environment)) => peer.command(environment, threads),
                _ => self.regard.worker(threads),
            };
            let log = self.folder.join(format!("{who}-{threads}.log"));
            self.workers.insert(key.clone(), Worker::start(command, &log)?);
        }
        self.workers.get_mut(&key).ok_or(WorkerError::Ended)
    }

    /// What the machine does at most with so many threads just now, in 10⁹ operations a second of each kind of unit; and in 10⁹
    /// bytes a second how fast so many are read, where `bytes` are given.
    ///
    /// # Errors
    /// If ours does not start or answer.
    pub(super) fn limits(
        &mut self,
        threads: usize,
        bytes: Option<f64>,
    ) -> Result<BTreeMap<String, f64>, Error> {
        let bytes: Vec<_> = bytes.iter().map(|bytes| ("bytes", format!("{bytes:.0}"))).collect();
        let about = self.about(threads, &bytes)?;
        let rates = about.iter().filter(|(key, _)| *key != "cores");
        Ok(rates.filter_map(|(key, value)| Some((key.clone(), value.parse().ok()?))).collect())
    }

    /// How fast so many bytes are read just now with so many threads, in 10⁹ a second.
    ///
    /// # Errors
    /// As [`Crew::limits`].
    pub(super) fn read_gbs(&mut self, threads: usize, bytes: f64) -> Result<f64, Error> {
        Ok(self.limits(threads, Some(bytes))?.get(READ).copied().unwrap_or(0.0))
    }

    /// The processes that are ours: this one and every worker.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.workers.values().map(Worker::process).chain([std::process::id()]).collect()
    }

    fn about(&mut self, threads: usize, fields: &[(&str, String)]) -> Result<Fields, Error> {
        let worker = self.worker(OURS, threads).map_err(Error::Worker)?;
        worker.ask("limits", fields, "ok", LIMITS_PATIENCE).map_err(Error::Worker)
    }
}

fn skip(session: &mut Session, name: &str, reason: String) {
    eprintln!("skipped {name}: {reason}");
    session.skipped.insert(name.to_owned(), reason);
}
