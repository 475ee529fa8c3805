//! Files of sequences of different lengths.

use crate::bench::{Folder, Tensor, f32s, i32s, read_f32s, safetensors};

/// Two heads of 3 channels over one of keys, values of 5, in documents and up to a length.
const SPEC: &str = "heads = { query = 2, kv = 1, dim = 3, value_dim = 5 }\nmask = 'causal & same(doc) & k < len[b]'\n\
                    inputs = { len = 'i32[b]', doc = 'i32[b, k]' }\noutput = { lse = true }";

const DOC: [i32; 7] = [0, 0, 1, 1, 0, 0, 0];

/// Three sequences: 3 queries of 4 keys, none, 2 queries of 3 keys.
fn tensors() -> Vec<Tensor<'static>> {
    vec![
        f32s("q", &[5, 2, 3]),
        f32s("k", &[7, 1, 3]),
        f32s("v", &[7, 1, 5]),
        i32s("len", &[3], &[4, 1, 2]),
        i32s("doc", &[7], &DOC),
        i32s("cu_q", &[4], &[0, 3, 3, 5]),
        i32s("cu_k", &[4], &[0, 4, 4, 7]),
    ]
}

fn folder(test: &str, tensors: &[Tensor<'_>]) -> Folder {
    let folder = Folder::new(test);
    folder.file("packed.toml", SPEC);
    folder.file("in.safetensors", safetensors(tensors));
    folder
}

#[test]
fn packed_sequences_are_run_and_verified() {
    let folder = folder("packed", &tensors());
    let run = ["run", "packed.toml", "-i", "in.safetensors", "-o", "o.safetensors"];
    let done = folder.regard(&run).ok();
    assert!(done.stderr.contains(", packed, 3 sequences of up to 3x4: "), "{done:?}");
    let (shape, o) = read_f32s(&folder.path("o.safetensors"), "o");
    assert_eq!(shape, [5, 2, 5]);
    assert!(o.iter().all(|x| x.is_finite()));
    assert_eq!(read_f32s(&folder.path("o.safetensors"), "lse").0, [5, 2]);

    let verify = ["verify", "packed.toml", "-i", "in.safetensors", "--expected", "o.safetensors", "--json"];
    let lines = folder.regard(&verify).ok().objects();
    let judged: Vec<_> = lines.iter().filter(|line| line["against"] == "oracle").collect();
    assert!(!judged.is_empty());
    for line in judged {
        assert_eq!((&line["rows_checked"], &line["rows"]), (&10.into(), &10.into()), "{line:?}");
        assert_eq!(line["layout"], "packed");
    }

    // The last sequence alone, its rows cut out by hand.
    let last = |name: &'static str, shape: &'static [usize], rows: usize| {
        let all = tensors().into_iter().find(|tensor| tensor.0 == name).unwrap();
        let row = all.3.len() / all.2[0];
        (name, "F32", shape, all.3[all.3.len() - rows * row..].to_vec())
    };
    let alone = [
        last("q", &[1, 2, 2, 3], 2),
        last("k", &[1, 3, 1, 3], 3),
        last("v", &[1, 3, 1, 5], 3),
        i32s("len", &[1], &[2]),
        i32s("doc", &[1, 3], &DOC[4..]),
    ];
    folder.file("alone.safetensors", safetensors(&alone));
    let run = ["run", "packed.toml", "-i", "alone.safetensors", "-o", "one.safetensors", "--layout", "bnhd"];
    folder.regard(&run).ok();
    let (shape, one) = read_f32s(&folder.path("one.safetensors"), "o");
    assert_eq!(shape, [1, 2, 2, 5]);
    assert!(o[3 * 10..].iter().zip(&one).all(|(a, b)| a.to_bits() == b.to_bits()), "{o:?} {one:?}");
}

#[test]
fn what_does_not_fit_together_is_told() {
    let but = |name: &str, tensor: Option<Tensor<'static>>| {
        let mut tensors = tensors();
        tensors.retain(|tensor| tensor.0 != name);
        tensors.extend(tensor);
        tensors
    };
    let cases = [
        (but("cu_k", None), "tensor `cu_k` is missing, expected i32 [4]"),
        (but("cu_q", Some(i32s("cu_q", &[3], &[0, 3, 5]))), "tensor `cu_k`: found i32 [4], expected i32 [3]"),
        (
            but("cu_q", Some(i32s("cu_q", &[4], &[0, 3, 2, 5]))),
            "cu_q[2] is 2, after 3: cumulative offsets never fall",
        ),
        (but("cu_q", Some(i32s("cu_q", &[4], &[0, 3, 3, 4]))), "cu_q ends at 4, but its tensors have 5 rows"),
        (but("cu_k", Some(i32s("cu_k", &[4], &[1, 4, 4, 7]))), "cu_k[0] is 1: cumulative offsets start at 0"),
        (but("cu_q", Some(f32s("cu_q", &[4]))), "tensor `cu_q`: found f32 [4], expected i32 [4]"),
        (
            but("doc", Some(i32s("doc", &[3, 4], &[0; 12]))),
            "tensor `doc`: found i32 [3, 4], expected i32 [7]",
        ),
        (
            but("q", Some(f32s("q", &[1, 5, 2, 3]))),
            "tensor `q`: found f32 [1, 5, 2, 3], expected f32 [queries, 2, 3]",
        ),
    ];
    for (i, (tensors, expected)) in cases.into_iter().enumerate() {
        let folder = folder(&format!("packed_refused_{i}"), &tensors);
        let done = folder.regard(&["run", "packed.toml", "-i", "in.safetensors", "-o", "o.safetensors"]);
        assert_eq!(done.code, Some(1), "{expected}: {done:?}");
        assert!(done.stderr.contains(expected), "{expected}: {}", done.stderr);
    }
}
