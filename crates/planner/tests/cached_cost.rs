//! The cost model of calls on caches: more to read or to compute never takes less time, a faster machine never more, and
//! what takes longer is what binds.

use regard_engine::catalog;
use regard_ir::machine::Machine;
use regard_ir::plan::{Dtype, EngineKind, SplitOverview};
use regard_ir::rates::{EngineRates, Origin, ReadRates};
use regard_ir::spec::{CacheFormat, Spec};
use regard_planner::cost::{CachedBound, CachedCase, CachedPrediction};
use regard_planner::{Profile, plan};

const SPEC: &str = "heads = { query = 8, kv = 2, dim = 128 }\nmask = 'causal'";

fn spec(text: &str) -> Spec {
    regard_spec::parse(text, "test.toml", &regard_spec::NoFiles).expect("a spec").spec
}

fn built_in(name: &str) -> Machine {
    Profile::built_in(name).expect("it ships").machine
}

/// One query of a sequence over so many keys, by one thread.
fn one(keys: u64) -> SplitOverview {
    SplitOverview {
        sequences: 1,
        rows: 4,
        live_cells: keys.div_ceil(1024),
        cells: keys.div_ceil(1024),
        chunks: 2,
        passes: 2 * keys.div_ceil(1024),
        keys: 2 * keys,
        pairs: 8 * keys,
        masked_pairs: 0,
        learners: 0,
        read_bytes: 2 * keys * 2 * 128 * 4,
        threads: 1,
        imbalance: 0.0,
    }
}

fn predict(spec: &Spec, machine: &Machine, call: &SplitOverview) -> CachedPrediction {
    let (plan, _) = plan(spec, machine, spec.dtype, None).expect("it plans");
    let variant = spec.variant();
    CachedCase { plan: &plan, variant: &variant, machine, call }
        .predict()
        .expect("the engine is in the catalog")
}

/// A machine on which each engine has rates: products, a tenth of them for the softmax, and reads of everything.
fn measured(machine: Machine, products: f64, read: f64) -> Machine {
    let entries = catalog::runnable(machine.isa).filter(|entry| !entry.emulated);
    let mut machine = entries.fold(machine, |machine, entry| {
        let (engine, isa) = (entry.engine, entry.isa);
        let products = if engine == EngineKind::SimdF32 { products } else { 2.0 * products };
        let rates = EngineRates { engine, isa, products, softmax: products / 10.0, packing: 1.0 };
        Machine { rates: machine.rates.with(rates), ..machine }
    });
    machine.rates.reads = ReadRates { l2: read, l3: read, memory: read };
    machine
}

#[test]
fn the_longer_of_reading_and_arithmetic_counts() {
    let (spec, call) = (spec(SPEC), one(10_000));
    let machine = built_in("desktop-avx2");
    let slow_reads = predict(&spec, &measured(machine, 100.0, 1.0), &call);
    assert_eq!((slow_reads.bound, slow_reads.rates), (CachedBound::Reads, Origin::Measured));
    assert_eq!(slow_reads.seconds, slow_reads.reading_s);
    assert!((slow_reads.reading_s / (call.read_bytes as f64 / 1e9) - 1.0).abs() < 1e-9);
    let slow_products = predict(&spec, &measured(machine, 1.0, 1e3), &call);
    assert_eq!(slow_products.bound, CachedBound::Arithmetic);
    // 128 products for a score and 128 for its weight, and ten for the softmax.
    let expected = 80_000.0 * (256.0 + 10.0) / 1e9;
    assert!((slow_products.seconds / expected - 1.0).abs() < 1e-9, "{slow_products:?}");
    assert_eq!(slow_products.seconds, slow_products.arithmetic_s());
    // Nothing was measured there.
    let estimated = predict(&spec, &machine, &call);
    assert_eq!((estimated.rates, estimated.bound), (Origin::Estimated, CachedBound::Reads));
}

