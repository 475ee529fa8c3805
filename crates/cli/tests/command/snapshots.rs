//! What the command prints, as a person reviews it.

use crate::bench::{Folder, regard};

#[test]
fn help() {
    for command in ["", "list", "check", "explain", "plan", "show", "run", "verify", "bench", "calibrate"] {
        let args: Vec<_> = [command, "--help"].into_iter().filter(|arg| !arg.is_empty()).collect();
        let name = if command.is_empty() { "help".to_owned() } else { format!("help_{command}") };
        insta::assert_snapshot!(name, regard(&args).ok().stdout);
    }
}

#[test]
fn list() {
    let listed = regard(&["list"]).ok().stdout;
    let (host, others): (Vec<_>, Vec<_>) = listed.lines().partition(|line| line.starts_with("* host"));
    assert_eq!(host.len(), 1, "{listed}");
    insta::assert_snapshot!("list", others.join("\n"));
}

#[test]
fn check_says_what_good_specs_mean() {
    let checked = regard(&["check", "alibi", "cross", "dilated", "specs/gqa.toml", "minilm", "softcap_bias"]);
    insta::assert_snapshot!("check_good", checked.ok().stdout);
}

#[test]
fn check_tells_all_that_is_wrong_with_all_specs() {
    let folder = Folder::new("check");
    folder.file("noted.toml", "heads = { query = 4, dim = 64 }\nscore = { modify = 's + 0.1 * k' }\n");
    folder.file(
        "bad.toml",
        "heads = { query = 8, kv = 3, dim = 64 }\nmaks  = 'causal'\nmask  = 'causal & widnow(4096)'\n",
    );
    let checked = folder.regard(&["check", "noted.toml", "bad.toml", "minlm", "causal"]);
    assert_eq!(checked.code, Some(1));
    insta::assert_snapshot!("check_bad", format!("{}--- stderr\n{}", checked.stdout, checked.stderr));
}

/// On a scalar machine, so that every processor can build the kernel and knows its workspace.
#[test]
fn plan() {
    let args = ["plan", "document", "--q", "1000", "--k", "3000", "--batch", "2", "--machine", "cortex-m7"];
    let planned = regard(&args).ok().stdout;
    let (times, lines): (Vec<_>, Vec<_>) = planned.lines().partition(|line| line.starts_with("planned in"));
    assert_eq!(times.len(), 1, "{planned}");
    insta::assert_snapshot!("plan", lines.join("\n"));
}

/// What is said of calls on caches, on the same machine: all keys of some sequences, and a ring that a window turns in.
#[test]
fn plan_of_a_call_on_a_cache() {
    let folder = Folder::new("plan-cached");
    folder.file(
        "turning.toml",
        "name = 'turning'\nheads = { query = 8, kv = 2, dim = 64 }\nmask = 'causal & window(1000)'\n\
         cache = { layout = 'ring', k = 'int8', v = 'int4' }\n",
    );
    let decode = ["plan", "gqa", "--phase", "decode", "--k", "8192", "--batch", "3", "--dtype", "bf16"];
    let few = ["plan", "turning.toml", "--phase", "few", "--k", "100000"];
    for (name, args) in [("plan_decode", &decode[..]), ("plan_few", &few)] {
        let planned = folder.regard(&[args, &["--machine", "cortex-m7"]].concat()).ok().stdout;
        let (times, lines): (Vec<_>, Vec<_>) =
            planned.lines().partition(|line| line.starts_with("planned in"));
        assert_eq!(times.len(), 1, "{planned}");
        insta::assert_snapshot!(name, lines.join("\n"));
    }
}
