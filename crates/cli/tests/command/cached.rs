//! Queries on cached keys and values, timed.

use std::collections::HashMap;
use std::fs;

use crate::bench::{Folder, regard};

#[test]
fn decode_is_timed_and_checked_in_each_cache() {
    let flags =
        ["--phase", "decode", "--k", "70", "--batch", "2", "--repeat", "3", "--threads", "2", "--json"];
    let mut all = HashMap::new();
    for cache in ["same", "f32", "f16", "bf16", "int8", "int4"] {
        for dtype in ["f32", "bf16"] {
            let chosen = ["--dtype", dtype, "--cache", cache];
            let lines = regard(&[&["bench", "gqa"], &flags[..], &chosen].concat()).ok().objects();
            let [line] = &lines[..] else { panic!("{lines:?}") };
            let stored = if cache == "same" { dtype } else { cache };
            assert_eq!((&line["dtype"], &line["cache"]), (&dtype.into(), &stored.into()), "{line:?}");
            assert_eq!((&line["phase"], &line["limit"]), (&"decode".into(), &"read".into()), "{line:?}");
            assert_eq!((&line["q"], &line["k"], &line["batch"]), (&1.into(), &70.into(), &2.into()));
            assert_eq!((&line["passed"], &line["runs"]), (&true.into(), &3.into()), "{line:?}");
            let number = |key: &str| line[key].as_f64().unwrap();
            let share = number("gbs") / number("peak");
            assert!(share > 0.0 && (number("peak_fraction") / share - 1.0).abs() < 1e-9, "{line:?}");
            all.insert((dtype, cache), (number("gbs") * number("median_s") * 1e9).round());
        }
    }
    // Two sequences: 32 heads of q and o, and 70 keys and values of 8 heads.
    let gqa = |dtype, row| 2.0 * (2.0 * 32.0 * 128.0 * dtype + 2.0 * 70.0 * 8.0 * row);
    assert_eq!(all[&("f32", "f32")], gqa(4.0, 4.0 * 128.0));
    assert_eq!(all[&("bf16", "f16")], gqa(2.0, 2.0 * 128.0));
    assert_eq!(all[&("bf16", "int8")], gqa(2.0, 128.0 + 4.0));
    // A scale of 16 bits for each 32 channels.
    assert_eq!(all[&("f32", "int4")], gqa(4.0, 64.0 + 4.0 * 2.0));
}

#[test]
fn a_window_and_a_document_leave_keys_unread() {
    let folder = Folder::new("cached-window");
    let heads = "heads = { query = 4, kv = 2, dim = 16 }";
    let window =
        format!("{heads}\nmask = \"causal & window(32)\"\ncache = {{ k = \"int8\", v = \"int4\" }}\n");
    fs::write(folder.path("window.toml"), window).unwrap();
    let document = format!("{heads}\ninputs = {{ doc = \"i32[b, k]\" }}\nmask = \"causal & same(doc)\"\n");
    fs::write(folder.path("document.toml"), document).unwrap();
    let flags = ["--phase", "few", "--q", "3", "--k", "400", "--repeat", "1", "--json"];
    let lines =
        folder.regard(&[&["bench", "window.toml", "document.toml"], &flags[..]].concat()).ok().objects();
    let bytes = |line: &serde_json::Value| {
        (line["gbs"].as_f64().unwrap() * line["median_s"].as_f64().unwrap() * 1e9).round()
    };
    assert_eq!(lines[0]["cache"], "k int8, v int4");
    // Three queries see 34 keys together.
    let ends = 2.0 * 3.0 * 4.0 * 16.0 * 4.0;
    assert_eq!(bytes(&lines[0]), ends + 34.0 * 2.0 * ((16.0 + 4.0) + (8.0 + 2.0)));
    let all = ends + 400.0 * (2.0 * 2.0 * 16.0 * 4.0 + 4.0);
    assert!(bytes(&lines[1]) > ends && bytes(&lines[1]) < 0.9 * all, "{lines:?} of {all}");
    assert!(lines.iter().all(|line| line["passed"] == true && line["q"] == 3), "{lines:?}");
}

