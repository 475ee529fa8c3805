//! Kernels that another program sets up and times by lines.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::bench::{Folder, command};

/// Causal attention of one head of two channels over three tokens.
const SPEC: &str = "name = \"tiny\"\nheads = { query = 1, dim = 2 }\nmask = \"causal\"\n";

/// What the worker answers to lines, after it has said that it is ready.
fn answers(lines: &[String]) -> Vec<String> {
    let mut command = command(&["worker", "--threads", "1"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Dropped when all is written: the worker ends with its input.
    let mut stdin = child.stdin.take().unwrap();
    lines.iter().for_each(|line| writeln!(stdin, "{line}").unwrap());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut answers = text.lines().map(str::to_owned);
    assert!(answers.next().unwrap().starts_with("ready\tversion="));
    answers.collect()
}

fn numbers(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn a_kernel_is_set_up_timed_and_read() {
    let folder = Folder::new("worker");
    let path = |name: &str| folder.path(name).display().to_string();
    fs::write(folder.path("tiny.toml"), SPEC).unwrap();
    let v = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    for (name, tensor) in [("q.f32", [0.0; 6]), ("k.f32", [1.0; 6]), ("v.f32", v)] {
        fs::write(folder.path(name), numbers(&tensor)).unwrap();
    }
    let set_up = format!("setup\tslot=a\tspec={}\tdtype=f32\ttokens=3\tdir={}", path("tiny.toml"), path(""));
    let lines = [
        set_up,
        "run\tslot=a\tseconds=1e-4".to_owned(),
        format!("output\tslot=a\tpath={}", path("o.f32")),
        "free\tslot=a".to_owned(),
        "run\tslot=a\tseconds=0".to_owned(),
    ];
    let [set_up, time, output, free, gone] = &answers(&lines)[..] else { panic!("five answers") };
    assert!(set_up.starts_with("ok\tkernel=generated\tengine="), "{set_up}");
    assert!(time.starts_with("time\tseconds=") && time.contains("\tcalls="), "{time}");
    assert_eq!((&**output, &**free), ("ok", "ok"));
    assert_eq!(gone, "err\tmessage=slot \"a\" is not set up");
    // Scores are all zero: each row is the mean of the values so far.
    assert_eq!(fs::read(folder.path("o.f32")).unwrap(), numbers(&[1.0, 2.0, 2.0, 3.0, 3.0, 4.0]));
}

#[test]
fn inputs_of_a_recurrence_are_read() {
    let folder = Folder::new("worker-recurrence");
    let path = |name: &str| folder.path(name).display().to_string();
    let spec = "heads = { query = 1, dim = 1 }\nmask = \"causal\"\nscore = { scale = 1.0 }\n";
    fs::write(folder.path("tiny.toml"), format!("{spec}recurrence = {{ decay = \"token\" }}\n")).unwrap();
    // The second token forgets what came before, the third keeps all.
    let decay = [0.0, -1e4, 0.0];
    for (name, tensor) in [("q", [1.0; 3]), ("k", [1.0; 3]), ("v", [1.0, 2.0, 4.0]), ("decay", decay)] {
        fs::write(folder.path(&format!("{name}.f32")), numbers(&tensor)).unwrap();
    }
    let lines = [
        format!("setup\tslot=a\tspec={}\tdtype=f32\ttokens=3\tdir={}", path("tiny.toml"), path("")),
        "run\tslot=a\tseconds=0".to_owned(),
        format!("output\tslot=a\tpath={}", path("o.f32")),
    ];
    let [set_up, time, output] = &answers(&lines)[..] else { panic!("three answers") };
    assert!(set_up.starts_with("ok\t") && time.starts_with("time\t"), "{set_up}, {time}");
    assert_eq!(output, "ok");
    assert_eq!(fs::read(folder.path("o.f32")).unwrap(), numbers(&[1.0, 2.0, 6.0]));
}

#[test]
fn keys_and_values_are_cached_for_one_query_of_each_sequence() {
    let folder = Folder::new("worker-decode");
    let path = |name: &str| folder.path(name).display().to_string();
    fs::write(folder.path("tiny.toml"), SPEC).unwrap();
    let v: Vec<f32> = (1..=12).map(|i| i as f32).collect();
    for (name, tensor) in [("q.f32", &[0.0; 4][..]), ("k.f32", &[1.0; 12]), ("v.f32", &v)] {
        fs::write(folder.path(name), numbers(tensor)).unwrap();
    }
    let fields = format!("spec={}\tdtype=f32\ttokens=3\tbatch=2\tdir={}", path("tiny.toml"), path(""));
    let lines = [
        format!("setup\tslot=a\tphase=decode\t{fields}"),
        "run\tslot=a\tseconds=1e-4".to_owned(),
        format!("output\tslot=a\tpath={}", path("o.f32")),
        format!("setup\tslot=b\tphase=fewer\t{fields}"),
        "limits\tbytes=4096".to_owned(),
    ];
    let [set_up, time, output, few, limits] = &answers(&lines)[..] else { panic!("five answers") };
    assert!(
        set_up.starts_with("ok\tkernel=generated\t") && set_up.ends_with("\tcache=k f32 v f32"),
        "{set_up}"
    );
    assert!(time.starts_with("time\tseconds="), "{time}");
    assert_eq!(output, "ok");
    // Scores are all zero: each sequence's output is the mean of its values.
    assert_eq!(fs::read(folder.path("o.f32")).unwrap(), numbers(&[3.0, 4.0, 9.0, 10.0]));
    assert_eq!(few, "err\tmessage=phase: found \"fewer\", expected one of prefill, few, decode");
    assert!(limits.contains("\tread="), "{limits}");
}

#[test]
fn sequences_begin_with_the_same_tokens_and_have_several_queries() {
    let folder = Folder::new("worker-shared");
    let path = |name: &str| folder.path(name).display().to_string();
    let spec = "heads = { query = 2, kv = 1, dim = 2 }\nmask = \"causal\"\n";
    fs::write(folder.path("copied.toml"), spec).unwrap();
    fs::write(folder.path("shared.toml"), format!("{spec}cache = \"paged\"\n")).unwrap();
    // Two tokens that both sequences have, then one of each.
    let v = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 11.0, 12.0];
    // Queries 0 and 1 of head 0, then of head 1, of each sequence: the second of head 1 looks for the last key alone.
    let mut q = [0.0; 16];
    (q[6], q[14]) = (1e3, 1e3);
    let k = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0];
    for (name, tensor) in [("q.f32", &q[..]), ("k.f32", &k), ("v.f32", &v)] {
        fs::write(folder.path(name), numbers(tensor)).unwrap();
    }
    for spec in ["copied.toml", "shared.toml"] {
        let fields = format!("spec={}\tdtype=f32\ttokens=3\tbatch=2\tdir={}", path(spec), path(""));
        let lines = [
            format!("setup\tslot=a\tphase=few\tqueries=2\tshared=2\t{fields}"),
            "run\tslot=a\tseconds=0".to_owned(),
            format!("output\tslot=a\tpath={}", path("o.f32")),
            format!("setup\tslot=b\tphase=few\tshared=2\t{fields}"),
            format!("setup\tslot=b\tphase=decode\tshared=4\t{fields}"),
        ];
        let [_, time, output, missing, long] = &answers(&lines)[..] else { panic!("five answers") };
        assert!(time.starts_with("time\tseconds="), "{time}");
        assert_eq!(output, "ok");
        let o = [2.0, 3.0, 3.0, 4.0, 2.0, 3.0, 5.0, 6.0, 2.0, 3.0, 5.0, 6.0, 2.0, 3.0, 11.0, 12.0];
        let found = fs::read(folder.path("o.f32")).unwrap();
        let found: Vec<_> = found.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
        let near = found.iter().zip(&o).all(|(found, right)| (found - right).abs() < 1e-5);
        assert!(found.len() == o.len() && near, "{spec}: {found:?}");
        assert_eq!(missing, "err\tmessage=setup needs the field queries=");
        assert_eq!(long, "err\tmessage=shared: found \"4\", expected at most the 3 tokens of a sequence");
    }
}

#[test]
fn what_cannot_be_done_is_said_and_the_worker_goes_on() {
    let folder = Folder::new("worker-refuses");
    fs::write(folder.path("q.f32"), [0; 7]).unwrap();
    let dir = folder.path("").display().to_string();
    let lines = [
        "dance".to_owned(),
        "setup\tslot".to_owned(),
        "setup\tslot=a\tspec=causall\tdtype=f32".to_owned(),
        "setup\tslot=a\tspec=causal\tdtype=f64".to_owned(),
        format!("setup\tslot=a\tspec=causal\tdtype=f32\ttokens=1\tdir={dir}"),
    ];
    let answers = answers(&lines);
    let expected = [
        "err\tmessage=found the verb \"dance\", expected setup, run, output, free or limits",
        "err\tmessage=found the field \"slot\", expected key=value",
        "\"causall\" is neither a file nor a shipped spec",
        "err\tmessage=dtype: found \"f64\", expected one of f32, f16, bf16",
        "q.f32: found 7 bytes, expected 4096",
    ];
    assert_eq!(answers.len(), expected.len());
    for (answer, expected) in answers.iter().zip(expected) {
        assert!(answer.starts_with("err\tmessage=") && answer.contains(expected), "{answer}");
    }
}

#[test]
fn the_machine_has_a_rate() {
    let answers = answers(&["limits".to_owned()]);
    assert!(answers[0].starts_with("ok\tcpu=") && answers[0].contains("\tfma="), "{answers:?}");
}
