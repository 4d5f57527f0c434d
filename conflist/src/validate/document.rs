//! JSON with line numbers and duplicate keys.

use jsonc_parser::ast::{ObjectProp, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions};

/// A value, and the line where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// The line, from 1.
    pub(crate) line: usize,
    pub(crate) content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    /// As it was written, because JSON has no limits for numbers.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
}

/// A key of an object with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) key: String,
    /// The line of the key, from 1.
    pub(crate) line: usize,
    pub(crate) value: Node,
}

/// Why a document is not valid JSON, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) why: String,
}

impl Node {
    /// Reads a document. Stops at the first syntax error, as the plugins' parsers do.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SyntaxError> {
        // serde_json first: plugins use it, its messages are better known, and it limits the depth.
        serde_json::from_slice::<serde_json::Value>(bytes).map_err(|error| {
            let why = error.to_string();
            let why = why.split(" at line ").next().unwrap_or_default();
            let why = if bytes.trim_ascii().is_empty() { "the file is empty" } else { why };
            let column = error.column();
            SyntaxError { line: error.line().max(1), why: format!("{why} (column {column})") }
        })?;
        let text = str::from_utf8(bytes)
            .map_err(|error| SyntaxError { line: 1, why: error.to_string() })?;
        let starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let parsed = jsonc_parser::parse_to_ast(text, &CollectOptions::default(), &strict());
        match parsed.map(|parsed| parsed.value) {
            Ok(Some(value)) => Ok(Self::of(&value, &starts)),
            Ok(None) => Err(SyntaxError { line: 1, why: "the file is empty".into() }),
            Err(error) => {
                Err(SyntaxError { line: error.line_display(), why: error.kind().to_string() })
            }
        }
    }

    fn of(value: &Value<'_>, starts: &[usize]) -> Self {
        let content = match value {
            Value::NullKeyword(_) => Content::Null,
            Value::BooleanLit(it) => Content::Bool(it.value),
            Value::NumberLit(it) => Content::Number(it.value.to_owned()),
            Value::StringLit(it) => Content::Text(it.value.clone().into_owned()),
            Value::Array(list) => {
                Content::List(list.elements.iter().map(|it| Self::of(it, starts)).collect())
            }
            Value::Object(object) => {
                Content::Object(object.properties.iter().map(|it| Member::of(it, starts)).collect())
            }
        };
        Self { line: line(value.start(), starts), content }
    }

    /// The value without line numbers. If a key is given twice, the last value counts.
    pub(crate) fn to_value(&self) -> serde_json::Value {
        match &self.content {
            Content::Null => serde_json::Value::Null,
            Content::Bool(it) => (*it).into(),
            Content::Number(it) => serde_json::from_str(it).unwrap_or_default(),
            Content::Text(it) => it.as_str().into(),
            Content::List(items) => items.iter().map(Self::to_value).collect(),
            Content::Object(members) => {
                members.iter().map(|it| (it.key.clone(), it.value.to_value())).collect()
            }
        }
    }

    /// The line of the value at a path such as `ipam.ranges[0].subnet`, or of the last part that exists. Keys
    /// may contain dots.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        if let Some(member) = self.get(path) {
            return member.line;
        }
        if let Some((index, rest)) = path.strip_prefix('[').and_then(|path| path.split_once(']')) {
            let item = index.parse::<usize>().ok().and_then(|index| self.items().get(index));
            return item.map_or(self.line, |item| item.line_of(rest.trim_start_matches('.')));
        }
        let (key, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
        let value = self.get(key).map(|member| &member.value);
        value.map_or(self.line, |value| value.line_of(rest.trim_start_matches('.')))
    }

    /// The members of an object; empty for other values.
    pub(crate) fn members(&self) -> &[Member] {
        match &self.content {
            Content::Object(members) => members,
            _ => &[],
        }
    }

    /// The items of a list; empty for other values.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.content {
            Content::List(items) => items,
            _ => &[],
        }
    }

    /// The member with a key, as plugins find it: case does not matter, but an exact match comes first, then
    /// the last one. `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Member> {
        let members = || self.members().iter().rev();
        let exact = members().find(|member| member.key == key);
        exact
            .or_else(|| members().find(|member| member.key.eq_ignore_ascii_case(key)))
            .filter(|member| member.value.content != Content::Null)
    }

    /// The string of a key.
    pub(crate) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key)?.value.text()
    }

    /// Whether the value of a key is `true`.
    pub(crate) fn is_true(&self, key: &str) -> bool {
        self.get(key).is_some_and(|member| member.value.content == Content::Bool(true))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for a message.
    pub(crate) fn what(&self) -> &'static str {
        match &self.content {
            Content::Null => "null",
            Content::Bool(_) => "true or false",
            Content::Number(_) => "a number",
            Content::Text(_) => "a string",
            Content::List(_) => "a list",
            Content::Object(_) => "an object",
        }
    }
}

impl Member {
    fn of(property: &ObjectProp<'_>, starts: &[usize]) -> Self {
        Self {
            key: property.name.as_str().to_owned(),
            line: line(property.start(), starts),
            value: Node::of(&property.value, starts),
        }
    }
}

fn line(offset: usize, starts: &[usize]) -> usize {
    starts.partition_point(|start| *start <= offset)
}

fn strict() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let node = Node::parse(b"{\n\"a\": [1,\n  {\"b\":\n\"x\"}],\n\"A\": null }").unwrap();
        let a = node.get("a").unwrap();
        assert_eq!((a.line, a.value.line), (2, 2));
        let [one, object] = a.value.items() else { panic!("two items") };
        assert_eq!((one.line, &one.content), (2, &Content::Number("1".into())));
        let b = object.get("B").unwrap();
        assert_eq!((b.line, b.value.line, b.value.text()), (3, 4, Some("x")));
        assert_eq!(node.members()[1].line, 5);
    }

    #[test]
    fn the_first_error_has_a_line_too() {
        for (text, line) in
            [("", 1), ("{\n\"a\": 1,\n}", 3), ("{'a': 1}", 1), ("[1]\n\nx", 3), ("// c\n{}", 1)]
        {
            assert_eq!(Node::parse(text.as_bytes()).unwrap_err().line, line, "{text}");
        }
        assert!(Node::parse(b"{\"a\": \"\xff\"}").is_err());
        assert!(Node::parse("[".repeat(10_000).as_bytes()).is_err());
    }

    proptest! {
        /// Everything that serde_json accepts is accepted, with the same value.
        #[test]
        fn what_is_json_is_read(value in any::<Vec<(String, Option<i64>, String)>>()) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            let node = Node::parse(text.as_bytes()).unwrap();
            for (item, (key, number, text)) in node.items().iter().zip(&value) {
                let [k, n, t] = item.items() else { panic!("three items") };
                prop_assert_eq!(k.text(), Some(key.as_str()));
                prop_assert_eq!(t.text(), Some(text.as_str()));
                let number = number.map_or(Content::Null, |it| Content::Number(it.to_string()));
                prop_assert_eq!(&n.content, &number);
            }
            prop_assert_eq!(node.items().len(), value.len());
        }

        #[test]
        fn no_text_panics(bytes: Vec<u8>, text in r#"[\[\]{}0-9",:a-z\\ue.+\n -]{0,40}"#) {
            let _ = Node::parse(&bytes);
            let parsed = Node::parse(text.as_bytes()).is_ok();
            prop_assert_eq!(parsed, serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
