//! The cost model: more work never takes less time, a faster machine never takes more, and the planner takes what it says is
//! the fastest.

use regard_engine::catalog;
use regard_ir::interval::Unknown;
use regard_ir::machine::{Isa, Machine};
use regard_ir::plan::{Dtype, EngineKind};
use regard_ir::problem::Problem;
use regard_ir::rates::{EngineRates, Origin};
use regard_ir::spec::Spec;
use regard_planner::cost::{Case, Prediction, Sharing};
use regard_planner::{Profile, plan};

fn spec(text: &str) -> Spec {
    regard_spec::parse(text, "test.toml", &regard_spec::NoFiles).expect("a spec").spec
}

fn causal() -> Spec {
    spec("heads = { query = 8, kv = 2, dim = 128 }\nmask = 'causal'")
}

fn built_in(name: &str) -> Machine {
    Profile::built_in(name).expect("it ships").machine
}

fn predict(spec: &Spec, machine: &Machine, sizes: [usize; 3]) -> Prediction {
    predict_on(spec, machine, sizes, None)
}

/// The same on one engine, whichever is the fastest.
fn predict_on(
    spec: &Spec,
    machine: &Machine,
    [batch, queries, keys]: [usize; 3],
    engine: Option<EngineKind>,
) -> Prediction {
    let (plan, _) = plan(spec, machine, spec.dtype, engine).expect("it plans");
    let variant = spec.variant();
    let problem = Problem::prefill(spec.source, batch, queries, keys).expect("small");
    let inputs = &Unknown(variant.inputs);
    let case = Case { plan: &plan, variant: &variant, machine, problem: &problem, inputs };
    case.predict(&Sharing::ALONE).expect("the engine is in the catalog")
}

/// A machine on which each engine has rates, all `times` those of an example.
fn measured(machine: Machine, times: f64) -> Machine {
    let entries = catalog::runnable(machine.isa).filter(|entry| !entry.emulated);
    entries.fold(machine, |machine, entry| {
        let (engine, isa) = (entry.engine, entry.isa);
        let lanes = times * f64::from(isa.f32_lanes());
        let rates =
            EngineRates { engine, isa, products: 8.0 * lanes, softmax: 0.5 * lanes, packing: 0.2 * lanes };
        Machine { rates: machine.rates.with(rates), ..machine }
    })
}

#[test]
fn more_work_never_takes_less_time() {
    let specs = [
        causal(),
        spec("heads = { query = 4, kv = 4, dim = 64 }"),
        spec("heads = { query = 4, kv = 1, dim = 64 }\nmask = 'causal & window(100)'"),
        spec("heads = { query = 2, kv = 2, dim = 32 }\ninputs = { doc = 'i32[b, k]' }\nmask = 'same(doc)'"),
    ];
    let sizes = [1, 2, 7, 63, 64, 65, 130, 197, 500, 1024, 3000];
    for machine in ["server-avx512-amx", "desktop-avx2", "cortex-a72", "cortex-m7"].map(built_in) {
        for spec in &specs {
            let seconds = |size| predict(spec, &machine, size).seconds;
            for n in sizes {
                assert!(seconds([1, n, 2 * n]) >= seconds([1, n, n]), "{n} keys on {}", machine.isa.name());
                assert!(seconds([1, 2 * n, 2 * n]) >= seconds([1, n, 2 * n]), "{n} queries");
                assert!(seconds([2, n, n]) >= 1.9 * seconds([1, n, n]), "a batch of {n}");
                assert!(seconds([1, n, n]) > 0.0 && seconds([1, n, n]).is_finite());
            }
            assert!(seconds([1, 0, 0]) >= 0.0 && seconds([0, 5, 5]) >= 0.0 && seconds([1, 5, 0]) >= 0.0);
        }
    }
}

#[test]
fn a_mask_that_allows_half_takes_about_half() {
    let machine = built_in("desktop-avx2");
    let full = spec("heads = { query = 8, kv = 2, dim = 128 }");
    let share = predict(&causal(), &machine, [1, 4096, 4096]).seconds
        / predict(&full, &machine, [1, 4096, 4096]).seconds;
    assert!((0.5..0.56).contains(&share), "{share}");
    let window = spec("heads = { query = 8, kv = 2, dim = 128 }\nmask = 'causal & window(64)'");
    let share = predict(&window, &machine, [1, 4096, 4096]).seconds;
    let twice = predict(&window, &machine, [1, 8192, 8192]).seconds;
    assert!((1.9..2.2).contains(&(twice / share)), "{share} {twice}");
}

#[test]
fn a_faster_machine_never_takes_longer() {
    let base = built_in("server-avx512-amx");
    // Of one engine: which of two nearly as fast is taken is decided on a problem of the planner's own.
    let engines =
        [EngineKind::SimdF32, EngineKind::DotBf16, EngineKind::AmxBf16].map(|engine| (engine, Dtype::Bf16));
    for (engine, dtype) in engines.into_iter().chain(Dtype::ALL.map(|dtype| (EngineKind::SimdF32, dtype))) {
        let spec = Spec { dtype, ..causal() };
        let seconds = |machine: &Machine| predict_on(&spec, machine, [1, 1000, 1000], Some(engine)).seconds;
        assert!(seconds(&measured(base, 2.0)) < seconds(&measured(base, 1.0)));
        for change in [
            |rates: &mut EngineRates| rates.products *= 1.5,
            |rates: &mut EngineRates| rates.softmax *= 1.5,
            |rates: &mut EngineRates| rates.packing *= 1.5,
        ] {
            let slow = measured(base, 1.0);
            let mut fast = slow;
            for &rates in slow.rates.engines() {
                let mut rates = rates;
                change(&mut rates);
                fast.rates = fast.rates.with(rates);
            }
            assert!(seconds(&fast) <= seconds(&slow));
        }
        let mut fast = measured(base, 1.0);
        let slow = seconds(&fast);
        fast.rates.reads.l3 = 1e6;
        fast.rates.reads.memory = 1e6;
        fast.rates.reads.l2 = 1e6;
        assert!(seconds(&fast) <= slow, "{dtype:?} on {}", engine.name());
    }
}

