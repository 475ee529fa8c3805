//! Plans of the shipped specs on the shipped machines, as a person reviews them.
//!
//! A table for each machine has a line for each spec; some plans are shown in full, chosen so that every reason,
//! bound and note occurs. When a snapshot moves, the commit says why.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use regard_ir::interval::Unknown;
use regard_ir::plan::Dtype;
use regard_ir::problem::Problem;
use regard_ir::spec::Spec;
use regard_planner::profile::BUILT_IN;
use regard_planner::{PlanReport, Profile, plan};
use regard_runtime::schedule::{OwnedSchedule, Share, Work};

fn specs_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs")
}

fn spec(name: &str) -> Spec {
    match regard_spec::from_file(specs_folder().join(name).with_extension("toml")) {
        Ok(parsed) => parsed.spec,
        Err(diagnostics) => panic!("{name}: {diagnostics:?}"),
    }
}

/// The specs of the folder itself, by name.
fn all_specs() -> Vec<Spec> {
    let folder = std::fs::read_dir(specs_folder()).expect("the specs are there");
    let mut names: Vec<String> = folder
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.iter().map(|name| spec(name)).collect()
}

fn profile(name: &str) -> Profile {
    Profile::built_in(name).expect("it ships")
}

fn report(spec: &Spec, machine: &str, dtype: Dtype) -> PlanReport {
    plan(spec, &profile(machine).machine, dtype, None).expect("the softmax family runs everywhere").1
}

/// One line for each spec, in its own storage type.
fn table(machine: &str) -> String {
    let Profile { name, summary, .. } = profile(machine);
    let mut text = format!("{name}: {summary}\n");
    let mut line = |cells: [&str; 9]| {
        let [spec, heads, widths, engine, query_block, rows, key_block, mask_step, fits] = cells;
        let row = format!(
            "{spec:<16} {heads:>7} {widths:>9}  {engine:<16} {query_block:>11} {rows:>5} {key_block:>9} \
             {mask_step:>9}  {fits}"
        );
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line(["spec", "heads", "widths", "engine", "query_block", "rows", "key_block", "mask_step", ""]);
    for spec in all_specs() {
        let report = report(&spec, machine, spec.dtype);
        let (heads, blocks) = (report.heads, report.plan.prefill);
        let not_met = report.choices.iter().filter(|choice| choice.bounds.iter().any(|bound| !bound.holds()));
        let not_met: Vec<&str> = not_met.map(|choice| choice.name).collect();
        line([
            &spec.name,
            &format!("{}/{}", heads.query, heads.kv),
            &format!("{}, {}", heads.dim, heads.value_dim),
            &format!("{} {}", report.plan.engine.name(), report.plan.isa.name()),
            &blocks.query_block.to_string(),
            &(blocks.query_block * heads.group()).to_string(),
            &blocks.key_block.to_string(),
            &blocks.mask_step.to_string(),
            &if not_met.is_empty() { String::new() } else { format!("past a bound: {}", not_met.join(", ")) },
        ]);
    }
    text
}

#[test]
fn a_line_for_each_spec_on_each_machine() {
    for (machine, _) in BUILT_IN {
        insta::assert_snapshot!(format!("table_{machine}"), table(machine));
    }
}

#[test]
fn plans_in_full() {
    let chosen = [
        ("gqa", "server-avx512-amx", Dtype::F32),
        ("gqa", "server-avx512-amx", Dtype::Bf16),
        ("gqa", "server-avx512-bf16", Dtype::Bf16),
        ("gqa", "desktop-avx2", Dtype::F32),
        ("gqa", "cortex-a72", Dtype::F16),
        ("gqa", "cortex-m7", Dtype::F32),
        ("mqa", "desktop-avx2", Dtype::F32),
        ("mha", "server-avx512-amx", Dtype::F32),
        ("minilm", "desktop-avx2", Dtype::F32),
        ("cross", "cortex-a72", Dtype::F32),
        ("softcap_bias", "server-avx512-amx", Dtype::F16),
        ("mla", "server-avx512-bf16", Dtype::Bf16),
        ("iha_window", "desktop-avx2", Dtype::F32),
        ("castle", "server-avx512-amx", Dtype::Bf16),
        ("linear_attention", "server-avx512-amx", Dtype::F32),
        ("gated_deltanet", "server-avx512-bf16", Dtype::Bf16),
        ("kda", "cortex-m7", Dtype::F32),
    ];
    for (name, machine, dtype) in chosen {
        let text = report(&spec(name), machine, dtype).to_string();
        insta::assert_snapshot!(format!("{name}_{}_{machine}", dtype.name()), text);
    }
}

#[test]
fn planning_is_a_function_of_its_arguments() {
    for spec in all_specs() {
        for (machine, _) in BUILT_IN {
            assert_eq!(report(&spec, machine, Dtype::F32), report(&spec, machine, Dtype::F32));
        }
    }
}

/// How the masks cut up 4,096 positions where nothing is known of captured inputs.
#[test]
fn schedules_of_all_specs() {
    let machine = profile("desktop-avx2").machine;
    let mut text = String::from("desktop-avx2, 4,096 queries and keys, 8 threads, inputs unknown\n");
    writeln!(
        text,
        "{:<16} {:>5} {:>7} {:>7} {:>7} {:>7} {:>9}",
        "spec", "tasks", "live", "full", "partial", "dead", "imbalance"
    )
    .expect("a string");
    for spec in all_specs() {
        let (plan, _) = plan(&spec, &machine, Dtype::F32, None).expect("the softmax family runs everywhere");
        let variant = spec.variant();
        let problem = Problem::prefill(spec.source, 1, 4096, 4096).expect("small");
        let inputs = Unknown(&spec.inputs.shapes);
        let work = Work {
            plan: &plan,
            variant: &variant,
            problem: &problem,
            inputs: &inputs,
            threads: 8,
            of: Share::All,
        };
        let schedule = OwnedSchedule::new(&work).expect("few heads");
        let overview = schedule.view().overview(&work);
        let tiles = overview.tiles;
        writeln!(
            text,
            "{:<16} {:>5} {:>5.1} % {:>7} {:>7} {:>7} {:>7.1} %",
            spec.name,
            overview.tasks,
            100.0 * overview.live_share,
            tiles.full,
            tiles.partial,
            tiles.dead,
            100.0 * overview.imbalance
        )
        .expect("a string");
    }
    insta::assert_snapshot!("schedules", text);
}

#[test]
fn reports_and_schedules_are_json_too() {
    let (spec, machine) = (spec("gqa"), profile("desktop-avx2").machine);
    let (plan, report) = plan(&spec, &machine, Dtype::F32, None).expect("it plans");
    let json = serde_json::to_value(&report).expect("plain data");
    assert_eq!(json["plan"]["prefill"]["key_block"], plan.prefill.key_block);
    assert_eq!(json["plan"]["identity"], spec.identity.to_string());
    assert_eq!(json["choices"][0]["name"], "key_block");
    assert_eq!(json["choices"][0]["rejected"][0]["value"], 2 * plan.prefill.key_block);

    let variant = spec.variant();
    let problem = Problem::prefill(spec.source, 1, 4096, 4096).expect("small");
    let work = Work {
        plan: &plan,
        variant: &variant,
        problem: &problem,
        inputs: &Unknown(&[]),
        threads: 8,
        of: Share::All,
    };
    let overview = OwnedSchedule::new(&work).expect("few heads").view().overview(&work);
    let json = serde_json::to_value(overview).expect("plain data");
    assert_eq!(json["tasks"], overview.tasks);
    assert_eq!(json["tiles"]["partial"], overview.tiles.partial);
}