#[test]
fn every_shipped_spec_of_a_kind_is_decoded() {
    // Keys that are turned, normed, mixed, gated, shared by values; masks that read tensors; other sources.
    let specs =
        ["rope", "qk_norm", "talking_output", "gated", "value_heads", "document", "cross", "attention_sink"];
    for phase in ["decode", "few"] {
        let flags = ["--phase", phase, "--k", "33", "--batch", "3", "--repeat", "1"];
        let done = regard(&[&["bench"], &specs[..], &flags].concat()).ok();
        let lines: Vec<_> = done.stdout.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 120), "{done:?}");
        let rows: Vec<_> = lines.iter().skip_while(|line| !line.starts_with("spec ")).skip(1).collect();
        assert_eq!(rows.len(), specs.len(), "{done:?}");
        assert!(rows.iter().all(|row| row.ends_with(" ok") && row.contains(" % ")), "{done:?}");
    }
}

#[test]
fn decode_objects_have_their_fields_in_order() {
    let args = ["bench", "causal", "--phase", "few", "--k", "20", "--repeat", "1", "--json"];
    let done = regard(&args).ok();
    let pieces: Vec<_> = done.stdout.split('"').collect();
    let keys = pieces.windows(2).filter(|pair| pair[1].starts_with(':')).map(|pair| pair[0]);
    assert_eq!(
        keys.collect::<Vec<_>>().join(" "),
        "spec kernel engine isa dtype cache shared phase q k batch threads layout median_s min_s max_s gflops gbs limit peak \
         peak_fraction cpu predicted_s runs error bound passed"
    );
    assert_eq!(done.objects()[0]["q"], 8);
    assert!(done.objects()[0]["shared"].is_null());
}

#[test]
fn tokens_that_sequences_begin_with_are_stored_and_counted_once() {
    let flags =
        ["--phase", "decode", "--k", "150", "--batch", "3", "--repeat", "1", "--threads", "2", "--json"];
    // Nothing, less than a page, a page and more, and all.
    for (shared, once) in [("0", 0.0), ("5", 5.0), ("130", 130.0), ("150", 150.0)] {
        for (cache, row) in [("same", 512.0), ("int8", 132.0)] {
            let chosen = ["--shared", shared, "--cache", cache];
            let lines = regard(&[&["bench", "gqa"], &flags[..], &chosen].concat()).ok().objects();
            let [line] = &lines[..] else { panic!("{lines:?}") };
            let told = line["shared"].as_u64().map(|shared| shared as f64);
            assert_eq!((told, &line["passed"]), ((once > 0.0).then_some(once), &true.into()), "{line:?}");
            let bytes = line["gbs"].as_f64().unwrap() * line["median_s"].as_f64().unwrap() * 1e9;
            let rows = once + 3.0 * (150.0 - once);
            assert_eq!(bytes.round(), 3.0 * 2.0 * 32.0 * 512.0 + rows * 2.0 * 8.0 * row, "{line:?}");
            // The model knows nothing of what is shared.
            assert_eq!(line["predicted_s"].is_null(), once > 0.0, "{line:?}");
        }
    }
    // Keys that are turned by a tensor's positions, masks that read tensors, a window.
    let specs = ["rope", "document", "sliding_window", "cross"];
    let few = ["--phase", "few", "--q", "3", "--k", "90", "--batch", "3", "--shared", "70", "--repeat", "1"];
    let done = regard(&[&["bench"], &specs[..], &few].concat()).ok();
    let rows = done.stdout.lines().filter(|row| row.ends_with(" ok")).count();
    assert_eq!(rows, specs.len(), "{done:?}");
    assert!(done.stdout.contains("stored and counted once: 70\n"), "{done:?}");
}

