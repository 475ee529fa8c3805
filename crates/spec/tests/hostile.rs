//! No text makes the compiler panic, overflow its stack or work for long.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use regard_spec::{Code, NoFiles, SHIPPED, parse};

/// Far more than any of these needs, far less than a blow-up takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first code, on a stack of 512 KiB.
fn first_code(text: String) -> Option<Code> {
    let compile = move || {
        let start = Instant::now();
        let parsed = parse(&text, "hostile.toml", &NoFiles);
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        parsed.err().map(|errors| errors.as_slice()[0].code)
    };
    std::thread::Builder::new().stack_size(512 << 10).spawn(compile).unwrap().join().unwrap()
}

fn mask(expression: &str, define: &str) -> String {
    format!("heads = {{ query = 8, dim = 64 }}\nmask = \"\"\"{expression}\"\"\"\n[define]\n{define}")
}

#[test]
fn deep_expressions() {
    for open in ["(", "!", "-", "abs(", "2^", "if true then true else ", "x["] {
        let text = mask(&format!("{}k", open.repeat(60_000 / open.len())), "");
        assert_eq!(first_code(text), Some(Code::S021), "{open}");
    }
    assert_eq!(first_code(mask(&"!".repeat(1_000_000), "")), Some(Code::S020));
    assert_eq!(first_code(mask(&vec!["k"; 30_000].join("+"), "")), Some(Code::S023));
    assert_eq!(first_code(mask(&vec!["k < 1"; 5_000].join("|"), "")), Some(Code::S023));
    assert_eq!(first_code(mask(&vec!["k"; 6_000].join("<"), "")), Some(Code::S023));
}

#[test]
fn the_deepest_expressions_that_are_allowed() {
    let nested = |open: &str, n: usize, inner: &str| format!("{}{inner}{}", open.repeat(n), ")".repeat(n));
    assert_eq!(first_code(mask(&format!("{} > 0", nested("abs(", 127, "k")), "")), None);
    let define = format!("\"up(a)\" = \"{}\"\n", nested("-(", 60, "a"));
    assert_eq!(first_code(mask("up(up(up(up(up(up(up(up(k)))))))) > 0", &define)), None);
}

#[test]
fn definitions_that_blow_up() {
    let chain = |body: &str| -> String {
        let next = |i: usize| format!("\"f{i}(a)\" = \"{}\"\n", body.replace("next", &format!("f{}", i - 1)));
        "\"f0(a)\" = \"a\"\n".to_string() + &(1..100).map(next).collect::<String>()
    };
    assert_eq!(first_code(mask("f99(k) > 0", &chain("next(next(a))"))), Some(Code::S023));
    for body in ["next(a) + next(a)", "max(next(a), next(a), next(a))"] {
        assert_eq!(first_code(mask("f99(k) > 0", &chain(body))), Some(Code::S022), "{body}");
    }
    assert_eq!(first_code(mask("f99(k) > 0", &chain("next(0 < a < a)"))), Some(Code::S030));
    let doubling = "k".to_string() + &" + k".repeat(100);
    let many: String = (0..5000).map(|i| format!("d{i} = \"d + d + d + d + {i}\"\n")).collect();
    assert_eq!(first_code(mask("d > 0", &format!("d = \"{doubling}\"\n{many}"))), Some(Code::S022));
}

#[test]
fn sharing_that_a_tree_would_not_have() {
    // The tree doubles at each level, the graph does not.
    let mut text = "k".to_string();
    for _ in 0..20 {
        text = format!("t5_bucket({text}, 32, 128, true)");
    }
    assert_eq!(first_code(mask(&format!("{text} > 0"), "")), Some(Code::S022));
}

#[test]
fn definitions_in_long_chains_and_cycles() {
    let chain: String = (1..20_000).map(|i| format!("c{i} = \"c{}\"\n", i - 1)).collect();
    assert_eq!(first_code(mask("true", &format!("c0 = \"true\"\n{chain}"))), Some(Code::S023));
    assert_eq!(first_code(mask("true", &format!("c0 = \"c19999\"\n{chain}"))), Some(Code::S027));
    let unknown: String = (0..20_000).map(|i| format!("u{i} = \"unknown{i}\"\n")).collect();
    assert_eq!(first_code(mask("true", &unknown)), Some(Code::S014));
}

