//! What the command computes and says where nothing is wrong.

use std::fs;
use std::io;
use std::ops::Range;

use crate::bench::{Folder, Tensor, command, f32s, i32s, read_f32s, regard, safetensors, workspace};

/// A spec of two heads of 3 channels, values of 5.
const SMALL: &str =
    "heads = { query = 2, kv = 1, dim = 3, value_dim = 5 }\nmask = 'causal'\noutput = { lse = true }";

/// The same with a mask that no shipped spec has.
fn small_of_ones_own(folder: &Folder) {
    folder.file("small.toml", SMALL.replace("causal", "k <= q & k != 3"));
}

fn small(folder: &Folder) {
    folder.file("small.toml", SMALL);
    folder.file(
        "in.safetensors",
        safetensors(&[f32s("q", &[2, 2, 4, 3]), f32s("k", &[2, 1, 6, 3]), f32s("v", &[2, 1, 6, 5])]),
    );
}

#[test]
fn a_model_is_reproduced() {
    let folder = Folder::new("minilm");
    let input = workspace().join("fixtures/minilm/layer0.safetensors");
    let done = folder.regard(&["run", "minilm", "-i", input.to_str().unwrap(), "-o", "o.safetensors"]).ok();
    assert!(done.stdout.is_empty(), "{done:?}");
    assert!(done.stderr.starts_with("minilm: generated kernel, simd-f32 on "), "{done:?}");
    let (shape, o) = read_f32s(&folder.path("o.safetensors"), "o");
    let (_, expected) = read_f32s(&workspace().join("fixtures/minilm/layer0.expected.safetensors"), "o");
    assert_eq!(shape, [4, 12, 22, 32]);
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0f32, |m, x| m.max(x.abs()));
    let error = largest(&mut o.iter().zip(&expected).map(|(a, b)| a - b));
    let bound = regard_ir::bounds::bound(
        regard_ir::bounds::Quantity::Output,
        regard_ir::plan::Dtype::F32,
        regard_ir::plan::Precision::Exact,
        regard_ir::bounds::SCORES,
    );
    assert!(f64::from(error / largest(&mut expected.iter().copied())) <= bound, "{error}");
}

#[test]
fn a_cache_changes_no_result_of_a_prefill() {
    let folder = Folder::new("cached");
    small(&folder);
    folder.regard(&["run", "small.toml", "-i", "in.safetensors", "-o", "o.safetensors"]).ok();
    let expected = fs::read(folder.path("o.safetensors")).unwrap();
    for cache in ["'paged'", "{ layout = 'paged', page = 16, dtype = 'int8' }", "{ v = 'int4', file = true }"]
    {
        folder.file("cached.toml", format!("{SMALL}\ncache = {cache}"));
        folder.regard(&["run", "cached.toml", "-i", "in.safetensors", "-o", "cached.safetensors"]).ok();
        assert_eq!(fs::read(folder.path("cached.safetensors")).unwrap(), expected, "{cache}");
        for command in ["plan", "verify", "show"] {
            folder.regard(&[command, "cached.toml", "--q", "9"]).ok();
        }
    }
}

