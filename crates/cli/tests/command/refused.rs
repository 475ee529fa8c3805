//! Whatever is wrong with a spec, a tensor file or a flag: exit code 1, and a message that names what and where.

use std::fs;

use crate::bench::{Folder, Tensor, f32s, i32s, raw_file, safetensors};

/// The command is refused for a reason that has all of `parts`, and writes no data.
#[track_caller]
fn refused(folder: &Folder, args: &[&str], parts: &[&str]) {
    let done = folder.regard(args);
    assert_eq!(done.code, Some(1), "{args:?}: {done:#?}");
    for part in parts {
        assert!(done.stderr.contains(part), "{args:?}: {part:?} is not in {}", done.stderr);
    }
    assert!(!done.stderr.contains("panicked"), "{args:?}: {}", done.stderr);
    assert!(done.stdout.is_empty(), "{args:?}: {}", done.stdout);
}

/// `command` split at spaces is refused.
#[track_caller]
fn refused_line(folder: &Folder, command: &str, parts: &[&str]) {
    refused(folder, &command.split(' ').collect::<Vec<_>>(), parts);
}

#[test]
fn flags() {
    let folder = Folder::new("flags");
    for (command, parts) in [
        ("verfy", &["unrecognized subcommand 'verfy'", "'verify'"][..]),
        ("check", &["<SPEC>..."]),
        ("plan gqa --q four --k 4", &["'four'", "--q <N>"]),
        ("plan gqa --q -1 --k 4", &["'-1'"]),
        ("plan gqa --q 99999999999999999999 --k 4", &["'99999999999999999999'", "too large"]),
        ("plan gqa --q 2147483648 --k 4", &["queries: 2147483648", "2147483647"]),
        ("plan gqa --q 4 --k 18446744073709551615", &["keys: 18446744073709551615"]),
        ("plan gqa --q 4 --k 4 --batch 2147483648", &["batch: 2147483648"]),
        ("plan gqa --q 4 --k 4 --batch 100000", &["spec gqa", "100000 sequences", "at most 8192"]),
        ("plan gqa --q 2 --k 4 --q-offset 2147483647", &["offset of 2147483647"]),
        ("plan gqa --q 2 --k 4 --q-offset -9223372036854775809", &["--q-offset"]),
        ("plan gqa --q 4 --k 4 --threads 0", &["'0'", "--threads <T>", "1..=1024"]),
        ("plan gqa --q 4 --k 4 --threads 1025", &["'1025'", "1..=1024"]),
        ("plan gqa --q 4 --k 4 --isa avx1024", &["'avx1024'", "avx512"]),
        (
            "plan gqa --q 4 --k 4 --machine cortex-a72 --isa avx512",
            &["avx512 is not on this machine", "neon"],
        ),
        ("plan gqa --q 4 --k 4 --engine gpu", &["'gpu'", "simd-f32"]),
        ("plan gqa --q 4 --k 4 --dtype f8", &["'f8'", "bf16"]),
        ("plan gqa --k 4", &["--q <N> is not given", "--phase prefill expects how many queries"]),
        ("plan gqa --phase decode", &["--k <N> is not given", "--phase decode expects how many keys"]),
        ("plan gqa --phase few --q 4", &["--k <N> is not given", "--phase few expects"]),
        ("plan gqa --q 4 --k 4 --phase decode", &["--phase decode takes 1 query", "--q is 4", "few is for"]),
        (
            "plan gqa --q 17 --k 40 --phase few",
            &["--phase few takes 2 to 16", "--q is 17", "prefill for more"],
        ),
        ("plan gqa --q 1 --k 40 --phase few", &["--phase few takes 2 to 16", "--q is 1", "decode is for 1"]),
        (
            "plan gqa --k 4 --phase decode --q-offset 3",
            &["--q-offset 3", "--phase decode", "the last tokens"],
        ),
        ("plan gqa --k 9 --phase few --q-offset -1", &["--q-offset -1", "--phase few", "it is for prefill"]),
        ("plan gqa --k 0 --phase decode", &["spec gqa", "1 sequences of 0 tokens", "at least 1"]),
        ("plan gqa --k 4 --phase decode --batch 0", &["spec gqa", "0 sequences of 4 tokens", "at least 1"]),
        ("plan gqa --k 2147483648 --phase decode", &["keys: 2147483648", "2147483647"]),
        ("plan gqa --k 1073741824 --phase few --batch 2", &["keys: 2147483648", "2147483647"]),
        ("plan gqa --k 4 --phase decode --batch 18446744073709551615", &["batch: 18446744073709551615"]),
        ("plan gqa --q 4 --k 4 --phase training", &["'training'", "prefill"]),
        ("plan gqa mha --q 4 --k 4", &["'mha'"]),
        ("show gqa --k 4", &["--q <N>"]),
        ("show gqa --q 4 --k 4 --head 32", &["--head 32", "32 query heads, 0 to 31"]),
        ("show gqa --q 4 --k 4 --sequence 1", &["--sequence 1", "1 sequences", "--batch"]),
        ("show gqa --q 4 --k 4 --batch 0", &["--sequence 0", "0 sequences"]),
        ("show gqa --q 4 --k 4 -o mask.pdf", &["mask.pdf", ".svg or .png"]),
        ("show gqa --q 4 --k 4 -o mask", &["mask: ", ".svg or .png"]),
        ("show gqa --q 4 --k 4 -o no/such/mask.svg", &["no/such/mask.svg", "cannot create"]),
        ("show gqa --q 2147483648 --k 4", &["queries: 2147483648"]),
        ("show document --q 4 --k 4 -i nowhere", &["nowhere"]),
        ("show document --q 4 --k 4 -i in --example", &["--input <FILE>", "cannot be used with"]),
        (
            "show document --q 2147483647 --k 2147483647 --batch 2147483647 --example",
            &["the tensors of this problem", "more memory"],
        ),
        ("show gqqa --q 4 --k 4", &["`gqa`"]),
        ("run gqa -o out", &["--input <FILE>"]),
        ("run gqa -i in", &["--output <FILE>"]),
        ("run gqa -i in -o out --layout hbnd", &["'hbnd'", "bnhd"]),
        ("run gqa -i in -o out --repeat 0", &["'0'", "--repeat <N>"]),
        ("verify gqa --k 4", &["--q <N>"]),
        ("verify gqa --batch 4", &["--q <N>"]),
        ("verify gqa -i in --q 4 --k 4", &["--input <FILE>", "cannot be used with"]),
        ("verify gqa --expected out", &["--input <FILE>"]),
        ("verify gqa --threads 0", &["'0'", "1..=1024"]),
        ("verify gqa --dtype int4", &["'int4'", "all"]),
        ("list everything", &["'everything'"]),
    ] {
        refused_line(&folder, command, parts);
    }
    let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    for command in ["verify causal", "plan causal --q 4 --k 4"] {
        refused_line(&folder, &format!("{command} --isa {foreign}"), &[foreign, "is not on this machine"]);
    }
    // Nothing at all: the help, on stderr.
    refused(&folder, &[], &["Usage: regard", "verify"]);
}

