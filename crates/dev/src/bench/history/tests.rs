use super::*;

fn session(commit: &str) -> Session {
    Session {
        date: "2026-11-25".to_owned(),
        command: "cargo xtask bench".to_owned(),
        commit: commit.to_owned(),
        cpu: "ACME (R) Zoom @ 3 GHz".to_owned(),
        isa: "avx2".to_owned(),
        ..Session::default()
    }
}

fn round(name: &str) -> Line {
    let spread = Spread::of(&[1.0, 2.0]).unwrap();
    let outcome = Outcome::Measured { seconds: spread, error: 1e-7, bound: Some(1e-6) };
    let entry = |who: &str, outcome| Entry {
        workload: name.to_owned(),
        who: who.to_owned(),
        way: "plain".to_owned(),
        note: String::new(),
        outcome,
    };
    let failed = Outcome::Failed("no such processor".to_owned());
    Line::Round(Round {
        name: name.to_owned(),
        threads: 2,
        limits: BTreeMap::from([("fma".to_owned(), 2.5)]),
        foreign: Some(0.25),
        entries: vec![entry(OURS, outcome), entry("x", failed)],
    })
}

fn folder(test: &str) -> PathBuf {
    let root = std::env::temp_dir().join(format!("regard-history-{test}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    root
}

#[test]
fn lines_come_back_as_they_were_written() {
    let root = folder("lines");
    let mut history = History::of(&root, &session("a")).unwrap();
    assert!(history.path().ends_with("docs/bench/acme-r-zoom-3-ghz-avx2-2026-11-25.jsonl"));
    for line in [Line::Session(session("a")), round("gqa/f32"), Line::End] {
        history.append(line).unwrap();
    }
    let read = History::of(&root, &session("b")).unwrap();
    assert_eq!(read.lines(), history.lines());
    assert_eq!(History::all(&root).unwrap().len(), 1);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn an_interrupted_session_goes_on_and_a_finished_one_does_not() {
    let root = folder("resume");
    let mut history = History::of(&root, &session("a")).unwrap();
    history.append(Line::Session(session("a"))).unwrap();
    history.append(round("gqa/f32")).unwrap();
    assert_eq!(history.done(&session("a")), ["gqa/f32"]);
    assert_eq!(history.done(&session("b")), [""; 0], "another commit is measured anew");
    history.append(Line::Session(session("a"))).unwrap();
    history.append(round("gqa/bf16")).unwrap();
    assert_eq!(history.done(&session("a")), ["gqa/f32", "gqa/bf16"]);
    history.append(Line::End).unwrap();
    assert_eq!(history.done(&session("a")), [""; 0]);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_line_that_was_cut_short_is_measured_again() {
    let root = folder("cut");
    let mut history = History::of(&root, &session("a")).unwrap();
    history.append(Line::Session(session("a"))).unwrap();
    history.append(round("gqa/f32")).unwrap();
    let text = fs::read_to_string(history.path()).unwrap();
    fs::write(history.path(), &text[..text.len() - 9]).unwrap();
    let mut history = History::of(&root, &session("a")).unwrap();
    assert_eq!(history.done(&session("a")), [""; 0]);
    history.append(round("gqa/bf16")).unwrap();
    let history = History::of(&root, &session("a")).unwrap();
    assert_eq!(history.done(&session("a")), ["gqa/bf16"]);
    fs::write(history.path(), "{}\n").unwrap();
    let error = History::of(&root, &session("a")).unwrap_err().to_string();
    assert!(error.contains("2026-11-25.jsonl:1: "), "{error}");
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn eight_bits_excuse_more() {
    let entry = |workload: &str, who: &str, error, bound| {
        let outcome = Outcome::Measured { seconds: Spread::of(&[1.0, 2.0]).unwrap(), error, bound };
        let [workload, who, way] = [workload, who, "way"].map(str::to_owned);
        Entry { workload, who, way, note: String::new(), outcome }
    };
    assert!(entry("decode-1x65536", "vllm", 0.12, None).is_wrong());
    assert!(!entry("decode-1x65536-8bit", "vllm", 0.12, None).is_wrong());
    assert!(entry("decode-1x65536-8bit", "vllm", 0.3, None).is_wrong());
    assert!(entry("decode-1x65536-8bit", OURS, 0.12, Some(0.02)).is_wrong());
}
