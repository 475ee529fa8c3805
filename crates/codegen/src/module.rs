//! The files of a crate of kernels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use regard_ir::expr::Var;
use regard_ir::identity::Identity;
use regard_ir::lanes::{Lowered, ValueId};
use regard_ir::spec::Spec;
use regard_ir::variant::{Mechanism, Variant};

use crate::graph::{Body, Graph};
use crate::layout::list;
use crate::lines::{Lines, Written};
use crate::names::{InputNames, Scope, module_path};
use crate::{CompileError, File, data, header};

/// Names that a function has before its body begins.
const PARAMETERS: [&str; 4] = ["at", "row", "s", "live"];

/// The module of one spec.
pub(crate) fn module(spec: &Spec, origin: &str) -> Result<String, CompileError> {
    // Who teaches lookahead keys is a mask that modules have no place for.
    let variant = spec.variant().filter(|variant| !matches!(variant.mechanism, Mechanism::Lookahead(_)));
    let Some(variant) = variant else {
        return Err(CompileError::Mechanism { name: spec.name.clone() });
    };
    let inputs = InputNames::new(&spec.inputs.names, &spec.inputs.shapes);
    let mut text = header::doc(spec, origin);
    text.push_str("\nuse regard_runtime::straight::prelude::*;\n\n");
    let Identity(identity) = spec.identity;
    let _ = writeln!(
        text,
        "/// What the spec is recognised by.\npub const IDENTITY: Identity = Identity(0x{identity:032x});\n\n\
         /// The spec as kernels read it.\npub const VARIANT: Variant<'static> = {};\n",
        data::constant(&variant)
    );
    // What learned tables imply is read by index, and a declared input may be unread.
    let is_read =
        |&(input, _): &(u16, _)| variant.allow.reads_input(input) || variant.modify.reads_input(input);
    for (input, (constant, name)) in
        (0..).zip(inputs.constants.iter().zip(&spec.inputs.names)).filter(is_read)
    {
        let _ = writeln!(text, "/// The input `{name}`.\nconst {constant}: u16 = {input};\n");
    }
    text.push_str(&expressions(&variant, &inputs));
    Ok(text)
}

/// The type that stands for mask and modifier, and its code.
fn expressions(variant: &Variant<'_>, inputs: &InputNames) -> String {
    let mut graph = Graph::default();
    let allow = graph.add(&Lowered::mask(variant.allow, variant.inputs));
    let is_modified = !variant.modify.is_var(Var::S);
    let modify = is_modified.then(|| graph.add(&Lowered::modifier(variant.modify, variant.inputs)));
    let bodies: Vec<&Body> = [Some(&allow), modify.as_ref()].into_iter().flatten().collect();
    let row = Row::new(&graph, inputs, graph.row_values(&bodies));

    let kind = if is_modified { "mask and score modifier" } else { "mask" };
    let mut text = row.declaration(&graph);
    let _ = write!(
        text,
        "/// The spec's {kind}.\n#[derive(Clone, Copy, Debug)]\npub struct Expressions;\n\n\
         impl StraightLine for Expressions {{\n"
    );
    if is_modified {
        text.push_str("    const MODIFIES: bool = true;\n");
    }
    let _ = writeln!(text, "    type Row<L: Door> = {};", row.type_name(&graph));
    let writer = |given| Lines::new(&graph, inputs, row.scope(), given);
    let nothing = BTreeMap::new();
    let written = writer(&nothing).fields(&row.fields, |fields| {
        let names: Vec<_> = fields.values().cloned().collect();
        if names.is_empty() {
            String::new()
        } else {
            list(8, "Row {", " ", &names, "}").trim_start().to_owned()
        }
    });
    function(&mut text, "row<L: Door>", &[("at", "&At<'_, L>")], "Self::Row<L>", &written);

    let given = row.given();
    let parameters = [("at", "&At<'_, L>"), (row.parameter(), "Self::Row<L>")];
    let written = writer(&given).body(&allow);
    function(&mut text, "allow<L: Door>", &parameters, "Mask<L>", &written);
    if let Some(modify) = &modify {
        let written = writer(&given).body(modify);
        let parameters = [parameters[0], parameters[1], ("s", "F32<L>"), ("live", "Mask<L>")];
        function(&mut text, "modify<L: Door>", &parameters, "F32<L>", &written);
    }
    text.push_str("}\n");
    text
}

/// What is computed once a tile.
struct Row {
    /// The name of each value.
    fields: BTreeMap<ValueId, String>,
}

impl Row {
    fn new(graph: &Graph, inputs: &InputNames, values: BTreeSet<ValueId>) -> Self {
        let mut scope = Scope::new(PARAMETERS);
        let is_only = values.len() == 1;
        let name = |id| match graph.wanted_name(id, &inputs.variables) {
            None if is_only => (id, "row".to_owned()),
            wanted => (id, scope.name(wanted)),
        };
        Self { fields: values.into_iter().map(name).collect() }
    }

    /// The one field, where there is one.
    fn only(&self) -> Option<(ValueId, &str)> {
        let (&id, name) = self.fields.first_key_value()?;
        (self.fields.len() == 1).then_some((id, name))
    }

