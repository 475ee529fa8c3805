//! What the compiler says of a spec, and what the spec says that it does.

use regard_spec::{Diagnostic, Diagnostics, Parsed, Severity};

/// All errors and notes.
pub fn found(parsed: Result<Parsed, Diagnostics>) -> Vec<Diagnostic> {
    match parsed {
        Ok(parsed) => parsed.notes,
        Err(errors) => errors.as_slice().to_vec(),
    }
}

/// `# ERROR S014 4:19-4:25 unknown name …`, as specs have it in comments.
pub fn expectation(diagnostic: &Diagnostic) -> String {
    let kind = match diagnostic.severity() {
        Severity::Error => "ERROR",
        Severity::Note => "NOTE",
    };
    let Diagnostic { code, start, end, message, .. } = diagnostic;
    format!("# {kind} {code} {start}-{end} {message}")
}

/// The comments of a spec that are expectations.
pub fn expected(text: &str) -> Vec<&str> {
    let is_expectation = |line: &&str| line.starts_with("# ERROR ") || line.starts_with("# NOTE ");
    text.lines().filter(is_expectation).collect()
}