#[test]
fn sizes_past_all_memory() {
    let folder = Folder::new("memory");
    for size in
        ["--q 2147483647 --k 2147483647", "--q 1 --k 2147483647 --batch 2147483647", "--q 2147483647 --k 0"]
    {
        let command = format!("verify gqa document {size}");
        refused_line(&folder, &command, &["the tensors of this problem", "more memory than there is"]);
    }
    folder.file("wide.toml", "heads = { query = 2, dim = 5000 }");
    refused_line(&folder, "verify wide.toml --q 2 --k 2", &["spec wide", "5000 channels", "at most"]);
    folder.file(
        "captured.toml",
        "heads = { query = 1, dim = 1 }\ninputs = { t = 'f32[b, q, k, q, k]' }\nscore = { modify = 's + t[b, q, k, q, k]' }",
    );
    let command = "verify captured.toml --q 10000 --k 10000 --batch 10000";
    refused_line(&folder, command, &["the tensors of this problem", "more memory than there is"]);
}

#[test]
fn specs() {
    let folder = Folder::new("specs");
    fs::create_dir(folder.path("folder")).unwrap();
    let deep = format!("heads = {{ query = 1, dim = 1 }}\nmask = '{}k > 0'", "(".repeat(5000));
    let cases: &[(&str, &[u8], &[&str])] = &[
        ("toml.toml", b"heads = {", &["error[S004]", "toml.toml:1"]),
        ("empty.toml", b"", &["error[S009]", "heads"]),
        (
            "key.toml",
            b"heads = { query = 1, dim = 1 }\nmaks = 'causal'",
            &["error[S006]", "key.toml:2:1", "`mask`"],
        ),
        (
            "name.toml",
            b"heads = { query = 1, dim = 1 }\nmask = 'casual'",
            &["error[S014]", "name.toml:2:9", "`causal`"],
        ),
        ("divide.toml", b"heads = { query = 8, kv = 3, dim = 1 }", &["error[S011]", "divide.toml:1"]),
        ("type.toml", b"heads = { query = 'eight', dim = 1 }", &["error[S008]", "type.toml:1"]),
        ("zero.toml", b"heads = { query = 0, dim = 1 }", &["error[S010]", "zero.toml:1"]),
        (
            "later.toml",
            b"heads = { query = 1, dim = 1 }\nproject = { model_dim = 1 }",
            &["error[S012]", "project"],
        ),
        ("parent.toml", b"extends = 'nowhere.toml'", &["error[S001]", "parent.toml:1"]),
        ("self.toml", b"extends = 'self.toml'", &["error[S013]", "self.toml:1"]),
        ("utf8.toml", b"name = '\xff'", &["error[S002]", "utf8.toml"]),
        ("large.toml", &vec![b'#'; (1 << 20) + 1], &["error[S003]", "large.toml"]),
        ("deep.toml", deep.as_bytes(), &["error[S021]", "deep.toml:2"]),
        ("binary.toml", b"\x00\x01\x02", &["error[S004]", "binary.toml"]),
    ];
    for (name, bytes, parts) in cases {
        folder.file(name, bytes);
        refused(&folder, &["plan", name, "--q", "4", "--k", "4"], parts);
        refused(&folder, &["run", name, "-i", "in.safetensors", "-o", "out.safetensors"], parts);
        refused(&folder, &["verify", name], parts);
    }
    for (name, parts) in [
        ("folder", &["error[S001]", "folder", "directory"][..]),
        ("minlm", &["\"minlm\"", "neither a file nor a shipped spec", "`minilm`"]),
        ("specs/gqqa.toml", &["specs/gqqa.toml", "`gqa`"]),
        ("a\u{1b}[2J", &[r#""a\u{1b}[2J""#, "regard list"]),
        ("", &["\"\""]),
    ] {
        refused(&folder, &["verify", name], parts);
    }
}

#[test]
fn machines() {
    let folder = Folder::new("machines");
    fs::create_dir(folder.path("folder")).unwrap();
    let cases: &[(&str, &[u8], &[&str])] = &[
        ("toml", b"isa = ", &["`toml`", "TOML"]),
        ("key", b"isa = 'avx2'\ncores = 1\nl1d_kb = 32", &["`key`", "l1d_kb"]),
        ("isa", b"isa = 'avx3'\ncores = 1\nl1d_kib = 32", &["`isa`", "`avx3`", "avx512"]),
        ("zero", b"isa = 'avx2'\ncores = 0\nl1d_kib = 32", &["`zero`", "cores is 0"]),
        ("huge", b"isa = 'avx2'\ncores = 1\nl1d_kib = 4294967295", &["`huge`", "l1d_kib is 4294967295"]),
        ("negative", b"isa = 'avx2'\ncores = -1\nl1d_kib = 32", &["`negative`"]),
        ("utf8", b"isa = '\xff'", &["utf8", "UTF-8"]),
        ("long", &vec![b'#'; (1 << 16) + 1], &["long", "65536 bytes"]),
    ];
    for (name, bytes, parts) in cases {
        folder.file(name, bytes);
        refused(&folder, &["plan", "gqa", "--q", "4", "--k", "4", "--machine", name], parts);
    }
    refused_line(&folder, "plan gqa --q 4 --k 4 --machine folder", &["folder", "directory"]);
    refused_line(&folder, "plan gqa --q 4 --k 4 --machine cortex-m8", &["\"cortex-m8\"", "`cortex-m7`"]);
}

const SPEC: &str =
    "heads = { query = 2, kv = 1, dim = 3, value_dim = 5 }\ninputs = { len = 'i32[b]' }\nmask = 'k < len[b]'";

fn good() -> [Tensor<'static>; 4] {
    [f32s("q", &[2, 2, 4, 3]), f32s("k", &[2, 1, 6, 3]), f32s("v", &[2, 1, 6, 5]), i32s("len", &[2], &[3, 6])]
}

/// The good tensors, but for one.
fn but(at: usize, tensor: Tensor<'static>) -> Vec<u8> {
    let mut tensors = good();
    tensors[at] = tensor;
    safetensors(&tensors)
}

#[test]
fn tensor_files() {
    let folder = Folder::new("tensors");
    folder.file("s.toml", SPEC);
    fs::create_dir(folder.path("folder")).unwrap();
    let entry =
        |begin: u64, end: u64| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":[{begin},{end}]}}"#);
    let header = |q: &str, k: &str| format!(r#"{{"q":{q},"k":{k}}}"#);
    let whole = safetensors(&good());
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", vec![], &["0 bytes"]),
        ("text", b"q = 1, k = 2, v = 3\n".to_vec(), &["is it safetensors?"]),
        ("header_length", vec![0xff; 64], &["the header claims 18446744073709551615 bytes"]),
        ("header_cut", whole[..20].to_vec(), &["the file ends after 12 bytes of a header"]),
        (
            "header_utf8",
            raw_file("{}", b"").into_iter().map(|b| if b == b'{' { 0xff } else { b }).collect(),
            &["not UTF-8"],
        ),
        ("header_json", raw_file("{]", b""), &["not a JSON object"]),
        ("header_array", raw_file("[1]", b""), &["not a JSON object"]),
        ("header_entry", raw_file(r#"{"q":{"dtype":"F32"}}"#, b""), &["`q`", "shape"]),
        (
            "dtype",
            raw_file(&header(&entry(0, 8).replace("F32", "F8"), &entry(8, 16)), &[0; 16]),
            &["`q`", "unknown dtype"],
        ),
        (
            "negative",
            raw_file(&header(&entry(0, 8).replace("[2]", "[-2]"), &entry(8, 16)), &[0; 16]),
            &["`q`"],
        ),
        ("shape", raw_file(&header(&entry(0, 12), &entry(12, 20)), &[0; 20]), &["`q`", "needs 8 bytes"]),
        (
            "overflow",
            raw_file(
                &header(&entry(0, 8).replace("[2]", "[4611686018427387904,4]"), &entry(8, 16)),
                &[0; 16],
            ),
            &["`q`", "more bytes than any file"],
        ),
        (
            "overlap",
            raw_file(&header(&entry(0, 8), &entry(4, 12)), &[0; 12]),
            &["`k`", "begins at byte 4", "`q` ends at 8"],
        ),
        (
            "gap",
            raw_file(&header(&entry(0, 8), &entry(12, 20)), &[0; 20]),
            &["`k`", "begins at byte 12, expected 8"],
        ),
        (
            "reversed",
            raw_file(&header(&entry(8, 0), &entry(8, 16)), &[0; 16]),
            &["`q`", "begins at byte 8 and ends at 0"],
        ),
        (
            "past_the_end",
            raw_file(&header(&entry(0, 8), &entry(8, 16)), &[0; 12]),
            &["`k`", "the file ends after 12 of 16 bytes"],
        ),
        (
            "far",
            raw_file(&header(&entry(0, 8), &entry(1 << 62, (1 << 62) + 8)), &[0; 12]),
            &["`k`", "expected 8"],
        ),
        ("goes_on", [whole.clone(), vec![0]].concat(), &["goes on after"]),
        ("cut", whole[..whole.len() - 1].to_vec(), &["`len`", "the file ends after"]),
        (
            "twice",
            raw_file(&format!(r#"{{"q":{},"q":{}}}"#, entry(0, 8), entry(8, 16)), &[0; 16]),
            &["`q`", "twice"],
        ),
        ("no_tensor", safetensors(&[]), &["`q` is missing, expected f32", "`len` is missing"]),
        ("missing", safetensors(&good()[..3]), &["`len` is missing, expected i32 [2]"]),
        ("misnamed", but(1, f32s("key", &[2, 1, 6, 3])), &["`k` is missing", "is `key` meant?"]),
        (
            "extra",
            safetensors(&[&good()[..], &[f32s("bias", &[1])]].concat()),
            &["no input of the spec: `bias`"],
        ),
        (
            "type",
            but(0, ("q", "F16", &[2, 2, 4, 3], vec![0; 96])),
            &["`q`: found f16 [2, 2, 4, 3], expected f32"],
        ),
        ("len_type", but(3, f32s("len", &[2])), &["`len`: found f32 [2], expected i32 [2]"]),
        ("heads", but(0, f32s("q", &[2, 3, 4, 3])), &["`q`", "3 query heads, not 2 as in the spec"]),
        ("width", but(1, f32s("k", &[2, 1, 6, 4])), &["`k`", "4 channels, not 3"]),
        ("batch", but(1, f32s("k", &[1, 1, 6, 3])), &["`k`", "1 sequences, not 2 as in `q`"]),
        ("keys", but(2, f32s("v", &[2, 1, 7, 5])), &["`v`", "7 keys, not 6 as in `k`"]),
        ("axes", but(0, f32s("q", &[2, 4, 3])), &["`q`", "it has 3 axes, not 4"]),
        ("scalar", but(3, i32s("len", &[], &[3])), &["`len`", "it has 0 axes, not 1"]),
        (
            "long",
            safetensors(&[
                ("q", "F32", &[0, 2, 1 << 40, 3], vec![]),
                f32s("k", &[0, 1, 6, 3]),
                f32s("v", &[0, 1, 6, 5]),
                i32s("len", &[0], &[]),
            ]),
            &["1099511627776 is more than a 32-bit position"],
        ),
    ];
    for (name, bytes, parts) in &cases {
        folder.file(name, bytes);
        let parts = [&[*name][..], parts].concat();
        refused(&folder, &["run", "s.toml", "-i", name, "-o", "out.safetensors"], &parts);
        refused(&folder, &["verify", "s.toml", "-i", name], &parts);
    }
    assert!(!folder.path("out.safetensors").exists());
    let line = "show s.toml --q 4 --k 6 --batch 3 -i whole";
    folder.file("whole", &whole);
    refused_line(
        &folder,
        line,
        &["`len`: found i32 [2], expected i32 [3]", "2 sequences, not 3 as in --batch"],
    );
    refused_line(
        &folder,
        "show s.toml --q 4 --k 6 --batch 2 -i len_type",
        &["`len`: found f32 [2], expected i32 [2]"],
    );
    refused_line(&folder, "show s.toml --q 4 --k 6 --batch 2 -i missing", &["`len` is missing"]);
    for name in ["nowhere.safetensors", "folder"] {
        refused(&folder, &["run", "s.toml", "-i", name, "-o", "out.safetensors"], &[name, "directory"]);
    }
    folder.file("good", &whole);
    refused_line(&folder, "run s.toml -i good -o out --layout bnhd", &["fit in the other --layout"]);
    refused_line(&folder, "verify s.toml -i good --dtype all", &["good", "f32, f16, bf16"]);
    refused_line(&folder, "verify s.toml -i good --dtype bf16", &["`q`: found f32", "expected bf16"]);
    refused_line(
        &folder,
        "run s.toml -i good -o out --q-offset 9223372036854775807",
        &["9223372036854775807"],
    );
}

#[test]
fn outputs() {
    let folder = Folder::new("outputs");
    folder.file("s.toml", SPEC);
    folder.file("good", safetensors(&good()));
    fs::create_dir(folder.path("folder")).unwrap();
    refused_line(&folder, "run s.toml -i good -o folder", &["folder", "is a directory"]);
    refused_line(&folder, "run s.toml -i good -o no/such/place", &["no/such/place", "cannot create"]);
    refused_line(&folder, "run s.toml -i good -o good/under", &["good/under"]);

    folder.file("other", safetensors(&[f32s("y", &[2, 2, 4, 5])]));
    folder.file("shape", safetensors(&[f32s("o", &[2, 2, 5, 5])]));
    folder.file("type", safetensors(&[i32s("o", &[1], &[1])]));
    for (file, parts) in [
        ("other", &["other: tensor `o` is missing, expected f32 [2, 2, 4, 5]"][..]),
        ("shape", &["shape: tensor `o`", "5 queries, not 4 as in the input"]),
        ("type", &["type: tensor `o`: found i32 [1]"]),
        ("nowhere", &["nowhere"]),
        ("s.toml", &["s.toml", "is it safetensors?"]),
    ] {
        refused(&folder, &["verify", "s.toml", "-i", "good", "--expected", file], parts);
    }
}

#[test]
fn data_that_leads_outside_a_tensor() {
    let folder = Folder::new("index");
    folder.file("s.toml", "heads = { query = 1, dim = 2 }\ninputs = { to = 'i32[b, k]', t = 'f32[4]' }\nscore = { modify = 's + t[to[b, k]]' }");
    let qkv = |name| f32s(name, &[1, 1, 2, 2]);
    let file =
        |to: &[i32]| safetensors(&[qkv("q"), qkv("k"), qkv("v"), i32s("to", &[1, 2], to), f32s("t", &[4])]);
    folder.file("bad", file(&[0, 4]));
    refused_line(&folder, "run s.toml -i bad -o out", &["spec s: tensor `t` is read outside its axes"]);
    refused_line(&folder, "verify s.toml -i bad", &["spec s: tensor `t` is read outside its axes"]);
    folder.file("mask.toml", "heads = { query = 1, dim = 2 }\ninputs = { t = 'i32[4]' }\nmask = 't[k] > 0'");
    folder.file("t", safetensors(&[i32s("t", &[4], &[1, 0, 1, 0])]));
    refused_line(
        &folder,
        "show mask.toml --q 1 --k 5 -i t",
        &["spec mask: tensor `t` is read outside its axes"],
    );
    folder.file("good", file(&[0, 3]));
    folder.regard(&["run", "s.toml", "-i", "good", "-o", "out"]).ok();
}

/// A device that is always full stands for a disk that is.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let folder = Folder::new("full");
    folder.file("s.toml", SPEC);
    folder.file("good", safetensors(&good()));
    refused_line(&folder, "run s.toml -i good -o /dev/full", &["/dev/full: cannot write it"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = crate::bench::command(&["list"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to stdout"));
}
