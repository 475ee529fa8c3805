//! The README, run: what it says to type, what it shows as printed, what it says of the code.
//!
//! `cargo xtask` in it is left to the tests of xtask, which see to it that CI runs each.

mod call;
mod generate;
mod page;

use std::{fs, iter};

use regard_ir::bounds::{self, Quantity};
use regard_ir::plan::{Dtype, Precision};

use self::page::{Block, Shown};
use crate::bench::{Done, Folder, f32s, i32s, regard, safetensors, workspace};

/// How a clone runs the command that is not installed.
const FROM_A_CLONE: &str = "cargo run --release -p regard-cli -- ";

fn readme() -> String {
    fs::read_to_string(workspace().join("README.md")).unwrap()
}

/// A folder with each TOML block as the file that its first line names, and the tensors of its first one.
fn folder(test: &str, page: &str) -> Folder {
    let folder = Folder::new(test);
    for (name, text) in specs(page) {
        folder.file(name, text);
    }
    let tensors = [
        f32s("q", &[2, 8, 9, 64]),
        f32s("k", &[2, 2, 9, 64]),
        f32s("v", &[2, 2, 9, 64]),
        i32s("doc", &[2, 9], &[0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4]),
        f32s("bias", &[8]),
    ];
    folder.file("in.safetensors", safetensors(&tensors));
    folder
}

fn specs(page: &str) -> Vec<(&str, &str)> {
    let blocks = page::blocks(page).into_iter().filter(|block| block.language == "toml");
    let named = blocks.map(|Block { line, text, .. }| {
        let name = text.lines().next().and_then(|first| first.strip_prefix("# "));
        (name.unwrap_or_else(|| panic!("README.md:{line}: a spec begins with `# FILE`")), text)
    });
    named.collect()
}

/// The commands of the page that start `regard`, with their arguments.
fn commands(page: &str) -> Vec<(Shown<'_>, Vec<&str>)> {
    let shown = page::blocks(page).into_iter().flat_map(|block| page::commands(&block));
    let ours = shown.filter_map(|shown| {
        let line = shown.command.strip_prefix(FROM_A_CLONE).or(shown.command.strip_prefix("regard "));
        match line {
            Some(line) => Some((shown.clone(), line.split(' ').collect())),
            None if shown.command.starts_with("cargo xtask ") => None,
            None => panic!("README.md:{}: no test runs `{}`", shown.line, shown.command),
        }
    });
    ours.collect()
}

/// Runs a command; what is timed, on few tokens and once.
fn run(folder: &Folder, args: &[&str]) -> Done {
    if args[0] != "bench" {
        return folder.regard(args);
    }
    let of_q = iter::once("").chain(args.iter().copied());
    let small = args.iter().zip(of_q).map(|(&arg, before)| if before == "--q" { "64" } else { arg });
    folder.regard(&small.chain(["--repeat", "1"]).collect::<Vec<_>>())
}

#[test]
fn each_command_does_what_is_shown() {
    let page = readme();
    let folder = folder("readme", &page);
    let commands = commands(&page);
    assert!(commands.iter().any(|(shown, _)| !shown.output.is_empty()), "nothing is shown as printed");
    for (Shown { line, command, output }, args) in commands {
        let done = run(&folder, &args);
        let wrong = output.iter().any(|line| line.starts_with("error"));
        assert_eq!(done.code, Some(i32::from(wrong)), "README.md:{line}: {command}: {done:#?}");
        let printed = done.stdout + &done.stderr;
        if let Some(missing) = page::first_missing(&output, &printed) {
            panic!("README.md:{line}: `{command}` does not print `{missing}` where it is shown:\n{printed}");
        }
    }
}

#[test]
fn each_spec_is_without_mistakes_or_they_are_shown() {
    let page = readme();
    let folder = folder("readme-specs", &page);
    let commands = commands(&page);
    for (name, _) in specs(&page) {
        let done = folder.regard(&["check", name]);
        let notes = done.stdout.lines().filter(|line| !line.starts_with("ok: ")).count();
        let shown =
            commands.iter().any(|(shown, args)| args[..] == ["check", name] && !shown.output.is_empty());
        assert!((done.code == Some(0) && notes == 0) || shown, "{name}: {done:#?}");
    }
}