#[test]
fn a_state_takes_a_run_to_the_next() {
    let folder = Folder::new("state");
    let spec = "heads = { query = 2, dim = 3, value_dim = 5 }\nmask = 'causal'\n\
                recurrence = { normalize = true, feature_map = 'elu(x) + 1', decay = 'head' }";
    folder.file("sums.toml", spec);
    let run = |tokens: Range<usize>, state: &[Tensor<'_>], to: &str| {
        let [narrow, wide] = [3, 5].map(|width| [1, 2, tokens.len(), width]);
        let rows = |seed: usize, width: usize| -> Vec<u8> {
            let at = (0..2).flat_map(|h| tokens.clone().map(move |t| (h, t)));
            let elements = at.flat_map(|(h, t)| (0..width).map(move |c| ((seed + h) * 7 + t) * 5 + c));
            elements.flat_map(|i| (i as f32 * 0.37).sin().to_le_bytes()).collect()
        };
        let mut tensors = vec![
            ("q", "F32", &narrow[..], rows(1, 3)),
            ("k", "F32", &narrow, rows(2, 3)),
            ("v", "F32", &wide, rows(3, 5)),
            ("decay", "F32", &[2], [-0.125f32, -0.5].iter().flat_map(|x| x.to_le_bytes()).collect()),
        ];
        tensors.extend(state.iter().cloned());
        let input = folder.file("in.safetensors", safetensors(&tensors));
        folder.regard(&["run", "sums.toml", "-i", input.to_str().unwrap(), "-o", to]).ok();
        ["o", "state", "norm"].map(|name| read_f32s(&folder.path(to), name))
    };
    let given = |name, (shape, elements): &(Vec<usize>, Vec<f32>)| {
        let bytes = elements.iter().flat_map(|x| x.to_le_bytes()).collect();
        (name, shape.clone(), bytes)
    };
    let [whole, state, norm] = run(0..7, &[], "whole.safetensors");
    assert_eq!([&whole.0[..], &state.0, &norm.0], [&[1, 2, 7, 5][..], &[1, 2, 3, 5], &[1, 2, 3]]);
    let [_, kept, kept_norm] = run(0..4, &[], "first.safetensors");
    let kept: [(_, Vec<usize>, Vec<u8>); 2] = [given("state", &kept), given("norm", &kept_norm)];
    let kept = kept.each_ref().map(|(name, shape, bytes)| (*name, "F32", &shape[..], bytes.clone()));
    let [rest, ended, ended_norm] = run(4..7, &kept, "rest.safetensors");
    assert_eq!([ended, ended_norm], [state, norm]);
    for head in 0..2 {
        assert_eq!(rest.1[head * 15..][..15], whole.1[head * 35 + 20..][..15], "head {head}");
    }
    let [forgetful, ..] = run(4..7, &[], "alone.safetensors");
    assert_ne!(forgetful, rest);
}

#[test]
fn verify_judges_a_file_by_the_oracle_and_by_the_model() {
    let layer = workspace().join("fixtures/minilm/layer3");
    let path = |end: &str| format!("{}{end}.safetensors", layer.display());
    let (input, expected) = (path(""), path(".expected"));
    let args = ["verify", "minilm", "-i", &input, "--expected", &expected, "--json"];
    let lines = regard(&args).ok().objects();
    let of = |against: &str| lines.iter().filter(|line| line["against"] == against).count();
    assert!(of("oracle") >= 1 && of("oracle") == of("expected"), "{lines:?}");
    let scalar = lines.iter().find(|line| line["isa"] == "scalar" && line["against"] == "oracle").unwrap();
    assert_eq!((&scalar["rows_checked"], &scalar["rows"]), (&1056.into(), &1056.into()));
    assert!(scalar["error"].as_f64().unwrap() > 0.0);
    let judged = lines.iter().filter(|line| line["against"] != "loaded");
    let of = |kernel: &str| judged.clone().filter(|line| line["kernel"] == kernel).count();
    assert!(of("generated") >= 1 && of("generated") == of("loaded"), "{lines:?}");
    let bits: Vec<_> = lines.iter().filter(|line| line["against"] == "loaded").collect();
    assert_eq!(2 * bits.len(), of("generated"), "{lines:?}");
    for line in bits {
        let counts = [&line["differing"], &line["elements"]].map(serde_json::Value::as_u64);
        assert_eq!(counts, [Some(0), Some(1056 * 32)], "{line:?}");
        assert!(line["kernel"] == "generated" && line["ok"] == true, "{line:?}");
    }
}

#[test]
fn a_kernel_is_taken_from_where_it_is_asked_for() {
    let folder = Folder::new("sources");
    small(&folder);
    small_of_ones_own(&folder);
    let verify = |args: &[&str]| {
        let args = [&["verify", "--q", "3", "--k", "3", "--isa", "scalar"], args].concat();
        folder.regard(&args)
    };
    let both = verify(&["small.toml"]).ok().stdout;
    assert!(
        both.contains("loaded ")
            && both.ends_with(
                "generated: not in this build; `cargo xtask verify small.toml` makes it and compares it\n"
            ),
        "{both}"
    );
    assert!(
        verify(&["small.toml", "--json"]).ok().objects().iter().any(|line| line["skipped"] == "generated")
    );
    for source in ["loaded", "generated"] {
        let lines = verify(&["causal", "--kernel", source, "--json"]).ok().objects();
        assert!(!lines.is_empty() && lines.iter().all(|line| line["kernel"] == source), "{lines:?}");
    }
    for run in [
        verify(&["small.toml", "--kernel", "generated"]),
        folder.regard(&["run", "small.toml", "-i", "in.safetensors", "-o", "o", "--kernel", "generated"]),
    ] {
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stderr.contains("small has no generated kernel: "), "{run:?}");
    }
}

