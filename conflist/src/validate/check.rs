//! Validates a document against schemas.

use std::path::Path;

use super::document::{Content, Node};
use super::finding::{Finding, Problem, Severity};
use super::schema::Schema;
use super::suggest::nearest;

/// Collects the findings of one file.
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

    pub(crate) fn hint(&mut self, line: usize, key: &str, problem: Problem) {
        self.push(Severity::Hint, line, key, problem);
    }

    /// Whether the value at `path` has an error.
    pub(crate) fn has_error_in(&self, path: &str) -> bool {
        let mut errors = self.findings.iter().filter(|it| it.severity == Severity::Error);
        errors.any(|it| it.file == self.file && it.key.starts_with(path))
    }

    /// Validates a value and everything in it against all schemas.
    pub(crate) fn value(&mut self, node: &Node, path: &str, schemas: &[Schema]) {
        let schemas: Vec<Schema> = schemas.iter().flat_map(|schema| schema.of(node)).collect();
        if let Some(problem) = schemas.iter().find_map(|schema| schema.refuses(node)) {
            self.error(node.line, path, problem);
            return;
        }
        match &node.content {
            Content::List(items) => {
                let of_items: Vec<Schema> = schemas.iter().filter_map(|it| it.items()).collect();
                for (index, item) in items.iter().enumerate() {
                    self.value(item, &format!("{path}[{index}]"), &of_items);
                }
            }
            Content::Object(_) => self.object(node, path, &schemas),
            _ => {}
        }
    }

    fn object(&mut self, node: &Node, path: &str, schemas: &[Schema]) {
        let mut missing: Vec<&str> = schemas.iter().flat_map(|it| it.required(node)).collect();
        missing.retain(|key| node.get(key).is_none());
        missing.dedup();
        for key in missing.iter().copied() {
            let property = schemas.iter().find_map(|it| it.property(key));
            let why = property.map(Schema::purpose).unwrap_or_default();
            self.error(node.line, &join(path, key), Problem::Missing(why));
        }
        let is_closed = schemas.iter().any(|it| it.is_closed());
        for (index, member) in node.members().iter().enumerate() {
            let (at, key) = (join(path, &member.key), member.key.as_str());
            if node.members()[index + 1..].iter().any(|later| later.key == key) {
                self.warning(member.line, &at, Problem::Twice);
            }
            let mut said: Vec<Schema> = schemas.iter().filter_map(|it| it.property(key)).collect();
            if said.iter().any(|it| it.is_read_only()) {
                self.warning(member.line, &at, Problem::Reserved);
            }
            if said.is_empty() {
                if let Some(problem) = schemas.iter().find_map(|it| it.refuses_name(key)) {
                    self.error(member.line, &at, problem);
                }
                said = schemas.iter().filter_map(|it| it.others()).collect();
            }
            if said.is_empty() && is_closed && !is_comment(key) {
                let meant = nearest(key, schemas.iter().flat_map(|it| it.keys()));
                self.warning(member.line, &at, Problem::Unknown(meant.map(str::to_owned)));
            }
            if !missing.contains(&key) {
                self.value(&member.value, &at, &said);
            }
        }
    }

    fn push(&mut self, severity: Severity, line: usize, key: &str, problem: Problem) {
        let file = self.file.to_owned();
        self.findings.push(Finding { file, line, key: key.to_owned(), severity, problem });
    }
}

/// The path of a key in the object at `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Whether a key is a comment: JSON has no others.
fn is_comment(key: &str) -> bool {
    key.starts_with(['_', '/', '#'])
}
