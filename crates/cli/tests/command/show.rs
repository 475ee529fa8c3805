//! What `show` draws, and that it says the same as `plan`.

use std::fs;

use regard_dev::{Regard, gallery};
use serde_json::Value;

use crate::bench::{Done, Folder, command, f32s, i32s, regard, safetensors, workspace};

const MACHINE: [&str; 2] = ["--machine", "desktop-avx2"];

fn show(line: &str) -> Done {
    regard(&line.split(' ').chain(MACHINE).collect::<Vec<_>>())
}

fn numbers(line: &str) -> Value {
    show(&format!("{line} --json")).ok().objects().remove(0)
}

#[test]
fn in_the_terminal() {
    for (name, line) in [
        ("causal", "show causal --q 20 --k 20"),
        ("causal_many_keys", "show causal --q 7 --k 300"),
        ("dilated", "show dilated --q 32 --k 32 --q-offset 0"),
        ("sliding_window", "show sliding_window --q 16384 --k 16384"),
        ("softcap_bias", "show softcap_bias --q 4096 --k 4096 --example"),
        ("softcap_bias_unknown", "show softcap_bias --q 4096 --k 4096"),
    ] {
        insta::assert_snapshot!(format!("show_{name}"), show(line).ok().stdout);
    }
}

#[test]
fn as_svg() {
    let folder = Folder::new("show-svg");
    folder.file(
        "odd.toml",
        "name = 'a < b & \"c\"'\nheads = { query = 2, dim = 8 }\nmask = 'k <= q & (q - k) % 3 == 0'",
    );
    folder
        .regard(&["show", "odd.toml", "--q", "5", "--k", "6", "--machine", "desktop-avx2", "-o", "odd.svg"])
        .ok();
    insta::assert_snapshot!("show_svg", fs::read_to_string(folder.path("odd.svg")).unwrap());
}

#[test]
fn colours_are_for_terminals() {
    let line = ["show", "causal", "--q", "8", "--k", "8", "--machine", "desktop-avx2"];
    let piped = command(&line).current_dir(workspace()).env("COLORTERM", "truecolor").output().unwrap();
    assert!(!piped.stdout.contains(&0x1b));
}

/// Over all key heads of all sequences `plan` counts as many tiles as are drawn for each.
#[test]
fn counts_are_those_of_the_plan() {
    for sizes in [
        "causal --q 1000 --k 3000",
        "gqa --q 300 --k 300",
        "sliding_window --q 8192 --k 8192",
        "dilated --q 1048576 --k 1048576",
        "document --q 2000 --k 2000",
        "softcap_bias --q 700 --k 900 --q-offset -50",
        "global --q 1 --k 1",
        "cross --q 7 --k 300",
        "causal --q 0 --k 5",
        "causal --q 5 --k 0",
    ] {
        let drawn = numbers(&format!("show {sizes}"));
        let planned = show(&format!("plan {sizes} --json")).ok().objects().remove(0);
        let kv_heads = planned["plan"]["heads"]["kv"].as_u64().unwrap();
        for class in ["full", "partial", "dead"] {
            let of = |numbers: &Value| numbers["tiles"][class].as_u64().unwrap();
            assert_eq!(kv_heads * of(&drawn), of(&planned["schedule"]), "{sizes}: {class} tiles");
        }
        assert_eq!(drawn["live_share"], planned["schedule"]["live_share"], "{sizes}");
        let blocks = &planned["plan"]["plan"]["prefill"];
        for block in ["query_block", "key_block"] {
            assert_eq!(drawn[block], blocks[block], "{sizes}: {block}");
        }
    }
}

/// Where each pair is looked at, they are counted as the mask says.
#[test]
fn pairs_are_those_of_the_mask() {
    let allowed = |line: &str| numbers(line)["allowed"].as_u64().unwrap();
    assert_eq!(allowed("show causal --q 100 --k 100"), 5050);
    assert_eq!(allowed("show causal --q 10 --k 10 --q-offset -3"), 28);
    assert_eq!(allowed("show mha --q 256 --k 256"), 65536);
    assert_eq!(allowed("show dilated --q 9 --k 9"), 9 + 5 + 1);
    assert_eq!(numbers("show causal --q 257 --k 257")["allowed"], Value::Null);
}

#[test]
fn tensors_of_a_file_are_what_is_drawn() {
    let folder = Folder::new("show-data");
    let lens = i32s("len", &[3], &[0, 2, 5]);
    folder.file("len.safetensors", safetensors(&[lens, f32s("q", &[1, 1, 1, 1])]));
    let allowed = |sequence: &str| {
        let args = ["show", "minilm", "--q", "4", "--k", "5", "--batch", "3", "--sequence", sequence];
        let done = folder.regard(&[&args[..], &["-i", "len.safetensors", "--json"]].concat());
        done.ok().objects()[0]["allowed"].as_u64().unwrap()
    };
    assert_eq!([allowed("0"), allowed("1"), allowed("2")], [0, 8, 20]);
}

#[test]
fn heads_are_drawn_each() {
    let folder = Folder::new("show-heads");
    folder.file("heads.toml", "heads = { query = 4, kv = 2, dim = 8 }\nmask = 'k <= h'");
    for (head, allowed) in [("0", 3), ("2", 9), ("3", 12)] {
        let args = ["show", "heads.toml", "--q", "3", "--k", "9", "--head", head, "--json"];
        assert_eq!(folder.regard(&args).ok().objects()[0]["allowed"], allowed);
    }
}

#[test]
fn png_and_svg_are_files_whole_and_of_the_size_they_say() {
    let folder = Folder::new("show-files");
    for size in ["0", "1", "300", "1048576"] {
        for file in ["a.png", "a.SVG"] {
            let args = ["show", "document", "--q", size, "--k", size, "--example", "-o", file];
            let done = folder.regard(&args).ok();
            assert!(done.stdout.is_empty() && done.stderr.is_empty(), "{done:?}");
        }
        let svg = fs::read_to_string(folder.path("a.SVG")).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.len() < 100_000);
        let file = fs::File::open(folder.path("a.png")).unwrap();
        let mut image = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
        let mut pixels = vec![0; image.output_buffer_size().unwrap()];
        let frame = image.next_frame(&mut pixels).unwrap();
        assert!(svg.contains(&format!("viewBox=\"0 0 {} {}\"", frame.width, frame.height)), "{size}");
    }
}

#[test]
fn the_gallery_is_what_would_be_drawn() {
    let regard = Regard::at(env!("CARGO_BIN_EXE_regard").as_ref(), &workspace());
    let drift = gallery::drift(&regard, &workspace()).unwrap();
    assert!(drift.is_empty(), "{}", drift.join("\n"));
}
