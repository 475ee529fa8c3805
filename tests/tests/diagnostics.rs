//! The corpus of diagnostics: each file says in comments which errors and notes it gives, and gives no others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use regard_spec::{Code, Diagnostic, FileSystem, LoadError, Loader, MAX_FILE_BYTES, NoFiles};
use regard_tests::said::{expectation, expected, found};

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("diagnostics");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == "toml")).collect();
    files.sort();
    files
}

/// The corpus folder, in which its files name each other.
struct Folder(PathBuf);

impl Loader for Folder {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        FileSystem.load(&self.0.join(path).to_string_lossy())
    }
}

/// All that a corpus file gives.
fn found_in(path: &Path) -> Vec<Diagnostic> {
    let folder = Folder(path.parent().unwrap().to_path_buf());
    let text = fs::read_to_string(path).unwrap();
    found(regard_spec::parse(&text, path.file_name().unwrap().to_str().unwrap(), &folder))
}

#[test]
fn every_file_gives_what_it_says_and_nothing_else() {
    let mut report = String::new();
    for path in corpus() {
        let text = fs::read_to_string(&path).unwrap();
        let expected = expected(&text);
        let found: Vec<String> = found_in(&path).iter().map(expectation).collect();
        if expected != found {
            let name = path.file_name().unwrap().display();
            writeln!(report, "{name} says\n{}\nand gives\n{}\n", expected.join("\n"), found.join("\n"))
                .unwrap();
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn every_code_has_a_file_of_its_own_or_a_test_here() {
    // What no single small file can show: see the tests below.
    let built: BTreeSet<&str> = ["S002", "S003", "S020", "S041", "S042"].into();
    let shown: BTreeSet<String> =
        corpus().iter().map(|path| path.file_name().unwrap().to_str().unwrap()[..4].to_uppercase()).collect();
    for info in Code::ALL {
        let name = info.code.name();
        assert!(shown.contains(name) != built.contains(name), "{name}: {}", info.description);
    }
    assert!(shown.iter().all(|name| Code::ALL.iter().any(|info| info.code.name() == name)), "{shown:?}");
    for path in corpus() {
        let code = path.file_name().unwrap().to_str().unwrap()[..4].to_uppercase();
        let found = found_in(&path);
        assert!(!found.is_empty() && found.iter().all(|it| it.code.name() == code), "{}", path.display());
    }
}

/// Files in memory.
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    fn new<const N: usize>(files: [(&str, &str); N]) -> Self {
        Self(files.map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).into())
    }

    fn open(&self, name: &str) -> Vec<(String, String)> {
        let text = String::from_utf8(self.0[name].clone()).unwrap();
        found(regard_spec::parse(&text, name, self))
            .iter()
            .map(|it| (it.file().to_string(), expectation(it)))
            .collect()
    }
}

impl Loader for Files {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        self.0.get(path).cloned().ok_or(LoadError::NotFound)
    }
}

fn one(file: &str, expectation: &str) -> Vec<(String, String)> {
    vec![(file.to_string(), expectation.to_string())]
}

const HEADS: &str = "heads = { query = 8, dim = 64 }\n";

#[test]
fn a_parent_that_is_not_utf8_is_shown_where_it_is_not() {
    let mut files = Files::new([("a/child.toml", "extends = \"base.toml\"\n")]);
    files.0.insert("a/base.toml".to_string(), b"heads = 1\nname = \"\xff\"\n".to_vec());
    assert_eq!(
        files.open("a/child.toml"),
        one("a/base.toml", "# ERROR S002 2:9-2:10 `a/base.toml` is not UTF-8")
    );
}

#[test]
fn files_past_the_limit_are_refused() {
    let text = format!("{HEADS}#{}", "x".repeat(MAX_FILE_BYTES - HEADS.len() - 1));
    assert!(regard_spec::parse(&text, "long.toml", &NoFiles).is_ok());
    let files = Files::new([("long.toml", &format!("{text}x"))]);
    assert_eq!(
        files.open("long.toml"),
        one("long.toml", "# ERROR S003 1:1-1:1 `long.toml` is larger than 1048576 bytes")
    );
}

#[test]
fn the_file_system_gives_errors_and_no_panics() {
    for (path, code, message) in [
        ("no/such.toml", Code::S001, "there is no such file"),
        (env!("CARGO_MANIFEST_DIR"), Code::S001, "it is a directory"),
    ] {
        let found = found(regard_spec::from_file(path));
        assert_eq!((found.len(), found[0].code), (1, code));
        assert!(found[0].message.ends_with(message), "{}", found[0].message);
        assert_eq!(found[0].to_string(), format!("error[{code}]: {}\n --> {path}\n", found[0].message));
    }
}

