//! What is said of a mistake beyond that it is one.

use regard_spec::{Diagnostic, NoFiles, parse};

fn the_error(text: &str) -> Diagnostic {
    let text = format!("heads = {{ query = 8, dim = 64 }}\n{text}\n");
    let found = parse(&text, "x.toml", &NoFiles).expect_err(&text);
    assert_eq!(found.as_slice().len(), 1, "{found}");
    found.as_slice()[0].clone()
}

#[test]
fn keys_in_the_wrong_place_are_shown_the_right_one() {
    for (text, help) in [
        ("rope = { theta = 1e4 }", "it is a key of `position`: write `position.rope`"),
        (
            "position = { rope = { theta = 1e4, ids = 'pos' } }",
            "it is a key of `position`: write `position.ids`",
        ),
        (
            "position = { rope = { theta = 1e4 }, theta = 1e4 }",
            "it is a key of `position.rope`: write `position.rope.theta`",
        ),
        ("score = { mask = 'causal' }", "it stands at the top, in no table"),
        ("kind = 'rms'", "it is a key of `qk_norm`, `weights` or `position.scaling`"),
        ("causal = true", "it is for expressions: `mask = \"causal\"`"),
        ("mask = { window = 64 }", "it is for expressions: `mask = \"window(w)\"`"),
        ("score = { softcap = 50 }", "it is a function of expressions: `softcap(x, c)`"),
        ("score = { scales = 2 }", "did you mean `scale`?"),
        ("mask = { k = 2 }", "expected `allow`"),
        ("allow = 'causal'", "it is a key of `mask` or `lookahead`"),
        ("window = 64", "it is for expressions: `mask = \"window(w)\"`"),
        ("rotate = ['q_c']", "it is a key of `lookahead`: write `lookahead.rotate`"),
        ("page = 64", "it is a key of `cache`: write `cache.page`"),
    ] {
        assert_eq!(the_error(text).help.as_deref(), Some(help), "{text}");
    }
}

#[test]
fn what_other_languages_write_is_translated() {
    for (mask, help) in [
        ("causal and q < 8", "write `&`"),
        ("(causal or q < 8)", "write `|`"),
        ("not causal", "write `!`"),
        ("if not causal then true else false", "write `!`"),
        ("k mod 2 == 0", "write `%`"),
        ("~causal", "write `!`"),
        ("q_idx >= k", "write `q`"),
        ("True", "write `true`"),
        ("pow(k, 2) > 3", "write `a ^ b`"),
        ("doc[b][k] == 1", "all indices stand in one pair of brackets: `a[b, k]`"),
    ] {
        assert_eq!(the_error(&format!("mask = \"{mask}\"")).help.as_deref(), Some(help), "{mask}");
    }
    // They are names like others where a spec defines them.
    let text = "heads = { query = 8, dim = 64 }\nmask = 'and & round(3)'\n\
                define = { and = 'causal', 'round(n)' = 'k < n', not = 'true' }";
    assert!(parse(text, "x.toml", &NoFiles).is_ok());
}

#[test]
fn tensors_of_the_kernel_are_not_for_expressions() {
    let error = the_error("weights = { sink = 'learned' }\nscore = { modify = 's + sink[h]' }");
    assert_eq!(error.label, "a tensor of the kernel, which expressions do not read");
    let help = error.help.unwrap();
    assert_eq!(help, "expressions read what `inputs` declares, under names of its own");
    // Nor can one be declared for a table.
    assert_eq!(the_error("position = { rope = { theta = 1e4 }, ids = 'sink' }").help, None);
    let help = the_error("position = { rope = { theta = 1e4 }, ids = 'places' }").help;
    assert_eq!(help.as_deref(), Some("declare it: `\"i32[b, k]\"` in `inputs`"));
}

#[test]
fn single_letters_are_not_taken_for_one_another() {
    assert_eq!(the_error("mask = 'k < w'").help, None);
    assert_eq!(the_error("mask = 'K < 3'").help.as_deref(), Some("did you mean `k`?"));
}

#[test]
fn a_score_that_is_an_expression_is_a_modifier() {
    let help = the_error("score = 'softcap(s, 50)'").help;
    assert_eq!(help.as_deref(), Some("write `score = { modify = \"…\" }`"));
}

#[test]
fn a_format_is_not_a_layout() {
    let help = the_error("cache = 'int8'").help;
    assert_eq!(help.as_deref(), Some("write `cache = { dtype = \"int8\" }`"));
    assert_eq!(the_error("cache = 'pages'").help.as_deref(), Some("did you mean `paged`?"));
    let help = the_error("cache = { layout = 'paged', page = 100 }").help;
    assert_eq!(help.as_deref(), Some("the nearest are 96 and 112"));
}
