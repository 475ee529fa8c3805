//! Values as statements and expressions of Rust.

use std::collections::BTreeMap;

use regard_ir::expr::{Binary, Type, Unary, Var};
use regard_ir::lanes::{Kind, LaneOp, ValueId};

use crate::graph::{Body, Check, Graph};
use crate::layout::WIDTH;
use crate::names::{InputNames, Scope};

/// The most characters of an expression, so that `        let some_name1 = …;` fits a line.
const EXPRESSION: usize = WIDTH - 26;

/// How tightly operators bind, from the loosest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Or,
    And,
    Sum,
    Product,
    Prefix,
    Atom,
}

/// A piece of an expression.
#[derive(Clone)]
struct Piece {
    text: String,
    level: Level,
    /// Whether a variable would be no shorter to read.
    is_name: bool,
}

impl Piece {
    fn name(text: impl Into<String>) -> Self {
        Self { text: text.into(), level: Level::Atom, is_name: true }
    }

    fn atom(text: String) -> Self {
        Self { text, level: Level::Atom, is_name: false }
    }

    /// The text where an operator binds as tightly as `around`.
    fn within(&self, around: Level) -> String {
        if self.level >= around { self.text.clone() } else { format!("({})", self.text) }
    }
}

/// Writes the body of one function.
pub(crate) struct Lines<'a> {
    graph: &'a Graph,
    inputs: &'a InputNames,
    scope: Scope,
    /// What is written so far, for each value that the function needs.
    pieces: BTreeMap<ValueId, Piece>,
    statements: Vec<String>,
}

/// A function's body.
pub(crate) struct Written {
    /// Its statements.
    pub(crate) statements: Vec<String>,
    /// What it gives.
    pub(crate) result: String,
}

impl Written {
    /// Whether the body reads a parameter.
    pub(crate) fn reads(&self, parameter: &str) -> bool {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut texts = self.statements.iter().chain([&self.result]);
        texts.any(|text| text.split(|c| !is_part(c)).any(|word| word == parameter))
    }
}

impl<'a> Lines<'a> {
    /// A function in whose `scope` the `given` values are there already, written as they say.
    pub(crate) fn new(
        graph: &'a Graph,
        inputs: &'a InputNames,
        scope: Scope,
        given: &BTreeMap<ValueId, String>,
    ) -> Self {
        let pieces = given.iter().map(|(&id, text)| (id, Piece::name(text))).collect();
        Self { graph, inputs, scope, pieces, statements: vec![] }
    }

    /// The function that reports what an expression's checks find and gives its value.
    pub(crate) fn body(mut self, body: &Body) -> Written {
        self.write(&body.roots(), &BTreeMap::new());
        for check in &body.checks {
            let operands = [Some(check.outside), check.guard].into_iter().flatten();
            // The name of the input comes on top.
            let condition = self.fitted(operands, EXPRESSION - 20, |lines| lines.condition(check)).text;
            let input = &self.inputs.constants[check.input as usize];
            self.statements.push(format!("at.check({input}, {condition});"));
        }
        let result = self.pieces[&body.result].text.clone();
        Written { statements: self.statements, result }
    }

    /// The function that computes fields, given by name, and gives `result` of them; a single one as it is.
    pub(crate) fn fields(
        mut self,
        fields: &BTreeMap<ValueId, String>,
        result: impl FnOnce(&BTreeMap<ValueId, String>) -> String,
    ) -> Written {
        let ids: Vec<_> = fields.keys().copied().collect();
        let result = match ids[..] {
            [only] => {
                self.write(&ids, &BTreeMap::new());
                self.pieces[&only].text.clone()
            }
            _ => {
                self.write(&ids, fields);
                result(fields)
            }
        };
        Written { statements: self.statements, result }
    }

    /// Writes all that the roots need: a variable for each value of `fixed` and for what is used twice, the rest inside
    /// its user.
    fn write(&mut self, roots: &[ValueId], fixed: &BTreeMap<ValueId, String>) {
        let uses = self.uses(roots);
        for (&id, &uses) in &uses {
            if self.pieces.contains_key(&id) {
                continue;
            }
            let operands = self.graph.value(id).op.operands();
            let piece = self.fitted(operands.into_iter(), EXPRESSION, |lines| lines.expression(id));
            self.pieces.insert(id, piece);
            match fixed.get(&id) {
                Some(name) => self.bind_as(id, name.clone()),
                None if uses > 1 => self.bind(id),
                None => {}
            }
        }
    }

