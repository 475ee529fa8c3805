//! SPEC on the command line: a file, or a shipped spec by its name.

use std::path::Path;

use regard::{Diagnostics, Parsed, SHIPPED, Spec};

use crate::failure::Failure;

/// How a name was understood, and what the compiler says.
pub(crate) enum Loaded {
    /// It was compiled.
    Spec(Box<Parsed>),
    /// It has errors.
    Errors(Diagnostics),
}

/// Compiles a spec of the command line.
///
/// A file comes first, then a shipped spec, then whatever else has that path, so that its error is told.
///
/// # Errors
/// If the name is neither a file nor a shipped spec.
pub(crate) fn load(name: &str) -> Result<Loaded, Failure> {
    let path = Path::new(name);
    let shipped = regard::find_shipped(name).is_some();
    let compiled = match () {
        () if path.is_file() || (path.exists() && !shipped) => regard::from_file(path),
        () if shipped => regard::shipped(name),
        () => return Err(Failure::NoSpec { name: name.to_owned(), nearest: nearest_spec(path) }),
    };
    Ok(match compiled {
        Ok(parsed) => Loaded::Spec(Box::new(parsed)),
        Err(errors) => Loaded::Errors(errors),
    })
}

/// As [`load`], where a spec with errors is of no use.
///
/// # Errors
/// Also if the spec has errors.
pub(crate) fn spec(name: &str) -> Result<Spec, Failure> {
    match load(name)? {
        Loaded::Spec(parsed) => Ok(parsed.spec),
        Loaded::Errors(errors) => Err(Failure::Spec(errors)),
    }
}

/// The declared tensors that the mask reads, by their place among all.
pub(crate) fn read_by_mask(spec: &Spec) -> impl Iterator<Item = usize> + use<'_> {
    (0..spec.inputs.names.len()).filter(|&input| spec.allow.tree().reads_input(input as u16))
}

fn nearest_spec(path: &Path) -> Option<&'static str> {
    nearest(&path.file_stem()?.to_string_lossy(), SHIPPED.iter().map(|shipped| shipped.name))
}

/// The candidate that is spelt most like `name`, if no more than a third of it differs.
pub(crate) fn nearest(
    name: &str,
    candidates: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    // Longer than any name that ships; the distance takes time by the square of the length.
    const MAX_LEN: usize = 64;
    if name.len() > MAX_LEN {
        return None;
    }
    let distance = |candidate: &str| strsim::damerau_levenshtein(&name.to_lowercase(), candidate);
    candidates
        .into_iter()
        .map(|candidate| (distance(candidate), candidate))
        .filter(|&(distance, candidate)| distance <= candidate.len().max(3) / 3)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_spelling_is_near() {
        let of = |name| nearest_spec(Path::new(name));
        assert_eq!(of("minilmm"), Some("minilm"));
        assert_eq!(of("specs/Causl.toml"), Some("causal"));
        assert_eq!(of("gqq"), Some("gqa"));
        assert_eq!(of("transformer"), None);
        assert_eq!(of(&"x".repeat(1000)), None);
    }
}
