//! The gallery: a picture of each spec of the tree, and the page that shows them.
//!
//! Everything is drawn for one shipped machine profile, so that the files are the same wherever they are made. Which
//! specs there are is read off the folder; nothing is listed by hand.

mod page;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::Regard;
use crate::error::Error;

/// Where specs are, and the part of it that has none.
const SPECS: &str = "specs";
const MACHINES: &str = "machines";
/// The page, and the folder of its pictures.
const PAGE: &str = "docs/gallery.md";
const PICTURES: &str = "docs/gallery";

/// What all pictures are drawn for.
const MACHINE: &str = "desktop-avx2";
/// Positions of the smallest picture and of the largest.
const POSITIONS: (u64, u64) = (1024, 16384);
/// Positions for each that the largest number of a mask reaches.
const REACHES: u64 = 4;

/// A file of the gallery.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    /// From the root of the tree.
    path: String,
    text: String,
}

/// A file that is not as it would be made.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Drift {
    Edited(String),
    Missing(String),
    LeftOver(String),
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Drift::Edited(path) => write!(f, "{path} is not what would be drawn"),
            Drift::Missing(path) => write!(f, "{path} is missing"),
            Drift::LeftOver(path) => write!(f, "{path} is of no spec"),
        }?;
        f.write_str(": run `cargo xtask gallery` and commit the result")
    }
}

/// Draws the gallery of `root` anew: writes what differs and removes what is of no spec, and prints a line for each. Nothing is
/// touched unless all could be drawn.
///
/// # Errors
/// If a spec cannot be drawn, or a file cannot be read, written or removed.
pub fn write(regard: &Regard, root: &Path) -> Result<(), Error> {
    let made = make(regard, root)?;
    for drift in compare(&made, &found(root)?) {
        match &drift {
            Drift::LeftOver(path) => {
                let path = root.join(path);
                fs::remove_file(&path).map_err(Error::file(&path))?;
                println!("removed {}", drift.path());
            }
            Drift::Edited(path) | Drift::Missing(path) => {
                let text = made.iter().find(|file| file.path == *path).map_or("", |file| &file.text);
                let path = root.join(path);
                let folder = path.parent().unwrap_or(root);
                fs::create_dir_all(folder).map_err(Error::file(folder))?;
                fs::write(&path, text).map_err(Error::file(&path))?;
                println!("wrote {}", drift.path());
            }
        }
    }
    Ok(())
}

/// Compares the gallery of `root` with what would be drawn. Gives a line for each file that is edited, missing or left
/// over.
///
/// # Errors
/// If a spec cannot be drawn, or a file cannot be read.
pub fn drift(regard: &Regard, root: &Path) -> Result<Vec<String>, Error> {
    Ok(compare(&make(regard, root)?, &found(root)?).iter().map(Drift::to_string).collect())
}

impl Drift {
    fn path(&self) -> &str {
        match self {
            Drift::Edited(path) | Drift::Missing(path) | Drift::LeftOver(path) => path,
        }
    }
}

/// One spec, drawn.
struct Exhibit {
    /// Its path in the folder of specs, without ending.
    name: String,
    /// Its text.
    toml: String,
    /// Queries, and as many keys.
    positions: u64,
    /// What the command says of the picture.
    numbers: Value,
    svg: String,
}

fn make(regard: &Regard, root: &Path) -> Result<Vec<File>, Error> {
    let mut specs = Vec::new();
    files(root, Path::new(SPECS), &mut specs)?;
    specs.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    specs.retain(|path| !path.starts_with(Path::new(SPECS).join(MACHINES)));
    let scratch = Scratch::new()?;
    let exhibits = specs.iter().map(|path| Exhibit::draw(regard, root, path, &scratch));
    let exhibits = exhibits.collect::<Result<Vec<_>, _>>()?;
    let mut made = vec![File { path: PAGE.to_owned(), text: page::page(&exhibits)? }];
    made.extend(
        exhibits
            .into_iter()
            .map(|exhibit| File { path: format!("{PICTURES}/{}.svg", exhibit.name), text: exhibit.svg }),
    );
    Ok(made)
}