    /// The names that are taken where the fields are at hand or about to be.
    fn scope(&self) -> Scope {
        Scope::new(PARAMETERS.into_iter().chain(self.fields.values().map(String::as_str)))
    }

    /// What the parameter is called.
    fn parameter(&self) -> &str {
        self.only().map_or("row", |(_, name)| name)
    }

    /// How each field is written by a function that has the parameter.
    fn given(&self) -> BTreeMap<ValueId, String> {
        let write = |(&id, name): (&ValueId, &String)| match self.only() {
            Some(_) => (id, name.clone()),
            None => (id, format!("row.{name}")),
        };
        self.fields.iter().map(write).collect()
    }

    fn type_name(&self, graph: &Graph) -> &'static str {
        match self.only() {
            Some((id, _)) => graph.lane_type(id),
            None if self.fields.is_empty() => "()",
            None => "Row<L>",
        }
    }

    /// The struct that holds several fields.
    fn declaration(&self, graph: &Graph) -> String {
        if self.fields.len() < 2 {
            return String::new();
        }
        let field = |(&id, name): (&ValueId, &String)| format!("    {name}: {},\n", graph.lane_type(id));
        let fields: String = self.fields.iter().map(field).collect();
        format!(
            "/// What does not depend on the key.\n#[derive(Clone, Copy)]\npub struct Row<L: Door> {{\n{fields}}}\n\n"
        )
    }
}

/// Adds a method; parameters that its body does not read have no name.
fn function(text: &mut String, name: &str, parameters: &[(&str, &str)], gives: &str, body: &Written) {
    let parameter = |&(name, ty): &(&str, &str)| {
        let name = if body.reads(name) { name } else { "_" };
        format!("{name}: {ty}")
    };
    let parameters: Vec<_> = parameters.iter().map(parameter).collect();
    let head = format!("    fn {name}({}) -> {gives} {{", parameters.join(", "));
    let _ = writeln!(text, "\n    #[inline(always)]");
    if body.statements.is_empty() && body.result.is_empty() {
        let _ = writeln!(text, "{head}}}");
        return;
    }
    let _ = writeln!(text, "{head}");
    for line in body.statements.iter().chain([&body.result]) {
        let _ = writeln!(text, "        {line}");
    }
    let _ = writeln!(text, "    }}");
}

/// The crate's root.
pub(crate) fn root(specs: &[(&str, Spec)]) -> File {
    let mut specs: Vec<_> = specs.iter().map(|(name, spec)| (module_path(name), *name, spec)).collect();
    specs.sort_by(|a, b| a.0.cmp(&b.0));
    let mut text = "//! Kernels of the shipped specs, one module each. Generated by `cargo xtask codegen`.\n\
                    #![no_std]\n#![forbid(unsafe_code)]\n\
                    // Literals and terms are those of the specs.\n\
                    #![allow(clippy::approx_constant, clippy::eq_op)]\n\n"
        .to_owned();
    let paths: Vec<_> = specs.iter().map(|(path, ..)| path.as_slice()).collect();
    declare(&mut text, 0, &paths, "specs");
    text.push_str("\nuse regard_runtime::straight::prelude::*;\n\n/// Every module: the name of its spec, and its variant.\n");
    let entries: Vec<_> =
        specs.iter().map(|(path, name, _)| format!("(\"{name}\", {}::VARIANT)", path.join("::"))).collect();
    text.push_str(&list(0, "pub const ALL: &[(&str, Variant<'static>)] = &[", "", &entries, "];"));
    text.push_str(
        "\n\n/// The mask and modifier of a shipped variant, as code for an instruction set.\n\
         pub fn find<L: Door>(identity: Identity) -> Option<&'static dyn Code<L>> {\n    \
         let code: &'static dyn Code<L> = match identity {\n",
    );
    let mut found = BTreeSet::new();
    for (path, _, spec) in &specs {
        // Two names of one variant have one kernel.
        if found.insert(spec.identity) {
            let path = path.join("::");
            let _ = writeln!(text, "        {path}::IDENTITY => &Straight({path}::Expressions),");
        }
    }
    text.push_str("        _ => return None,\n    };\n    Some(code)\n}\n");
    File { path: "lib.rs".to_owned(), text }
}

/// Declares the modules of a folder; `paths` are sorted and have all that the folder holds.
fn declare(text: &mut String, indent: usize, paths: &[&[String]], folder: &str) {
    let margin = " ".repeat(indent);
    for group in paths.chunk_by(|a, b| a.len() > 1 && b.len() > 1 && a[0] == b[0]) {
        let Some((name, rest)) = group[0].split_first() else { continue };
        if rest.is_empty() {
            let _ = writeln!(text, "{margin}pub mod {name};");
            continue;
        }
        let folder = format!("{folder}/{name}");
        let _ = writeln!(text, "\n{margin}/// Specs of `{folder}`.\n{margin}pub mod {name} {{");
        let inside: Vec<_> = group.iter().map(|path| &path[1..]).collect();
        declare(text, indent + 4, &inside, &folder);
        let _ = writeln!(text, "{margin}}}");
    }
}