#[test]
fn more_to_do_never_takes_less_time() {
    type Change = fn(&mut SplitOverview);
    let more: [Change; 6] = [
        |call| call.read_bytes += 1 << 20,
        |call| call.pairs *= 3,
        |call| call.masked_pairs += 1 << 20,
        |call| call.imbalance += 0.3,
        |call| call.live_cells += 1,
        |call| (call.pairs, call.read_bytes) = (2 * call.pairs, 2 * call.read_bytes),
    ];
    for name in ["server-avx512-amx", "server-avx512-bf16", "desktop-avx2", "cortex-a72", "cortex-m7"] {
        for dtype in Dtype::ALL {
            let (spec, machine) = (Spec { dtype, ..spec(SPEC) }, built_in(name));
            for keys in [1, 100, 1024, 3000, 100_000, 1 << 31] {
                for threads in [1, 2, 7, 64] {
                    let call = SplitOverview { threads, ..one(keys) };
                    let seconds = |call: &SplitOverview| predict(&spec, &machine, call).seconds;
                    for more in more {
                        let mut larger = call;
                        more(&mut larger);
                        assert!(seconds(&larger) >= seconds(&call), "{call:?} {larger:?} on {name}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_faster_machine_never_takes_longer() {
    let base = measured(built_in("server-avx512-bf16"), 50.0, 20.0);
    for (dtype, cache) in [(Dtype::F32, None), (Dtype::Bf16, None), (Dtype::Bf16, Some(CacheFormat::Int8))] {
        let mut spec = Spec { dtype, ..spec(SPEC) };
        if let Some(format) = cache {
            (spec.cache.k, spec.cache.v) = (format, format);
        }
        for call in [one(100), one(5000), SplitOverview { pairs: 1 << 24, threads: 4, ..one(5000) }] {
            let seconds = |machine: &Machine| predict(&spec, machine, &call).seconds;
            let slow = seconds(&base);
            for faster in [measured(base, 100.0, 20.0), measured(base, 50.0, 40.0)] {
                assert!(seconds(&faster) <= slow);
            }
            assert!(seconds(&measured(base, 100.0, 40.0)) < slow);
            assert!(seconds(&Machine { cores: 2 * base.cores, ..base }) <= slow);
        }
    }
}

#[test]
fn threads_share_the_passes_as_far_as_there_are_cores() {
    let (spec, machine) = (spec(SPEC), built_in("desktop-avx2"));
    let seconds = |threads, imbalance| {
        let call = SplitOverview { threads, imbalance, ..one(1 << 20) };
        predict(&spec, &machine, &call).seconds
    };
    assert!((seconds(8, 0.0) / seconds(1, 0.0) - 1.0 / 8.0).abs() < 1e-2);
    assert!((seconds(64, 0.0) / seconds(8, 0.0) - 1.0).abs() < 1e-2, "there are 8 cores");
    assert!(seconds(8, 0.5) > 1.4 * seconds(8, 0.0));
    // Eight of 64 threads have a pass each, on cores of their own.
    assert!((seconds(64, 7.0) / seconds(8, 0.0) - 1.0).abs() < 1e-2);
    // No thread has more than all.
    assert!(seconds(2, 5.0) <= seconds(1, 0.0) + 1e-3);
}

#[test]
fn cached_pairs_of_bf16_are_multiplied_as_the_engine_has_it() {
    let spec = Spec { dtype: Dtype::Bf16, ..spec(SPEC) };
    let call = one(1000);
    let pairs = measured(built_in("server-avx512-bf16"), 1.0, 1e3);
    let products = |spec: &Spec, machine: &Machine| predict(spec, machine, &call).products_s;
    // Twice as fast as f32 lanes, which keys of 8 bits and matrix tiles' machines take.
    let lanes = 8000.0 * 256.0 / 1e9;
    assert!((products(&spec, &pairs) / (lanes / 2.0) - 1.0).abs() < 1e-9);
    let mut int8 = spec.clone();
    int8.cache.k = CacheFormat::Int8;
    assert!((products(&int8, &pairs) / (lanes * 0.75) - 1.0).abs() < 1e-9);
    let tiles = measured(built_in("server-avx512-amx"), 1.0, 1e3);
    let (planned, _) = plan(&spec, &tiles, Dtype::Bf16, None).expect("it plans");
    if planned.engine == EngineKind::AmxBf16 {
        assert!((products(&spec, &tiles) / lanes - 1.0).abs() < 1e-9);
    }
}