#[test]
fn another_models_output_fails_with_exit_code_2() {
    let fixtures = workspace().join("fixtures/minilm");
    let path = |name: &str| fixtures.join(name).display().to_string();
    let (input, other) = (path("layer0.safetensors"), path("layer3.expected.safetensors"));
    let done = regard(&["verify", "minilm", "-i", &input, "--expected", &other, "--isa", "scalar"]);
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.stdout.contains("FAILED") && done.stdout.contains("worst at batch"), "{done:?}");
    assert_eq!(done.stderr, "error: 2 of 5 comparisons failed\n");
}

#[test]
fn a_mask_of_ones_own_has_no_generated_kernel() {
    let folder = Folder::new("own");
    small_of_ones_own(&folder);
    let lines = folder.regard(&["verify", "small.toml", "--q", "4", "--k", "6", "--json"]).ok().objects();
    assert!(lines.iter().any(|line| line["kernel"] == "loaded" && line["ok"] == true), "{lines:?}");
    assert!(lines.iter().any(|line| line["skipped"] == "generated"), "{lines:?}");
}

#[test]
fn bench_times_and_checks() {
    let args = ["bench", "causal", "mha", "--q", "40", "--k", "70", "--repeat", "3", "--baseline", "--json"];
    let lines = regard(&args).ok().objects();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert_eq!((&line["passed"], &line["runs"], &line["q"]), (&true.into(), &3.into(), &40.into()));
        for positive in ["median_s", "gflops", "gbs", "peak", "peak_fraction", "against_baseline"] {
            assert!(line[positive].as_f64().unwrap() > 0.0, "{positive}: {line:?}");
        }
    }
    let loaded = regard(&["bench", "causal", "--q", "8", "--repeat", "1", "--kernel", "loaded", "--json"]);
    assert_eq!(loaded.ok().objects()[0]["kernel"], "loaded");
}