#[test]
fn expressions_past_the_limit_are_refused() {
    let text = format!("{HEADS}mask = \"true{}\"\n", " ".repeat(64 << 10));
    let files = Files::new([("long.toml", &text)]);
    assert_eq!(
        files.open("long.toml"),
        one("long.toml", "# ERROR S020 2:9-2:65549 an expression of 65540 bytes")
    );
}

#[test]
fn inputs_past_the_limit_are_refused() {
    let inputs =
        |n: usize| (0..n).fold(format!("{HEADS}[inputs]\n"), |text, i| text + &format!("i{i} = \"f32[]\"\n"));
    assert!(regard_spec::parse(&inputs(256), "many.toml", &NoFiles).is_ok());
    let files = Files::new([("many.toml", &inputs(300))]);
    assert_eq!(
        files.open("many.toml"),
        one("many.toml", "# ERROR S041 259:1-259:5 300 inputs are declared, at most 256 can be")
    );
}

#[test]
fn chains_of_parents_have_a_limit() {
    let mut files = Files::new([("0.toml", HEADS)]);
    for i in 1..=32 {
        files.0.insert(format!("{i}.toml"), format!("extends = \"{}.toml\"\n", i - 1).into_bytes());
    }
    assert_eq!(files.open("31.toml"), []);
    assert_eq!(
        files.open("32.toml"),
        one("1.toml", "# ERROR S042 1:11-1:19 more than 32 specs extend one another")
    );
}

#[test]
fn cycles_over_folders_are_found_at_the_file_that_closes_them() {
    let files = Files::new([
        ("specs/a.toml", "extends = \"sub/b.toml\"\n"),
        ("specs/sub/b.toml", "heads = 3\nextends = \"../a.toml\"\n"),
    ]);
    assert_eq!(
        files.open("specs/a.toml"),
        [
            ("specs/sub/b.toml", "# ERROR S008 1:9-1:10 `heads` must be a table, found an integer"),
            ("specs/sub/b.toml", "# ERROR S013 2:11-2:22 `specs/sub/../a.toml` extends itself"),
        ]
        .map(|(file, text)| (file.to_string(), text.to_string()))
    );
}

#[test]
fn errors_of_a_parent_point_into_its_file_unless_the_child_replaces_them() {
    let base = format!("{HEADS}mask = \"causal & widnow(3)\"\n");
    let files = Files::new([
        ("x/base.toml", &base),
        ("x/child.toml", "extends = \"base.toml\"\nscore = { scale = true }\n"),
        ("x/other.toml", "extends = \"base.toml\"\nmask = \"causal\"\n"),
    ]);
    let found = files.open("x/child.toml");
    assert_eq!(found[0].0, "x/child.toml");
    assert!(found[0].1.starts_with("# ERROR S008 2:19-2:23 "), "{found:?}");
    assert_eq!(found[1..], one("x/base.toml", "# ERROR S014 2:18-2:24 unknown name `widnow`"));
    assert_eq!(files.open("x/other.toml"), []);
}

