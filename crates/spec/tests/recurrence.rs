//! The table `recurrence`: what it makes of a spec, and which masks a state can follow.

use regard_ir::expr::Var;
use regard_ir::spec::{Mechanism, Spec};
use regard_ir::variant::{Axis, Decay, InputShape, InputType, Recurrence};
use regard_spec::{NoFiles, parse};

fn spec(text: &str) -> Spec {
    parse(text, "x.toml", &NoFiles).unwrap_or_else(|errors| panic!("{text}\n{errors}")).spec
}

fn recurrence(text: &str) -> Recurrence {
    let Mechanism::Recurrence(recurrence) = spec(text).mechanism else { panic!("{text}") };
    recurrence
}

#[test]
fn an_empty_table_is_a_plain_sum() {
    let spec = spec("heads = { query = 2, dim = 16 }\nrecurrence = {}");
    let Mechanism::Recurrence(found) = spec.mechanism else { panic!("{:?}", spec.mechanism) };
    let (normalize_eps, decay) = (None, Decay::None);
    assert_eq!(found, Recurrence { normalize_eps, decay, delta: None, causal: false, restart: None });
    assert!(spec.modify.tree().is_var(Var::X) && spec.inputs.names.is_empty());
    assert_eq!(spec.scale, 0.25);
}

#[test]
fn its_tensors_follow_those_of_norms_and_go_before_those_of_outputs() {
    let spec = spec(
        "heads = { query = 2, value = 6, dim = 16, value_dim = 24 }\nqk_norm = { kind = 'l2', learned = true }\nmask = 'causal'\n\
         recurrence = { decay = 'channel', update = 'delta' }\noutput = { norm = 'rms' }",
    );
    assert_eq!(spec.inputs.names, ["q_norm", "k_norm", "decay", "beta", "o_norm"]);
    let of = |axes: &[Axis]| InputShape::new(InputType::F32, axes);
    assert_eq!(spec.inputs.shapes[2], of(&[Axis::Batch, Axis::Len(6), Axis::Key, Axis::Len(16)]));
    assert_eq!(spec.inputs.shapes[3], of(&[Axis::Batch, Axis::Len(6), Axis::Key]));
    let variant = spec.variant();
    assert_eq!((variant.sum_heads(), variant.output_heads()), (6, 6));
    assert!(variant.pairs_queries());
}

#[test]
fn a_state_follows_a_mask_however_it_is_written() {
    let heads = "heads = { query = 2, dim = 16 }\ninputs = { doc = 'i32[b, k]' }\nrecurrence = {}\n";
    for (mask, causal, restart) in [
        ("all", false, None),
        ("causal", true, None),
        ("q >= k", true, None),
        ("same(doc) & causal", true, Some(0)),
        ("k <= q & doc[b, k] == doc[b, q]", true, Some(0)),
        ("causal & causal & true", true, None),
    ] {
        let found = recurrence(&format!("{heads}mask = '{mask}'"));
        assert_eq!((found.causal, found.restart), (causal, restart), "{mask}");
    }
    for mask in ["k < q", "same(doc)", "window(4)", "causal | first(1)", "causal & doc[b, q] != doc[b, k]"] {
        assert!(parse(&format!("{heads}mask = '{mask}'"), "x.toml", &NoFiles).is_err(), "{mask}");
    }
}

#[test]
fn what_changes_the_formula_changes_the_identity() {
    let of =
        |lines: &str| spec(&format!("heads = {{ query = 2, dim = 16 }}\nmask = 'causal'\n{lines}")).identity;
    let all = [
        "recurrence = {}",
        "recurrence = { feature_map = 'relu(x)' }",
        "recurrence = { normalize = true }",
        "recurrence = { normalize = true, eps = 1e-5 }",
        "recurrence = { decay = 'head' }",
        "recurrence = { decay = 'token' }",
        "recurrence = { decay = 'channel' }",
        "recurrence = { update = 'delta' }",
        "",
    ];
    for (i, one) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|other| of(one) != of(other)), "{one}");
    }
    assert_eq!(
        of("recurrence = {}"),
        of("recurrence = { feature_map = 'x', decay = 'none', normalize = false }")
    );
}
