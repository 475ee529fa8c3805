//! Definitions: the prelude's and the spec's.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use regard_ir::variant::Pseudo;

use super::expand::Expander;
use super::functions::taken;
use super::names::{self, Scope, Target};
use super::{Body, Env, Input, Place, SyntaxError, is_name};
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, quote};
use crate::document::Document;
use crate::source::{Source, Text};

/// The prelude, in the language itself.
pub(crate) const PRELUDE: &str = include_str!("../prelude.toml");

/// Whose definition it is.
#[derive(Clone, Copy)]
pub(crate) enum Owner<'a> {
    Prelude,
    /// The spec's, which has these inputs.
    Spec(&'a [Input]),
}

/// A named expression.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) params: Vec<String>,
    /// `None` where it is no expression.
    pub(super) body: Option<Body>,
    /// Whether a use of it means nothing; the reason is reported.
    pub(super) broken: Cell<bool>,
    prelude: bool,
}

impl Definition {
    /// As it is used: `window(w)`.
    pub(crate) fn head(&self) -> String {
        if self.params.is_empty() {
            return self.name.clone();
        }
        format!("{}({})", self.name, self.params.join(", "))
    }
}

/// All definitions of a spec.
#[derive(Clone, Debug, Default)]
pub(crate) struct Definitions {
    list: Vec<Definition>,
    /// By name, the spec's and the prelude's.
    spec: HashMap<String, usize>,
    prelude: HashMap<String, usize>,
    /// Names whose definitions have no usable head, so that their uses are not errors too.
    unusable: HashSet<String>,
    /// Those that are in no cycle, what is used before what uses it.
    order: Vec<usize>,
}

impl Definitions {
    /// The prelude's, of a spec with these pseudo-heads.
    pub(crate) fn prelude(pseudo: Option<&Pseudo>) -> Self {
        // It is part of the compiler: a test holds that nothing is reported.
        Self::read_prelude(pseudo, &mut Sink::default())
    }

    fn read_prelude(pseudo: Option<&Pseudo>, sink: &mut Sink) -> Self {
        let document = Document::read(Source::new("prelude.toml", PRELUDE), sink);
        let by_token =
            Document::read(Source::new("prelude.toml", pseudo.map_or(String::new(), by_token)), sink);
        let mut definitions = Self::default();
        for entry in document.entries {
            let instead = by_token.entries.iter().find(|instead| instead.name() == entry.name());
            definitions.add(&entry.key, instead.unwrap_or(&entry).value.clone().text(), Owner::Prelude, sink);
        }
        definitions.resolve(&[], sink);
        definitions
    }

    /// Adds a definition: its head, and its expression unless that is no string.
    pub(crate) fn add(&mut self, head: &Text, expression: Option<Text>, owner: Owner<'_>, sink: &mut Sink) {
        let (name, params) = match self.free_head(head, owner) {
            Ok(parsed) => parsed,
            Err(error) => {
                let name = head.decoded.split('(').next().unwrap_or_default().trim();
                if !self.spec.contains_key(name) {
                    self.unusable.insert(name.to_string());
                }
                return sink.push(*error);
            }
        };
        let prelude = matches!(owner, Owner::Prelude);
        if let (false, Some(&replaced)) = (prelude, self.prelude.get(&name)) {
            let replaced = &self.list[replaced];
            let message = format!("{} replaces the prelude's definition", quote(&name));
            let stands_for = replaced.body.as_ref().map_or("", |body| &body.text.decoded);
            let help = format!("the prelude has `{}` = `{stands_for}`", replaced.head());
            sink.push(Diagnostic::new(Code::S103, &head.token(), message).help(help));
        }
        let body = expression.and_then(|text| Body::parse(text, sink));
        let broken = Cell::new(body.is_none());
        let names = if prelude { &mut self.prelude } else { &mut self.spec };
        names.insert(name.clone(), self.list.len());
        self.list.push(Definition { name, params, body, broken, prelude });
    }

