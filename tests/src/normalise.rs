//! Replaces values that differ between runs by placeholders.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Captures, Regex};
use serde_json::Value;

use crate::world::{NODE, STATE_DIR, netns_path};

/// Numbers interface names and hardware addresses by first appearance, and replaces known paths.
///
/// Equal placeholders stand for equal values: a rule that names the interface of the result still
/// does.
#[derive(Debug)]
pub struct Normaliser {
    paths: Vec<(String, &'static str)>,
    fixed: BTreeSet<String>,
    seen: BTreeMap<&'static str, BTreeMap<String, String>>,
    patterns: Patterns,
}

#[derive(Debug)]
struct Patterns {
    mac: Regex,
    veth: Regex,
    link_local: Regex,
    pointer: Regex,
    time: Regex,
}

impl Normaliser {
    /// `bin` becomes `$BIN`; hardware addresses in `given`, the input of the test, stay.
    #[must_use]
    pub fn new(bin: &str, given: &str) -> Self {
        let regex = |text| Regex::new(&format!("(?-u){text}")).expect("a valid pattern");
        let patterns = Patterns {
            mac: regex(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"),
            veth: regex(r"\bveth[0-9a-f]{4,11}\b"),
            link_local: regex(r"\bfe80::[0-9a-f]+:[0-9a-f:]+"),
            pointer: regex(r"\b(?:0x[0-9a-f]{9,16}|\d{12,15})\b"),
            time: regex(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d"),
        };
        let given = given.to_lowercase();
        let fixed = patterns.mac.find_iter(&given).map(|m| m.as_str().to_owned()).collect();
        let mut paths: Vec<_> =
            placeholders().into_iter().map(|(name, path)| (path, name)).collect();
        paths.push((bin.to_owned(), "$BIN"));
        paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Self { paths, fixed, seen: BTreeMap::new(), patterns }
    }

    /// Normalises a string.
    pub fn text(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (path, name) in &self.paths {
            text = text.replace(path, name);
        }
        let Self { patterns, seen, fixed, .. } = self;
        let text = patterns
            .veth
            .replace_all(&text, |found: &Captures<'_>| number(seen, "$VETH", &found[0]));
        let text = patterns.mac.replace_all(&text, |found: &Captures<'_>| {
            let mac = &found[0];
            if fixed.contains(mac) || mac.starts_with("00:00") || mac.starts_with("ff:ff") {
                mac.to_owned()
            } else {
                number(seen, "$MAC", mac)
            }
        });
        // In a replacement, `$` starts the name of a group and `$$` is the character.
        let text = patterns.link_local.replace_all(&text, "fe80::$$EUI64");
        let text = patterns.pointer.replace_all(&text, "$$POINTER");
        patterns.time.replace_all(&text, "$$TIME").into_owned()
    }

    /// Normalises all strings of a value, including its keys.
    pub fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(k, v)| (self.text(k), self.value(v))).collect())
            }
            other => other.clone(),
        }
    }

    /// The reverse: puts paths into the input of a case.
    #[must_use]
    pub fn expand(text: &str) -> String {
        let mut names = placeholders();
        // `$NETNS` is a prefix of `$NETNS_B`.
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.iter().fold(text.to_owned(), |text, (name, path)| text.replace(name, path))
    }
}

fn placeholders() -> Vec<(&'static str, String)> {
    vec![
        ("$STATE", STATE_DIR.to_owned()),
        ("$NODE_NETNS", netns_path(NODE)),
        ("$NETNS_B", netns_path("pod-b")),
        ("$NETNS", netns_path("pod-a")),
    ]
}

fn number(
    seen: &mut BTreeMap<&'static str, BTreeMap<String, String>>,
    kind: &'static str,
    text: &str,
) -> String {
    let known = seen.entry(kind).or_default();
    let next = format!("{kind}{}", known.len() + 1);
    known.entry(text.to_owned()).or_insert(next).clone()
}
