//! Reads the JSON Schema of networks (`schemas/conflist.json`). It supports only the keywords that the schema
//! uses; a test checks that there are no others.

use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::Value;

use super::document::{Content, Node};
use super::finding::Problem;
use super::suggest::nearest;

static ROOT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../schemas/conflist.json")).unwrap_or_default()
});

/// A schema of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema(&'static Value);

impl Schema {
    /// The schema of a list of plugins.
    pub(crate) fn list() -> Self {
        Self::definition("list")
    }

    /// The schema of a single plugin that is a network.
    pub(crate) fn lone() -> Self {
        Self::definition("lone")
    }

    /// The schema of a plugin of any type.
    pub(crate) fn plugin() -> Self {
        Self::definition("plugin")
    }

    /// The schema of an object with all known capabilities.
    pub(crate) fn capabilities() -> Self {
        Self::definition("Capabilities")
    }

    fn definition(name: &str) -> Self {
        Self(&ROOT["definitions"][name])
    }

    /// The known types of plugins, or of IPAM plugins.
    pub(crate) fn types(of_ipam: bool) -> impl Iterator<Item = &'static str> + Clone {
        let name = if of_ipam { "Ipam" } else { "plugin" };
        let kind = &ROOT["definitions"][name]["properties"]["type"];
        texts(&kind["anyOf"][0]["enum"])
    }

    /// All schemas that apply to this value: this one and those of `allOf`.
    pub(crate) fn of(self, node: &Node) -> Vec<Self> {
        if node.content == Content::Null && self.allows_null() {
            return Vec::new();
        }
        let mut all = vec![self.referred()];
        let mut at = 0;
        while let Some(Self(schema)) = all.get(at).copied() {
            let parts = schema["allOf"].as_array().into_iter().flatten();
            all.extend(parts.filter_map(|part| match part.get("if") {
                None => Some(Self(part).referred()),
                Some(condition) => holds(condition, node).then(|| Self(&part["then"]).referred()),
            }));
            at += 1;
        }
        all
    }

    /// Follows a reference. Of alternatives, takes the last one that is not `null`; others are suggestions.
    fn referred(self) -> Self {
        let Self(schema) = self;
        let name = schema["$ref"].as_str().and_then(|it| it.strip_prefix("#/definitions/"));
        let alternatives = schema["anyOf"].as_array().filter(|_| schema.get("type").is_none());
        let one = alternatives.into_iter().flatten().rfind(|it| it["type"] != "null");
        match (name, one) {
            (Some(name), _) => Self::definition(name).referred(),
            (None, Some(one)) => Self(one).referred(),
            (None, None) => self,
        }
    }

    fn allows_null(self) -> bool {
        let alternatives = self.0["anyOf"].as_array();
        alternatives.is_some_and(|them| them.iter().any(|it| it["type"] == "null"))
    }

    pub(crate) fn keys(self) -> impl Iterator<Item = &'static str> + Clone {
        self.0["properties"].as_object().into_iter().flat_map(|it| it.keys().map(String::as_str))
    }

    /// The schema of the value of a key; case does not matter.
    pub(crate) fn property(self, key: &str) -> Option<Self> {
        let name = self.keys().find(|name| name.eq_ignore_ascii_case(key))?;
        Some(Self(&self.0["properties"][name]))
    }

    /// The required keys of an object.
    pub(crate) fn required(self, node: &Node) -> impl Iterator<Item = &'static str> {
        let not_empty = !node.members().is_empty();
        let more = &self.0["then"]["required"];
        texts(&self.0["required"]).chain(texts(more).filter(move |_| not_empty))
    }

    /// The schema of the values of all other keys.
    pub(crate) fn others(self) -> Option<Self> {
        self.0.get("additionalProperties").filter(|it| it.is_object()).map(Self)
    }

    /// Whether other keys of this object are unknown.
    pub(crate) fn is_closed(self) -> bool {
        self.is_type("object") && self.0.get("additionalProperties").is_none()
    }

    /// Whether only the runtime writes the value.
    pub(crate) fn is_read_only(self) -> bool {
        self.0["readOnly"] == true
    }

    /// The schema of the items of a list.
    pub(crate) fn items(self) -> Option<Self> {
        self.0.get("items").map(Self)
    }

    /// The description of the key, as part of a sentence.
    pub(crate) fn purpose(self) -> String {
        let text = self.0["description"].as_str().unwrap_or_default().trim_end_matches('.');
        let mut characters = text.chars();
        characters.next().map(|it| it.to_ascii_lowercase()).into_iter().chain(characters).collect()
    }

    /// What is wrong with a value, without its items and keys.
    pub(crate) fn refuses(self, node: &Node) -> Option<Problem> {
        let fits = match &node.content {
            Content::Null => self.is_type("null"),
            Content::Bool(_) => self.is_type("boolean"),
            Content::Number(_) => self.is_type("integer"),
            Content::Text(_) => self.is_type("string") || self.0.get("enum").is_some(),
            Content::List(_) => self.is_type("array"),
            Content::Object(_) => self.is_type("object"),
        };
        if !fits && (self.0.get("type").is_some() || self.0.get("enum").is_some()) {
            return Some(Problem::Type { expected: self.what(), found: node.what() });
        }
        match &node.content {
            Content::Text(text) => self.refuses_text(text),
            Content::Number(text) => self.refuses_number(text),
            Content::List(items) if items.is_empty() && self.0.get("minItems").is_some() => {
                Some(Problem::Contradiction("is empty".to_owned()))
            }
            _ => None,
        }
    }

    fn refuses_text(self, text: &str) -> Option<Problem> {
        let value = |expected: String, suggestion: Option<String>| {
            Some(Problem::Value { expected, found: format!("{text:?}"), suggestion })
        };
        if self.0.get("enum").is_some() {
            let words = texts(&self.0["enum"]);
            if words.clone().any(|word| word == text) {
                return None;
            }
            let words = words.filter(|word| !word.is_empty());
            let meant = nearest(text, words.clone()).map(str::to_owned);
            return value(format!("one of {}", words.collect::<Vec<_>>().join(", ")), meant);
        }
        let pattern = Regex::new(self.0["pattern"].as_str()?).ok()?;
        if pattern.is_match(text) { None } else { value(self.form(), None) }
    }

    /// The description of a string that matches the pattern.
    fn form(self) -> String {
        let message = self.0["patternErrorMessage"].as_str().unwrap_or_default();
        message.strip_prefix("is not ").unwrap_or(message).to_owned()
    }

    fn refuses_number(self, text: &str) -> Option<Problem> {
        let ranges = self.ranges();
        let fits = |number: i128| ranges.iter().any(|(from, to)| (*from..=*to).contains(&number));
        if ranges.is_empty() || text.parse().is_ok_and(fits) {
            return None;
        }
        let range = |(from, to): &(i128, i128)| {
            if from == to {
                return from.to_string();
            }
            format!("an integer from {from} to {to}")
        };
        let expected = ranges.iter().map(range).collect::<Vec<_>>().join(" or ");
        Some(Problem::Value { expected, found: text.to_owned(), suggestion: None })
    }

    /// The ranges of allowed numbers.
    fn ranges(self) -> Vec<(i128, i128)> {
        let range = |schema: &Value| {
            let limit = |key: &str| {
                let limit = schema.get(key).or_else(|| schema.get("const"))?;
                limit.as_i64().map(i128::from).or_else(|| limit.as_u64().map(i128::from))
            };
            Some((limit("minimum")?, limit("maximum")?))
        };
        let alternatives = self.0["anyOf"].as_array().into_iter().flatten();
        range(self.0).into_iter().chain(alternatives.filter_map(range)).collect()
    }

    /// What is wrong with the name of another key.
    pub(crate) fn refuses_name(self, name: &str) -> Option<Problem> {
        let names = Self(self.0.get("propertyNames")?);
        names.refuses_text(name)?;
        Some(Problem::Contradiction(format!("is not {}", names.form())))
    }

    fn is_type(self, name: &str) -> bool {
        match &self.0["type"] {
            Value::Array(types) => types.iter().any(|it| it == name),
            other => other == name,
        }
    }

    /// The expected type, for a message.
    fn what(self) -> String {
        let of_items = |items: Self| match items {
            _ if items.is_type("array") => "a list of lists",
            _ if items.is_type("object") => "a list of objects",
            _ => "a list of strings",
        };
        let what = match self {
            _ if self.is_type("boolean") => "true or false",
            _ if self.is_type("integer") => "an integer",
            _ if self.is_type("array") => {
                self.items().map_or("a list", |it| of_items(it.referred()))
            }
            _ if self.is_type("object") => "an object",
            _ => "a string",
        };
        what.to_owned()
    }
}

