//! `regard calibrate`: what it keeps is used, and what is of no use is ignored aloud.

use std::fs;
use std::path::PathBuf;

use crate::bench::{Folder, command};

const PLAN: [&str; 4] = ["plan", "causal", "--q", "256"];

/// The one file of the folder's cache.
fn kept(folder: &Folder) -> PathBuf {
    let mut files = fs::read_dir(folder.path("cache/regard")).unwrap();
    let file = files.next().expect("a file of this machine").unwrap().path();
    assert!(files.next().is_none(), "one file, and nothing left beside it");
    file
}

#[test]
fn what_was_measured_is_kept_and_used() {
    let folder = Folder::new("calibrate");
    let before = folder.regard(&["calibrate", "--show"]).ok().stdout;
    assert!(before.contains("nothing was measured here"), "{before}");
    let plan = folder.regard(&PLAN).ok().stdout;
    assert!(plan.contains("estimated rates\n") && plan.contains(", from estimated rates\n"), "{plan}");

    let measured = folder.regard(&["calibrate"]).ok();
    let file = kept(&folder);
    assert_eq!(measured.stderr, format!("written to {}\n", file.display()));
    let shown = folder.regard(&["calibrate", "--show"]).ok().stdout;
    assert!(shown.starts_with(&measured.stdout), "{shown}\n{}", measured.stdout);
    assert!(shown.contains(&format!("rates measured here, from {}", file.display())), "{shown}");
    assert!(shown.contains("simd-f32 on scalar"), "{shown}");
    let plan = folder.regard(&PLAN).ok().stdout;
    assert!(plan.contains("measured rates\n") && plan.contains("note: rates measured here"), "{plan}");

    let toml = folder.regard(&["calibrate", "--show", "--toml"]).ok().stdout;
    assert_eq!(toml, fs::read_to_string(&file).unwrap());
    let profile = folder.file("this.toml", &toml);
    let plan = folder.regard(&[&PLAN[..], &["--machine", profile.to_str().unwrap()]].concat()).ok().stdout;
    assert!(plan.contains("measured rates\n") && !plan.contains("note: rates measured here"), "{plan}");
}

#[test]
fn a_file_of_no_use_changes_nothing_and_is_told() {
    let folder = Folder::new("calibrate-no-use");
    folder.regard(&["calibrate"]).ok();
    let file = kept(&folder);
    let text = fs::read_to_string(&file).unwrap();
    for (bad, reason) in [
        (
            text.replace("processor = \"", "processor = \"Another "),
            "it is of another machine: its processor is Another",
        ),
        (text.replace("format = 1", "format = 0"), "it is of format 0, this build reads 1"),
        // Cut off inside a line.
        (text[..=text.rfind('=').expect("a key")].to_owned(), "machine profile `host`: "),
        (String::new(), "missing field"),
    ] {
        fs::write(&file, bad).unwrap();
        let plan = folder.regard(&PLAN).ok().stdout;
        let told = format!("note: {} is ignored: ", file.display());
        assert!(plan.contains(&told) && plan.contains(reason), "{reason}: {plan}");
        assert!(plan.contains("estimated rates\n"), "{plan}");
        folder.regard(&["verify", "causal", "--q", "9"]).ok();
    }
    folder.regard(&["calibrate"]).ok();
    assert!(folder.regard(&PLAN).ok().stdout.contains("measured rates\n"));
}

#[test]
fn without_a_cache_folder_nothing_is_kept() {
    let homeless = |args: &[&str]| {
        let output = command(args).env_remove("XDG_CACHE_HOME").env_remove("HOME").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = homeless(&["calibrate"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        told,
        "error: there is no folder to keep what is measured in: neither XDG_CACHE_HOME nor HOME is an absolute path\n"
    );
    assert_eq!(homeless(&PLAN).0, Some(0));
}

#[test]
fn plans_and_times_have_their_prediction() {
    let folder = Folder::new("predicted");
    let plan = folder.regard(&[&PLAN[..], &["--json"]].concat()).ok().objects();
    let seconds = plan[0]["predicted"]["seconds"].as_f64().unwrap();
    assert!(seconds > 0.0 && plan[0]["predicted"]["rates"] == "estimated", "{plan:?}");
    let cached = ["plan", "causal", "--phase", "decode", "--k", "256", "--json"];
    let plan = folder.regard(&cached).ok().objects();
    let seconds = plan[0]["predicted"]["seconds"].as_f64().unwrap();
    assert!(seconds > 0.0 && plan[0]["predicted"]["rates"] == "estimated", "{plan:?}");
    for phase in ["prefill", "decode", "few"] {
        let k = if phase == "prefill" { "--q" } else { "--k" };
        let bench = ["bench", "causal", "--phase", phase, k, "64", "--repeat", "1", "--json"];
        assert!(folder.regard(&bench).ok().objects()[0]["predicted_s"].as_f64().unwrap() > 0.0, "{phase}");
    }
}