#[test]
fn bench_tells_the_machine_and_then_a_row_for_each_spec() {
    // A soft cap has no baseline.
    let calls: [(&[&str], _); 2] =
        [(&["softcap_bias", "causal"], None), (&["causal", "mha", "gqa"], Some("--baseline"))];
    for (specs, baseline) in calls {
        let flags = ["--q", "33", "--repeat", "2", "--threads", "1"];
        let done = regard(&[&["bench"], specs, &flags, baseline.as_slice()].concat()).ok();
        let lines: Vec<_> = done.stdout.lines().collect();
        assert!(lines[0].contains(": ") && lines[0].contains(" 1 thread on "), "{done:?}");
        assert!(lines[2].starts_with("fma, GFLOP/s"), "{done:?}");
        assert!(lines.iter().any(|line| line.starts_with("  L1d ")), "{done:?}");
        assert!(lines.iter().any(|line| line.starts_with("  memory ")), "{done:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 120), "{done:?}");
        let table: Vec<_> = lines.iter().skip_while(|line| !line.starts_with("spec ")).collect();
        assert_eq!(table[0].contains("baseline"), baseline.is_some(), "{done:?}");
        assert_eq!(table.len(), 1 + specs.len(), "{done:?}");
        assert!(table[1..].iter().all(|row| row.ends_with(" ok") && row.contains(" % ")), "{done:?}");
    }
}

#[test]
fn bench_objects_have_their_fields_in_order() {
    let args = ["bench", "causal", "--q", "16", "--repeat", "1", "--json", "--baseline"];
    let done = regard(&args).ok();
    // The parser of serde_json sorts the keys of an object; here their order matters.
    let pieces: Vec<_> = done.stdout.split('"').collect();
    let keys = pieces.windows(2).filter(|pair| pair[1].starts_with(':')).map(|pair| pair[0]);
    assert_eq!(
        keys.collect::<Vec<_>>().join(" "),
        "spec kernel engine isa dtype phase q k batch threads layout median_s min_s max_s gflops gbs limit peak \
         peak_fraction cpu predicted_s runs error bound passed against_baseline"
    );
}

#[test]
fn bench_compares_two_specs_in_turn() {
    let flags = ["--q", "40", "--repeat", "5", "--kernel", "loaded", "--against", "causal"];
    let done = regard(&[&["bench", "softcap", "alibi", "--json"], &flags[..]].concat()).ok();
    for line in done.objects() {
        assert_eq!((&line["kernel"], &line["runs"]), (&"loaded".into(), &5.into()), "{line:?}");
        assert_eq!((&line["against"], &line["against_kernel"]), (&"causal".into(), &"generated".into()));
        let ratio = line["against_ratio"].as_f64().unwrap();
        let quartiles: Vec<f64> = serde_json::from_value(line["against_quartiles"].clone()).unwrap();
        assert!(0.0 < quartiles[0] && quartiles[0] <= ratio && ratio <= quartiles[1], "{line:?}");
    }
    let done = regard(&[&["bench", "softcap"], &flags[..]].concat()).ok();
    assert!(done.stdout.contains(" against error\n"), "{done:?}");
    let typed = regard(&["bench", "softcap", "--against", "casual"]);
    assert!(typed.code == Some(1) && typed.stderr.contains("causal"), "{typed:?}");
}

#[test]
fn bench_says_what_has_no_baseline() {
    for (spec, dtype, named) in [
        ("alibi", "f32", "unmodified scores"),
        ("causal", "f16", "f32 storage"),
        ("document", "f32", "positions"),
    ] {
        let done = regard(&["bench", spec, "--q", "8", "--dtype", dtype, "--baseline"]);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains(spec) && done.stderr.contains(named), "{done:?}");
    }
}

#[test]
fn specs_are_verified_in_each_storage_type_on_a_size_of_ones_own() {
    for storage in ["f32", "all"] {
        let args = ["verify", "gqa", "softcap_bias", "cross", "--q", "33", "--k", "70", "--dtype", storage];
        let done = regard(&args).ok();
        assert!(done.stdout.contains("lse, oracle") && !done.stdout.contains("FAILED"), "{done:?}");
        assert_eq!(done.stdout.contains("bf16"), storage == "all");
    }
}

/// Queries before the first key have no place in `is_global`, so there are none.
#[test]
fn a_tensor_read_at_queries_has_a_place_for_each() {
    regard(&["verify", "models/longformer", "--isa", "scalar", "--kernel", "generated"]).ok();
}

/// Its 71 heads found that 64 products and sums that round one after the other pass the bound of f32.
#[test]
fn many_heads_are_within_the_bound_on_scalar_lanes() {
    regard(&["verify", "models/falcon", "--isa", "scalar", "--kernel", "generated"]).ok();
}

#[test]
fn awkward_sizes_are_taken_where_none_is_given() {
    let folder = Folder::new("awkward");
    small(&folder);
    let lines = folder.regard(&["verify", "small.toml", "--isa", "scalar", "--json"]).ok().objects();
    let sizes: Vec<_> =
        lines.iter().filter_map(|line| Some((line["q"].as_u64()?, line["k"].as_u64()?))).collect();
    for size in [(5, 0), (1, 1), (7, 3)] {
        assert!(sizes.contains(&size), "{sizes:?}");
    }
}

