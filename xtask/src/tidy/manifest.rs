//! One Cargo.toml, with the comments and line numbers that the checks speak of.

use toml_edit::{Document, Item, Key, TableLike};

/// A parsed manifest and its text.
#[derive(Debug)]
pub(crate) struct Manifest {
    doc: Document<String>,
}

/// Which table declares a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `[dependencies]`, for any target or one.
    Normal,
    /// `[build-dependencies]`.
    Build,
    /// `[dev-dependencies]`.
    Dev,
    /// `[workspace.dependencies]`, which members inherit from.
    Workspace,
}

/// One declared dependency.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    /// Its name in this manifest, which features refer to.
    pub(crate) key: String,
    /// The package that it stands for.
    pub(crate) package: String,
    /// Where it is declared.
    pub(crate) kind: Kind,
    /// Whether it is there only when a feature asks for it.
    pub(crate) optional: bool,
    /// Whether it inherits from the workspace.
    pub(crate) inherited: bool,
    /// `default-features`, where it is given.
    pub(crate) default_features: Option<bool>,
    /// Its features asked for here.
    pub(crate) features: Vec<String>,
    /// Line of its key, from 1.
    pub(crate) line: usize,
    /// Whether a comment stands above it or behind it.
    pub(crate) commented: bool,
}

/// One declared feature.
#[derive(Clone, Debug)]
pub(crate) struct Feature {
    /// Its name.
    pub(crate) name: String,
    /// What it turns on.
    pub(crate) enables: Vec<String>,
    /// Line of its key, from 1.
    pub(crate) line: usize,
    /// Whether a comment stands above it or behind it.
    pub(crate) commented: bool,
}

impl Manifest {
    /// Parses a manifest.
    ///
    /// # Errors
    /// The line and message of the first syntax error.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, String)> {
        Document::parse(text.to_owned()).map(|doc| Self { doc }).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            (line_of(text, at), error.message().to_owned())
        })
    }

    /// The package's name.
    pub(crate) fn package(&self) -> Option<&str> {
        self.item(&["package", "name"])?.as_str()
    }

    /// Members of the workspace as they are written.
    pub(crate) fn members(&self) -> Vec<&str> {
        let members = self.item(&["workspace", "members"]).and_then(Item::as_array);
        members.into_iter().flatten().filter_map(|member| member.as_str()).collect()
    }

    /// Whether the value at `path` is taken from the workspace.
    pub(crate) fn inherits(&self, path: &[&str]) -> bool {
        let flag = self.item(path).and_then(|item| item.get("workspace"));
        flag.and_then(Item::as_bool) == Some(true)
    }

    /// Where sources of the library and binaries are, from the package's folder, beside the usual places.
    pub(crate) fn named_roots(&self) -> Vec<&str> {
        let bins = self.item(&["bin"]).and_then(Item::as_array_of_tables);
        let bin_paths = bins.into_iter().flatten().filter_map(|bin| bin.get("path"));
        self.item(&["lib", "path"]).into_iter().chain(bin_paths).filter_map(Item::as_str).collect()
    }

    /// Every dependency, of any kind and for any target.
    pub(crate) fn dependencies(&self) -> Vec<Dependency> {
        let mut found = Vec::new();
        let root: &dyn TableLike = self.doc.as_table();
        self.collect(root, &mut found);
        let targets = self.item(&["target"]).and_then(Item::as_table_like);
        for (_, target) in targets.into_iter().flat_map(TableLike::iter) {
            if let Some(target) = target.as_table_like() {
                self.collect(target, &mut found);
            }
        }
        if let Some(shared) = self.item(&["workspace", "dependencies"]).and_then(Item::as_table_like) {
            self.collect_table(shared, Kind::Workspace, &mut found);
        }
        found
    }

    /// Every feature.
    pub(crate) fn features(&self) -> Vec<Feature> {
        let table = self.item(&["features"]).and_then(Item::as_table_like);
        entries(table)
            .map(|(key, item)| Feature {
                name: key.get().to_owned(),
                enables: strings(Some(item)),
                line: self.line(key),
                commented: self.commented(key, item),
            })
            .collect()
    }

    fn collect(&self, table: &dyn TableLike, found: &mut Vec<Dependency>) {
        let tables = [
            ("dependencies", Kind::Normal),
            ("build-dependencies", Kind::Build),
            ("dev-dependencies", Kind::Dev),
        ];
        for (name, kind) in tables {
            if let Some(table) = table.get(name).and_then(Item::as_table_like) {
                self.collect_table(table, kind, found);
            }
        }
    }

    fn collect_table(&self, table: &dyn TableLike, kind: Kind, found: &mut Vec<Dependency>) {
        for (key, item) in entries(Some(table)) {
            let flag = |name| item.get(name).and_then(Item::as_bool);
            found.push(Dependency {
                key: key.get().to_owned(),
                package: item.get("package").and_then(Item::as_str).unwrap_or(key.get()).to_owned(),
                kind,
                optional: flag("optional") == Some(true),
                inherited: flag("workspace") == Some(true),
                default_features: flag("default-features"),
                features: strings(item.get("features")),
                line: self.line(key),
                commented: self.commented(key, item),
            });
        }
    }

    fn item(&self, path: &[&str]) -> Option<&Item> {
        path.iter().try_fold(self.doc.as_item(), |item, key| item.get(key))
    }

    fn line(&self, key: &Key) -> usize {
        line_of(self.doc.raw(), key.span().map_or(0, |span| span.start))
    }

    fn commented(&self, key: &Key, item: &Item) -> bool {
        let line = self.line(key);
        let above = line.checked_sub(2).and_then(|index| self.doc.raw().lines().nth(index));
        let rest = item.span().and_then(|span| self.doc.raw().get(span.end..));
        let behind = rest.and_then(|rest| rest.lines().next());
        above.is_some_and(|line| line.trim_start().starts_with('#'))
            || behind.is_some_and(|rest| rest.trim_start().starts_with('#'))
    }
}

