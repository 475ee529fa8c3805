//! The blocks of the guide, as Markdown.

use regard_ir::bounds::{self, Quantity, SCORES};
use regard_ir::plan::{Dtype, Precision};
use regard_spec::reference;

use super::{Block, keys};

/// Every block.
pub(super) fn all() -> Vec<Block> {
    let mut blocks = keys::all();
    for (name, text) in [
        ("variables", names(&reference::variables())),
        ("constants", names(&reference::constants())),
        ("places", places()),
        ("functions", functions()),
        ("prelude", prelude()),
        ("reserved", reserved()),
        ("bounds", bounds()),
    ] {
        blocks.push(Block { name: name.to_owned(), text });
    }
    blocks
}

/// A table: a line of titles, and one for each row.
pub(super) fn table<const N: usize>(
    titles: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&titles.map(str::to_owned)) + &"|---".repeat(N) + "|\n";
    for row in rows {
        // A bar would end its cell.
        text += &line(&row.map(|cell| cell.replace('|', "\\|")));
    }
    text
}

fn names(names: &[reference::Name]) -> String {
    let rows = names.iter().map(|it| [format!("`{}`", it.name), it.meaning.to_owned()]);
    table(["name", "meaning"], rows)
}

fn places() -> String {
    let rows = reference::places().into_iter().map(|it| {
        let variables: Vec<_> = it.variables.iter().map(|name| format!("`{name}`")).collect();
        let variables = if variables.is_empty() { "none".to_owned() } else { variables.join(" ") };
        [format!("`{}`", it.key), variables, if it.inputs { "yes" } else { "no" }.to_owned()]
    });
    table(["expression", "reads of the variables", "reads inputs"], rows)
}

fn functions() -> String {
    let rows = reference::functions()
        .into_iter()
        .map(|it| [format!("`{}({})`", it.name, it.params), it.meaning.to_owned()]);
    table(["function", "gives"], rows)
}

fn prelude() -> String {
    let rows = reference::prelude().into_iter().map(|it| {
        let reference::Definition { head, body, meaning } = it;
        [format!("`{head}`"), format!("`{body}`"), meaning.to_owned()]
    });
    table(["name", "stands for", "lets a query see"], rows)
}

fn reserved() -> String {
    let names: Vec<_> = reference::boundary().iter().map(|name| format!("`{name}`")).collect();
    names.join(", ") + "\n"
}

fn bounds() -> String {
    let exact = Dtype::ALL.map(|dtype| (dtype, Precision::Exact, ""));
    let fast = (Dtype::F32, Precision::Fast, ", `precision = \"fast\"`");
    let rows = exact.into_iter().chain([fast]).map(|(dtype, precision, note)| {
        let bound = |quantity| format!("{:e}", bounds::bound(quantity, dtype, precision, SCORES));
        [format!("`\"{}\"`{note}", dtype.name()), bound(Quantity::Output), bound(Quantity::Lse)]
    });
    table(["storage", "`o`", "`lse`"], rows)
}