#[test]
fn both_layouts_and_all_thread_counts_give_the_same_bits() {
    let folder = Folder::new("layouts");
    small(&folder);
    let run = |args: &[&str], out: &str| {
        let args = [&["run", "small.toml", "-o", out], args].concat();
        folder.regard(&args).ok();
        (read_f32s(&folder.path(out), "o"), read_f32s(&folder.path(out), "lse"))
    };
    let (o, lse) = run(&["-i", "in.safetensors"], "one.safetensors");
    assert_eq!((&o.0[..], &lse.0[..]), (&[2, 2, 4, 5][..], &[2, 2, 4][..]));
    let again = run(&["-i", "in.safetensors", "--threads", "3", "--repeat", "2"], "two.safetensors");
    assert_eq!((&o, &lse), (&again.0, &again.1));

    // [b, h, n, d] to [b, n, h, d]
    let swap = |name: &'static str, [b, h, n, d]: [usize; 4]| {
        let (_, _, _, bytes) = f32s(name, Box::leak(Box::new([b, h, n, d])));
        let mut swapped = Vec::new();
        for (b, n, h) in (0..b).flat_map(|b| (0..n).flat_map(move |n| (0..h).map(move |h| (b, n, h)))) {
            let row =
                ((b * [2, 1][usize::from(name != "q")] + h) * [4, 6][usize::from(name != "q")] + n) * d * 4;
            swapped.extend_from_slice(&bytes[row..row + d * 4]);
        }
        swapped
    };
    folder.file(
        "bnhd.safetensors",
        safetensors(&[
            ("q", "F32", &[2, 4, 2, 3], swap("q", [2, 2, 4, 3])),
            ("k", "F32", &[2, 6, 1, 3], swap("k", [2, 1, 6, 3])),
            ("v", "F32", &[2, 6, 1, 5], swap("v", [2, 1, 6, 5])),
        ]),
    );
    let (o_bnhd, lse_bnhd) = run(&["-i", "bnhd.safetensors", "--layout", "bnhd"], "three.safetensors");
    assert_eq!((&o_bnhd.0[..], &lse_bnhd.0[..]), (&[2, 4, 2, 5][..], &[2, 4, 2][..]));
    for (b, h, n) in [(0, 0, 0), (0, 1, 3), (1, 0, 2), (1, 1, 1)] {
        let (row, row_bnhd) = ((b * 2 + h) * 4 + n, (b * 4 + n) * 2 + h);
        assert_eq!(o.1[row * 5..][..5], o_bnhd.1[row_bnhd * 5..][..5], "{b} {h} {n}");
        assert_eq!(lse.1[row], lse_bnhd.1[row_bnhd], "{b} {h} {n}");
    }
}

#[test]
fn an_offset_moves_the_queries() {
    let folder = Folder::new("offset");
    small(&folder);
    let lse = |offset: &str| {
        folder
            .regard(&[
                "run",
                "small.toml",
                "-i",
                "in.safetensors",
                "-o",
                "o.safetensors",
                "--q-offset",
                offset,
            ])
            .ok();
        read_f32s(&folder.path("o.safetensors"), "lse").1
    };
    // The first query of the first head sees no key before position 0.
    assert_eq!(lse("-1")[0], f32::NEG_INFINITY);
    assert!(lse("0")[0].is_finite());
    assert_ne!(lse("0"), lse("2"));
}

#[test]
fn nan_and_empty_tensors_are_data() {
    let folder = Folder::new("nan");
    small(&folder);
    let nan = vec![0xff; 2 * 6 * 5 * 4];
    folder.file(
        "nan.safetensors",
        safetensors(&[f32s("q", &[2, 2, 4, 3]), f32s("k", &[2, 1, 6, 3]), ("v", "F32", &[2, 1, 6, 5], nan)]),
    );
    folder.regard(&["run", "small.toml", "-i", "nan.safetensors", "-o", "o.safetensors"]).ok();
    assert!(read_f32s(&folder.path("o.safetensors"), "o").1.iter().all(|x| x.is_nan()));
    folder.regard(&["verify", "small.toml", "-i", "nan.safetensors"]).ok();

    for (q, k) in [(0, 6), (4, 0), (0, 0)] {
        let tensor = |name, heads, tokens, width| -> (&str, &str, [usize; 4], Vec<u8>) {
            (name, "F32", [2, heads, tokens, width], vec![0; 2 * heads * tokens * width * 4])
        };
        let tensors = [tensor("q", 2, q, 3), tensor("k", 1, k, 3), tensor("v", 1, k, 5)];
        let tensors =
            tensors.each_ref().map(|(name, dtype, shape, bytes)| (*name, *dtype, &shape[..], bytes.clone()));
        folder.file("empty.safetensors", safetensors(&tensors));
        folder.regard(&["run", "small.toml", "-i", "empty.safetensors", "-o", "o.safetensors"]).ok();
        let (shape, o) = read_f32s(&folder.path("o.safetensors"), "o");
        assert_eq!(shape, [2, 2, q, 5]);
        assert!(o.iter().all(|&x| x == 0.0));
        folder.regard(&["verify", "small.toml", "-i", "empty.safetensors"]).ok();
    }
    folder.file(
        "none.safetensors",
        safetensors(&[f32s("q", &[0, 2, 4, 3]), f32s("k", &[0, 1, 6, 3]), f32s("v", &[0, 1, 6, 5])]),
    );
    folder.regard(&["verify", "small.toml", "-i", "none.safetensors"]).ok();
}

