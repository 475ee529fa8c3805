//! `cargo xtask bench` as a whole, with a worker that computes attention by the book.
//!
//! This program is both: started as `regard` would be, it is the worker; else it runs the tests. So it has a main of its
//! own.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::{Path, PathBuf};

use regard_dev::bench::history::{FOLDER, History, Line, OURS, Outcome};
use regard_dev::bench::workload::Company;
use regard_dev::bench::{Options, measure, render};
use regard_dev::{Error, Regard};

/// A round of one head over 64 tokens.
const ROUND: &str = "small-64/f32";

/// A file beside the tests' tree that makes the worker forget the scale.
const WRONG: &str = "wrong";

fn main() {
    let args: Vec<_> = env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "worker") {
        return worker();
    }
    a_round_is_measured_kept_and_rendered();
    an_interrupted_run_goes_on();
    a_wrong_answer_is_an_error();
    println!("tests of cargo xtask bench passed");
}

fn a_round_is_measured_kept_and_rendered() {
    let root = root("measured");
    measure(regard(&root), &root, &options()).unwrap();
    let history = only_history(&root);
    let [Line::Session(session), Line::Round(round), Line::End] = history.lines() else {
        panic!("{history:?}")
    };
    assert_eq!((&*session.cpu, &*session.isa, session.cores), ("By the book", "scalar", 1));
    assert_eq!(round.limits["fma"], 2.0);
    let [entry] = &round.entries[..] else { panic!("{round:?}") };
    assert_eq!((&*entry.who, &*entry.workload, &*entry.note), (OURS, "small-64", "kernel written here"));
    let Outcome::Measured { seconds, error, bound } = entry.outcome else { panic!("{entry:?}") };
    assert!(seconds.min > 0.0 && seconds.lower <= seconds.median && seconds.median <= seconds.upper);
    assert!(error <= bound.unwrap());
    render(&root).unwrap();
    let page = fs::read_to_string(root.join("docs/bench.md")).unwrap();
    assert!(
        page.contains("## By the book, scalar, 1 cores")
            && page.contains("| small-64 | f32 | written here |"),
        "{page}"
    );
    fs::remove_dir_all(root).unwrap();
}

fn an_interrupted_run_goes_on() {
    let root = root("interrupted");
    measure(regard(&root), &root, &options()).unwrap();
    let path = only_history(&root).path().to_owned();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.strip_suffix("\"end\"\n").unwrap()).unwrap();
    measure(regard(&root), &root, &options()).unwrap();
    let rounds =
        |history: &History| history.lines().iter().filter(|line| matches!(line, Line::Round(_))).count();
    assert_eq!(rounds(&only_history(&root)), 1, "the round was there already");
    measure(regard(&root), &root, &options()).unwrap();
    assert_eq!(rounds(&only_history(&root)), 2, "a finished run is followed by another");
    fs::remove_dir_all(root).unwrap();
}

fn a_wrong_answer_is_an_error() {
    let root = root("wrong");
    fs::write(root.join(WRONG), "").unwrap();
    let error = measure(regard(&root), &root, &options()).unwrap_err();
    assert!(matches!(error, Error::Wrong { answers: 1 }), "{error:?}");
    let page = fs::read_to_string(root.join("docs/bench.md")).unwrap();
    assert!(page.contains("* regard on small-64 f32: error"), "{page}");
    fs::remove_dir_all(root).unwrap();
}

fn root(test: &str) -> PathBuf {
    let root = env::temp_dir().join(format!("regard-bench-{test}-{}", std::process::id()));
    fs::create_dir_all(root.join("docs")).unwrap();
    root
}

fn regard(root: &Path) -> Regard {
    Regard::at(&env::current_exe().unwrap(), root)
}

fn options() -> Options {
    Options { company: Company::Alone, peers_dir: None, only: vec![ROUND.to_owned()], seconds: 0.0 }
}

fn only_history(root: &Path) -> History {
    let mut all = History::all(root).unwrap();
    assert_eq!(all.len(), 1, "files below {FOLDER}");
    all.remove(0)
}

/// What was set up: q, k and v of one head.
struct Slot {
    tensors: [Vec<f32>; 3],
    dim: usize,
    answer: Vec<f32>,
}

impl Slot {
    fn new(fields: &HashMap<&str, &str>) -> Self {
        assert_eq!((fields["heads"], fields["kv_heads"], fields["dtype"]), ("1", "1", "f32"));
        assert!(!fs::read_to_string(fields["spec"]).unwrap().contains("mask"));
        let tensors = ["q", "k", "v"].map(|name| {
            let bytes = fs::read(Path::new(fields["dir"]).join(format!("{name}.f32"))).unwrap();
            bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect::<Vec<_>>()
        });
        Self { tensors, dim: fields["dim"].parse().unwrap(), answer: Vec::new() }
    }

    fn run(&mut self) {
        let rows: [Vec<&[f32]>; 3] = self.tensors.each_ref().map(|x| x.chunks(self.dim).collect());
        let [q, k, v] = rows;
        // The worker runs in the tests' tree.
        let scale = if Path::new(WRONG).exists() { 1.0 } else { (self.dim as f64).powf(-0.5) };
        self.answer.clear();
        for q in q {
            let dot = |k: &[f32]| q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
            let weights: Vec<_> = k.iter().map(|k| (scale * dot(k)).exp()).collect();
            let sum: f64 = weights.iter().sum();
            self.answer.extend((0..self.dim).map(|channel| {
                let column = v.iter().map(|v| f64::from(v[channel]));
                (weights.iter().zip(column).map(|(weight, v)| weight * v).sum::<f64>() / sum) as f32
            }));
        }
    }
}

fn worker() {
    let mut slots: HashMap<String, Slot> = HashMap::new();
    let say = |line: &str| {
        println!("{line}");
        stdout().flush().unwrap();
    };
    say("ready\tversion=by the book");
    for line in stdin().lock().lines().map_while(Result::ok) {
        let mut parts = line.split('\t');
        let verb = parts.next().unwrap();
        let fields: HashMap<_, _> = parts.map(|part| part.split_once('=').unwrap()).collect();
        let slot = || fields["slot"].to_owned();
        match verb {
            "limits" => say("ok\tcpu=By the book\tisa=scalar\tcores=1\tfma=2"),
            "setup" => {
                slots.insert(slot(), Slot::new(&fields));
                say("ok\tkernel=written here");
            }
            "run" => {
                slots.get_mut(&slot()).unwrap().run();
                say("time\tseconds=1e-3\tcalls=1");
            }
            "output" => {
                let bytes: Vec<u8> = slots[&slot()].answer.iter().flat_map(|x| x.to_le_bytes()).collect();
                fs::write(fields["path"], bytes).unwrap();
                say("ok");
            }
            "free" => {
                slots.remove(&slot());
                say("ok");
            }
            _ => say(&format!("err\tmessage=found the verb {verb}")),
        }
    }
}
