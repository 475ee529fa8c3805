//! The README, taken apart.

/// A fenced block.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The line of its fence, from 1.
    pub line: usize,
    /// What stands behind the fence.
    pub language: &'a str,
    /// Its lines, without the fences.
    pub text: &'a str,
}

/// A command of a block, and the lines that are shown below it as what it prints.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    /// Its line, from 1.
    pub line: usize,
    /// The command.
    pub command: &'a str,
    /// What it prints; a line `…` stands for any lines.
    pub output: Vec<&'a str>,
}

/// A table with what is said right above it.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    /// Its paragraph above, in one line.
    pub caption: String,
    /// The cells of its rows, without head and rule.
    pub rows: Vec<Vec<&'a str>>,
}

/// The blocks of a page, in order.
pub fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, &str, usize)> = None;
    let mut at = 0;
    for (i, line) in page.split_inclusive('\n').enumerate() {
        if let Some(language) = line.trim_end().strip_prefix("```") {
            open = match open {
                None => Some((i + 1, language, at + line.len())),
                Some((line, language, begin)) => {
                    blocks.push(Block { line, language, text: &page[begin..at] });
                    None
                }
            };
        }
        at += line.len();
    }
    assert!(open.is_none(), "a block has no end: {open:?}");
    blocks
}

/// The page without its blocks.
pub fn prose(page: &str) -> String {
    let mut outside = true;
    let lines = page.lines().filter(|line| {
        let fence = line.starts_with("```");
        outside ^= fence;
        outside && !fence
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The commands of a block: each line of a block `sh`, up to its comment; of a block `console` those behind `$ `, each with what it prints.
pub fn commands<'a>(block: &Block<'a>) -> Vec<Shown<'a>> {
    let mut commands = Vec::<Shown<'a>>::new();
    for (i, line) in block.text.lines().enumerate() {
        let command = match block.language {
            "sh" => line.split("  #").next().map(str::trim_end),
            "console" => line.strip_prefix("$ "),
            _ => return Vec::new(),
        };
        match (command, commands.last_mut()) {
            (Some(command), _) => {
                commands.push(Shown { line: block.line + 1 + i, command, output: Vec::new() });
            }
            (None, Some(shown)) => shown.output.push(line),
            (None, None) => panic!("README.md:{}: output of no command", block.line + 1 + i),
        }
    }
    commands
}

/// The targets of links and pictures.
pub fn links(prose: &str) -> Vec<&str> {
    let markdown = prose.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or(rest));
    let html = prose.split("src=\"").skip(1).map(|rest| rest.split('"').next().unwrap_or(rest));
    markdown.chain(html).collect()
}

/// Whatever stands between single backticks.
pub fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The tables.
pub fn tables(prose: &str) -> Vec<Table<'_>> {
    let paragraphs: Vec<_> = prose.split("\n\n").collect();
    let table = |pair: &[&'_ str]| pair[1].trim_start().starts_with('|');
    let tables = paragraphs.windows(2).filter(|pair| table(pair)).map(|pair| Table {
        caption: pair[0].split_whitespace().collect::<Vec<_>>().join(" "),
        rows: pair[1].trim().lines().skip(2).map(cells).collect(),
    });
    tables.collect()
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// Says which shown line is missing in what was printed: lines that follow each other must do so there too, except
/// across a line `…`.
pub fn first_missing<'a>(shown: &[&'a str], printed: &str) -> Option<&'a str> {
    let printed: Vec<_> = printed.lines().map(str::trim_end).collect();
    let mut at = 0;
    let mut gap = false;
    for &line in shown {
        if line.trim() == "…" {
            gap = true;
            continue;
        }
        let rest = printed.get(at..).unwrap_or_default();
        let skipped = rest.iter().position(|&other| other == line.trim_end());
        match skipped {
            Some(skipped) if gap || skipped == 0 => at += skipped + 1,
            _ => return Some(line),
        }
        gap = false;
    }
    // What is cut off at the end is cut off visibly.
    (!gap && at < printed.len() && !shown.is_empty()).then_some("…")
}
