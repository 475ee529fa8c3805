//! What expressions become: types, precedence, hygiene, exactness, folding.

use regard_ir::expr::{NodeId, Op, Tree, Type};
use regard_spec::{NoFiles, Parsed, parse};

/// Compiles a spec of 8 query heads over 2, 64 wide, with these lines too.
fn spec(lines: &str) -> Parsed {
    let text = format!("heads = {{ query = 8, kv = 2, dim = 64 }}\n{lines}\n");
    parse(&text, "test.toml", &NoFiles).unwrap_or_else(|errors| panic!("{errors}"))
}

fn codes(lines: &str) -> Vec<&'static str> {
    let text = format!("heads = {{ query = 8, kv = 2, dim = 64 }}\n{lines}\n");
    match parse(&text, "test.toml", &NoFiles) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.as_slice().iter().map(|it| it.code.name()).collect(),
    }
}

fn mask(expression: &str) -> String {
    show(spec(&format!("mask = '{expression}'")).spec.allow.tree())
}

fn modify(expression: &str) -> String {
    show(spec(&format!("score = {{ modify = '{expression}' }}")).spec.modify.tree())
}

/// The tree as nested calls; `!` marks a float that decides something.
fn show(tree: Tree<'_>) -> String {
    node(tree, tree.root())
}

fn node(tree: Tree<'_>, id: NodeId) -> String {
    let it = tree.node(id);
    let name = match it.op {
        Op::Bool(value) => value.to_string(),
        Op::Int(value) => value.to_string(),
        Op::Float(value) => format!("{value:?}"),
        Op::Var(var) => format!("{var:?}").to_lowercase(),
        Op::Unary(op, _) => format!("{op:?}"),
        Op::Binary(op, ..) => format!("{op:?}"),
        Op::Select(..) => "Select".to_string(),
        Op::Alibi { heads, .. } => format!("Alibi{heads}"),
        Op::Input { input, .. } => format!("Input{input}"),
    };
    let mark = if it.ty == Type::Float && it.exact { "!" } else { "" };
    let operands: Vec<String> = it.op.operands().map(|operand| node(tree, operand)).collect();
    if operands.is_empty() {
        format!("{name}{mark}")
    } else {
        format!("{name}{mark}({})", operands.join(", "))
    }
}

#[test]
fn operators_bind_as_in_the_grammar() {
    assert_eq!(mask("q - k - nk < 3"), "Lt(Sub(Sub(q, k), nk), 3)");
    assert_eq!(mask("q - 3 <= k < q + 3"), "And(Le(Sub(q, 3), k), Lt(k, Add(q, 3)))");
    assert_eq!(mask("k > q | !k >= 4 & q == k"), "Or(Lt(q, k), And(Not(Le(4, k)), Eq(q, k)))");
    assert_eq!(mask("(k < q) == (q < 9)"), "Eq(Lt(k, q), Lt(q, 9))");
    assert_eq!(mask("-2 ^ 2 == 0 - 4 & -7 // 2 == -4 & -7 % 2 == 1 & 7 // -2 == -4"), "true");
    assert_eq!(mask("2 ^ 3 ^ 2 == 512 & 1 - 2 - 3 == -4 & 1 < 2 <= 2 & !(1 < 2 < 2)"), "true");
}

#[test]
fn ints_widen_only_where_a_float_is_needed() {
    assert_eq!(modify("s + k"), "Add(s, ToFloat(k))");
    assert_eq!(modify("h"), "ToFloat(h)");
    assert_eq!(modify("s * (q / 2)"), "Mul(s, Div(ToFloat(q), 2.0))");
    assert_eq!(modify("s + abs(q - k) + max(q, k, 2.5)"), {
        "Add(Add(s, ToFloat(Abs(Sub(q, k)))), Max(ToFloat(Max(q, k)), 2.5))"
    });
    assert_eq!(mask("int(q) == k"), "Eq(q, k)");
    assert_eq!(modify("if k < q then s else 0"), "Select(Lt(k, q), s, 0.0)");
}

#[test]
fn functions_stand_for_primitives() {
    assert_eq!(modify("softcap(s, 50)"), "Mul(50.0, Tanh(Div(s, 50.0)))");
    assert_eq!(modify("silu(s)"), "Mul(s, Sigmoid(s))");
    assert_eq!(modify("relu(s)"), "Max(s, 0.0)");
    assert_eq!(modify("s + alibi(h) * (k - q)"), "Add(s, Mul(Alibi8(h), ToFloat(Sub(k, q))))");
    assert_eq!(modify("select(k < dim, s, inf)"), "Select(Lt(k, 64), s, inf)");
    assert_eq!(modify("s / (kv_heads * value_dim) + pi"), { "Add(Div(s, 128.0), 3.141592653589793)" });
}

