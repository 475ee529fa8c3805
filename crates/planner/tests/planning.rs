//! Plans are legal on every machine, follow their printed inequalities, and refuse what they cannot do by name.

use regard_engine::catalog::{self, Entry};
use regard_ir::expr::{Expr, Op, Type, Var};
use regard_ir::identity::Identity;
use regard_ir::machine::{Isa, Machine};
use regard_ir::plan::{Dtype, EngineKind, Precision};
use regard_ir::rates::{EngineRates, Rates, ReadRates};
use regard_ir::rows::Output;
use regard_ir::spec::{Cache, CacheLayout, Inputs, Lookahead, Mechanism, Spec};
use regard_ir::variant::{Decay, Heads, Recurrence, Sink, Source, Weights};
use regard_planner::profile::{BUILT_IN, FORMAT};
use regard_planner::{PlanError, Profile, plan};
use serde_json::Value;

fn spec(query: u32, kv: u32, dim: u32, value_dim: u32) -> Spec {
    Spec {
        name: "plain".to_owned(),
        summary: String::new(),
        identity: Identity(7),
        heads: Heads { query, kv, value: kv, dim, value_dim },
        source: Source::SelfAttention,
        position: None,
        qk_norm: None,
        scale: 1.0,
        modify: Expr::leaf(Op::Var(Var::S), Type::Float),
        allow: Expr::leaf(Op::Bool(true), Type::Bool),
        weights: Weights::Softmax { sink: Sink::None },
        mechanism: Mechanism::Plain,
        output: Output { mix: None, norm: None, gate: None, lse: false },
        project: None,
        cache: Cache::DEFAULT,
        inputs: Inputs::default(),
        dtype: Dtype::F32,
        precision: Precision::Exact,
    }
}

fn built_in(name: &str) -> Machine {
    Profile::built_in(name).expect("it ships").machine
}

#[test]
fn a_block_of_tokens_is_no_longer_than_a_lookahead_key_is_wide() {
    let learns = |dim| {
        let allow = Expr::leaf(Op::Bool(true), Type::Bool);
        let mechanism = Mechanism::Lookahead(Lookahead { window: None, rotate: 0, allow });
        Spec { mechanism, ..spec(8, 8, dim, dim) }
    };
    for (name, _) in BUILT_IN {
        for dim in [16, 64, 128, 200] {
            let machine = built_in(name);
            let plain = plan(&spec(8, 8, dim, dim), &machine, Dtype::F32, None).expect(name).0;
            let (plan, report) = plan(&learns(dim), &machine, Dtype::F32, None).expect(name);
            let (block, rows) = (plan.prefill.query_block, report.tile[0]);
            assert!(block <= dim.max(rows) && block <= plain.prefill.query_block, "{name}, {dim}: {block}");
            assert!(report.to_string().contains("a task is a whole head"), "{name}\n{report}");
        }
    }
}

#[test]
fn shipped_profiles_are_machines() {
    for (name, text) in BUILT_IN {
        let profile = Profile::parse(name, text).expect(name);
        assert_eq!(profile.name, name);
        assert!(!profile.summary.is_empty(), "{name} has a summary");
        assert_eq!(Profile::built_in(name), Some(profile));
    }
    assert_eq!(Profile::built_in("cortex-a27"), None);
    assert_eq!(built_in("cortex-m7").l2_bytes, 0);
}