impl Exhibit {
    fn draw(regard: &Regard, root: &Path, spec: &Path, scratch: &Scratch) -> Result<Self, Error> {
        let path = slashes(spec);
        let name = path[SPECS.len() + 1..].trim_end_matches(".toml").to_owned();
        let toml = read(&root.join(spec))?;
        let (_, numbers) = show(regard, &path, 1, scratch)?;
        let positions = positions(numbers["mask"].as_str().unwrap_or_default());
        let (svg, numbers) = show(regard, &path, positions, scratch)?;
        Ok(Self { name, toml, positions, numbers, svg })
    }
}

/// A spec drawn for as many queries as keys, and what the command says of the picture.
fn show(regard: &Regard, spec: &str, positions: u64, scratch: &Scratch) -> Result<(String, Value), Error> {
    let (n, svg) = (positions.to_string(), scratch.0.join("picture.svg"));
    let mut args = vec!["show", spec, "--q", &n, "--k", &n];
    args.extend(["--machine", MACHINE, "--example", "--json", "-o"]);
    let file = svg.to_string_lossy();
    args.push(&file);
    let numbers = regard.json(&args)?.pop();
    let numbers =
        numbers.ok_or_else(|| Error::Json { command: crate::command::line(&args), missing: "mask" })?;
    Ok((read(&svg)?, numbers))
}

/// How many positions show the shape of a mask: some times what its largest number reaches.
fn positions(mask: &str) -> u64 {
    let numbers = mask.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
    let (least, most) = POSITIONS;
    let reach = numbers.max().unwrap_or(0).min(most);
    (REACHES * reach).clamp(least, most).next_power_of_two().min(most)
}

fn compare(made: &[File], found: &[File]) -> Vec<Drift> {
    let at = |files: &[File], path: &str| files.iter().position(|file| file.path == path);
    let changed = made.iter().filter_map(|file| match at(found, &file.path) {
        None => Some(Drift::Missing(file.path.clone())),
        Some(i) if found[i].text != file.text => Some(Drift::Edited(file.path.clone())),
        Some(_) => None,
    });
    let left = found.iter().filter(|file| at(made, &file.path).is_none());
    changed.chain(left.map(|file| Drift::LeftOver(file.path.clone()))).collect()
}

fn found(root: &Path) -> Result<Vec<File>, Error> {
    let mut paths = Vec::new();
    if root.join(PAGE).exists() {
        paths.push(PathBuf::from(PAGE));
    }
    if root.join(PICTURES).exists() {
        files(root, Path::new(PICTURES), &mut paths)?;
    }
    paths.iter().map(|path| Ok(File { path: slashes(path), text: read(&root.join(path))? })).collect()
}

/// All files of a folder and those in it, by path; paths from the root on.
fn files(root: &Path, folder: &Path, all: &mut Vec<PathBuf>) -> Result<(), Error> {
    let path = root.join(folder);
    let entries = fs::read_dir(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut names: Vec<_> =
        entries.map_err(Error::file(&path))?.iter().map(|entry| folder.join(entry.file_name())).collect();
    names.sort();
    for name in names {
        if root.join(&name).is_dir() {
            files(root, &name, all)?;
        } else {
            all.push(name);
        }
    }
    Ok(())
}

fn slashes(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

/// Reads a text, whichever way its lines end.
fn read(path: &Path) -> Result<String, Error> {
    let bytes = fs::read(path).map_err(Error::file(path))?;
    Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
}

/// A folder for pictures under way, gone in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("regard-gallery-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(Error::file(&path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_from_what_a_mask_reaches() {
        assert_eq!(positions("k <= q"), 1024);
        assert_eq!(positions("abs(q - k) < 257 | (q < 16 | k < 16)"), 2048);
        assert_eq!(positions("k <= q & abs(q - k) < 4096"), 16384);
        assert_eq!(positions("k < 2147483647"), 16384);
        assert_eq!(positions("k < 99999999999999999999999"), 1024);
    }

    #[test]
    fn edited_missing_and_left_over_files_are_told_apart() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let made = [file("a", "1"), file("b", "2"), file("c", "3")];
        let found = [file("a", "1"), file("b", "x"), file("old", "4")];
        let drift: Vec<_> = compare(&made, &found).iter().map(Drift::to_string).collect();
        let advice = "run `cargo xtask gallery` and commit the result";
        assert_eq!(
            drift,
            [
                format!("b is not what would be drawn: {advice}"),
                format!("c is missing: {advice}"),
                format!("old is of no spec: {advice}"),
            ]
        );
    }
}
