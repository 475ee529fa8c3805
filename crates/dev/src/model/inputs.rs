//! Tensors to run a problem on: q, k and v of N(0, 1), in a file.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use regard_oracle::random;
use serde_json::{Value, json};

use crate::error::Error;

/// Numbers that are drawn; they are repeated to fill a tensor.
const DRAWN: usize = 1 << 16;

/// Writes q, k and v of one sequence: `[query heads, key heads, length, width]`.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(path: &Path, dtype: &str, [query, kv, length, width]: [usize; 4]) -> Result<(), Error> {
    let drawn: Vec<f32> = random::normal(0).take(DRAWN).collect();
    let words = |of: fn(f32) -> u16| drawn.iter().flat_map(|&x| of(x).to_le_bytes()).collect::<Vec<u8>>();
    let (name, bytes) = match dtype {
        "bf16" => ("BF16", words(|x| bf16::from_f32(x).to_bits())),
        "f16" => ("F16", words(|x| f16::from_f32(x).to_bits())),
        _ => ("F32", drawn.iter().flat_map(|x| x.to_le_bytes()).collect()),
    };
    let (mut header, mut data) = (serde_json::Map::<String, Value>::new(), Vec::<u8>::new());
    for (tensor, heads) in [("q", query), ("k", kv), ("v", kv)] {
        let begin = data.len();
        let len = heads * length * width * (bytes.len() / DRAWN);
        data.extend(bytes.iter().cycle().take(len));
        let shape = [1, heads, length, width];
        let described = json!({ "dtype": name, "shape": shape, "data_offsets": [begin, data.len()] });
        header.insert(tensor.to_owned(), described);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    fs::write(path, file).map_err(Error::file(path))
}