#[test]
fn the_calls_are_those_that_run() {
    let page = readme();
    let sources = [include_str!("readme/call.rs"), include_str!("readme/generate.rs")];
    let blocks: Vec<_> = page::blocks(&page).into_iter().filter(|block| block.language == "rust").collect();
    assert_eq!(blocks.len(), sources.len(), "calls are shown");
    for (block, source) in blocks.into_iter().zip(sources) {
        let (_, rest) = source.split_once("// README: from here\n").unwrap();
        let (call, _) = rest.split_once("    // README: to here").unwrap();
        let call: String =
            call.split_inclusive('\n').map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
        let differing = block.text.lines().zip(call.lines()).find(|(shown, run)| shown != run);
        assert_eq!(block.text, call, "README.md:{} and its source differ first at {differing:?}", block.line);
    }
}

/// Queries of zeros score 0 everywhere, so that a sum of equal values is their value, as 8 bits hold it.
#[test]
fn the_second_call_generates() {
    let page = readme();
    let folder = folder("readme-generate", &page);
    let rows = |heads: usize, x: f32| vec![x; heads * generate::TOKENS * 64];
    let tensors = generate::Tensors { q: rows(8, 0.0), k: rows(2, 0.5), v: rows(2, 0.25) };
    let (name, _) = specs(&page).into_iter().find(|(name, _)| *name == "chat.toml").expect("it is shown");
    for o in generate::generate(&folder.path(name), &tensors).unwrap() {
        assert!(o.iter().all(|o| (o - 0.25).abs() <= 1e-4), "{:?}", &o[..4]);
    }
}

/// Queries of zeros score 0 everywhere, so that the weights of a head are one number and each sum is a count of keys.
#[test]
fn the_call_attends_inside_documents() {
    const DOCUMENT: usize = 100;
    let page = readme();
    let folder = folder("readme-call", &page);
    let tensors = call::Tensors {
        q: vec![0.0; 8 * call::TOKENS * 64],
        k: vec![0.5; 2 * call::TOKENS * 64],
        v: vec![0.25; 2 * call::TOKENS * 64],
        doc: (0..call::TOKENS).map(|token| (token / DOCUMENT) as i32).collect(),
        bias: (0..8).map(|head| head as f32).collect(),
    };
    let (mut o, mut lse) = (vec![f32::NAN; 8 * call::TOKENS * 64], vec![f32::NAN; 8 * call::TOKENS]);
    let (name, _) = specs(&page)[0];
    call::attend(&folder.path(name), &tensors, &mut o, &mut lse).unwrap();
    let bound = |quantity, largest: f32| {
        bounds::bound(quantity, Dtype::F32, Precision::Exact, bounds::SCORES) as f32 * largest
    };
    assert!(o.iter().all(|o| (o - 0.25).abs() <= bound(Quantity::Output, 0.25)));
    for (row, &lse) in lse.iter().enumerate() {
        let (head, token) = (row / call::TOKENS, row % call::TOKENS);
        let expected = head as f32 + ((token % DOCUMENT + 1) as f32).ln();
        assert!(
            (lse - expected).abs() <= bound(Quantity::Lse, 8.0),
            "{head}, {token}: {lse}, not {expected}"
        );
    }
}

#[test]
fn each_link_and_picture_leads_somewhere() {
    let page = readme();
    let prose = page::prose(&page);
    let links = page::links(&prose);
    assert!(!links.is_empty());
    for link in links.into_iter().filter(|link| !link.starts_with("https://")) {
        assert!(workspace().join(link).exists(), "README.md links to {link}, which is not there");
    }
}

#[test]
fn what_is_said_to_be_installed_is_the_command() {
    let page = readme();
    let prose = page::prose(&page);
    let spans = page::code_spans(&prose);
    let mut folders = spans.iter().filter_map(|span| span.strip_prefix("cargo install --locked --path "));
    let folder = folders.next().expect("how to install the command");
    let [said, here] = [workspace().join(folder), env!("CARGO_MANIFEST_DIR").into()].map(fs::canonicalize);
    assert_eq!(said.unwrap(), here.unwrap());
}