    /// Resolves the names of all bodies, and refuses cycles.
    pub(crate) fn resolve(&mut self, inputs: &[Input], sink: &mut Sink) {
        for id in 0..self.list.len() {
            let Some(mut body) = self.list[id].body.take() else { continue };
            let definition = &self.list[id];
            if body.targets.is_empty() {
                let scope = Scope {
                    params: &definition.params,
                    inputs,
                    definitions: self,
                    prelude: definition.prelude,
                };
                names::resolve(&mut body, &scope, sink);
            }
            self.list[id].broken.set(body.targets.iter().any(|target| matches!(target, Target::Wrong)));
            self.list[id].body = Some(body);
        }
        self.refuse_cycles(sink);
    }

    /// Checks the spec's definitions by themselves, whether they are used or not.
    pub(crate) fn check(env: &Env<'_>, sink: &mut Sink) {
        let Definitions { list, order, .. } = env.definitions;
        for definition in order.iter().map(|&id| &list[id]) {
            if let (Some(body), false, false) =
                (&definition.body, definition.prelude, definition.broken.get())
            {
                let before = sink.n_errors();
                Expander::new(body, Place::Definition, env, sink).root();
                definition.broken.set(sink.n_errors() > before);
            }
        }
    }

    pub(crate) fn get(&self, id: usize) -> &Definition {
        &self.list[id]
    }

    /// The definition of this name, the spec's before the prelude's; the prelude sees its own alone.
    pub(crate) fn find(&self, name: &str, prelude: bool) -> Option<usize> {
        let of_spec = if prelude { None } else { self.spec.get(name) };
        of_spec.or_else(|| self.prelude.get(name)).copied()
    }

    /// Whether the name was to be defined, and could not be.
    pub(crate) fn is_unusable(&self, name: &str) -> bool {
        self.unusable.contains(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|definition| definition.name.as_str())
    }

    /// A head's name and parameters, if they are free.
    fn free_head(&self, head: &Text, owner: Owner<'_>) -> Result<(String, Vec<String>), Box<Diagnostic>> {
        let not_free = |message: String| {
            Box::new(Diagnostic::new(Code::S029, &head.token(), message).label("choose another name"))
        };
        let (name, params) = parse_head(head).map_err(|error| Box::new(error.at(head)))?;
        for (i, word) in std::iter::once(&name).chain(&params).enumerate() {
            let is_input = |inputs: &[Input]| inputs.iter().any(|input| input.name == *word);
            let input = matches!(owner, Owner::Spec(inputs) if is_input(inputs)).then_some("an input");
            if let Some(what) = taken(word).or(input) {
                let role = if i == 0 { "a definition" } else { "a parameter" };
                return Err(not_free(format!("{} is {what} and cannot name {role}", quote(word))));
            }
        }
        if self.spec.contains_key(&name) {
            return Err(not_free(format!("{} is defined twice", quote(&name))));
        }
        Ok((name, params))
    }

    fn refuse_cycles(&mut self, sink: &mut Sink) {
        // Definitions whose uses are all settled are settled; what is left is in a cycle or leads to one.
        let uses: Vec<Vec<usize>> = self.list.iter().map(uses).collect();
        let mut users = vec![Vec::new(); uses.len()];
        let mut unsettled: Vec<usize> = uses.iter().map(Vec::len).collect();
        for (id, used) in uses.iter().enumerate() {
            used.iter().for_each(|&used| users[used].push(id));
        }
        let mut settled: Vec<usize> = (0..uses.len()).filter(|&id| unsettled[id] == 0).collect();
        self.order.clear();
        while let Some(id) = settled.pop() {
            self.order.push(id);
            for &user in &users[id] {
                unsettled[user] -= 1;
                if unsettled[user] == 0 {
                    settled.push(user);
                }
            }
        }
        let mut seen = vec![false; uses.len()];
        for start in 0..uses.len() {
            if unsettled[start] == 0 {
                continue;
            }
            self.list[start].broken.set(true);
            let mut path = Vec::new();
            let mut at = start;
            while !seen[at] {
                seen[at] = true;
                path.push(at);
                at = uses[at].iter().copied().find(|&used| unsettled[used] > 0).unwrap_or(at);
            }
            if let Some(first) = path.iter().position(|&id| id == at) {
                self.report_cycle(&path[first..], sink);
            }
        }
    }