#[test]
fn a_bad_profile_says_what_is_wrong() {
    let error = |text: &str| Profile::parse("mine", text).expect_err(text).to_string();
    assert_eq!(
        error("isa = \"avx3\"\ncores = 1\nl1d_kib = 32"),
        "machine profile `mine`: no instruction set `avx3`; there are scalar, neon, wasm-simd, avx2, avx512, avx512-bf16, amx"
    );
    assert_eq!(
        error("isa = \"avx2\"\ncores = 0\nl1d_kib = 32"),
        "machine profile `mine`: cores is 0, it must be at least 1"
    );
    assert_eq!(
        error("isa = \"avx2\"\ncores = 1\nl1d_kib = 4194304"),
        "machine profile `mine`: l1d_kib is 4194304, at most 4194303 fit 32 bits"
    );
    let avx2 = "isa = \"avx2\"\ncores = 1\nl1d_kib = 32\n";
    let rates = |engine: &str, isa: &str, products: &str| {
        format!(
            "[[rates]]\nengine = \"{engine}\"\nisa = \"{isa}\"\nproducts = {products}\nsoftmax = 1.0\npacking = 1\n"
        )
    };
    let error_of = |tables: &str| error(&format!("{avx2}{tables}"));
    assert_eq!(
        error_of(&rates("simd-f64", "avx2", "1.0")),
        "machine profile `mine`: no engine `simd-f64`; there are simd-f32, dot-bf16, amx-bf16"
    );
    assert_eq!(
        error_of(&rates("simd-f32", "avx2", "-1")),
        "machine profile `mine`: the rate products of simd-f32 on avx2 is -1, it must be a number above 0"
    );
    for none in ["0", "nan", "inf", "-inf"] {
        assert!(error_of(&rates("simd-f32", "avx2", none)).contains("it must be a number above 0"));
    }
    assert_eq!(
        error_of(&rates("simd-f32", "avx512", "1")),
        "machine profile `mine`: there are rates on avx512, which a machine with avx2 does not have"
    );
    assert_eq!(
        error_of(&rates("simd-f32", "avx2", "1").repeat(2)),
        "machine profile `mine`: there are two tables of rates of simd-f32 on avx2"
    );
    assert_eq!(
        error_of("[reads]\nl3 = -2.5\n"),
        "machine profile `mine`: the rate l3 of reads is -2.5, it must be a number, 0 where it is not known"
    );
    let missing = error_of("[[rates]]\nengine = \"simd-f32\"\n");
    assert!(missing.contains("missing field `isa`"), "{missing}");
    let unknown = error("isa = \"avx2\"\ncores = 1\nl1d_kib = 32\nl4_kib = 1");
    assert!(unknown.contains("line 4, column 1") && unknown.contains("unknown field `l4_kib`"), "{unknown}");
}

#[test]
fn a_profile_is_what_was_written() {
    let mut profile = Profile::built_in("server-avx512-amx").expect("it ships");
    assert_eq!(Profile::parse(&profile.name, &profile.to_toml()), Ok(profile.clone()));
    for entry in catalog::runnable(profile.machine.isa) {
        let (engine, isa) = (entry.engine, entry.isa);
        let rates = EngineRates { engine, isa, products: 133.0, softmax: 0.1, packing: 1e-3 };
        profile.machine.rates = profile.machine.rates.with(rates);
    }
    profile.machine.rates.reads = ReadRates { l2: 268.0, l3: 0.0, memory: 37.3 };
    profile.processor = "A \"CPU\" \\ 5".to_owned();
    profile.format = FORMAT;
    assert_eq!(
        Profile::parse(&profile.name, &profile.to_toml()),
        Ok(profile.clone()),
        "{}",
        profile.to_toml()
    );
}

#[test]
fn every_plan_is_legal() {
    let mut machines: Vec<Machine> = BUILT_IN.iter().map(|(name, _)| built_in(name)).collect();
    for isa in Isa::ALL {
        machines.push(Machine { isa, cores: 1, l1d_bytes: 1, l2_bytes: 0, l3_bytes: 0, rates: Rates::NONE });
        let most = u32::MAX;
        machines.push(Machine {
            isa,
            cores: most,
            l1d_bytes: most,
            l2_bytes: most,
            l3_bytes: most,
            rates: Rates::NONE,
        });
    }
    for machine in &machines {
        for (query, kv) in [(1, 1), (3, 1), (5, 1), (7, 1), (32, 8), (71, 1), (128, 1), (512, 1)] {
            for (dim, value_dim) in [(1, 1), (64, 64), (96, 128), (100, 7), (256, 256), (1024, 1024)] {
                let (plan, report) =
                    plan(&spec(query, kv, dim, value_dim), machine, Dtype::F32, None).expect("softmax runs");
                let blocks = plan.prefill;
                let tile = report.tile;
                assert!(blocks.query_block >= 1 && blocks.key_block.is_power_of_two(), "{report}");
                assert!(blocks.key_block % tile[1] == 0 && blocks.mask_step % tile[1] == 0, "{report}");
                assert!(blocks.key_cell % blocks.key_block == 0, "{report}");
                assert!(blocks.key_block % blocks.mask_step == 0 && blocks.mask_step <= 32, "{report}");
                assert!(machine.isa.includes(plan.isa), "{report}");
            }
        }
    }
}

/// Evaluates an inequality of a report's JSON: its left side, and whether it holds.
fn evaluate(inequality: &Value) -> (u128, bool) {
    let number = |value: &Value| value.as_u64().expect("a whole number") as u128;
    let product = |term: &Value| -> u128 {
        term["factors"].as_array().expect("factors").iter().map(|factor| number(&factor["value"])).product()
    };
    let left = inequality["terms"].as_array().expect("terms").iter().map(product).sum();
    let limit = &inequality["limit"];
    let holds = left * number(&limit["denominator"]) <= number(&limit["value"]) * number(&limit["numerator"]);
    (left, holds)
}

