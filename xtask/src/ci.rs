//! `cargo xtask ci`: every check of the project, one after the other.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::command::Cargo;
use crate::error::Error;
use crate::tidy::Manifest;
use crate::{dev, link, tidy};

/// Crates that a user builds with a choice of features, each of which must build without the others.
const BUILT_ALONE: [&str; 4] = ["ir", "simd", "engine", "runtime"];

/// Which tests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tests {
    /// Those of minutes.
    Usual,
    /// Exhaustive ones too, which are marked `#[ignore = "long"]`.
    Long,
}

impl Tests {
    fn step(self) -> Step {
        match self {
            Tests::Usual => |root| Cargo::new(root, &["test", "--workspace"]).run(),
            Tests::Long => |root| Cargo::new(root, &["test", "--workspace", "--", "--include-ignored"]).run(),
        }
    }

    /// With the command as it ships, or as the tests have left it: a build in release takes as long as a quarter of all.
    fn demo(self) -> Step {
        match self {
            Tests::Usual => |root| {
                let quick = ["run", "--package", "regard-dev", "--", "demo", "--quick"];
                Cargo::new(root, &quick).run_one_of_ours()
            },
            Tests::Long => |root| dev(root, "demo", &[]),
        }
    }
}

/// One check of the tree at a root.
type Step = fn(&Path) -> Result<(), Error>;

/// Runs every step in order and stops at the first that fails.
///
/// # Errors
/// The failed step's.
pub(crate) fn run(root: &Path, tests: Tests) -> Result<(), Error> {
    let steps = steps(tests);
    let mut times = Vec::new();
    for (name, step) in steps {
        eprintln!("── {name}");
        let start = Instant::now();
        let result = step(root);
        let time = start.elapsed();
        times.push((name, time));
        match result {
            Ok(()) => eprintln!("── {name}: passed in {:.1} s\n", time.as_secs_f64()),
            Err(error) => {
                eprintln!("── {name}: FAILED after {:.1} s\n", time.as_secs_f64());
                summarise(&times, steps.len());
                return Err(error);
            }
        }
    }
    summarise(&times, steps.len());
    Ok(())
}

/// Each check, under the name that it is announced by.
fn steps(tests: Tests) -> [(&'static str, Step); 8] {
    [
        ("components", components),
        ("format", format),
        ("tidy", tidy::run),
        ("clippy", clippy),
        ("features", features),
        ("link", link::run),
        ("test", tests.step()),
        ("demo", tests.demo()),
    ]
}

fn summarise(times: &[(&str, Duration)], steps: usize) {
    for (name, time) in times {
        eprintln!("{name:>12} {:7.1} s", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    eprintln!("{:>12} {:7.1} s, {} of {steps} steps run", "in all", total.as_secs_f64(), times.len());
}

fn components(root: &Path) -> Result<(), Error> {
    for (name, command) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if !Cargo::new(root, &[command, "--version"]).output()?.status.success() {
            return Err(Error::Component { name });
        }
    }
    Ok(())
}

fn format(root: &Path) -> Result<(), Error> {
    Cargo::new(root, &["fmt", "--all", "--check"]).run()?;
    Cargo::new(root, &["fmt", "--check", "--manifest-path", link::MANIFEST]).run()
}

fn clippy(root: &Path) -> Result<(), Error> {
    Cargo::new(root, &["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])
        .run()
}

/// Builds each crate of [`BUILT_ALONE`] without features, then with each one alone, and takes no warning.
fn features(root: &Path) -> Result<(), Error> {
    for folder in BUILT_ALONE {
        let path = root.join("crates").join(folder).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
        // That every manifest parses was checked by tidy.
        let declared = Manifest::parse(&text).map(|manifest| manifest.features()).unwrap_or_default();
        let names = declared.iter().map(|feature| feature.name.as_str()).filter(|&name| name != "default");
        for feature in [""].into_iter().chain(names) {
            let package = format!("regard-{folder}");
            let build =
                ["clippy", "--quiet", "--lib", "--no-deps", "--package", &package, "--no-default-features"];
            let asked: &[&str] = if feature.is_empty() { &[] } else { &["--features", feature] };
            let command = Cargo::new(root, &build).args(asked).args(&["--", "-D", "warnings"]);
            eprintln!("{command}");
            command.run()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Args;

    /// The other commands of the README are run by the tests of crates/cli.
    #[test]
    fn tasks_that_the_readme_says_to_run_are_run() {
        let readme = std::fs::read_to_string(crate::root().join("README.md")).unwrap();
        let lines = readme.lines().filter_map(|line| line.strip_prefix("cargo xtask "));
        let tasks: Vec<_> = lines.collect();
        assert!(tasks.contains(&"ci") && tasks.contains(&"demo"), "{tasks:?}");
        let is_a_step = |task| steps(Tests::Usual).iter().any(|&(name, _)| name == task);
        let others: Vec<_> = tasks.into_iter().filter(|&task| task != "ci" && !is_a_step(task)).collect();
        assert!(others.is_empty(), "no step of ci runs {others:?}");
    }

    #[test]
    fn tasks_that_the_readme_names_are_there() {
        let readme = std::fs::read_to_string(crate::root().join("README.md")).unwrap();
        let name =
            |rest: &str| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        let named: Vec<_> = readme.split("cargo xtask ").skip(1).map(name).collect();
        let command = Args::command();
        let unknown: Vec<_> = named.iter().filter(|name| command.find_subcommand(name).is_none()).collect();
        assert!(named.len() > 2 && unknown.is_empty(), "of {named:?} there is no {unknown:?}");
    }
}