#[test]
fn t5_buckets_are_the_references() {
    for (relative, bidirectional, causal) in [
        (0, 0, 0),
        (-1, 1, 1),
        (1, 17, 0),
        (-7, 7, 7),
        (-10, 8, 10),
        (10, 24, 0),
        (-20, 10, 17),
        (-100, 15, 30),
        (-127, 15, 31),
        (1000, 31, 0),
        (-1000, 15, 31),
    ] {
        let bucket = |two_sided| format!("t5_bucket({relative}, 32, 128, {two_sided})");
        let both = format!("{} == {bidirectional} & {} == {causal}", bucket(true), bucket(false));
        assert_eq!(mask(&both), "true", "{both}");
    }
    let table = spec(
        "inputs = { bias = 'f32[32, h]' }\nscore = { modify = 's + bias[t5_bucket(k - q, 32, 128, true), h]' }",
    );
    assert!(show(table.spec.modify.tree()).contains("Log!(Div!(ToFloat!(Abs(Sub(k, q))), 8.0!))"));
}

#[test]
fn floats_that_decide_are_exact_and_others_are_not() {
    assert_eq!(modify("if s / 2 > 0.1 then s / 2 else 0.1"), {
        "Select(Lt(0.10000000149011612!, Div!(s!, 2.0!)), Div(s, 2.0), 0.1)"
    });
    assert_eq!(mask("sqrt(k) < q"), "Lt(Sqrt!(ToFloat!(k)), ToFloat!(q))");
    assert_eq!(modify("s + floor(k / 3)"), "Add(s, Floor(Div!(ToFloat!(k), 3.0!)))");
    assert_eq!(modify("s + int(k * 0.5)"), "Add(s, ToFloat(ToInt(Mul!(ToFloat!(k), 0.5!))))");
    // Rounded once to binary32 where it decides, kept in f64 where it does not.
    assert_eq!(mask("0.1 + 0.2 == 0.3"), if 0.1f32 + 0.2 == 0.3 { "true" } else { "false" });
    assert_eq!(modify("s * (0.1 + 0.2)"), format!("Mul(s, {:?})", 0.1 + 0.2));
}

#[test]
fn equal_nodes_are_one() {
    let tree = spec("mask = 'k < q + 1 | q + 1 < nk'").spec.allow;
    let additions = tree
        .tree()
        .nodes()
        .iter()
        .filter(|node| matches!(node.op, Op::Binary(regard_ir::expr::Binary::Add, ..)));
    assert_eq!(additions.count(), 1);
}

#[test]
fn constant_conditions_choose() {
    assert_eq!(mask("true & k < q"), "Lt(k, q)");
    assert_eq!(mask("heads > 9 | k < q"), "Lt(k, q)");
    assert_eq!(modify("if heads == 8 then s else s * 2"), "s");
    assert_eq!(mask("k < q & false"), "And(Lt(k, q), false)");
}

#[test]
fn definitions_are_hygienic() {
    let far = "define = { 'far(n)' = 'q - k > n', 'twice(n)' = 'far(2 * n)', 'n' = 'k + 1' }";
    assert_eq!(show(spec(&format!("{far}\nmask = 'twice(n)'")).spec.allow.tree()), {
        "Lt(Mul(2, Add(k, 1)), Sub(q, k))"
    });
    // The prelude keeps its own meaning of a name that a spec replaces.
    let replaced = "define = { causal = 'k < q' }\nmask = 'causal | prefix(3)'";
    assert_eq!(show(spec(replaced).spec.allow.tree()), "Or(Lt(k, q), Or(Lt(k, 3), Le(k, q)))");
    // An argument keeps its own precedence.
    let times = "define = { 'double(n)' = '2 * n' }\nmask = 'double(k + 1) < q'";
    assert_eq!(show(spec(times).spec.allow.tree()), "Lt(Mul(2, Add(k, 1)), q)");
    // A parameter may stand for an input, also through another definition.
    let inputs =
        "inputs = { doc = 'i32[b, k]' }\ndefine = { 'apart(ids)' = '!same(ids)' }\nmask = 'apart(doc)'";
    assert_eq!(show(spec(inputs).spec.allow.tree()), "Not(Eq(Input0(b, q), Input0(b, k)))");
    // An input may share a name with the prelude.
    let shared = "inputs = { prefix = 'i32[b]', all = 'i32[]' }\nmask = 'prefix(prefix[b]) & all < 3'";
    assert_eq!(show(spec(shared).spec.allow.tree()), {
        "And(Or(Lt(k, Input0(b)), Le(k, q)), Lt(Input1, 3))"
    });
}