#[test]
fn broken_toml() {
    let heads = "heads = { query = 8, dim = 64 }\n";
    for text in [
        "[".repeat(1 << 20),
        format!("mask = {}", "[".repeat(1 << 20)),
        format!("mask = {}", "{a=".repeat(300_000)),
        "a=\n".repeat(300_000),
        "a.".repeat(300_000),
        format!("{heads}{}", "x = \"\"\"\n".repeat(100_000)),
        "\"".repeat(1 << 20),
        format!("{heads}{} = 1", "k".repeat(1 << 19)),
        format!("{heads}mask = \"\\u0000\\u001b{}\"", "\u{202e}".repeat(100)),
        "\u{feff}".repeat(1000),
        "\r".repeat(1000),
    ] {
        let head: String = text.chars().take(40).collect();
        assert!(first_code(text).is_some(), "{head}");
    }
}

#[test]
fn many_errors_on_one_line() {
    let keys: String = (0..90_000).map(|i| format!("a{i}=1,")).collect();
    assert_eq!(first_code(format!("heads = {{ query = 8, dim = 64, {keys} }}")), Some(Code::S006));
    let names: String = (0..9_000).map(|i| format!("+a{i}")).collect();
    let sums: String = (0..10).map(|i| format!("d{i} = \"1{names}\"\n")).collect();
    assert_eq!(first_code(mask("true", &sums)), Some(Code::S014));
}

/// Compiles any text, and checks what is said about it.
fn survives(text: &str) -> Result<(), TestCaseError> {
    let found = match parse(text, "any.toml", &NoFiles) {
        Ok(parsed) => parsed.notes,
        Err(errors) => {
            prop_assert!(errors.n_errors() > 0);
            errors.as_slice().to_vec()
        }
    };
    for diagnostic in found {
        if diagnostic.file() == "any.toml" {
            prop_assert!(diagnostic.span.start <= diagnostic.span.end);
            prop_assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic:?} is outside the file");
            prop_assert!(diagnostic.start <= diagnostic.end);
        }
        let shown = diagnostic.to_string();
        prop_assert!(shown.starts_with("error[S") || shown.starts_with("note[S"));
        prop_assert!(shown.lines().all(|line| line.chars().count() < 1000));
    }
    Ok(())
}

/// Pieces that specs are made of.
fn piece() -> impl Strategy<Value = String> {
    let words = "heads = { query = 8, dim = 64 }\n|mask = \"|score = { modify = \"|scale|[define]\n|[inputs]\n|\"f(a)\" = \"|\
                 \"i32[b, k]\"|doc = |causal|window(|same(doc)|k|q|s|h|a|f(|doc[b, |if | then | else |true|2147483648|1.5|1e9|\
                 0|3| + | - | * | / | // | % | ^ | < | <= | == | & | ! |(|)|]|}|, |\"\n|\"\"\"|\\\\|\\u0041|#|\n|é|extends = \"|\"gqa\"\n";
    let tables = "position = { rope = { theta = |, dim = |, scaling = { kind = \"yarn\"|, factor = |, ids = \"doc\"|freqs = \"doc\"|\
                  qk_norm = { kind = \"rms\"|, learned = true|, axis = \"all\"|, eps = |weights = { kind = \"sigmoid\"|, bias = \"|\
                  , sink = \"learned\"|output = { norm = \"rms\"|, mix = |, gate = \"head\"|-1|inf|65536|65537|4294967295| }\n";
    let words = format!("{words}|{tables}");
    let words: Vec<String> = words.split('|').chain(["|"]).map(str::to_string).collect();
    prop::sample::select(words)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_text(text in any::<String>()) {
        survives(&text)?;
    }

    #[test]
    fn random_pieces(pieces in prop::collection::vec(piece(), 0..40)) {
        survives(&pieces.concat())?;
    }

    #[test]
    fn random_expressions(pieces in prop::collection::vec(piece(), 0..25)) {
        let expression: String = pieces.concat().replace(['"', '\\', '\n'], " ");
        survives(&format!("heads = {{ query = 8, dim = 64 }}\nmask = \"{expression}\"\nscore = {{ modify = \"{expression}\" }}\n"))?;
    }

    #[test]
    fn mutated_specs(which in 0..SHIPPED.len(), edits in prop::collection::vec((any::<prop::sample::Index>(), piece(), 0usize..6), 1..4)) {
        let mut text: Vec<char> = SHIPPED[which].text.chars().collect();
        for (at, piece, removed) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece.chars());
        }
        survives(&text.into_iter().collect::<String>())?;
    }
}