#[test]
fn blocks_follow_the_printed_inequalities() {
    for name in ["server-avx512-amx", "desktop-avx2", "cortex-a72"] {
        let mut found = Vec::new();
        for l2_kib in [192, 256, 512, 1024, 2048, 4096] {
            let machine = Machine { l2_bytes: l2_kib * 1024, ..built_in(name) };
            let (plan, report) = plan(&spec(32, 8, 128, 128), &machine, Dtype::F32, None).expect("it plans");
            let json = serde_json::to_value(&report).expect("plain data");
            let text = report.to_string();
            for choice in json["choices"].as_array().expect("choices") {
                let bounds = choice["bounds"].as_array().expect("bounds");
                let rejected = choice["rejected"].as_array().expect("rejected");
                for bound in bounds {
                    let (_, holds) = evaluate(bound);
                    let is_memory = bound["unit"] == "bytes";
                    assert!(holds || !is_memory, "{name} with {l2_kib} KiB: {choice:#}\n{text}");
                    let uses = ["L1d", "L2"].map(|cache| bound["limit"]["what"] == cache);
                    assert!(!is_memory || uses.contains(&true));
                }
                for candidate in rejected {
                    for bound in candidate["violates"].as_array().expect("violated") {
                        assert!(!evaluate(bound).1, "{candidate:#} was rejected without a reason");
                    }
                }
            }
            // The pass: queries, two outputs, packed keys and values, within 3/4 of L2.
            let rows = plan.prefill.query_block as u64 * 4;
            let bytes = rows * 128 * 4 + 2 * rows * 128 * 4 + plan.prefill.key_block as u64 * 256 * 4;
            assert!(bytes * 4 <= machine.l2_bytes as u64 * 3, "{text}");
            let pass = &json["choices"][1]["bounds"][0];
            assert_eq!(evaluate(pass).0, bytes as u128);
            // What is printed is what is evaluated.
            let keys = plan.prefill.key_block;
            let sum = format!(
                "Q {rows} rows × 128 × 4 B + O 2 × {rows} rows × 128 × 4 B + K and V {keys} keys × 256 × 4 B = "
            );
            assert!(text.contains(&sum), "{sum} is not in\n{text}");
            found.push(plan.prefill.query_block);
        }
        assert!(found.is_sorted(), "{name}: a larger L2 never makes the block smaller: {found:?}");
        assert!(found.first() < found.last(), "{name}: L2 decides the block: {found:?}");
    }
}

#[test]
fn a_forced_engine_runs_or_is_refused() {
    let spec = spec(32, 8, 128, 128);
    for isa in Isa::ALL {
        let machine = Machine { isa, ..built_in("desktop-avx2") };
        for dtype in Dtype::ALL {
            let (plan, _) =
                plan(&spec, &machine, dtype, Some(EngineKind::SimdF32)).expect("lanes run everywhere");
            assert_eq!((plan.engine, plan.dtype, plan.identity), (EngineKind::SimdF32, dtype, spec.identity));
            let lanes = |entry: &&Entry| entry.engine == EngineKind::SimdF32;
            let best = catalog::runnable(isa).find(lanes).expect("scalar at least").isa;
            assert_eq!(plan.isa, best);
        }
    }
}

#[test]
fn tiles_take_what_they_can_compute_within_the_bound() {
    let machine = built_in("server-avx512-amx");
    let engine = |spec: &Spec, dtype| plan(spec, &machine, dtype, None).expect("it plans").0;
    let exact = spec(8, 2, 128, 128);
    let fast = |dim| Spec { precision: Precision::Fast, ..spec(8, 2, dim, dim) };
    assert_eq!(engine(&exact, Dtype::F32).engine, EngineKind::SimdF32);
    for (spec, dtype, products) in [
        (&exact, Dtype::Bf16, [1, 1]),
        (&exact, Dtype::F16, [3, 3]),
        (&fast(128), Dtype::F32, [3, 4]),
        (&fast(16), Dtype::F32, [6, 5]),
        (&fast(16), Dtype::Bf16, [1, 1]),
    ] {
        let plan = engine(spec, dtype);
        assert_eq!((plan.engine, plan.isa), (EngineKind::AmxBf16, Isa::Amx));
        assert_eq!(plan.pieces.products(), products, "{}", dtype.name());
    }
    let forced = |spec: &Spec| plan(spec, &machine, Dtype::F32, Some(EngineKind::AmxBf16));
    let refused = forced(&exact).expect_err("exact products are not made of pieces").to_string();
    assert!(
        refused.contains("does not run f32 on amx unless the spec says `precision = \"fast\"`"),
        "{refused}"
    );
    let report = forced(&fast(128)).expect("it plans").1.to_string();
    assert!(report.contains("3 and 4 products for one: an error of 2.0e-5, bound 2e-5"), "{report}");
    // A unit that the machine lacks is never taken unasked.
    let desktop = built_in("desktop-avx2");
    assert_eq!(plan(&exact, &desktop, Dtype::Bf16, None).expect("it plans").0.engine, EngineKind::SimdF32);
    let asked = plan(&exact, &desktop, Dtype::Bf16, Some(EngineKind::AmxBf16)).expect("it is emulated").1;
    assert!(asked.to_string().contains("emulated on this instruction set"), "{asked}");
}