#[test]
fn measured_numbers_have_a_processor_a_date_and_a_command() {
    let page = readme();
    let prose = page::prose(&page);
    let folder = folder("readme-tables", &page);
    let tables: Vec<_> = page::tables(&prose);
    let measured =
        tables.iter().filter(|table| table.rows.iter().flatten().any(|cell| cell.contains("FLOP/s")));
    let mut seen = 0;
    for table in measured {
        let caption = &table.caption;
        let said = |words: &[&str]| words.iter().any(|word| caption.contains(word));
        assert!(said(&["AMD ", "Intel ", "Apple ", "Arm "]), "no processor: {caption}");
        let years = caption.split([' ', ',']).filter(|word| word.len() == 4 && word.starts_with("20"));
        assert_eq!(years.filter(|year| year.parse::<u16>().is_ok()).count(), 1, "no date: {caption}");
        let spans = page::code_spans(caption);
        let line = spans.iter().find_map(|span| span.strip_prefix("regard ")).expect(caption);
        for row in &table.rows {
            let args: Vec<_> = line.split(' ').map(|arg| if arg == "N" { row[0] } else { arg }).collect();
            run(&folder, &args).ok();
            seen += 1;
        }
    }
    assert!(seen > 0, "no measured number");
}

#[test]
fn each_subcommand_is_typed() {
    let help = regard(&["--help"]).ok().stdout;
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let listed = rest.lines().map_while(|line| line.strip_prefix("  ")?.split(' ').next());
    let page = readme();
    let commands = commands(&page);
    let is_typed = |name: &&str| commands.iter().any(|(_, args)| args[0] == *name);
    let (typed, missing): (Vec<_>, Vec<_>) = listed.filter(|&name| name != "help").partition(is_typed);
    assert!(!typed.is_empty() && missing.is_empty(), "README.md does not run {missing:?}");
}

/// What stands there in backticks as one word is a table, what has a sign of equality in it is a line of a spec.
#[test]
fn what_is_not_done_yet_is_refused_by_name() {
    let page = readme();
    let (_, rest) = page.split_once("## What it does not do yet\n").unwrap();
    let missing = rest.split("\n## ").next().unwrap();
    let folder = Folder::new("readme-missing");
    let mut spans = page::code_spans(missing);
    spans.retain(|span| span.contains('=') || !span.contains(' '));
    assert!(!spans.is_empty());
    for table in spans {
        let line = if table.contains('=') { table.to_owned() } else { format!("{table} = {{}}") };
        folder.file("missing.toml", format!("heads = {{ query = 2, dim = 8 }}\n{line}\n"));
        let done = folder.regard(&["check", "missing.toml"]);
        let refused = format!("`{table}` is not supported yet");
        assert!(done.code == Some(1) && done.stdout.contains(&refused), "{table}: {done:#?}");
    }
}

#[test]
fn bounds_are_those_of_the_table() {
    let page = readme().split_whitespace().collect::<Vec<_>>().join(" ");
    for (dtype, name) in [(Dtype::F32, "f32"), (Dtype::F16, "f16"), (Dtype::Bf16, "bf16")] {
        let bound = format!(
            "{:e} for {name}",
            bounds::bound(Quantity::Output, dtype, Precision::Exact, bounds::SCORES)
        );
        assert!(page.contains(&bound), "{bound}");
    }
}

#[test]
fn shortened_output_is_told_from_other_output() {
    let printed = "one\ntwo\nthree\nfour\n";
    for shown in [
        &["one", "two", "three", "four"][..],
        &["…", "two", "three", "…"],
        &["one", "…", "four"],
        &["one", "…"],
        &[],
    ] {
        assert_eq!(page::first_missing(shown, printed), None, "{shown:?}");
    }
    for (shown, missing) in [
        (&["two", "…"][..], "two"),
        (&["one", "three", "…"], "three"),
        (&["…", "three", "…", "two", "…"], "two"),
        (&["one", "two"], "…"),
        (&["…", "five", "…"], "five"),
        (&["one", "two", "three", "four", "five"], "five"),
    ] {
        assert_eq!(page::first_missing(shown, printed), Some(missing), "{shown:?}");
    }
}