#[test]
fn a_ring_takes_the_same_memory_however_long_a_sequence_gets() {
    let folder = Folder::new("generate");
    for layout in ["ring", "contiguous"] {
        let text = format!(
            "name = '{layout}'\nheads = {{ query = 4, kv = 2, dim = 64 }}\nmask = 'causal & window(64)'\ncache = '{layout}'\n"
        );
        folder.file(&format!("{layout}.toml"), text);
    }
    let flags = ["--phase", "generate", "--k", "20000", "--threads", "1"];
    let specs = ["bench", "ring.toml", "contiguous.toml"];
    let [ring, contiguous] = &folder.regard(&[&specs, &flags[..], &["--json"]].concat()).ok().objects()[..]
    else {
        panic!("two lines")
    };
    for line in [ring, contiguous] {
        assert_eq!(
            (&line["phase"], &line["k"], &line["cache"]),
            (&"generate".into(), &20000.into(), &"f32".into())
        );
        assert_eq!((&line["window"], &line["early_from"]), (&2000.into(), &2000.into()));
        let number = |key: &str| line[key].as_f64().unwrap();
        assert!(number("early_s") > 0.0 && number("late_s") > 0.0, "{line:?}");
        assert!((number("ratio") * number("early_s") / number("late_s") - 1.0).abs() < 1e-9, "{line:?}");
        // Rows were taken again, which the oracle does not follow.
        assert!(["error", "bound", "passed"].iter().all(|key| line[key].is_null()), "{line:?}");
    }
    assert_eq!([ring, contiguous].map(|line| line["cache_layout"].as_str().unwrap()), ["ring", "contiguous"]);
    // Keys and values of 2 heads of 64 channels.
    let token = 2 * 2 * 64 * 4;
    let bytes = |line: &serde_json::Value| line["cache_bytes"].as_u64().unwrap();
    assert!(bytes(ring) < 1024 * token && bytes(contiguous) >= 20_000 * token, "{ring:?} {contiguous:?}");
    if cfg!(target_os = "linux") {
        let grown = |line: &serde_json::Value| line["grown_bytes"].as_i64().unwrap();
        // Of the 16,000 tokens that follow the first window, but for a huge page at each end.
        let least = 16_000 * token as i64 - (4 << 20);
        assert!(grown(ring) < 1 << 20 && grown(contiguous) > least, "{ring:?} {contiguous:?}");
    }
    let told = folder.regard(&[&specs, &flags[..]].concat()).ok();
    let rows: Vec<_> = told.stdout.lines().filter(|row| row.ends_with(" not checked")).collect();
    assert_eq!(rows.len(), 2, "{told:?}");
    assert!(told.stdout.lines().all(|line| line.chars().count() <= 120), "{told:?}");
}

#[test]
fn the_last_step_is_held_against_the_oracle() {
    // Keys that are turned and normed, outputs that are mixed and gated; a window that a ring has turned in.
    let folder = Folder::new("generate-checked");
    folder.file(
        "turned.toml",
        "name = 'turned'\nheads = { query = 2, kv = 1, dim = 16 }\nmask = 'causal & window(20)'\ncache = 'ring'\n",
    );
    let specs =
        ["gqa", "rope", "qk_norm", "talking_output", "gated", "value_heads", "attention_sink", "turned.toml"];
    for chosen in [&["--dtype", "bf16", "--cache", "int8"][..], &["--dtype", "f32"]] {
        let flags = ["--phase", "generate", "--k", "300", "--json"];
        let lines = folder.regard(&[&["bench"], &specs[..], &flags, chosen].concat()).ok().objects();
        assert_eq!(lines.len(), specs.len());
        for line in lines {
            let number = |key: &str| line[key].as_f64().unwrap();
            assert!(number("error") > 0.0 && number("error") <= number("bound"), "{line:?}");
            assert_eq!((&line["passed"], &line["window"]), (&true.into(), &30.into()), "{line:?}");
            let share = number("step_bytes") / number("late_s") / 1e9 / number("peak");
            assert!(share > 0.0 && (number("share") / share - 1.0).abs() < 1e-6, "{line:?}");
            assert_eq!(line["limit"], "read", "{line:?}");
        }
    }
    let args = ["bench", "gqa", "--phase", "generate", "--k", "10", "--json"];
    let done = regard(&args).ok();
    let pieces: Vec<_> = done.stdout.split('"').collect();
    let keys = pieces.windows(2).filter(|pair| pair[1].starts_with(':')).map(|pair| pair[0]);
    assert_eq!(
        keys.collect::<Vec<_>>().join(" "),
        "spec kernel engine isa dtype cache cache_layout phase k threads window early_from early_s late_s \
         late_mean_s ratio limit step_bytes peak share cache_bytes grown_bytes cpu error bound passed"
    );
}

