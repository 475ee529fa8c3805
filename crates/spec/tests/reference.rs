//! What the rows of the reference say is what the compiler does.

use regard_spec::reference::{self, Absent, Key, Table, Takes};
use regard_spec::{Code, Diagnostic, NoFiles, Parsed, parse};

/// A spec in which every key of a table has a meaning, a line for each key.
fn surroundings(table: &Table) -> Vec<&'static str> {
    let mut lines = vec!["heads.query = 8"];
    if table.name != "latent" {
        lines.push("heads.dim = 64");
    }
    lines.extend_from_slice(match (table.name, table.kind) {
        ("position", _) => &["position.rope.theta = 10000", "position.ids = 'at'", "inputs.at = 'i32[b, k]'"],
        ("position.rope", _) => &["position.rope.theta = 10000"],
        ("position.scaling", Some("linear")) => {
            &["position.rope.theta = 1e4", "position.scaling.kind = 'linear'", "position.scaling.factor = 2"]
        }
        ("position.scaling", Some("llama3")) => &[
            "position.rope.theta = 10000",
            "position.scaling.kind = 'llama3'",
            "position.scaling.factor = 2",
            "position.scaling.low_freq_factor = 1",
            "position.scaling.high_freq_factor = 4",
            "position.scaling.original_max_position_embeddings = 4096",
        ],
        ("position.scaling", _) => &[
            "position.rope.theta = 10000",
            "position.scaling.kind = 'yarn'",
            "position.scaling.factor = 2",
            "position.scaling.original_max_position_embeddings = 4096",
        ],
        ("qk_norm", _) => &["qk_norm.kind = 'rms'", "qk_norm.eps = 1e-5", "position.rope.theta = 10000"],
        ("lookahead", _) => {
            &["lookahead.window = 128", "lookahead.rotate = []", "position.rope.theta = 10000"]
        }
        ("weights", _) => &["weights.kind = 'relu'"],
        ("pseudo", _) => &["pseudo.heads = 4", "pseudo.causal = 'token'", "mask = 'causal & window(8)'"],
        ("output", _) => &["output.norm = 'rms'", "output.gate = 'head'"],
        ("latent", _) => {
            &["latent.rank = 96", "latent.nope_dim = 40", "latent.rope_dim = 24", "latent.value_dim = 48"]
        }
        ("recurrence", _) => &["recurrence.normalize = true", "recurrence.decay = 'head'", "mask = 'causal'"],
        ("cache", _) => &["cache.layout = 'paged'"],
        _ => &[],
    });
    lines
}

/// The spec around a table, with `key` as this value or without it.
fn with(table: &Table, key: &Key, value: Option<&str>) -> Result<Parsed, Vec<Diagnostic>> {
    let path =
        if table.name.is_empty() { key.name.to_owned() } else { format!("{}.{}", table.name, key.name) };
    let others = surroundings(table).into_iter().filter(|line| {
        let rest = line.strip_prefix(&path);
        !rest.is_some_and(|rest| rest.starts_with([' ', '.']))
    });
    let mut text: String = others.map(|line| format!("{line}\n")).collect();
    if let Some(value) = value {
        text += &format!("{path} = {value}\n");
    }
    parse(&text, "x.toml", &NoFiles).map_err(|errors| errors.as_slice().to_vec())
}

/// Every key of every table.
fn keys() -> impl Iterator<Item = (Table, Key)> {
    reference::tables().into_iter().flat_map(|table| {
        let keys = table.keys.clone();
        keys.into_iter().map(move |key| (table.clone(), key))
    })
}

#[track_caller]
fn the_error(table: &Table, key: &Key, value: Option<&str>, code: Code) -> Diagnostic {
    let found = with(table, key, value).expect_err(key.name);
    found.iter().find(|it| it.code == code).unwrap_or_else(|| panic!("{}: {found:#?}", key.name)).clone()
}

#[test]
fn what_is_required_is_missing_where_it_is_absent() {
    for (table, key) in keys().filter(|(_, key)| key.absent == Absent::Required) {
        // Whatever else needs it may complain too.
        let found = the_error(&table, &key, None, Code::S009);
        assert!(found.message.contains(&format!("{}` is missing", key.name)), "{}", found.message);
    }
}

#[test]
fn an_absent_key_is_its_default() {
    let mut n = 0;
    for (table, key) in keys() {
        let Absent::Value(value) = key.absent else { continue };
        let [absent, given] =
            [None, Some(value)].map(|value| with(&table, &key, value).expect(key.name).spec);
        assert_eq!(absent.identity, given.identity, "{}.{} = {value}", table.name, key.name);
        n += 1;
    }
    assert!(n > 15, "{n} defaults");
}

