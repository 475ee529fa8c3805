//! The files of a crate of kernels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use regard_ir::expr::Tree;
use regard_ir::identity::Identity;
use regard_ir::lanes::{Lowered, ValueId};
use regard_ir::spec::{self, Spec};
use regard_ir::variant::{InputShape, Mechanism};

use crate::graph::{Body, Graph};
use crate::layout::{WIDTH, list};
use crate::lines::{Lines, Written};
use crate::names::{InputNames, Scope, module_path};
use crate::{File, data, header};

/// Names that a function has before its body begins.
const PARAMETERS: [&str; 4] = ["at", "row", "s", "live"];

/// The module of one spec.
pub(crate) fn module(spec: &Spec, origin: &str) -> String {
    let variant = spec.variant();
    let inputs = InputNames::new(&spec.inputs.names, &spec.inputs.shapes);
    let mut text = header::doc(spec, origin);
    text.push_str("\nuse regard_runtime::straight::prelude::*;\n\n");
    let Identity(identity) = spec.identity;
    let _ = writeln!(
        text,
        "/// What the spec is recognised by.\npub const IDENTITY: Identity = Identity(0x{identity:032x});\n"
    );
    let teaches = variant.teaches();
    if let Some(allow) = teaches {
        let _ = writeln!(
            text,
            "/// Which later token teaches which key.\n{}\n",
            data::tree_constant("TEACHES", allow)
        );
    }
    let _ = writeln!(
        text,
        "/// The spec as kernels read it.\npub const VARIANT: Variant<'static> = {};\n",
        data::constant(&variant)
    );
    // What learned tables imply is read by index, and a declared input may be unread.
    let trees = [Some(variant.allow), Some(variant.modify), teaches];
    let is_read = |&(input, _): &(u16, _)| trees.iter().flatten().any(|tree| tree.reads_input(input));
    for (input, (constant, name)) in
        (0..).zip(inputs.constants.iter().zip(&spec.inputs.names)).filter(is_read)
    {
        let _ = writeln!(text, "/// The input `{name}`.\nconst {constant}: u16 = {input};\n");
    }
    let modify = (!variant.modify.is_var(variant.element())).then_some(variant.modify);
    let kind = match (modify, variant.mechanism) {
        (Some(_), Mechanism::Recurrence(_)) => "The spec's mask and feature map",
        (Some(_), _) => "The spec's mask and score modifier",
        (None, _) => "The spec's mask",
    };
    let of = Expressions { name: "Expressions", row: "Row", kind, shapes: variant.inputs };
    text.push_str(&of.write(variant.allow, modify, &inputs));
    if let Some(allow) = teaches {
        let kind = "Which later token teaches which key, as a mask";
        let of = Expressions { name: "Teaches", row: "TeachesRow", kind, shapes: variant.inputs };
        text.push('\n');
        text.push_str(&of.write(allow, None, &inputs));
    }
    text
}

/// A type that stands for a mask and maybe a modifier, with their code.
struct Expressions<'a> {
    name: &'static str,
    /// What its struct of several values is called.
    row: &'static str,
    /// What it is.
    kind: &'static str,
    shapes: &'a [InputShape],
}

impl Expressions<'_> {
    fn write(&self, allow: Tree<'_>, modify: Option<Tree<'_>>, inputs: &InputNames) -> String {
        let Self { name, row, kind, shapes } = *self;
        let mut graph = Graph::default();
        let allow = graph.add(&Lowered::mask(allow, shapes));
        let modify = modify.map(|modify| graph.add(&Lowered::modifier(modify, shapes)));
        let bodies: Vec<&Body> = [Some(&allow), modify.as_ref()].into_iter().flatten().collect();
        let row = Row::new(row, &graph, inputs, graph.row_values(&bodies));

        let mut text = row.declaration(&graph);
        let _ = write!(
            text,
            "/// {kind}.\n#[derive(Clone, Copy, Debug)]\npub struct {name};\n\nimpl StraightLine for {name} {{\n"
        );
        if modify.is_some() {
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
                list(8, &format!("{} {{", row.name), " ", &names, "}").trim_start().to_owned()
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
}

/// What is computed once a tile.
struct Row {
    /// What the struct of several is called.
    name: &'static str,
    /// The name of each value.
    fields: BTreeMap<ValueId, String>,
}

impl Row {
    fn new(type_name: &'static str, graph: &Graph, inputs: &InputNames, values: BTreeSet<ValueId>) -> Self {
        let mut scope = Scope::new(PARAMETERS);
        let is_only = values.len() == 1;
        let name = |id| match graph.wanted_name(id, &inputs.variables) {
            None if is_only => (id, "row".to_owned()),
            wanted => (id, scope.name(wanted)),
        };
        Self { name: type_name, fields: values.into_iter().map(name).collect() }
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

    fn type_name(&self, graph: &Graph) -> String {
        match self.only() {
            Some((id, _)) => graph.lane_type(id).to_owned(),
            None if self.fields.is_empty() => "()".to_owned(),
            None => format!("{}<L>", self.name),
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
            "/// What does not depend on the key.\n#[derive(Clone, Copy)]\npub struct {}<L: Door> {{\n{fields}}}\n\n",
            self.name
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
            let code = match spec.mechanism {
                spec::Mechanism::Lookahead(_) => {
                    format!("StraightLookahead(Straight({path}::Expressions), Straight({path}::Teaches))")
                }
                _ => format!("Straight({path}::Expressions)"),
            };
            let arm = format!("        {path}::IDENTITY => &{code},");
            let _ = match arm.len() <= WIDTH {
                true => writeln!(text, "{arm}"),
                false => writeln!(text, "        {path}::IDENTITY => {{\n            &{code}\n        }}"),
            };
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