#[test]
fn steps_of_a_state_are_held_against_the_oracle() {
    let folder = Folder::new("generate-states");
    // Inputs of each token, sums of features, and states of several heads over one of keys.
    folder.file(
        "wide.toml",
        "name = 'wide'\nheads = { query = 2, value = 4, dim = 24, value_dim = 70 }\nmask = 'causal'\nqk_norm = 'l2'\n\
         recurrence = { update = 'delta', decay = 'channel' }\n",
    );
    let specs = ["bench", "linear_attention", "gated_deltanet", "mamba2", "wide.toml"];
    let flags = ["--phase", "generate", "--k", "70"];
    for chosen in [&["--dtype", "bf16", "--threads", "1"][..], &["--dtype", "f32", "--threads", "2"]] {
        let lines = folder.regard(&[&specs[..], &flags, chosen, &["--json"]].concat()).ok().objects();
        assert_eq!(lines.len(), specs.len() - 1);
        for line in lines {
            let number = |key: &str| line[key].as_f64().unwrap();
            assert!(number("error") > 0.0 && number("error") <= number("bound"), "{line:?}");
            assert_eq!((&line["passed"], &line["cache"]), (&true.into(), &"states f32".into()), "{line:?}");
            // A state is read and written once; what a cache has beside it are whole lines.
            let share = 2.0 * number("cache_bytes") / number("late_s") / 1e9 / number("peak");
            assert!((number("share") / share - 1.0).abs() < 0.02, "{line:?}");
            assert_eq!(line["limit"], "readwrite", "{line:?}");
        }
    }
    let told = folder.regard(&[&specs[..], &flags].concat()).ok();
    assert_eq!(told.stdout.matches("\n  late: ").count(), specs.len() - 1, "{told:?}");
    assert!(told.stdout.lines().all(|line| line.chars().count() <= 120), "{told:?}");
}

#[test]
fn what_does_not_grow_is_told() {
    for (args, told) in [
        (
            &["causal", "--k", "9"][..],
            "error: --phase generate has a step for each token, --k is 9: expected at least 10, of which a tenth is one\n",
        ),
        (
            &["document", "--k", "20"],
            "error: spec document: `doc` has elements for each token; --phase generate expects inputs that do not grow with \
             the sequence\n",
        ),
        (
            &["linear_attention_global", "--k", "20"],
            "error: spec linear_attention_global: a recurrence without `mask = \"causal\"` has no cache: `Kernel::run_recurrence` \
             takes all keys at once\n",
        ),
        (
            &["cross", "--k", "20"],
            "error: spec cross: its keys are of another sequence than its queries; --phase generate expects a spec without \
             `source = \"cross\"`\n",
        ),
        (
            &["causal", "--q", "1"],
            "error: --q: not with --phase generate; it is for prefill, few and decode\n",
        ),
        (
            &["causal", "--batch", "2"],
            "error: --batch: not with --phase generate; it is for prefill, few and decode\n",
        ),
        (
            &["causal", "--shared", "2"],
            "error: --shared: not with --phase generate; it is for decode and few\n",
        ),
        (
            &["causal", "--repeat", "2"],
            "error: --repeat: not with --phase generate; it is for prefill, few and decode\n",
        ),
        (&["causal", "--baseline"], "error: --baseline: not with --phase generate; it is for prefill\n"),
        (
            &["causal", "--k", "2147483648"],
            "error: spec causal: a cache of 1 sequences of 2147483648 tokens: both are at least 1, and tokens at most 2147483647\n",
        ),
    ] {
        let done = regard(&[&["bench", "--phase", "generate", "--json"], args].concat());
        assert_eq!((done.code, &*done.stdout, &*done.stderr), (Some(1), "", told));
    }
}