#[test]
fn run_says_what_ran_as_json() {
    let folder = Folder::new("json");
    folder
        .file("len.toml", "heads = { query = 1, dim = 2 }\ninputs = { len = 'i32[b]' }\nmask = 'k < len[b]'");
    let qkv = |name| f32s(name, &[2, 1, 4, 2]);
    folder.file("in.safetensors", safetensors(&[qkv("q"), qkv("k"), qkv("v"), i32s("len", &[2], &[1, 3])]));
    let args = [
        "run",
        "len.toml",
        "-i",
        "in.safetensors",
        "-o",
        "o.safetensors",
        "--repeat",
        "5",
        "--threads",
        "1",
        "--json",
    ];
    let [timing] = &folder.regard(&args).ok().objects()[..] else { panic!("one object") };
    for (key, value) in [("q", 4), ("k", 4), ("batch", 2), ("threads", 1)] {
        assert_eq!(timing[key], value, "{key}");
    }
    assert_eq!([&timing["spec"], &timing["dtype"], &timing["kernel"]], ["len", "f32", "generated"]);
    let number = |key: &str| timing[key].as_f64().unwrap();
    assert!(number("min_s") <= number("median_s") && number("median_s") <= number("max_s"));
    // 4 queries see 1 key of the first sequence and 3 of the second; 2 · (2 + 2) operations a pair.
    assert!((number("gflops") * number("median_s") * 1e9 - 16.0 * 8.0).abs() < 1e-6);
}

#[test]
fn a_plan_for_another_machine_is_made_here() {
    let foreign = if cfg!(target_arch = "x86_64") { "cortex-a72" } else { "desktop-avx2" };
    let args =
        ["plan", "causal", "--q", "1048576", "--k", "1048576", "--threads", "64", "--machine", foreign];
    let text = regard(&args).ok().stdout;
    assert!(text.contains("workspace = not known here"), "{text}");
    let [json] = &regard(&[&args[..], &["--json"]].concat()).ok().objects()[..] else { panic!("one object") };
    assert_eq!(json["schedule"]["threads"], 64);
    assert!(json["workspace_bytes"].is_null() && json["plan"]["choices"].is_array());
}

#[test]
fn a_machine_may_come_from_a_file() {
    let folder = Folder::new("machine");
    folder.file("board.toml", "isa = 'scalar'\ncores = 3\nl1d_kib = 64");
    let text = folder.regard(&["plan", "mha", "--q", "9", "--k", "9", "--machine", "board.toml"]).ok().stdout;
    assert!(text.contains("scalar, 3 cores, L1d 64 KiB") && text.contains("for 3 threads"), "{text}");
}

#[test]
fn a_file_of_that_name_comes_before_a_shipped_spec() {
    let folder = Folder::new("names");
    folder.file("causal", "heads = { query = 3, dim = 7 }");
    assert!(folder.regard(&["check", "causal"]).ok().stdout.contains("3 query heads of 7"));
    fs::remove_file(folder.path("causal")).unwrap();
    fs::create_dir(folder.path("causal")).unwrap();
    assert!(folder.regard(&["check", "causal"]).ok().stdout.contains("8 query heads of 128"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    for args in [&["list"][..], &["check", "gqa"], &["plan", "mha", "--q", "9", "--k", "9"], &["--help"]] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = command(args).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{args:?}");
    }
}
