use std::collections::BTreeMap;

use super::*;
use crate::bench::history::Session;
use crate::bench::statistics::Spread;
use crate::bench::summary::Other;

fn spread(median: f64) -> Spread {
    Spread::of(&[0.9 * median, median, 1.1 * median]).unwrap()
}

fn row(workload: &str, dtype: Dtype, others: &[(&str, f64)]) -> Row {
    let other = |&(who, seconds): &(&str, f64)| Other {
        who: who.to_owned(),
        way: "way".to_owned(),
        seconds: spread(seconds),
        error: 1e-6,
    };
    Row {
        round: format!("{workload}/{}", dtype.name()),
        workload: workload.to_owned(),
        dtype: dtype.name().to_owned(),
        way: PLAIN.to_owned(),
        date: "2026-11-25".to_owned(),
        commit: "0123456789".to_owned(),
        note: "engine simd-f32, isa avx512, kernel loaded".to_owned(),
        seconds: spread(0.5),
        error: [1e-7, 2e-6],
        gflops: 320.0,
        gbs: None,
        peak: Some(("fma".to_owned(), 0.8)),
        others: others.iter().map(other).collect(),
        foreign: Some(0.25),
        wrong: Vec::new(),
    }
}

fn machine() -> Machine {
    let limits = BTreeMap::from([(2, BTreeMap::from([("fma".to_owned(), 400.0)]))]);
    let session = Session {
        cpu: "ACME Zoom".to_owned(),
        isa: "avx512".to_owned(),
        cores: 2,
        versions: BTreeMap::from([
            (OURS.to_owned(), "0.1.0".to_owned()),
            ("vllm".to_owned(), "0.32.0".to_owned()),
        ]),
        skipped: BTreeMap::from([("candle".to_owned(), "no compiler".to_owned())]),
        ..Session::default()
    };
    let wrong = Row { wrong: vec![("openvino sdpa".to_owned(), 0.7)], ..row("width-64", Dtype::F32, &[]) };
    let half = Row { gflops: 160.0, ..wrong.clone() };
    Machine {
        session,
        remarks: vec!["The others were asleep.".to_owned()],
        limits,
        rows: vec![
            row("gqa-4096", Dtype::F32, &[("vllm", 0.6), ("torch-sdpa", 1.5)]),
            half,
            row("width-128", Dtype::F32, &[]),
        ],
        failures: vec![Failure {
            who: "ggml flash".to_owned(),
            why: "its process ended".to_owned(),
            rounds: vec!["gqa-4096/f32".to_owned(), "gqa-512/f32".to_owned()],
        }],
    }
}

#[test]
fn a_measurement_stands_beside_the_best_other_and_the_rest() {
    let page = page(&[machine()]);
    let row = "| gqa-4096 | f32 | loaded simd-f32 | 500.0 ms | 475.0 ms to 525.0 ms | 320 | 80 % fma | vLLM, 600.0 ms | 1.20 (1.20) | torch SDPA 3.00 | 25 % |";
    assert!(page.contains(row), "{page}");
    assert!(page.contains("2026-11-25, commit 0123456789."), "{page}");
    assert!(page.contains("Others: vllm 0.32.0.\n\n**Remark.** The others were asleep.\n\n"), "{page}");
    assert!(
        page.contains("| GFLOP/s at most | f32 multiply-adds |\n|---|---:|\n| 2 threads | 400 |"),
        "{page}"
    );
}

#[test]
fn decoding_has_a_table_of_its_own() {
    let mut machine = machine();
    let peak = Some(("read".to_owned(), 0.71));
    let decoded = row("decode-1x4096", Dtype::Bf16, &[("vllm", 0.6)]);
    machine.rows.push(Row { gbs: Some(37.4), peak, ..decoded });
    let page = page(&[machine]);
    let (before, table) = page.split_once("\n### Decoding\n").unwrap();
    assert!(!before.contains("decode-1x4096"), "{page}");
    let row = "| decode-1x4096 | bf16 | loaded simd-f32 | 500.0 ms | 475.0 ms to 525.0 ms | 37 | 71 % read | vLLM, 600.0 ms | 1.20 (1.20) |";
    assert!(table.contains("| GB/s | peak |") && table.contains(row), "{page}");
    assert!(table.contains("| decode-1x4096, ratio |  | 1.20 (1.20) |  |"), "{page}");
}

#[test]
fn caches_have_shares_and_ratios() {
    let mut machine = machine();
    assert!(!page(&[machine.clone()]).contains("### Caches"));
    let mut add = |workload: &str, dtype, seconds: f64, share| {
        let peak = Some(("read".to_owned(), share));
        machine.rows.push(Row {
            gbs: Some(1.0),
            peak,
            seconds: spread(seconds),
            ..row(workload, dtype, &[])
        });
    };
    add("decode-1x4096", Dtype::F32, 0.5, 0.81);
    add("decode-1x8192", Dtype::F16, 0.5, 0.82);
    add("decode-1x8192-few", Dtype::F16, 0.6, 0.7);
    add("decode-1x8192-8bit", Dtype::Bf16, 0.2, 0.84);
    add("decode-1x8192-8bit-few", Dtype::Bf16, 0.3, 0.7);
    add("decode-64x16448-8bit", Dtype::Bf16, 3.0, 0.7);
    add("decode-64x16448-8bit-shared", Dtype::Bf16, 0.2, 0.1);
    // Its copies had no room.
    add("decode-64x16448-shared", Dtype::F32, 0.2, 0.1);
    let page = page(&[machine]);
    let expected = "
| | bf16 | int8 | int4 | f16 | f32 |
|---|---:|---:|---:|---:|---:|
| a query on 4096 keys, of the read rate |  |  |  |  | 81 % |
| a query on 8192 keys, of the read rate |  | 84 % |  | 82 % |  |
| 8 queries on 8192 keys, times as long as one |  | 1.50 |  | 1.20 |  |
| 64 sequences, 16384 tokens of each the same: copies take times as long as pages that are shared |  | 15.00 |  |  |  |

### The bar
";
    assert!(page.contains(expected), "{page}");
}

#[test]
fn the_bar_has_ratios_and_rates_relative_to_width_128() {
    let page = page(&[machine()]);
    assert!(page.contains("| gqa-4096, ratio | 1.20 (1.20) |  |  |"), "{page}");
    assert!(page.contains("| rate at width 64, of that at 128 | 50 % |  | |"), "{page}");
}

#[test]
fn what_is_left_out_has_its_reason() {
    let page = page(&[machine()]);
    let expected = "\
### Left out

* candle: no compiler
* openvino sdpa on width-64 f32: plainly wrong, error 7.0e-1
* ggml flash on gqa-4096/f32, gqa-512/f32: its process ended
";
    assert!(page.contains(expected), "{page}");
    assert!(super::page(&[]).contains("## The workloads"));
}