#[test]
fn what_a_phase_does_not_have_is_told() {
    for (flags, told) in [
        (
            &["--phase", "decode", "--q", "2"][..],
            "error: --phase decode takes 1 query of a sequence, --q is 2; few is for 2 to 16\n",
        ),
        (
            &["--phase", "few", "--q", "1"],
            "error: --phase few takes 2 to 16 queries of a sequence, --q is 1; decode is for 1, prefill for more\n",
        ),
        (
            &["--phase", "few", "--q", "17"],
            "error: --phase few takes 2 to 16 queries of a sequence, --q is 17; decode is for 1, prefill for more\n",
        ),
        (
            &["--cache", "int8"],
            "error: --cache: prefill has no cache; it is for --phase decode, few and generate\n",
        ),
        (&["--shared", "4"], "error: --shared: prefill has no cache; it is for --phase decode and few\n"),
        (
            &["--phase", "few", "--k", "70", "--shared", "71"],
            "error: --shared is 71, more than the 70 keys of a sequence: expected at most --k\n",
        ),
        (&["--phase", "few", "--baseline"], "error: --baseline: not with --phase few; it is for prefill\n"),
        (
            &["--phase", "decode", "--against", "mha"],
            "error: --against: not with --phase decode; it is for prefill\n",
        ),
        (
            &["--phase", "decode", "--k", "0"],
            "error: spec causal: a cache of 1 sequences of 0 tokens: both are at least 1, and tokens at most 2147483647\n",
        ),
        (
            &["--phase", "decode", "--k", "2147483648"],
            "error: keys: 2147483648 is more than a 32-bit position can count (2147483647)\n",
        ),
    ] {
        let done = regard(&[&["bench", "causal", "--json"], flags].concat());
        assert_eq!((done.code, &*done.stdout, &*done.stderr), (Some(1), "", told));
    }
    let folder = Folder::new("cached-in-vain");
    for (mask, cache, told) in [
        ("causal", "'ring'", "`cache.layout` is `ring`, but the mask lets queries see keys without end"),
        ("causal & window(16)", "{ file = true }", "the spec says `cache.file = true`"),
    ] {
        folder.file(
            "cached.toml",
            format!("heads = {{ query = 1, dim = 8 }}\nmask = '{mask}'\ncache = {cache}\n"),
        );
        let done = folder.regard(&["bench", "cached.toml", "--phase", "decode", "--k", "16"]);
        assert!(done.code == Some(1) && done.stderr.contains(told), "{done:?}");
    }
    folder.file(
        "ring.toml",
        "heads = { query = 1, dim = 8 }\nmask = 'causal & window(8)'\ncache = 'ring'\nname = 'round'\n",
    );
    let done = folder.regard(&["bench", "ring.toml", "--phase", "decode", "--k", "16", "--shared", "4"]);
    let told = "error: spec round: `cache.layout` is `ring`, expected contiguous or paged with --shared 4: the tokens that \
                sequences have in common lie in pages\n";
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (Some(1), "", told));
}