    /// How often each value that the roots need is read, operands first.
    fn uses(&self, roots: &[ValueId]) -> BTreeMap<ValueId, usize> {
        let mut uses = BTreeMap::new();
        let mut queue = roots.to_vec();
        while let Some(id) = queue.pop() {
            let count = uses.entry(id).or_insert(0);
            *count += 1;
            if *count == 1 && !self.pieces.contains_key(&id) {
                queue.extend(self.graph.value(id).op.operands());
            }
        }
        uses
    }

    /// Gives a value a variable, unless it is as short without.
    fn bind(&mut self, id: ValueId) {
        if !self.pieces[&id].is_name {
            let name = self.scope.name(self.graph.wanted_name(id, &self.inputs.variables));
            self.bind_as(id, name);
        }
    }

    fn bind_as(&mut self, id: ValueId, name: String) {
        let piece = Piece::name(&name);
        if let Some(Piece { text, .. }) = self.pieces.insert(id, piece) {
            self.statements.push(format!("let {name} = {text};"));
        }
    }

    fn condition(&self, check: &Check) -> Piece {
        let outside = &self.pieces[&check.outside];
        match check.guard {
            None => outside.clone(),
            Some(guard) => binary(Binary::And, Type::Bool, &self.pieces[&guard], outside),
        }
    }

    /// What `write` makes of operands, which move to variables, the widest first, until it has at most `most`
    /// characters.
    fn fitted(
        &mut self,
        operands: impl Iterator<Item = ValueId> + Clone,
        most: usize,
        write: impl Fn(&Self) -> Piece,
    ) -> Piece {
        loop {
            let piece = write(self);
            let wide = operands.clone().filter(|operand| !self.pieces[operand].is_name);
            match wide.max_by_key(|operand| self.pieces[operand].text.len()) {
                Some(widest) if piece.text.len() > most => self.bind(widest),
                _ => return piece,
            }
        }
    }

    fn expression(&self, id: ValueId) -> Piece {
        let value = self.graph.value(id);
        let piece = |operand: ValueId| &self.pieces[&operand];
        match value.op {
            LaneOp::Bool(x) => Piece::name(format!("at.bool({x})")),
            LaneOp::Int(x) => Piece::name(format!("at.int({x})")),
            LaneOp::Float(x) => Piece::name(format!("at.float({})", float(x))),
            LaneOp::Var(var) => {
                let call = format!("at.{}()", variable(var));
                if self.graph.is_leaf(id) { Piece::name(call) } else { Piece::atom(call) }
            }
            LaneOp::Score => Piece::name("s"),
            LaneOp::Live => Piece::name("live"),
            LaneOp::Unary { op, of, exact, a } => unary(op, of, exact, piece(a)),
            LaneOp::Binary { op, of, a, b } => binary(op, of, piece(a), piece(b)),
            LaneOp::Select { c, a, b } => {
                let (c, a, b) = (piece(c), piece(a), piece(b));
                let (a, b) = (&a.text, &b.text);
                Piece::atom(match value.ty {
                    Type::Bool => format!("select_mask({}, {a}, {b})", c.text),
                    Type::Int => format!("{}.select_i32({a}, {b})", c.within(Level::Atom)),
                    Type::Float => format!("{}.select({a}, {b})", c.within(Level::Atom)),
                })
            }
            // Of a spec all slopes are of its query heads, and a module serves variants of other numbers of these.
            LaneOp::Alibi { a, heads: _ } => Piece::atom(format!("alibi({}, at.heads())", piece(a).text)),
            LaneOp::Fetch { input, rank, ref index } => {
                let method = match value.kind {
                    Kind::Uniform | Kind::Key => "fetch",
                    Kind::Row | Kind::Full => "gather",
                };
                let bits = self.indexed(method, input, &index[..rank as usize]);
                Piece::atom(match value.ty {
                    Type::Bool => format!("truth({bits})"),
                    Type::Int => bits,
                    Type::Float => format!("{bits}.from_bits()"),
                })
            }
            LaneOp::Outside { input, rank, ref index } => {
                Piece::atom(self.indexed("outside", input, &index[..rank as usize]))
            }
            LaneOp::Check { .. } => unreachable!("a graph has checks beside its values"),
        }
    }