#[test]
fn the_prelude_means_what_the_language_says() {
    let near = "Lt(Abs(Sub(q, k)), ";
    assert_eq!(mask("all"), "true");
    assert_eq!(mask("causal"), "Le(k, q)");
    assert_eq!(mask("window(9)"), format!("{near}9)"));
    assert_eq!(mask("band(3, 2)"), "And(Le(Sub(q, 3), k), Le(k, Add(q, 2)))");
    assert_eq!(mask("first(4)"), "Lt(k, 4)");
    assert_eq!(mask("global(4)"), "Or(Lt(q, 4), Lt(k, 4))");
    assert_eq!(mask("prefix(4)"), "Or(Lt(k, 4), Le(k, q))");
    assert_eq!(mask("chunk(64)"), "Eq(FloorDiv(q, 64), FloorDiv(k, 64))");
    assert_eq!(mask("dilated(8, 4)"), format!("And({near}32), Eq(Rem(Sub(q, k), 4), 0))"));
}

#[test]
fn unused_definitions_are_checked_as_far_as_parameters_allow() {
    assert_eq!(codes("define = { 'near(w)' = 'q - k < w & w' }"), [""; 0]);
    assert_eq!(codes("define = { 'near(w)' = 'q - k + true < w' }"), ["S030"]);
    assert_eq!(codes("define = { 'near(w)' = 'q - k < ww' }"), ["S014"]);
    assert_eq!(codes("define = { 'near(w)' = 'window(w, 2)' }"), ["S024"]);
    assert_eq!(codes("define = { 'near(w)' = 'window(true)' }"), ["S030"]);
    assert_eq!(codes("define = { 'near(w)' = 's * w', far = 'x' }"), [""; 0]);
}

#[test]
fn guarded_indices_and_wrapping_are_left_to_the_run() {
    let inputs = "inputs = { anc = 'bool[64, 64]', bias = 'f32[4]' }\n";
    assert_eq!(codes(&format!("{inputs}mask = 'k < 9 | anc[q - 9, k - 9]'")), [""; 0]);
    assert_eq!(codes(&format!("{inputs}mask = 'h < 4 & bias[h] > 0'")), [""; 0]);
    assert_eq!(codes(&format!("{inputs}mask = 'bias[h] > 0'")), ["S036"]);
    assert_eq!(
        codes(&format!("{inputs}mask = 'bias[h // 2] > 0 & bias[min(h, 3)] > 0 & bias[h % 4] > 0'")),
        [""; 0]
    );
    assert_eq!(codes(&format!("{inputs}score = {{ modify = 'if h < 4 then s + bias[h] else s' }}")), [""; 0]);
    assert_eq!(codes("mask = 'q * 65536 * 65536 > 0'"), [""; 0]);
    assert_eq!(codes("mask = '2147483647 + q > 0'"), [""; 0]);
}

#[test]
fn scales_are_computed_in_f64() {
    assert_eq!(spec("").spec.scale, 0.125);
    assert_eq!(spec("score = { scale = '1 / sqrt(dim + value_dim)' }").spec.scale, 1.0 / 128f64.sqrt());
    assert_eq!(spec("score = { scale = '224 ^ -0.5' }").spec.scale, 224f64.powf(-0.5));
    assert_eq!(spec("score = { scale = 1 }").spec.scale, 1.0);
    assert_eq!(codes("score = { scale = 'inf - inf' }"), ["S038"]);
    assert_eq!(codes("score = { scale = inf }"), ["S038"]);
}

