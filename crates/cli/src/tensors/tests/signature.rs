//! Files held against what a spec takes.

use std::path::Path;

use regard_ir::plan::Dtype;
use regard_ir::problem::Problem;
use regard_ir::rows::Gate;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Mechanism, Source};

use super::{entry, file, read};
use crate::tensors::Tensors;
use crate::tensors::signature::{Layout, Signature};
use crate::tensors::stored::{CapturedElements, StoredElements};

const HEADS: Heads = Heads { query: 4, kv: 2, value: 2, dim: 3, value_dim: 5 };

fn len_input() -> [InputShape; 1] {
    [InputShape::new(InputType::I32, &[Axis::Batch])]
}

/// A self-attention in f32 without a gate.
fn signature<'a>(heads: Heads, names: &'a [String], shapes: &'a [InputShape]) -> Signature<'a> {
    Signature {
        mechanism: Mechanism::Plain,
        heads,
        source: Source::SelfAttention,
        output_heads: heads.query,
        gate: None,
        names,
        shapes,
        dtype: Dtype::F32,
        layout: Layout::Bhnd,
    }
}

/// A tensor's name, type and shape.
type Stated<'a> = (&'a str, &'a str, &'a [usize]);

/// A file of these tensors.
fn stated(tensors: &[Stated<'_>]) -> Tensors {
    let mut offset = 0;
    let entries = tensors.iter().map(|(name, dtype, shape)| {
        let size = if *dtype == "F32" || *dtype == "I32" { 4 } else { 2 };
        let begin = offset;
        offset += (size * shape.iter().product::<usize>()) as u64;
        format!("\"{name}\":{}", entry(dtype, &format!("{shape:?}"), begin, offset))
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    read(&file(&header, offset as usize)).unwrap()
}

/// Binds a file of these tensors.
fn bind(layout: Layout, dtype: Dtype, tensors: &[Stated<'_>]) -> Result<[u32; 3], String> {
    let tensors = stated(tensors);
    let (names, shapes) = (["len".to_owned()], len_input());
    let signature = signature(HEADS, &names, &shapes);
    let bound =
        Signature { dtype, layout, ..signature }.bind(&tensors).map_err(|errors| errors.to_string())?;
    let CapturedElements::I32(len) = &bound.captured[0] else { panic!("len is i32") };
    let Problem { batch, queries, keys, .. } = bound.problem();
    assert_eq!(len.len(), batch as usize);
    Ok([batch, queries, keys])
}

const GOOD: [Stated<'_>; 4] = [
    ("q", "F32", &[2, 4, 7, 3]),
    ("k", "F32", &[2, 2, 9, 3]),
    ("v", "F32", &[2, 2, 9, 5]),
    ("len", "I32", &[2]),
];

#[test]
fn a_problem_has_its_sizes_from_q_and_k() {
    assert_eq!(bind(Layout::Bhnd, Dtype::F32, &GOOD), Ok([2, 7, 9]));
    let bnhd: [Stated<'_>; 4] = [
        ("q", "BF16", &[2, 7, 4, 3]),
        ("k", "BF16", &[2, 9, 2, 3]),
        ("v", "BF16", &[2, 9, 2, 5]),
        ("len", "I32", &[2]),
    ];
    assert_eq!(bind(Layout::Bnhd, Dtype::Bf16, &bnhd), Ok([2, 7, 9]));
    let error = bind(Layout::Bhnd, Dtype::Bf16, &bnhd).unwrap_err();
    assert!(error.ends_with("in.safetensors: q, k and v fit in the other --layout"), "{error}");
}

#[test]
fn all_that_does_not_fit_is_told_at_once() {
    let error = bind(
        Layout::Bhnd,
        Dtype::F32,
        &[
            ("q", "F32", &[2, 3, 7, 3]),
            ("k", "F16", &[2, 2, 9, 3]),
            ("value", "F32", &[2, 2, 9, 5]),
            ("o", "F32", &[1]),
            ("lens", "I32", &[2]),
        ],
    );
    let expected = "\
in.safetensors: tensor `q`: found f32 [2, 3, 7, 3], expected f32 [2, 4, 7, 3]: 3 query heads, not 4 as in the spec
in.safetensors: tensor `k`: found f16 [2, 2, 9, 3], expected f32 [2, 2, 9, 3]: it is f16, not f32
in.safetensors: tensor `v` is missing, expected f32 [2, 2, 9, 5]: is `value` meant?
in.safetensors: tensor `len` is missing, expected i32 [2]: is `lens` meant?
in.safetensors: no input of the spec: `o`; its inputs are `q`, `k`, `v`, `len`";
    assert_eq!(error.unwrap_err(), expected);
}

#[test]
fn lengths_are_held_against_where_they_come_from() {
    let changed = |at: usize, tensor| {
        let mut tensors = GOOD;
        tensors[at] = tensor;
        bind(Layout::Bhnd, Dtype::F32, &tensors).unwrap_err()
    };
    let cases: [(usize, Stated<'_>, &str); 5] = [
        (2, ("v", "F32", &[2, 2, 8, 5]), "expected f32 [2, 2, 9, 5]: 8 keys, not 9 as in `k`"),
        (1, ("k", "F32", &[3, 2, 9, 3]), "3 sequences, not 2 as in `q`"),
        (
            0,
            ("q", "F32", &[4, 7, 3]),
            "found f32 [4, 7, 3], expected f32 [2, 4, queries, 3]: it has 3 axes, not 4",
        ),
        (3, ("len", "F32", &[2]), "tensor `len`: found f32 [2], expected i32 [2]: it is f32, not i32"),
        (3, ("len", "I32", &[2, 1]), "it has 2 axes, not 1"),
    ];
    for (at, tensor, expected) in cases {
        let error = changed(at, tensor);
        assert!(error.contains(expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let vast = 1 << 40;
    let error = bind(
        Layout::Bhnd,
        Dtype::F32,
        &[
            ("q", "F32", &[0, 4, vast, 3]),
            ("k", "F32", &[0, 2, 9, 3]),
            ("v", "F32", &[0, 2, 9, 5]),
            ("len", "I32", &[0]),
        ],
    );
    assert!(error.unwrap_err().contains("queries: 1099511627776 is more than a 32-bit position can count"));
}

/// Binds a file of q, k, v and these tensors to three output heads, a gate, and the inputs of learned tables; gives
/// shape and strides of the gate.
fn bind_gate(
    per_head: bool,
    dtype: Dtype,
    layout: Layout,
    more: &[Stated<'_>],
) -> Result<[[usize; 4]; 2], String> {
    let storage = if dtype == Dtype::F32 { "F32" } else { "BF16" };
    let mut tensors = vec![
        ("q", storage, &[2, 4, 7, 3][..]),
        ("k", storage, &[2, 2, 9, 3]),
        ("v", storage, &[2, 2, 9, 5]),
        ("mix", "F32", &[3, 4]),
    ];
    if layout == Layout::Bnhd {
        (tensors[0].2, tensors[1].2, tensors[2].2) = (&[2, 7, 4, 3], &[2, 9, 2, 3], &[2, 9, 2, 5]);
    }
    tensors.extend(more);
    let names = ["mix".to_owned()];
    let shapes = [InputShape::new(InputType::F32, &[Axis::Len(3), Axis::Head])];
    let gate = Some(Gate { per_head, silu: false });
    let signature = Signature { output_heads: 3, gate, dtype, layout, ..signature(HEADS, &names, &shapes) };
    let tensors = stated(&tensors);
    let bound = signature.bind(&tensors).map_err(|errors| errors.to_string())?;
    let gate = bound.gate.unwrap();
    assert_eq!(gate.view().unwrap().shape(), gate.shape);
    Ok([gate.shape, gate.strides])
}

#[test]
fn a_gate_is_like_the_output_or_one_number_for_each_of_its_rows() {
    let (f32, bf16, bhnd, bnhd) = (Dtype::F32, Dtype::Bf16, Layout::Bhnd, Layout::Bnhd);
    let like_o = [[2, 3, 7, 5], [105, 35, 5, 1]];
    assert_eq!(bind_gate(false, f32, bhnd, &[("gate", "F32", &[2, 3, 7, 5])]), Ok(like_o));
    assert_eq!(bind_gate(false, bf16, bhnd, &[("gate", "BF16", &[2, 3, 7, 5])]), Ok(like_o));
    assert_eq!(bind_gate(false, bf16, bhnd, &[("gate", "F32", &[2, 3, 7, 5])]), Ok(like_o));
    let per_head = bind_gate(true, bf16, bhnd, &[("gate", "F32", &[2, 3, 7])]);
    assert_eq!(per_head, Ok([[2, 3, 7, 1], [21, 7, 1, 1]]));
    let turned = bind_gate(true, f32, bnhd, &[("gate", "F32", &[2, 7, 3])]);
    assert_eq!(turned, Ok([[2, 3, 7, 1], [21, 1, 3, 1]]));
    let turned = bind_gate(false, f32, bnhd, &[("gate", "F32", &[2, 7, 3, 5])]);
    assert_eq!(turned, Ok([[2, 3, 7, 5], [105, 5, 15, 1]]));
}

#[test]
fn a_gate_that_does_not_fit_is_told() {
    let refused =
        |per_head, dtype, more: &[Stated<'_>]| bind_gate(per_head, dtype, Layout::Bhnd, more).unwrap_err();
    let cases = [
        (refused(false, Dtype::F32, &[]), "tensor `gate` is missing, expected f32 [2, 3, 7, 5]"),
        (
            refused(true, Dtype::Bf16, &[("gates", "F32", &[2, 3, 7])]),
            "tensor `gate` is missing, expected bf16 or f32 [2, 3, 7]: is `gates` meant?",
        ),
        (
            refused(false, Dtype::Bf16, &[("gate", "F16", &[2, 4, 7, 5])]),
            "tensor `gate`: found f16 [2, 4, 7, 5], expected bf16 or f32 [2, 3, 7, 5]: \
             it is f16, not bf16 or f32, 4 output heads, not 3 as in the spec",
        ),
        (
            refused(false, Dtype::F32, &[("gate", "F32", &[2, 3, 7])]),
            "tensor `gate`: found f32 [2, 3, 7], expected f32 [2, 3, 7, 5]: it has 3 axes, not 4",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, format!("in.safetensors: {expected}"));
    }
    let without = bind(Layout::Bhnd, Dtype::F32, &[GOOD.as_slice(), &[("gate", "F32", &[1])]].concat());
    let expected = "no input of the spec: `gate`; its inputs are `q`, `k`, `v`, `len`";
    assert_eq!(without.unwrap_err(), format!("in.safetensors: {expected}"));
}

#[test]
fn an_output_has_the_heads_that_are_left_of_a_mix() {
    let (names, shapes) = ([], []);
    let signature = Signature { output_heads: 3, ..signature(HEADS, &names, &shapes) };
    let problem = Problem::prefill(Source::SelfAttention, 2, 7, 9).unwrap();
    let of = |shape: &[usize]| {
        let tensors = stated(&[("o", "F32", shape)]);
        signature.bind_output(&problem, &tensors).map(|o| o.shape).map_err(|errors| errors.to_string())
    };
    assert_eq!(of(&[2, 3, 7, 5]), Ok([2, 3, 7, 5]));
    let error = "in.safetensors: tensor `o`: found f32 [2, 4, 7, 5], expected f32 [2, 3, 7, 5]: \
                 4 output heads, not 3 as in the spec";
    assert_eq!(of(&[2, 4, 7, 5]), Err(error.to_owned()));
}

#[test]
fn a_file_of_another_writer_is_read() {
    let path = |end: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fixtures/minilm/layer0{end}.safetensors"))
    };
    let heads = Heads { query: 12, kv: 12, value: 12, dim: 32, value_dim: 32 };
    let (names, shapes) = (["len".to_owned()], len_input());
    let signature = signature(heads, &names, &shapes);
    let tensors = Tensors::read(&path("")).unwrap();
    let bound = signature.bind(&tensors).unwrap();
    assert_eq!((bound.problem().batch, bound.problem().queries, bound.problem().keys), (4, 22, 22));
    let CapturedElements::I32(len) = &bound.captured[0] else { panic!("len is i32") };
    assert_eq!(len[..], [6, 22, 7, 13]);

    // Outputs are no inputs.
    let expected = Tensors::read(&path(".expected")).unwrap();
    let error = signature.bind(&expected).unwrap_err().to_string();
    assert!(error.contains("tensor `q` is missing, expected f32 [sequences, 12, queries, 32]\n"), "{error}");
    assert!(error.ends_with("no input of the spec: `o`; its inputs are `q`, `k`, `v`, `len`"), "{error}");
}

#[test]
fn elements_are_taken_in_their_storage_type() {
    let heads = Heads { query: 1, kv: 1, value: 1, dim: 1, value_dim: 1 };
    let (source, dtype, layout) = (Source::Cross, Dtype::F16, Layout::Bnhd);
    let signature = Signature { source, dtype, layout, ..signature(heads, &[], &[]) };
    let row = |at| entry("F16", "[1,2,1,1]", at, at + 4);
    let header = format!(r#"{{"q":{},"k":{},"v":{}}}"#, row(0), row(4), row(8));
    let tensors = read(&file(&header, 12)).unwrap();
    let bound = signature.bind(&tensors).unwrap();
    let StoredElements::F16(k) = &bound.operands[1].elements else { panic!("k is f16") };
    assert_eq!(k.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), [0x0504, 0x0706]);
    assert_eq!((bound.operands[1].shape, bound.operands[1].strides), ([1, 1, 2, 1], [2, 1, 1, 1]));
    assert_eq!(bound.problem().q_offset, 0);
}
