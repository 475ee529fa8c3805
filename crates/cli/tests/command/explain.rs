//! What `regard explain` says of specs, on a machine that is not measured, so that every machine says the same.

use crate::bench::{Folder, regard};

/// Scalar, so that every processor can build the kernel and knows its workspace.
const MACHINE: [&str; 2] = ["--machine", "cortex-m7"];

fn explain(args: &[&str]) -> String {
    regard(&[&["explain"], args, &MACHINE].concat()).ok().stdout
}

#[test]
fn pages() {
    let pages: [(&str, &[&str]); 5] = [
        ("softcap_bias", &[]),
        ("sliding_window", &["--q", "1", "--k", "32768", "--batch", "4", "--dtype", "bf16"]),
        ("dilated", &["--q", "100"]),
        ("cross", &["--q", "100", "--k", "0"]),
        ("causal", &["--q", "2147483647"]),
    ];
    for (spec, args) in pages {
        let page = explain(&[&[spec], args].concat());
        let widest = page.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{page}");
        insta::assert_snapshot!(format!("explain_{spec}"), page);
    }
}

#[test]
fn json_has_the_figures_of_the_page() {
    let args = ["explain", "gqa", "--q", "3", "--k", "5", "--machine", "cortex-m7", "--json"];
    let [gqa] = &regard(&args).ok().objects()[..] else { panic!("one object") };
    assert_eq!(gqa["formula"][0]["is"], "1/√128 · Q[b,h,q] · K[b,g,k]");
    assert_eq!(gqa["cache"]["bytes_per_token"], 2 * 8 * 128 * 4);
    let prefill = &gqa["prefill"];
    // Query i of 3 over 5 keys sees 3 + i of them.
    assert_eq!(prefill["pairs"]["allowed"], 32.0 * 12.0);
    assert_eq!(prefill["work"]["flops"], 2.0 * 256.0 * 32.0 * 12.0);
    assert_eq!(gqa["decode"]["problem"]["q_offset"], 4);
    assert!(gqa["limits"].is_null() && gqa["workspace_bytes"].as_u64() > Some(0), "{gqa}");
}

#[test]
fn caches_are_counted_as_they_are_stored() {
    let folder = Folder::new("explain-cache");
    let heads = "heads = { query = 32, kv = 8, dim = 128 }\nmask = 'causal & window(4096)'";
    let explain = |name: &str, table: &str, more: &[&str]| {
        folder.file(name, format!("{heads}\ncache = {table}\n"));
        folder.regard(&[&["explain", name], &MACHINE[..], more].concat()).ok()
    };
    let page = explain("paged.toml", "{ layout = 'paged', page = 64, k = 'int8', v = 'int4' }", &[]).stdout;
    let cache = page.split("\n\n").find(|section| section.starts_with("cache ")).unwrap();
    insta::assert_snapshot!("explain_cache", cache);
    // Keys and values of a call are what they are without a cache.
    assert!(page.contains("K: 1 sequence × 4,096 keys × 8 heads × 128 × 4 B"), "{page}");

    let page = explain("ring.toml", "'ring'", &["--dtype", "bf16"]).stdout;
    let (_, cache) = page.split_once("\ncache     of one token, in bf16\n").unwrap();
    let told = ["layout     in a ring", "4,096 B (8,192 B in f32, 4,096 B in f16)"];
    assert!(told.iter().all(|told| cache.contains(told)), "{page}");

    let json = explain("ring.toml", "{ layout = 'ring', v = 'int8' }", &["--json"]).objects();
    let cache = &json[0]["cache"];
    let named = ["layout", "k", "v"].map(|key| cache[key].as_str().unwrap());
    assert_eq!(named, ["ring", "f32", "int8"]);
    assert!(cache["page"].is_null() && cache["file"] == false, "{cache}");
    assert_eq!(cache["bytes_per_token"], 8 * 128 * 4 + 8 * (128 + 4));
}

#[test]
fn sizes_at_the_ends_of_their_range_have_figures() {
    let folder = Folder::new("explain");
    folder.file("wide.toml", "heads = { query = 4096, dim = 1024 }\nmask = 'causal'");
    let most = i32::MAX.to_string();
    for (q, k, batch) in
        [("0", "0", "1"), ("1", "0", "1"), ("0", "1", "0"), (&most, &most, "1"), ("1", &most, "2")]
    {
        for spec in ["wide.toml", "minilm", "global"] {
            let args = ["explain", spec, "--q", q, "--k", k, "--batch", batch, "--machine", "cortex-m7"];
            let page = folder.regard(&args).ok().stdout;
            assert!(!page.contains("NaN") && !page.contains("inf "), "{page}");
            folder.regard(&[&args[..], &["--json"]].concat()).ok().objects();
        }
    }
}

#[test]
fn what_cannot_be_explained_is_said() {
    let cases: [(&[&str], &str); 5] = [
        (&["causl"], "\"causl\" is neither a file nor a shipped spec; did you mean `causal`?"),
        (&["causal", "--q", "2147483648"], "queries: 2147483648 is more than a 32-bit position can count"),
        (&["causal", "--batch", "2147483648"], "batch: 2147483648 is more than"),
        (&["causal", "--machine", "cortex-a73"], "did you mean `cortex-a72`?"),
        (&["causal", "--machine", "cortex-a72", "--isa", "avx2"], "avx2 is not on this machine"),
    ];
    for (args, said) in cases {
        let done = regard(&[&["explain"], args].concat());
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
        assert!(done.stderr.contains(said), "{done:?}");
    }
}
