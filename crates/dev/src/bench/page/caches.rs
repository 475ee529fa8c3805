//! The part of the page that says how near decoding comes to reading its cache, and what several queries and shared tokens gain.

use std::fmt::Write;

use regard_ir::plan::Dtype;

use crate::bench::summary::{Machine, Row};
use crate::bench::turns::PLAIN;

/// How keys and values are cached: the column's head, storage of q and o, and how names of such workloads end.
const FORMATS: [(&str, Dtype, &str); 5] = [
    ("bf16", Dtype::Bf16, ""),
    ("int8", Dtype::Bf16, "-8bit"),
    ("int4", Dtype::Bf16, "-4bit"),
    ("f16", Dtype::F16, ""),
    ("f32", Dtype::F32, ""),
];

/// Cached keys of which the share of the read rate is told.
const KEYS: [u32; 4] = [4096, 8192, 65536, 131072];

/// The table; nothing where nothing of it was measured.
pub(super) fn table(machine: &Machine) -> String {
    let row = |stem: &str, dtype, format: &str, end: &str| {
        machine.row(&format!("{stem}{format}{end}"), dtype, PLAIN)
    };
    let times = |of: Option<&Row>, than: Option<&Row>| {
        let (of, than) = (of?.seconds.median, than?.seconds.median);
        Some(format!("{:.2}", of / than))
    };
    let mut lines = Vec::new();
    for keys in KEYS {
        let share = |(_, dtype, format)| {
            let (_, share) = row(&format!("decode-1x{keys}"), dtype, format, "")?.peak.as_ref()?;
            Some(format!("{:.0} %", 100.0 * share))
        };
        lines.push((format!("a query on {keys} keys, of the read rate"), FORMATS.map(share)));
    }
    let few = |(_, dtype, format)| {
        let stem = "decode-1x8192";
        times(row(stem, dtype, format, "-few"), row(stem, dtype, format, ""))
    };
    lines.push(("8 queries on 8192 keys, times as long as one".to_owned(), FORMATS.map(few)));
    let shared = |(_, dtype, format)| {
        let stem = "decode-64x16448";
        times(row(stem, dtype, format, ""), row(stem, dtype, format, "-shared"))
    };
    let copies =
        "64 sequences, 16384 tokens of each the same: copies take times as long as pages that are shared";
    lines.push((copies.to_owned(), FORMATS.map(shared)));
    lines.retain(|(_, cells)| cells.iter().any(Option::is_some));
    if lines.is_empty() {
        return String::new();
    }
    let mut text = "\n### Caches\n\nKeys and values in bf16, int8 and int4 with queries in bf16, f16 with f16, f32 with f32.\n\n"
        .to_owned();
    // Writing to a string does not fail.
    let _ = writeln!(text, "| | {} |", FORMATS.map(|(name, _, _)| name).join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(FORMATS.len()));
    for (title, cells) in lines {
        let _ = writeln!(text, "| {title} | {} |", cells.map(Option::unwrap_or_default).join(" | "));
    }
    text
}