#[test]
fn one_error_does_not_become_several() {
    // What could not be read may have declared what is missing, and what is misspelt is not missing too.
    for (text, expected) in [
        ("inputs = { doc = \"i32[b\nheads = { query = 8, dim = 64 }\nmask = \"same(doc)\"\n", vec!["S004"]),
        ("[heads\nquery = 8\ndim = 64\n", vec!["S004"]),
        ("head = { query = 8, dim = 64 }\n", vec!["S006"]),
        ("heads = { qury = 8, dim = 64 }\n", vec!["S006"]),
        (
            "heads = { query = 0, dim = 64 }\nscore = { scale = \"1 / heads\" }\nmask = \"k // (heads - 8) > 0\"",
            vec!["S010"],
        ),
        (
            "heads = { query = 8, dim = 64 }\ninputs = { doc = \"i33[b]\" }\nmask = \"doc[b, q] + 1 < 3 & doc[0]\"",
            vec!["S039"],
        ),
        (
            "heads = { query = 8, dim = 64 }\nmask = \"near + 1 < far\"\ndefine = { near = \"1 +\", far = \"near & 2\" }",
            vec!["S017", "S030"],
        ),
        (
            "heads = { query = 8, dim = 64 }\nmask = \"near(3) & near(4)\"\ndefine = { \"near(w)\" = \"true + w\" }",
            vec!["S030"],
        ),
        (
            "heads = { query = 8 }\nlatent = { rank = 0, nope_dim = 8, rope_dim = 8, value_dim = 8 }\nscore = { scale = \"1 / dim\" }",
            vec!["S010"],
        ),
        ("heads = { query = 8, dim = 64 }\nmask = \"-(1 + (1 & true)) < 3\"", vec!["S030"]),
        ("", vec!["S009"]),
        ("extends = \"lost.toml\"\nmask = \"same(doc)\"\n", vec!["S001"]),
        ("[heads]\nquery = 8\ndim = 64\n[position]\nrope = { theta = \n", vec!["S004"]),
        (
            "extends = \"lost.toml\"\nposition = { rope = { theta = 1e4, dim = 8 }, ids = \"pos\" }\n",
            vec!["S001"],
        ),
        (
            "heads = { query = 8, dim = 64 }\nposition = { rope = { theta = 1e4, dim = \"8\", offset = 64 } }\n",
            vec!["S008"],
        ),
        (
            "heads = { query = 8, dim = 64 }\nweights = \"sigmod\"\noutput = { lse = true, norm = \"rmz\", norm_eps = 1e-5 }\n",
            vec!["S007", "S007"],
        ),
        (
            "heads = { query = 8, dim = 64 }\ninputs = { f = \"f33[32]\" }\nposition = { rope = { freqs = \"f\" } }\n",
            vec!["S039"],
        ),
        (
            "heads = { query = 8, dim = 64 }\nscore = { modify = \"s +\" }\nweights = { kind = \"relu\", bias = \"s\" }\n",
            vec!["S017", "S026"],
        ),
        ("heads = { query = 8, kv = 2, value = 5, dim = 64 }\nrecurrence = {}\n", vec!["S043", "S011"]),
    ] {
        let found = found(regard_spec::parse(text, "x.toml", &NoFiles));
        let codes: Vec<&str> = found.iter().map(|it| it.code.name()).collect();
        assert_eq!(codes, expected, "{text}\n{found:#?}");
    }
}

#[test]
fn misspelt_words_get_the_nearest_that_is_valid() {
    for (text, nearest) in [
        ("heads = { query = 8, dim = 64, valuedim = 8 }\n", "value_dim"),
        ("heads = { query = 8, dim = 64 }\nprecison = \"exact\"\n", "precision"),
        ("heads = { query = 8, dim = 64 }\ndtype = \"fp16\"\n", "f16"),
        ("heads = { query = 8, dim = 64 }\nmask = \"Causal\"\n", "causal"),
        ("heads = { query = 8, dim = 64 }\nmask = \"k < head\"\n", "heads"),
        (
            "heads = { query = 8, dim = 64 }\ninputs = { doc_ids = \"i32[b, k]\" }\nmask = \"docids[b, k] == 1\"\n",
            "doc_ids",
        ),
        (
            "heads = { query = 8, dim = 64 }\nmask = \"far(3)\"\n[define]\n\"farr(n)\" = \"q - k > n\"\n",
            "farr",
        ),
        ("extends = \"sliding-window\"\n", "sliding_window"),
        ("heads = { query = 8, dim = 64 }\nqk_norm = \"rmss\"\n", "rms"),
        ("heads = { query = 8, dim = 64 }\nweights = \"sigmiod\"\n", "sigmoid"),
        ("heads = { query = 8, dim = 64 }\noutput = { gate = \"element-wise\" }\n", "elementwise"),
        ("heads = { query = 8, dim = 64 }\nposition = { rope = { thetta = 1e4 } }\n", "theta"),
        (
            "heads = { query = 8, dim = 64 }\nposition = { rope = { theta = 1e4 }, scaling = { kind = \"linear\", factr = 2 } }\n",
            "factor",
        ),
        (
            "heads = { query = 8, dim = 64 }\ninputs = { pos = \"i32[b, k]\" }\nposition = { rope = { theta = 1e4 }, ids = \"poss\" }\n",
            "pos",
        ),
    ] {
        let found = found(regard_spec::parse(text, "x.toml", &NoFiles));
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(found[0].help, Some(format!("did you mean `{nearest}`?")), "{text}");
    }
}
