//! Lines as `rustfmt` lays them out.

/// Columns of a line.
pub(crate) const WIDTH: usize = 110;

/// A list between brackets behind `indent` columns: on one line where it fits, else each item on its own.
///
/// `open` ends and `close` begins with the bracket; `gap` stands inside the brackets on one line, as in `{ a }`.
pub(crate) fn list(indent: usize, open: &str, gap: &str, items: &[String], close: &str) -> String {
    let margin = " ".repeat(indent);
    let gap = if items.is_empty() { "" } else { gap };
    let line = format!("{margin}{open}{gap}{}{gap}{close}", items.join(", "));
    if line.chars().count() <= WIDTH && !line.contains('\n') {
        return line;
    }
    let items: String = items.iter().map(|item| format!("{margin}    {item},\n")).collect();
    format!("{margin}{open}\n{items}{margin}{close}")
}