    fn indexed(&self, method: &str, input: u16, index: &[ValueId]) -> String {
        let index: Vec<_> = index.iter().map(|id| self.pieces[id].text.as_str()).collect();
        format!("at.{method}({}, [{}])", self.inputs.constants[input as usize], index.join(", "))
    }
}

fn variable(var: Var) -> &'static str {
    match var {
        Var::B => "b",
        Var::H => "h",
        Var::G => "g",
        Var::Q => "q",
        Var::K => "k",
        Var::Nq => "nq",
        Var::Nk => "nk",
        Var::S | Var::X => unreachable!("{var:?} is no variable of a mask or a modifier's row"),
    }
}

/// A literal that parses to the same bits; of NaN there is one.
fn float(x: f32) -> String {
    match x {
        _ if x.is_nan() => "f32::NAN".to_owned(),
        f32::INFINITY => "f32::INFINITY".to_owned(),
        f32::NEG_INFINITY => "f32::NEG_INFINITY".to_owned(),
        _ => format!("{x:?}"),
    }
}

fn unary(op: Unary, of: Type, exact: bool, a: &Piece) -> Piece {
    let method = |name: &str| Piece::atom(format!("{}.{name}()", a.within(Level::Atom)));
    let function = |name: &str| Piece::atom(format!("{name}({})", a.text));
    let prefix = |sign: &str| Piece {
        text: format!("{sign}{}", a.within(Level::Atom)),
        level: Level::Prefix,
        is_name: false,
    };
    match op {
        Unary::Not => prefix("!"),
        Unary::Neg if of == Type::Int => Piece {
            text: format!("at.int(0) - {}", a.within(Level::Product)),
            level: Level::Sum,
            is_name: false,
        },
        Unary::Neg => prefix("-"),
        Unary::Abs if of == Type::Int => function("abs"),
        Unary::Abs => method("abs"),
        Unary::ToFloat => method("to_f32"),
        Unary::ToInt => method("to_i32"),
        Unary::Floor => method("floor"),
        Unary::Ceil => method("ceil"),
        Unary::Sqrt => method("sqrt"),
        Unary::Exp if !exact => function("exp"),
        Unary::Exp2 if !exact => function("exp2"),
        Unary::Tanh if !exact => function("tanh"),
        Unary::Sigmoid if !exact => function("sigmoid"),
        _ => Piece::atom(format!("exactly(Unary::{op:?}, {})", a.text)),
    }
}

fn binary(op: Binary, of: Type, a: &Piece, b: &Piece) -> Piece {
    let method = |name: &str| Piece::atom(format!("{}.{name}({})", a.within(Level::Atom), b.text));
    let function = |name: &str| Piece::atom(format!("{name}({}, {})", a.text, b.text));
    // A chain to the left needs no parentheses; one to the right keeps them, and with them its order. `&` beside `|` has
    // them for the reader.
    let infix = |sign: &str, level: Level, left: Level, right: Level| Piece {
        text: format!("{} {sign} {}", a.within(left), b.within(right)),
        level,
        is_name: false,
    };
    let not = |piece: Piece| Piece { text: format!("!{}", piece.text), level: Level::Prefix, is_name: false };
    match op {
        Binary::Add => infix("+", Level::Sum, Level::Sum, Level::Product),
        Binary::Sub => infix("-", Level::Sum, Level::Sum, Level::Product),
        Binary::Mul => infix("*", Level::Product, Level::Product, Level::Prefix),
        Binary::Div => infix("/", Level::Product, Level::Product, Level::Prefix),
        Binary::FloorDiv => function("floor_div"),
        Binary::Rem => function("floor_rem"),
        Binary::Pow => function("pow"),
        Binary::Min => method("min"),
        Binary::Max => method("max"),
        Binary::And => infix("&", Level::And, Level::And, Level::Sum),
        Binary::Or => match a.level {
            Level::Or => infix("|", Level::Or, Level::Or, Level::Sum),
            _ => infix("|", Level::Or, Level::Sum, Level::Sum),
        },
        Binary::Lt => method("lt"),
        Binary::Le => method("le"),
        Binary::Eq if of == Type::Bool => function("same"),
        Binary::Eq => method("eq"),
        Binary::Ne if of == Type::Bool => not(function("same")),
        Binary::Ne => not(method("eq")),
    }
}