    fn report_cycle(&self, cycle: &[usize], sink: &mut Sink) {
        const MAX_SHOWN: usize = 8;
        let (Some(&first), Some(&next)) = (cycle.first(), cycle.get(1).or(cycle.first())) else { return };
        let definition = &self.list[first];
        let Some(body) = &definition.body else { return };
        let node =
            body.targets.iter().position(|target| matches!(target, Target::Definition(id) if *id == next));
        let location = node.map_or(body.text.token(), |node| body.locate(&body.ast.nodes[node].name));
        let mut names: Vec<&str> =
            cycle.iter().take(MAX_SHOWN).map(|&id| self.list[id].name.as_str()).collect();
        if cycle.len() > MAX_SHOWN {
            names.push("…");
        }
        names.push(&definition.name);
        let message = format!("{} is defined by itself", quote(&definition.name));
        sink.push(Diagnostic::new(Code::S027, &location, message).label(names.join(" → ")));
    }
}

/// What stands in place of the prelude's definitions that count tokens where a spec says so.
fn by_token(pseudo: &Pseudo) -> String {
    let Pseudo { heads, causal_by_token, window_in_tokens, .. } = *pseudo;
    let causal = causal_by_token.then(|| format!("causal = \"k // {heads} <= q // {heads}\"\n"));
    let window =
        window_in_tokens.then(|| format!("\"window(w)\" = \"abs(q // {heads} - k // {heads}) < w\"\n"));
    causal.into_iter().chain(window).collect()
}

/// The definitions that a definition's body names, each as often as it does.
fn uses(definition: &Definition) -> Vec<usize> {
    let targets = definition.body.iter().flat_map(|body| &body.targets);
    targets
        .filter_map(|target| match target {
            Target::Definition(id) => Some(*id),
            _ => None,
        })
        .collect()
}

/// `name` or `name(param, …)`.
fn parse_head(head: &Text) -> Result<(String, Vec<String>), SyntaxError> {
    let text = head.decoded.as_str();
    let wrong = |message: String| {
        SyntaxError::new(Code::S028, 0..text.len() as u32, message).label("expected `name` or `name(a, b)`")
    };
    let (name, params) = match text.trim().split_once('(') {
        None => (text.trim(), Vec::new()),
        Some((name, rest)) => {
            let Some(list) = rest.strip_suffix(')') else {
                return Err(wrong(format!("the head {} does not end with `)`", quote(text))));
            };
            (name.trim_end(), list.split(',').map(str::trim).collect())
        }
    };
    for (i, word) in std::iter::once(&name).chain(&params).enumerate() {
        if word.is_empty() {
            return Err(wrong("a name is missing".to_string()));
        }
        if !is_name(word) && taken(word).is_none() {
            return Err(wrong(format!("{} is not a name", quote(word))));
        }
        if i > 0 && params[..i - 1].contains(word) {
            return Err(wrong(format!("{} is given twice", quote(word))));
        }
    }
    Ok((name.to_string(), params.into_iter().map(str::to_string).collect()))
}

#[cfg(test)]
mod tests {
    use regard_ir::variant::PseudoForm;

    use super::*;

    #[test]
    fn the_prelude_has_no_errors() {
        let by_token = Pseudo {
            heads: 4,
            causal_by_token: true,
            window_in_tokens: true,
            mix: [0, 1, 2],
            collapse: 3,
            form: PseudoForm::Auto,
        };
        for pseudo in [None, Some(&by_token)] {
            let mut sink = Sink::default();
            let definitions = Definitions::read_prelude(pseudo, &mut sink);
            assert_eq!(sink.finish(), []);
            let names: Vec<&str> = definitions.names().collect();
            assert_eq!(
                names,
                ["all", "causal", "window", "band", "first", "global", "prefix", "chunk", "dilated", "same"]
            );
        }
    }
}
