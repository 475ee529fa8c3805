//! Hostile and honest tensor files.

mod signature;

use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::SafeTensors;

use super::Tensors;
use super::header::MAX_HEADER_BYTES;
use super::write::{Output, write};

/// A file of this header, claimed as long as it is, and `data_len` bytes that count up.
fn file(header: &str, data_len: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data_len).map(|i| i as u8));
    bytes
}

fn read(bytes: &[u8]) -> Result<Tensors, String> {
    Tensors::read_from(Path::new("in.safetensors"), bytes).map_err(|error| error.to_string())
}

fn entry(dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// A file of one tensor `q`.
fn one(dtype: &str, shape: &str, begin: u64, end: u64, data_len: usize) -> Vec<u8> {
    file(&format!(r#"{{"q":{}}}"#, entry(dtype, shape, begin, end)), data_len)
}

/// A file of the tensors `q` and `k`.
fn two(q: &str, k: &str, data_len: usize) -> Vec<u8> {
    file(&format!(r#"{{"q":{q},"k":{k}}}"#), data_len)
}

#[test]
fn every_lie_of_a_header_is_named() {
    let f32s = |begin, end| entry("F32", "[2]", begin, end);
    let cut_header = &file("{}      ", 0)[..11];
    let not_utf8 = [&[4u8, 0, 0, 0, 0, 0, 0, 0][..], b"{\"\xff}"].concat();
    let nested = file(&"[".repeat(100_000), 0);
    let big = i64::MAX as u64;
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("empty", vec![], "0 bytes are no safetensors file: it starts with 8 bytes of header length"),
        ("seven bytes", vec![1; 7], "7 bytes are no safetensors file"),
        (
            "a header past 64 bits",
            vec![0xff; 64],
            "the header claims 18446744073709551615 bytes, at most 1048576",
        ),
        ("text", b"#!/bin/sh\necho\n".to_vec(), "is it safetensors?"),
        ("a cut header", cut_header.to_vec(), "the file ends after 3 bytes of a header that claims 8"),
        ("no UTF-8", not_utf8, "the header is not UTF-8 after its first 2 bytes"),
        ("no JSON", file("{\"q\":", 0), "the header is not a JSON object of tensors: EOF"),
        ("no object", file("[1]", 0), "invalid type: sequence, expected a map from names to tensors"),
        ("deep nesting", nested, "the header is not a JSON object of tensors"),
        ("an empty header", file("", 0), "the header is not a JSON object of tensors: EOF"),
        ("two objects", file("{} {}", 0), "trailing characters"),
        ("metadata", file(r#"{"__metadata__":{"a":1}}"#, 0), "`__metadata__` is not a map of strings"),
        (
            "twice",
            file(&format!(r#"{{"q":{0},"q":{0}}}"#, f32s(0, 8)), 8),
            "tensor `q`: the header names it twice",
        ),
        (
            "twice by an escape",
            file(&format!(r#"{{"q":{0},"\u0071":{0}}}"#, f32s(0, 8)), 8),
            "tensor `q`: the header names it twice",
        ),
        (
            "no entry",
            file(r#"{"q":7}"#, 0),
            "tensor `q`: its entry is not {\"dtype\", \"shape\", \"data_offsets\"}",
        ),
        ("no shape", file(r#"{"q":{"dtype":"F32","data_offsets":[0,8]}}"#, 8), "missing field `shape`"),
        (
            "two shapes",
            file(r#"{"q":{"dtype":"F32","shape":[2],"shape":[1],"data_offsets":[0,8]}}"#, 8),
            "duplicate field `shape`",
        ),
        (
            "an unknown type",
            one("F33", "[2]", 0, 8, 8),
            "tensor `q`: unknown dtype \"F33\", expected \"F32\"",
        ),
        (
            "a type as a number",
            file(r#"{"q":{"dtype":3,"shape":[],"data_offsets":[0,4]}}"#, 4),
            "tensor `q`: its entry",
        ),
        ("a negative length", one("F32", "[-1]", 0, 8, 8), "tensor `q`: its entry"),
        ("a fractional length", one("F32", "[1.5]", 0, 6, 6), "tensor `q`: its entry"),
        ("a length past 64 bits", one("F32", "[18446744073709551616]", 0, 8, 8), "tensor `q`: its entry"),
        (
            "three offsets",
            file(r#"{"q":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}"#, 8),
            "tensor `q`: its entry",
        ),
        (
            "reversed offsets",
            one("F32", "[2]", 8, 0, 8),
            "tensor `q`: its data begins at byte 8 and ends at 0",
        ),
        (
            "too few bytes",
            one("F32", "[3]", 0, 8, 8),
            "tensor `q`: f32 [3] needs 12 bytes, its offsets give it 8",
        ),
        (
            "too many bytes",
            one("F16", "[3]", 0, 8, 8),
            "tensor `q`: f16 [3] needs 6 bytes, its offsets give it 8",
        ),
        (
            "a product past 64 bits",
            one("F32", "[4294967296,4294967296]", 0, 8, 8),
            "tensor `q`: f32 [4294967296, 4294967296] needs more bytes than any file has, its offsets give it 8",
        ),
        ("half a byte", one("F4", "[3]", 0, 1, 1), "tensor `q`: unknown dtype \"F4\", expected \"F32\""),
        (
            "a lie of petabytes",
            one("BOOL", &format!("[{big}]"), 0, big, 16),
            "tensor `q`: the file ends after 16 of 9223372036854775807 bytes of data",
        ),
        (
            "cut data",
            two(&f32s(0, 8), &f32s(8, 16), 15),
            "tensor `k`: the file ends after 15 of 16 bytes of data",
        ),
        ("more data", one("F32", "[2]", 0, 8, 9), "the file goes on after the 8 bytes of its last tensor"),
        ("data of no tensor", file("{}", 1), "the file goes on after the 0 bytes of its last tensor"),
        (
            "an overlap",
            two(&f32s(0, 8), &f32s(4, 12), 12),
            "tensor `k`: its data begins at byte 4, tensor `q` ends at 8",
        ),
        (
            "the same place",
            two(&f32s(0, 8), &f32s(0, 8), 8),
            "its data begins at byte 0, tensor `q` ends at 8",
        ),
        (
            "a gap",
            two(&f32s(0, 8), &f32s(12, 20), 20),
            "tensor `k`: its data begins at byte 12, expected 8: tensors lie end to end",
        ),
        ("a late start", one("F32", "[2]", 4, 12, 12), "tensor `q`: its data begins at byte 4, expected 0"),
    ];
    for (what, bytes, expected) in cases {
        let error = read(bytes).expect_err(what);
        assert!(error.starts_with("in.safetensors: ") && error.contains(expected), "{what}: {error}");
    }
    let long = format!("{{{}}}", " ".repeat(MAX_HEADER_BYTES as usize));
    assert!(read(&file(&long, 0)).unwrap_err().contains("the header claims 1048578 bytes"));
}

#[test]
fn a_damaged_file_is_refused_or_read_within_itself() {
    let good = two(&entry("F32", "[1,2,3]", 0, 24), &entry("BF16", "[3,2]", 24, 36), 36);
    assert!(read(&good).is_ok());
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=random(2) {
            let at = random(bytes.len());
            // Digits, brackets and the like half of the time, so that the header often stays JSON.
            bytes[at] = if random(2) == 0 { b"0123456789[]{},:\"-"[random(18)] } else { random(256) as u8 };
        }
        match read(&bytes) {
            Ok(tensors) => {
                accepted += 1;
                for tensor in tensors.iter() {
                    let elements: usize = tensor.shape.iter().product();
                    let f32s = tensor.elements::<f32>().map(|elements| elements.len());
                    assert!(f32s.is_none_or(|found| found == elements), "{tensor:?}");
                }
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 1000 && accepted > 1000, "{refused} refused, {accepted} accepted");
}

#[test]
fn what_cannot_be_opened_is_named() {
    for path in [std::env::temp_dir(), std::env::temp_dir().join("regard-no-such-file.safetensors")] {
        let error = Tensors::read(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
    }
}

#[test]
fn names_are_shown_without_control_characters() {
    let header = format!(r#"{{"a\u001b[2J\n":{}}}"#, entry("F32", "[1]", 0, 8));
    let error = read(&file(&header, 8)).unwrap_err();
    assert!(error.contains(r"tensor `a\u{1b}[2J\n`"), "{error}");
}

#[test]
fn unaligned_elements_and_nan_are_read_as_they_are() {
    // A bool first, so that the f32 after it is at an odd address.
    let header = format!(r#"{{"m":{},"q":{}}}"#, entry("BOOL", "[1]", 0, 1), entry("F32", "[2]", 1, 9));
    let mut bytes = file(&header, 1);
    bytes.extend(f32::NAN.to_le_bytes());
    bytes.extend(1.5f32.to_le_bytes());
    let tensors = read(&bytes).unwrap();
    let q = tensors.get("q").unwrap().elements::<f32>().unwrap();
    assert!(q[0].is_nan() && q[1] == 1.5);
    assert_eq!(tensors.get("m").unwrap().elements::<u8>().unwrap()[..], [0]);
    assert!(tensors.get("m").unwrap().elements::<f32>().is_none());
}

#[test]
fn empty_and_scalar_tensors_are_legal() {
    let q = entry("F32", "[1,2,0,4]", 0, 0);
    let tensors = read(&two(&q, &entry("I32", "[]", 0, 4), 4)).unwrap();
    assert_eq!(tensors.get("q").unwrap().elements::<f32>().unwrap().len(), 0);
    assert_eq!(tensors.get("k").unwrap().elements::<i32>().unwrap()[..], [0x0302_0100]);
    let vast = read(&one("F32", "[18446744073709551615,18446744073709551615,0]", 0, 0, 0)).unwrap();
    assert_eq!(vast.get("q").unwrap().shape, [usize::MAX, usize::MAX, 0]);
}

/// A folder of a test's own, gone when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("regard-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_written_is_read_again() {
    let folder = Folder::new("written");
    let path = folder.0.join("out.safetensors");
    fs::write(&path, "what was there before").unwrap();
    let (o, lse) = ([f16::from_f32(1.5), f16::NAN, f16::NEG_INFINITY], [f32::NEG_INFINITY]);
    let tensors = [("o", Output::new(&[1, 3], &o)), ("lse", Output::new(&[1], &lse))];
    write(&path, &tensors).unwrap();
    assert_eq!(folder.files(), ["out.safetensors"]);

    let read = Tensors::read(&path).unwrap();
    let bits = |elements: &[f16]| elements.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read.get("o").unwrap().elements::<f16>().unwrap()), bits(&o));
    assert_eq!(read.get("lse").unwrap().elements::<f32>().unwrap()[..], lse);
    let bytes = fs::read(&path).unwrap();
    let other_reader = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(other_reader.tensor("o").unwrap().shape(), [1, 3]);
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_left_as_it_is() {
    let folder = Folder::new("unwritable");
    let tensors = [("o", Output::new(&[1], &[bf16::ONE]))];
    let error = write(&folder.0, &tensors).unwrap_err().to_string();
    assert!(error.ends_with("is a directory, expected a file"), "{error}");
    let error = write(&folder.0.join("no/such/folder/o"), &tensors).unwrap_err().to_string();
    assert!(error.contains("cannot create it"), "{error}");
    assert!(folder.files().is_empty());
}
