//! The members of the workspace, found in a listing as cargo finds them.

use super::Finding;
use super::manifest::{Dependency, Kind, Manifest};
use super::tree::Tree;

/// One member crate.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its folder from the root.
    pub(crate) folder: String,
    /// Its package name.
    pub(crate) package: String,
    /// Its manifest.
    pub(crate) manifest: Manifest,
}

impl Member {
    /// Path of its manifest from the root.
    pub(crate) fn manifest_path(&self) -> String {
        format!("{}/Cargo.toml", self.folder)
    }

    /// Whether a file of the tree belongs to it.
    pub(crate) fn owns(&self, path: &str) -> bool {
        path.strip_prefix(&self.folder).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// The root manifest and every member's.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The root manifest.
    pub(crate) root: Manifest,
    /// The members, in order of their folders.
    pub(crate) members: Vec<Member>,
}

impl Workspace {
    /// Path of the root manifest.
    pub(crate) const ROOT: &str = "Cargo.toml";

    /// Reads the manifests of a listing.
    ///
    /// # Errors
    /// A finding for each manifest that is missing or cannot be parsed.
    pub(crate) fn read(tree: &Tree) -> Result<Self, Vec<Finding>> {
        let root = parse(tree, Self::ROOT).map_err(|finding| vec![finding])?;
        let (mut members, mut findings) = (Vec::new(), Vec::new());
        for folder in folders(tree, &root) {
            let path = format!("{folder}/Cargo.toml");
            match parse(tree, &path) {
                Ok(manifest) => {
                    let package = manifest.package().unwrap_or_default().to_owned();
                    members.push(Member { folder, package, manifest });
                }
                Err(finding) => findings.push(finding),
            }
        }
        if findings.is_empty() { Ok(Self { root, members }) } else { Err(findings) }
    }

    /// The member that is this package.
    pub(crate) fn member(&self, package: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.package == package)
    }

    /// A member's dependencies, each with what it inherits from the root filled in.
    pub(crate) fn dependencies(&self, member: &Member) -> Vec<Dependency> {
        let shared = self.root.dependencies();
        let mut dependencies = member.manifest.dependencies();
        for dependency in dependencies.iter_mut().filter(|dependency| dependency.inherited) {
            let parent = shared.iter().find(|s| s.kind == Kind::Workspace && s.key == dependency.key);
            if let Some(parent) = parent {
                dependency.package.clone_from(&parent.package);
                dependency.default_features = parent.default_features;
                dependency.features.extend(parent.features.iter().cloned());
            }
        }
        dependencies
    }
}

fn parse(tree: &Tree, path: &str) -> Result<Manifest, Finding> {
    let Some(text) = tree.text(path) else {
        return Err(Finding::error(path, "no such file", "the manifest of a member"));
    };
    Manifest::parse(text).map_err(|(line, message)| {
        Finding::error(path, format!("a syntax error: {message}"), "valid TOML").at(line)
    })
}

/// The folders that `workspace.members` names; `x/*` is each folder of x that has a manifest.
fn folders(tree: &Tree, root: &Manifest) -> Vec<String> {
    let mut folders = Vec::new();
    for pattern in root.members() {
        let Some(parent) = pattern.strip_suffix("/*") else {
            folders.push(pattern.to_owned());
            continue;
        };
        let manifests = tree.paths().filter_map(|path| path.strip_suffix("/Cargo.toml"));
        let inside =
            manifests.filter(|folder| folder.rsplit_once('/').is_some_and(|(above, _)| above == parent));
        folders.extend(inside.map(str::to_owned));
    }
    folders.sort();
    folders
}
