//! `regard show`: the mask of a spec and its tiles, drawn.

pub(crate) mod args;
mod cell;
mod color;
mod data;
pub(crate) mod error;
mod grid;
mod mosaic;
mod picture;
mod png;
mod scene;
mod svg;
mod terminal;
mod wrap;

use std::io::Write;
use std::path::Path;

use regard::{Options, Planned, Problem, ScheduleError};
use regard_ir::inputs::Captured;

use crate::failure::Failure;
use crate::machines;
use crate::source;
use crate::tensors::write;
use args::ShowArgs;
use data::{Data, Origin};
use error::ShowError;
use grid::{Grid, GridError, Room, Subject};
use picture::{Picture, Scope};
use terminal::Screen;

/// Files that can be drawn.
#[derive(Clone, Copy)]
enum Format {
    Svg,
    Png,
}

impl Format {
    fn of(path: &Path) -> Result<Self, ShowError> {
        match path.extension().map(|ending| ending.to_ascii_lowercase()) {
            Some(ending) if ending == "svg" => Ok(Format::Svg),
            Some(ending) if ending == "png" => Ok(Format::Png),
            _ => Err(ShowError::Ending(path.to_owned())),
        }
    }
}

/// Draws in the terminal, or in a file.
///
/// # Errors
/// If spec, machine, tensors or flags do not make a picture, or the file cannot be written.
pub(crate) fn show(args: &ShowArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let numbers = match &args.output {
        Some(path) => {
            let format = Format::of(path).map_err(Failure::Show)?;
            let picture = draw(args, &scene::ROOM, Some(scene::DETAIL))?;
            let scene = scene::layout(&picture);
            let bytes = match format {
                Format::Svg => svg::svg(&scene).into_bytes(),
                Format::Png => png::png(&scene)?,
            };
            write::save(path, &bytes).map_err(Failure::Write)?;
            picture.numbers
        }
        None => {
            let screen = Screen::stdout();
            let picture = draw(args, &screen.room(), None)?;
            if !args.json {
                write!(out, "{}", screen.draw(&picture))?;
            }
            picture.numbers
        }
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&numbers)?)?;
    }
    Ok(())
}

/// The picture in cells for which there is room, and `detail` by `detail` pairs one by one where the cells are not.
fn draw(args: &ShowArgs, room: &Room, detail: Option<u64>) -> Result<Picture, Failure> {
    let spec = source::spec(&args.spec)?;
    let machine = machines::machine(args.machine.as_deref())?;
    let mut problem = Problem::prefill(spec.source, args.batch, args.q, args.k.unwrap_or(args.q))?;
    if let Some(q_offset) = args.offset.q_offset {
        problem = problem.with_q_offset(q_offset)?;
    }
    if args.head >= spec.heads.query {
        return Err(Failure::Show(ShowError::Head { asked: args.head, heads: spec.heads.query }));
    }
    let no_sequence = ShowError::Sequence { asked: args.sequence, batch: problem.batch };
    let options = Options { dtype: args.dtype, isa: args.isa, ..Options::default() };
    let planned = Planned::new(&spec, &machine, options)
        .map_err(|error| Failure::Compile { spec: spec.name.clone(), error })?;

    let origin = match &args.input {
        Some(path) => Origin::File(path),
        None if args.example => Origin::Example,
        None => Origin::Unknown,
    };
    let data = Data::new(&origin)?;
    let schedule = |error| Failure::Schedule { spec: spec.name.clone(), error };
    // What is drawn are positions, of which a token may be several.
    let positions = planned.positions(&problem).map_err(schedule)?;
    let seen = &positions.view();
    let inputs = data.inputs(&spec, seen)?;
    let views = inputs.as_deref().map(data::views);
    let captured = match &views {
        None if source::read_by_mask(&spec).next().is_none() => Some(Captured::NONE),
        None => None,
        Some(views) => Some(
            Captured::bind(&spec.inputs.shapes, views, &spec.heads, spec.source, seen)
                .map_err(|error| schedule(ScheduleError::Captured(error)))?,
        ),
    };
    let group = planned.variant().scored().heads.group();
    let place = (args.sequence, args.head / group);
    let drawn = planned.with_head(&problem, views.as_deref(), place, |head| {
        let head = &head?;
        let subject = Subject {
            head,
            allow: spec.allow.tree(),
            captured: captured.as_ref(),
            query_head: args.head,
            problem: seen,
            blocks: &planned.plan().prefill,
        };
        Some(both(&subject, room, detail).map(|(grid, detail)| (grid, detail, head.live_share())))
    });
    let drawn = drawn.map_err(schedule)?.ok_or(Failure::Show(no_sequence))?;
    let (grid, detail, live_share) = drawn.map_err(|error| match error {
        GridError::Memory(error) => Failure::Memory(error),
        GridError::Index(error) => {
            Failure::Index { spec: spec.name.clone(), input: spec.inputs.names[error.input].clone() }
        }
    })?;
    let scope = Scope { head: args.head, sequence: args.sequence, known: origin.known() };
    let picture = Picture::new(&planned, &unpacked(seen), scope, live_share, grid);
    Ok(Picture { detail, ..picture })
}

/// A problem whose sequences are not packed, as none is that is drawn.
const fn unpacked(problem: &Problem<'_>) -> Problem<'static> {
    let Problem { phase, batch, queries, keys, q_offset, packed: _, part } = *problem;
    Problem { phase, batch, queries, keys, q_offset, packed: None, part }
}

/// The grid, and the pairs of it that are worth a closer look.
fn both(subject: &Subject<'_>, room: &Room, detail: Option<u64>) -> Result<(Grid, Option<Grid>), GridError> {
    let grid = subject.draw(room)?;
    let window = detail.and_then(|side| subject.worth_a_look(&grid, side));
    let detail = window.map(|window| subject.zoom(&window)).transpose()?;
    Ok((grid, detail))
}