#[test]
fn threads_share_the_work_and_wait_for_the_busiest() {
    let (spec, machine) = (causal(), built_in("desktop-avx2"));
    let (mut plan, _) = plan(&spec, &machine, Dtype::F32, None).expect("it plans");
    // Each pass packs its own blocks.
    plan.pack_ahead_bytes = 0;
    let variant = spec.variant();
    let problem = Problem::prefill(spec.source, 1, 4096, 4096).expect("small");
    let case =
        Case { plan: &plan, variant: &variant, machine: &machine, problem: &problem, inputs: &Unknown(&[]) };
    let seconds = |threads, imbalance, passes| {
        case.predict(&Sharing { threads, imbalance, passes }).expect("in the catalog").seconds
    };
    let one = seconds(1, 0.0, None);
    assert!((seconds(8, 0.0, None) / one - 1.0 / 8.0).abs() < 1e-2);
    assert_eq!(seconds(8, 0.0, None), seconds(64, 0.0, None), "there are 8 cores");
    assert!(seconds(8, 0.5, None) > 1.4 * seconds(8, 0.0, None));
    assert!(seconds(1, 0.0, Some(10_000)) > one, "blocks that are cut are packed again");
}

#[test]
fn the_choice_follows_the_rates() {
    let spec = causal();
    let base = measured(built_in("server-avx512-amx"), 1.0);
    let wide = EngineRates {
        products: 100.0,
        softmax: 5.0,
        packing: 2.0,
        ..base.rates.of(EngineKind::SimdF32, Isa::Avx512).expect("measured")
    };
    let narrow = EngineRates { isa: Isa::Avx2, ..wide };
    let planned = |wide: EngineRates, narrow: EngineRates| {
        let machine = Machine { rates: base.rates.with(wide).with(narrow), ..base };
        plan(&spec, &machine, Dtype::F32, None).expect("it plans")
    };
    let faster = |rates: EngineRates| EngineRates { products: 2.0 * rates.products, ..rates };
    for (wide, narrow) in [(faster(wide), narrow), (wide, faster(narrow))] {
        let (chosen, report) = planned(wide, narrow);
        let (fast, slow) = if wide.products > narrow.products { (wide, narrow) } else { (narrow, wide) };
        assert_eq!((chosen.isa, report.rates), (fast.isa, Origin::Measured));
        let nearest = report.rejected[0];
        assert_eq!((nearest.engine, nearest.isa), (slow.engine, slow.isa));
        assert!((1.3..2.0).contains(&nearest.times_as_long), "{nearest:?}");
        let text = report.to_string();
        let told =
            format!("not simd-f32 on {}: {:.1} times as long\n", slow.isa.name(), nearest.times_as_long);
        assert!(text.contains("L3 60 MiB, measured rates\n") && text.contains(&told), "{text}");
        assert!(!text.contains("no engine of this build uses avx512"), "{text}");
        // One that is asked for is taken on the best set that it has, whatever it costs.
        let machine = report.machine;
        let (forced, report) =
            plan(&spec, &machine, Dtype::F32, Some(EngineKind::SimdF32)).expect("it plans");
        assert_eq!((forced.isa, report.rejected.len()), (Isa::Avx512, 0));
    }
}

#[test]
fn measured_rates_are_never_held_against_estimates() {
    let spec = causal();
    let mut machine = built_in("server-avx512-amx");
    let slow = EngineRates {
        engine: EngineKind::SimdF32,
        isa: Isa::Avx512,
        products: 1e-3,
        softmax: 1e-3,
        packing: 1e-3,
    };
    machine.rates = machine.rates.with(slow);
    let (plan, report) = plan(&spec, &machine, Dtype::F32, None).expect("it plans");
    assert_eq!((plan.isa, report.rates), (Isa::Avx512, Origin::Estimated));
}

#[test]
fn what_is_emulated_is_never_estimated_to_be_fast() {
    let spec = Spec { dtype: Dtype::Bf16, ..causal() };
    let machine = built_in("desktop-avx2");
    let variant = spec.variant();
    let problem = Problem::prefill(spec.source, 1, 512, 512).expect("small");
    let seconds = |engine| {
        let (plan, _) = plan(&spec, &machine, Dtype::Bf16, Some(engine)).expect("it plans");
        let case = Case {
            plan: &plan,
            variant: &variant,
            machine: &machine,
            problem: &problem,
            inputs: &Unknown(&[]),
        };
        case.predict(&Sharing::ALONE).expect("in the catalog").seconds
    };
    assert!(seconds(EngineKind::AmxBf16) > 4.0 * seconds(EngineKind::SimdF32));
}