#[test]
fn integers_have_their_ends() {
    for (table, key) in keys() {
        let Takes::Integer { from, to } = key.takes else { continue };
        for value in [i64::from(from) - 1, i64::from(to) + 1] {
            let found = the_error(&table, &key, Some(&value.to_string()), Code::S010).message;
            assert!(found.ends_with(&format!("must be from {from} to {to}, found {value}")), "{found}");
        }
    }
}

#[test]
fn numbers_have_a_least() {
    for (table, key) in keys() {
        let Takes::Number(least) = key.takes else { continue };
        for value in ["-1", "nan", "inf"] {
            let found = the_error(&table, &key, Some(value), Code::S010).message;
            assert!(found.ends_with(&format!("must be finite and {least}, found `{value}`")), "{found}");
        }
    }
}

#[test]
fn choices_are_those_that_are_listed() {
    for (table, key) in keys() {
        let Takes::OneOf(options) = key.takes else { continue };
        let label = the_error(&table, &key, Some("'no such'"), Code::S007).label;
        let (last, others) = options.split_last().unwrap();
        let others = others.iter().map(|option| format!("`{option}`")).collect::<Vec<_>>().join(", ");
        assert_eq!(label, format!("expected {others} or `{last}`"), "{}.{}", table.name, key.name);
    }
}

#[test]
fn flags_are_true_or_false() {
    for (table, key) in keys().filter(|(_, key)| key.takes == Takes::Flag) {
        // A cache is no part of an identity.
        let of =
            |value| with(&table, &key, Some(value)).map(|Parsed { spec, .. }| (spec.identity, spec.cache));
        assert!(the_error(&table, &key, Some("1"), Code::S008).message.contains("true or false"));
        // The log of a sum needs weights that are divided, which the surroundings have.
        assert_ne!(of("true").unwrap(), of("false").unwrap(), "{}.{}", table.name, key.name);
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let top = &reference::tables()[0];
    let unsupported: Vec<_> = top.keys.iter().filter(|key| key.takes == Takes::Unsupported).collect();
    assert_eq!(unsupported.len(), 1);
    for key in unsupported {
        let found = the_error(top, key, Some("{}"), Code::S012).message;
        assert_eq!(found, format!("`{}` is not supported yet", key.name));
    }
}

#[test]
fn every_row_has_a_meaning() {
    let names = reference::variables().into_iter().chain(reference::constants());
    let names = names.map(|it| (it.name, it.meaning));
    let functions = reference::functions().into_iter().map(|it| (it.name, it.meaning));
    let prelude = reference::prelude().into_iter().map(|it| (it.head, it.meaning));
    let keys: Vec<_> = keys().map(|(_, key)| (key.name, key.meaning)).collect();
    for (name, meaning) in names.chain(functions).chain(prelude).chain(keys) {
        assert!(meaning.len() > 2 && !meaning.ends_with('.'), "{name}: {meaning}");
    }
}

#[test]
fn expressions_read_what_their_places_say() {
    for place in reference::places() {
        let compile = |expression: &str| {
            let (table, key) = place.key.split_once('.').unwrap();
            let kind = if table == "weights" { "weights.kind = 'relu'\n" } else { "" };
            let text = format!(
                "heads = {{ query = 8, dim = 64 }}\ninputs.cap = 'f32[]'\n{kind}{table}.{key} = '{expression}'\n"
            );
            parse(&text, "x.toml", &NoFiles)
        };
        let wrap =
            |name: &str| if place.key.ends_with(".allow") { format!("{name} > 3") } else { name.to_owned() };
        for reference::Name { name, .. } in reference::variables() {
            let expected = place.variables.contains(&name);
            assert_eq!(compile(&wrap(name)).is_ok(), expected, "{name} in {}", place.key);
        }
        assert_eq!(compile(&wrap("cap")).is_ok(), place.inputs, "{}", place.key);
    }
}

#[test]
fn the_prelude_is_read_whole() {
    let heads: Vec<_> = reference::prelude().iter().map(|it| it.head).collect();
    assert_eq!(
        heads,
        [
            "all",
            "causal",
            "window(w)",
            "band(l, r)",
            "first(n)",
            "global(n)",
            "prefix(n)",
            "chunk(n)",
            "dilated(w, r)",
            "same(ids)"
        ]
    );
    for definition in reference::prelude() {
        let text = format!(
            "heads = {{ query = 1, dim = 1 }}\ndefine = {{ \"mine{}\" = \"{}\" }}\n",
            definition.head.find('(').map_or("", |at| &definition.head[at..]),
            definition.body
        );
        assert!(parse(&text, "x.toml", &NoFiles).is_ok(), "{text}");
    }
}

#[test]
fn names_of_the_boundary_are_taken() {
    for name in reference::boundary() {
        let text = format!("heads = {{ query = 8, dim = 64 }}\ninputs = {{ {name} = 'f32[]' }}\n");
        let found = parse(&text, "x.toml", &NoFiles).expect_err(&name);
        assert_eq!(found.as_slice()[0].code, Code::S029, "{name}");
    }
}
