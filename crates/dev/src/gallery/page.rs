//! The text of the gallery's page.

use std::fmt::Write;

use regard_ir::text::grouped;
use toml::{Table, Value};

use super::{Exhibit, MACHINE, POSITIONS, REACHES};
use crate::error::Error;

/// The page that shows all pictures.
///
/// # Errors
/// If a spec is no TOML, or the command said less than it promises.
pub(super) fn page(exhibits: &[Exhibit]) -> Result<String, Error> {
    let mut page = format!(
        "# Gallery\n\n\
         The masks of the shipped specs, and what the planner makes of them on the machine profile `{MACHINE}`: a full\n\
         tile needs no mask code, a partial one is tested, a dead one is never visited. A picture shows as many queries as\n\
         keys: {REACHES} times the largest number in its mask, but {} at least and {} at most. Where a mask reads tensors, their\n\
         contents are an example.\n\n\
         `cargo xtask gallery` makes this page from the folder `specs`. A picture of a spec of your own:\n\n\
         ```\nregard show mine.toml --q 2048 --k 2048 -o mine.svg\n```\n\n",
        grouped(POSITIONS.0),
        grouped(POSITIONS.1),
    );
    for exhibit in exhibits {
        let link = exhibit.name.replace('/', "");
        // Writing to a string does not fail.
        let _ = writeln!(page, "[{}](#{link})", exhibit.name);
    }
    for exhibit in exhibits {
        page.push_str(&section(exhibit)?);
    }
    Ok(page)
}

fn section(exhibit: &Exhibit) -> Result<String, Error> {
    let Exhibit { name, toml, positions, numbers, .. } = exhibit;
    let spec: Table = toml
        .parse()
        .map_err(|error: toml::de::Error| Error::Spec { name: name.clone(), error: error.to_string() })?;
    let number = |path: &str| {
        let value = numbers.pointer(path).and_then(serde_json::Value::as_f64);
        value.ok_or_else(|| Error::Json { command: format!("regard show {name} --json"), missing: "tiles" })
    };
    let whole = |path: &str| Ok::<_, Error>(grouped(number(path)? as u64));
    let [full, partial, dead] = [whole("/tiles/full")?, whole("/tiles/partial")?, whole("/tiles/dead")?];
    let [queries, keys] = [whole("/query_block")?, whole("/key_block")?];
    let live = 100.0 * number("/live_share")?;
    let summary = numbers["summary"].as_str().unwrap_or_default();
    Ok(format!(
        "\n## {name}\n\n{summary}\n\n```toml\n{}\n```\n\n\
         {n} queries × {n} keys: about {live:.1} % of the pairs are live. Of the tiles of {queries} queries by {keys} keys,\n\
         {full} are full, {partial} partial and {dead} dead.\n\n![The mask of {name}](gallery/{name}.svg)\n",
        mask(&spec),
        n = grouped(*positions),
    ))
}

/// The mask as the spec has it.
fn mask(spec: &Table) -> String {
    match (spec.get("mask"), spec.get("extends")) {
        (Some(Value::String(mask)), _) => format!("mask = {}", Value::from(mask.as_str())),
        (Some(mask), _) => format!("mask = {mask}"),
        (None, Some(parent)) => format!("extends = {parent}"),
        (None, None) => "# no mask: every query attends to every key".to_owned(),
    }
}