fn entries(table: Option<&dyn TableLike>) -> impl Iterator<Item = (&Key, &Item)> {
    table.into_iter().flat_map(|table| {
        let keys = table.iter().map(|(name, _)| name);
        keys.filter_map(move |name| table.get_key_value(name))
    })
}

fn strings(item: Option<&Item>) -> Vec<String> {
    let array = item.and_then(Item::as_array);
    array.into_iter().flatten().filter_map(|value| value.as_str()).map(str::to_owned).collect()
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
[package]
name = "regard-runtime"
version.workspace = true
edition = "2024"

[features]
default = ["std"]
# A pool.
threads = ["std"]
std = ["engine/std"] # Detection.
alloc = []

[dependencies]
# Why.
libm = "0.2"
half = { workspace = true, features = ["std"], default-features = false }
renamed = { package = "real", version = "1", optional = true }

[target.'cfg(unix)'.dependencies]
libc = "0.2"

[dev-dependencies]
regard-testkit.workspace = true

[build-dependencies.cc]
version = "1"
"#;

    #[test]
    fn reads_every_kind_of_dependency() {
        let manifest = Manifest::parse(TEXT).unwrap();
        let found: Vec<_> = manifest
            .dependencies()
            .into_iter()
            .map(|d| (d.key, d.package, d.kind, d.optional, d.inherited, d.commented, d.line))
            .collect();
        let row = |key: &str, package: &str, kind, optional, inherited, commented, line| {
            (key.to_owned(), package.to_owned(), kind, optional, inherited, commented, line)
        };
        assert_eq!(
            found,
            [
                row("libm", "libm", Kind::Normal, false, false, true, 16),
                row("half", "half", Kind::Normal, false, true, false, 17),
                row("renamed", "real", Kind::Normal, true, false, false, 18),
                row("cc", "cc", Kind::Build, false, false, false, 26),
                row("regard-testkit", "regard-testkit", Kind::Dev, false, true, false, 24),
                row("libc", "libc", Kind::Normal, false, false, false, 21),
            ]
        );
    }

    #[test]
    fn reads_features_and_inheritance() {
        let manifest = Manifest::parse(TEXT).unwrap();
        let features: Vec<_> = manifest.features().into_iter().map(|f| (f.name, f.commented)).collect();
        let expected = [("default", false), ("threads", true), ("std", true), ("alloc", false)];
        assert_eq!(features, expected.map(|(name, commented)| (name.to_owned(), commented)));
        assert!(manifest.inherits(&["package", "version"]));
        assert!(!manifest.inherits(&["package", "edition"]));
        assert!(!manifest.inherits(&["lints"]));
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        assert_eq!(Manifest::parse("[package]\nname = \n").unwrap_err().0, 2);
    }
}