#[test]
fn a_plan_says_what_a_call_on_a_cache_does() {
    let folder = Folder::new("cached-plan");
    folder.file(
        "turning.toml",
        "name = 'turning'\nheads = { query = 8, kv = 2, dim = 64 }\nmask = 'causal & window(1000)'\n\
         cache = { layout = 'ring', k = 'int8', v = 'int4', page = 32 }\n",
    );
    let plan = |more: &[&str]| {
        let objects = folder.regard(&[&["plan"], more, &["--json"]].concat()).ok().objects();
        let [object] = &objects[..] else { panic!("{objects:?}") };
        object.clone()
    };
    let gqa =
        ["gqa", "--phase", "decode", "--k", "3000", "--batch", "4", "--dtype", "bf16", "--threads", "2"];
    let shown = plan(&gqa);
    let call = &shown["call"];
    let number =
        |of: &serde_json::Value, key: &str| of[key].as_u64().unwrap_or_else(|| panic!("{key}: {of}"));
    assert_eq!((&shown["problem"]["phase"], &shown["problem"]["queries"]), (&"decode".into(), &1.into()));
    assert_eq!([number(call, "rows"), number(call, "live_cells"), number(call, "passes")], [4, 12, 96]);
    assert_eq!([number(call, "keys"), number(call, "pairs")], [96_000, 384_000]);
    assert_eq!([number(call, "read_bytes"), number(call, "threads")], [96_000 * 2 * 256, 2]);
    // 47 pages of 64 tokens, each of which is of 8 heads, and has a line of bits for the values of each.
    let cache = &shown["cache"];
    assert_eq!((&cache["layout"], &cache["page"]["k"]), (&"contiguous".into(), &"bf16".into()));
    assert_eq!(number(cache, "held_tokens"), 47 * 64);
    assert_eq!(number(cache, "bytes"), 4 * 47 * 8 * (2 * 64 * 256 + 64));
    assert!(number(&shown, "workspace_bytes") > 0 && shown["unknown"].as_array().unwrap().is_empty());
    let predicted = &shown["predicted"];
    let seconds = |key: &str| predicted[key].as_f64().unwrap();
    let (reading, arithmetic) = (seconds("reading_s"), seconds("products_s") + seconds("softmax_s"));
    let longer = reading.max(arithmetic) + seconds("waking_s");
    assert!((seconds("seconds") / longer - 1.0).abs() < 1e-9, "{predicted}");
    assert_eq!(predicted["bound"], if reading >= arithmetic { "reads" } else { "arithmetic" });

    // Eight queries where nobody says how many; they see 1007 keys, which begin in the page from 98976 on.
    let shown = plan(&["turning.toml", "--phase", "few", "--k", "100000"]);
    let (call, cache) = (&shown["call"], &shown["cache"]);
    assert_eq!([number(call, "rows"), number(call, "keys")], [32, 2 * 1024]);
    assert_eq!(number(call, "read_bytes"), 2 * 1024 * ((64 + 4) + (32 + 2 * 2)));
    assert_eq!((&cache["layout"], &cache["page"]["v"]), (&"ring".into(), &"int4".into()));
    let held = number(cache, "held_tokens");
    assert!((1008..1200).contains(&held), "{cache}");

    // A longer cache is more to read, by as much.
    let read =
        |k: &str| plan(&["causal", "--phase", "decode", "--k", k])["call"]["read_bytes"].as_u64().unwrap();
    assert_eq!(read("8192"), 8 * read("1024"));
}

#[test]
fn a_plan_says_which_cache_there_is_not() {
    let folder = Folder::new("cached-plan-in-vain");
    for (mask, cache, more, told) in [
        (
            "causal",
            "'ring'",
            &[][..],
            "`cache.layout` is `ring`, but the mask lets queries see keys without end",
        ),
        (
            "causal",
            "{ file = true }",
            &["--batch", "2"],
            "spec filed: --batch is 2, but a cache in a file (`cache.file = true`) is of one sequence: expected 1\n",
        ),
    ] {
        folder.file(
            "cached.toml",
            format!("name = 'filed'\nheads = {{ query = 1, dim = 8 }}\nmask = '{mask}'\ncache = {cache}\n"),
        );
        let args = [&["plan", "cached.toml", "--phase", "decode", "--k", "16"], more].concat();
        let done = folder.regard(&args);
        assert!(done.code == Some(1) && done.stderr.contains(told), "{done:?}");
    }
    let alone = folder.regard(&["plan", "cached.toml", "--phase", "decode", "--k", "16"]).ok();
    assert!(alone.stdout.contains("contiguous: room for 64 tokens"), "{alone:?}");
}