fn texts(list: &'static Value) -> impl Iterator<Item = &'static str> + Clone {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Whether a value meets a condition of a schema: required keys and constant strings.
fn holds(condition: &Value, node: &Node) -> bool {
    if let Some(text) = condition.get("const") {
        return node.text().is_some() && node.text() == text.as_str();
    }
    let there = |key: &Value| key.as_str().is_some_and(|key| node.get(key).is_some());
    let fits = |(key, inner): (&String, &Value)| {
        node.get(key).is_none_or(|member| holds(inner, &member.value))
    };
    condition["required"].as_array().is_none_or(|keys| keys.iter().all(there))
        && condition["properties"].as_object().is_none_or(|them| them.iter().all(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keywords that are read here, and those for people and editors.
    const READ: [&str; 22] = [
        "$ref",
        "additionalProperties",
        "allOf",
        "anyOf",
        "const",
        "definitions",
        "enum",
        "if",
        "items",
        "maximum",
        "minItems",
        "minProperties",
        "minimum",
        "pattern",
        "patternErrorMessage",
        "properties",
        "propertyNames",
        "readOnly",
        "required",
        "then",
        "type",
        "description",
    ];
    const TOLD: [&str; 3] = ["default", "enumDescriptions", "title"];

    #[test]
    fn nothing_is_said_that_is_not_read() {
        fn look(schema: &Value, is_root: bool) {
            for (keyword, value) in schema.as_object().into_iter().flatten() {
                let of_root = ["$comment", "$id", "$schema", "else", "not"];
                let known = READ.contains(&keyword.as_str())
                    || TOLD.contains(&keyword.as_str())
                    || is_root && of_root.contains(&keyword.as_str());
                assert!(known, "{keyword} in {schema}");
                match (keyword.as_str(), value) {
                    // The root decides by keys whether it is a list; here, the name of the file decides.
                    ("if", _) if is_root => {}
                    ("properties" | "definitions", Value::Object(inner)) => {
                        for it in inner.values() {
                            look(it, false);
                        }
                    }
                    ("allOf" | "anyOf", Value::Array(inner)) => {
                        for it in inner {
                            look(it, false);
                        }
                    }
                    ("pattern", pattern) => {
                        assert!(Regex::new(pattern.as_str().unwrap()).is_ok(), "{pattern}");
                        assert!(schema.get("patternErrorMessage").is_some(), "{schema}");
                    }
                    (_, Value::Object(_)) => look(value, false),
                    _ => {}
                }
            }
        }
        assert!(ROOT["definitions"]["list"].is_object());
        look(&ROOT, true);
    }
}
