//! Holding a document against a table of keys.

use std::path::Path;

use super::document::{Content, Node};
use super::finding::{Finding, Problem, Severity};
use super::schema::{Key, Shape};
use super::suggest::nearest;

/// Collects what is wrong with one file.
pub(crate) struct Checker<'a> {
    pub(crate) file: &'a Path,
    pub(crate) findings: &'a mut Vec<Finding>,
}

impl Checker<'_> {
    pub(crate) fn error(&mut self, line: usize, key: &str, problem: Problem) {
        self.push(Severity::Error, line, key, problem);
    }

    pub(crate) fn warning(&mut self, line: usize, key: &str, problem: Problem) {
        self.push(Severity::Warning, line, key, problem);
    }

    /// Checks the keys of an object and what stands under them. `keys` are all that is known;
    /// without `closed`, others may be known to somebody else.
    pub(crate) fn object(&mut self, node: &Node, path: &str, keys: &[&[Key]], closed: bool) {
        let known = || keys.iter().copied().flatten();
        for key in known() {
            if let (Some(why), None) = (key.required, node.get(key.name)) {
                self.error(node.line, &join(path, key.name), Problem::Missing(why));
            }
        }
        for (index, member) in node.members().iter().enumerate() {
            let at = join(path, &member.key);
            if node.members()[index + 1..].iter().any(|later| later.key == member.key) {
                self.warning(member.line, &at, Problem::Twice);
            }
            if let Some(key) = known().find(|key| key.name.eq_ignore_ascii_case(&member.key)) {
                self.value(&member.value, &at, &key.shape);
            } else if closed && !is_comment(&member.key) {
                let meant = nearest(&member.key, known().map(|key| key.name));
                let problem = Problem::Unknown(meant.map(str::to_owned));
                self.warning(member.line, &at, problem);
            }
        }
    }

    /// Checks a value and everything in it.
    pub(crate) fn value(&mut self, node: &Node, path: &str, shape: &Shape) {
        match (shape, &node.content) {
            // Nothing to say: null is as good as absent, for plugins written in Go and for ours;
            // the keys of an object without a table are checked by whoever knows which they are.
            (_, Content::Null)
            | (Shape::Any, _)
            | (Shape::Bool | Shape::BoolOrText, Content::Bool(_))
            | (Shape::Text, Content::Text(_))
            | (Shape::Object([]), Content::Object(_)) => {}
            (Shape::BoolOrText, Content::Text(text)) => {
                if !["true", "false"].iter().any(|truth| text.eq_ignore_ascii_case(truth)) {
                    self.wrong(node, path, text, "true or false".into(), None);
                }
            }
            (Shape::Form(form), Content::Text(text)) => {
                if !form.fits(text) {
                    self.wrong(node, path, text, form.what(), None);
                }
            }
            (Shape::OneOf(words), Content::Text(text)) => {
                if !words.contains(&text.as_str()) {
                    let words = words.iter().copied().filter(|word| !word.is_empty());
                    let meant = nearest(text, words.clone()).map(str::to_owned);
                    let expected = format!("one of {}", words.collect::<Vec<_>>().join(", "));
                    self.wrong(node, path, text, expected, meant);
                }
            }
            (Shape::Number(from, to), Content::Number(text)) => {
                if !text.parse().is_ok_and(|number: i128| (*from..=*to).contains(&number)) {
                    self.wrong(
                        node,
                        path,
                        text,
                        format!("a whole number from {from} to {to}"),
                        None,
                    );
                }
            }
            (Shape::List(shape), Content::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(item, &format!("{path}[{index}]"), shape);
                }
            }
            (Shape::Object(keys), Content::Object(_)) => self.object(node, path, &[keys], true),
            (Shape::Map(shape), Content::Object(members)) => {
                for member in members {
                    self.value(&member.value, &join(path, &member.key), shape);
                }
            }
            _ => {
                let problem = Problem::Type { expected: shape.what(), found: node.what() };
                self.error(node.line, path, problem);
            }
        }
    }

    fn wrong(
        &mut self,
        node: &Node,
        path: &str,
        found: &str,
        expected: String,
        suggestion: Option<String>,
    ) {
        let found = match &node.content {
            Content::Number(number) => number.clone(),
            _ => format!("{found:?}"),
        };
        self.error(node.line, path, Problem::Value { expected, found, suggestion });
    }

    fn push(&mut self, severity: Severity, line: usize, key: &str, problem: Problem) {
        let file = self.file.to_owned();
        self.findings.push(Finding { file, line, key: key.to_owned(), severity, problem });
    }
}

/// The path of a key inside of what `path` leads to.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// JSON has no comments; people write them into keys of their own.
fn is_comment(key: &str) -> bool {
    key.starts_with(['_', '/', '#'])
}