#[test]
fn places_inside_strings_are_places_in_the_file() {
    let at = |text: &str| {
        let errors = parse(text, "t.toml", &NoFiles).unwrap_err();
        let [error] = errors.as_slice() else { panic!("{errors}") };
        (error.start.line, error.start.column, error.end.line, error.end.column)
    };
    let heads = "heads = { query = 8, dim = 64 }\n";
    assert_eq!(at(&format!("{heads}mask = \"\"\"\ncausal &\n  widnow(3)\"\"\"")), (4, 3, 4, 9));
    assert_eq!(at(&format!("{heads}mask = \"\"\"\r\ncausal \\\r\n   & widnow(3)\"\"\"")), (4, 6, 4, 12));
    assert_eq!(at(&format!("{heads}mask = \"k \\u003C= widnow(3)\"")), (2, 19, 2, 25));
    assert_eq!(at(&format!("{heads}mask = 'k <= \u{e9}'")), (2, 14, 2, 15));
    assert_eq!(at(&format!("{heads}define.\"f(\\u0070i)\" = 'k'")), (2, 8, 2, 20));
}

#[test]
fn notes_name_terms_that_grow_and_places_that_jump() {
    let notes = |modify: &str| -> Vec<(&str, String)> {
        let parsed = spec(&format!("inputs = {{ bias = 'f32[k]' }}\nscore = {{ modify = '{modify}' }}"));
        let text = format!("score = {{ modify = '{modify}' }}");
        let place =
            |note: &regard_spec::Diagnostic| text[note.start.column - 1..note.end.column - 1].to_string();
        parsed.notes.iter().map(|note| (note.code.name(), place(note))).collect()
    };
    let none: [(&str, String); 0] = [];
    assert_eq!(notes("s - k / 8 + h"), [("S101", "k / 8".to_string())]);
    assert_eq!(notes("alibi(h) * k - alibi(h) * q + s"), [("S101", "alibi(h) * k".to_string())]);
    assert_eq!(notes("s + alibi(h) * (k - q) + bias[k] + sin(k) + k % 32 + (k + 1 - nk) / 8"), none);
    assert_eq!(notes("s + floor(s * 8)"), [("S102", "floor(s * 8)".to_string())]);
    assert_eq!(notes("if k > q then relu(s) + silu(s) else softcap(s, 30)"), none);
}

#[test]
fn identities_know_what_matters() {
    let identity = |text: &str| parse(text, "a.toml", &NoFiles).unwrap().spec.identity;
    let base = "heads = { query = 8, dim = 64 }\nmask = \"causal\"\n";
    let same = [
        "name = \"other\"\nsummary = \"more\"\n# note\nheads = { query = 8, kv = 8, value_dim = 64, dim = 64 }\nmask = \"causal\"\n",
        "dtype = \"bf16\"\nprecision = \"exact\"\nheads.query = 8\nheads.dim = 64\nmask.allow = 'causal # all before'\n",
        "heads = { query = 8, dim = 64 }\nmask = \"k <= q\"\nscore = { scale = \"1 / sqrt(dim)\", modify = \"s\" }\nsource = \"self\"\noutput.lse = false",
    ];
    for text in same {
        assert_eq!(identity(text), identity(base), "{text}");
    }
    let others = [
        "mask = \"causal & window(9)\"\n",
        "mask = \"causal\"\nsource = \"cross\"\n",
        "mask = \"causal\"\nscore = { scale = 1 }\n",
        "mask = \"causal\"\nscore = { modify = \"s + 1\" }\n",
        "mask = \"causal\"\noutput = { lse = true }\n",
        "mask = \"causal\"\ninputs = { a = \"f32[h]\" }\n",
        "mask = \"causal\"\ninputs = { a = \"f32[g]\" }\n",
        "",
    ];
    let mut all: Vec<_> =
        others.map(|rest| identity(&format!("heads = {{ query = 8, dim = 64 }}\n{rest}"))).into();
    all.extend([identity(base), identity("heads = { query = 8, kv = 4, dim = 64 }\nmask = \"causal\"\n")]);
    let n = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), n);
    // Files that were written by another build must still be known.
    assert_eq!(identity(base).to_string(), "6b21fc63bf146a42202464ab6f9edb31");
}

#[test]
fn names_come_from_the_file_that_is_compiled() {
    assert_eq!(spec("").spec.name, "test");
    let child = parse("extends = \"gqa\"\ndtype = \"f16\"", "specs/mine.toml", &NoFiles).unwrap().spec;
    let parent = regard_spec::shipped("gqa").unwrap().spec;
    assert_eq!((child.name.as_str(), child.summary.as_str()), ("mine", ""));
    assert_eq!(child.identity, parent.identity);
    assert_eq!(regard_spec::shipped("gpa").unwrap_err().as_slice()[0].code.name(), "S015");
}