#[test]
fn what_cannot_be_planned_is_an_error() {
    let machine = built_in("desktop-avx2");
    let nothing = Machine { l1d_bytes: 0, ..machine };
    let error = plan(&spec(8, 8, 64, 64), &nothing, Dtype::F32, None).expect_err("no cache");
    assert_eq!(error, PlanError::Machine { cores: 8, l1d_bytes: 0 });
}

#[test]
fn fallbacks_are_named() {
    let text = |spec: &Spec, machine: &str, dtype| {
        plan(spec, &built_in(machine), dtype, None).expect("it plans").1.to_string()
    };
    let mut fast = spec(8, 8, 64, 64);
    fast.precision = Precision::Fast;
    let report = text(&spec(8, 8, 64, 64), "server-avx512-amx", Dtype::F32);
    assert!(report.contains("no engine of this build uses amx for f32: simd-f32 runs on avx512"), "{report}");
    let report = text(&fast, "desktop-avx2", Dtype::F32);
    assert!(report.contains("precision fast changes nothing on avx2"), "{report}");
    let report = text(&fast, "desktop-avx2", Dtype::Bf16);
    assert!(report.contains("bf16 is converted to f32 while it is packed"), "{report}");
    assert!(!report.contains("no engine of this build uses"), "{report}");
}

#[test]
fn sequences_stack_where_they_can_share_pages() {
    for (name, _) in BUILT_IN {
        let machine = built_in(name);
        for dim in [16, 128, 512] {
            let whole = spec(8, 2, dim, dim);
            let stacked = |layout| {
                let spec = Spec { cache: Cache { layout, ..whole.cache }, ..whole.clone() };
                plan(&spec, &machine, Dtype::F32, None).expect("an engine for f32 is everywhere")
            };
            let (plan, report) = stacked(CacheLayout::Paged);
            let choice =
                report.choices.iter().find(|choice| choice.name == "decode_stack").expect("it is told");
            assert_eq!(choice.value, u64::from(plan.decode.stack_rows), "{name}");
            assert!((8..=64).contains(&choice.value), "{name}: {choice:?}");
            assert!(
                choice.value == 8 || choice.bounds.iter().all(|bound| bound.holds()),
                "{name}: {choice:?}"
            );
            assert!(
                choice.rejected.iter().all(|it| it.violates.iter().all(|bound| !bound.holds())),
                "{name}"
            );
            let (plan, report) = stacked(CacheLayout::Contiguous);
            assert_eq!(plan.decode.stack_rows, 0, "{name}");
            assert!(report.choices.iter().all(|choice| choice.name != "decode_stack"), "{name}");
        }
    }
}

#[test]
fn chunks_are_longer_where_states_are_wider() {
    let machine = built_in("server-avx512-bf16");
    let chunk = |dim, decay, delta| {
        let mut spec = spec(8, 8, dim, dim);
        spec.modify = Expr::leaf(Op::Var(Var::X), Type::Float);
        let (normalize_eps, restart) = (None, None);
        spec.mechanism =
            Mechanism::Recurrence(Recurrence { normalize_eps, decay, delta, causal: true, restart });
        let (plan, report) = plan(&spec, &machine, Dtype::Bf16, None).expect("it plans");
        assert_eq!(plan.engine, EngineKind::SimdF32, "products with a state are those of f32 vectors");
        assert!(report.to_string().contains("chunk "), "{report}");
        plan.recurrence.expect("a recurrence has chunks").chunk
    };
    assert_eq!([16, 64, 256].map(|dim| chunk(dim, Decay::None, None)), [16, 32, 64]);
    assert_eq!(chunk(64, Decay::Channel(0), Some(1)), 16);
    assert_eq!(plan(&spec(8, 8, 64, 64), &machine, Dtype::F32, None).expect("it plans").0.recurrence, None);
    let mut asked = spec(8, 8, 64, 64);
    asked.mechanism = Mechanism::Recurrence(Recurrence {
        normalize_eps: None,
        decay: Decay::None,
        delta: None,
        causal: true,
        restart: None,
    });
    let error = plan(&asked, &machine, Dtype::Bf16, Some(EngineKind::DotBf16)).expect_err("no such products");
    assert!(matches!(error, PlanError::NoEngine { engine: Some(EngineKind::DotBf16), .. }), "{error}");
}
