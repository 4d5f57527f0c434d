//! The differences between two JSON values, as few as possible.

use serde_json::Value;

/// A difference between two values.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its path of keys and indices: `/node/links/0/mtu`.
    pub path: String,
    /// The expected value; `None` if nothing is expected there.
    pub expected: Option<Value>,
    /// The value that was found; `None` if nothing is there.
    pub found: Option<Value>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show =
            |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), Value::to_string);
        let (expected, found) = (show(&self.expected), show(&self.found));
        write!(f, "{}\n    expected {expected}\n    found    {found}", self.path)
    }
}

/// All differences. An element that was added to or removed from a list is reported as such; the
/// elements after it do not differ because of it.
#[must_use]
pub fn differences(expected: &Value, found: &Value) -> Vec<Difference> {
    let mut result = Vec::new();
    compare(String::new(), Some(expected), Some(found), &mut result);
    result
}

fn compare(path: String, a: Option<&Value>, b: Option<&Value>, out: &mut Vec<Difference>) {
    match (a, b) {
        _ if a == b => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                compare(format!("{path}/{key}"), a.get(key), b.get(key), out);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for (index, a, b) in align(a, b) {
                compare(format!("{path}/{index}"), a, b, out);
            }
        }
        _ => out.push(Difference { path, expected: a.cloned(), found: b.cloned() }),
    }
}

/// Pairs the elements of two lists: equal ones along a longest common subsequence, and the remaining
/// ones between them in order. The index is the one in the expected list.
fn align<'a>(a: &'a [Value], b: &'a [Value]) -> Vec<(usize, Option<&'a Value>, Option<&'a Value>)> {
    // common[i][j] is the length of the longest common subsequence of a[i..] and b[j..].
    let mut common = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut pairs = Vec::new();
    while i < a.len() || j < b.len() {
        let (i_start, j_start) = (i, j);
        while (i < a.len() || j < b.len()) && !(i < a.len() && j < b.len() && a[i] == b[j]) {
            if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
                i += 1;
            } else {
                j += 1;
            }
        }
        for n in 0..(i - i_start).max(j - j_start) {
            pairs.push((i_start + n, a[i_start..i].get(n), b[j_start..j].get(n)));
        }
        while i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        }
    }
    pairs
}

/// Whether `text` matches `pattern`, in which `*` matches any characters but a slash, `**` matches any
/// characters, and `[abc]` matches one of these characters.
#[must_use]
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("**") {
        return (0..=text.len())
            .filter(|&n| text.is_char_boundary(n))
            .any(|n| matches_pattern(rest, &text[n..]));
    }
    if let Some((set, rest)) = pattern.strip_prefix('[').and_then(|p| p.split_once(']')) {
        return text.strip_prefix(|c| set.contains(c)).is_some_and(|t| matches_pattern(rest, t));
    }
    let Some(first) = pattern.chars().next() else { return text.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    if first == '*' {
        let end = text.find('/').unwrap_or(text.len());
        return (0..=end)
            .filter(|&n| text.is_char_boundary(n))
            .any(|n| matches_pattern(rest, &text[n..]));
    }
    text.strip_prefix(first).is_some_and(|text| matches_pattern(rest, text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(expected: &Value, found: &Value) -> Vec<String> {
        differences(expected, found).into_iter().map(|d| d.path).collect()
    }

    #[test]
    fn equal_values_do_not_differ() {
        assert!(paths(&json!({"a": [1, {"b": null}]}), &json!({"a": [1, {"b": null}]})).is_empty());
    }

    #[test]
    fn an_inserted_element_is_the_only_difference() {
        let found = differences(&json!(["a", "b", "c"]), &json!(["a", "x", "b", "c"]));
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].expected, &found[0].found), (&None, &Some(json!("x"))));
    }

    #[test]
    fn a_changed_element_is_compared_inside() {
        let (a, b) =
            (json!([1, {"mtu": 1500, "name": "x"}]), json!([1, {"mtu": 9000, "name": "x"}]));
        assert_eq!(paths(&a, &b), ["/1/mtu"]);
    }

    #[test]
    fn a_missing_key_is_found_on_both_sides() {
        assert_eq!(paths(&json!({"a": 1, "b": 2}), &json!({"b": 2, "c": 3})), ["/a", "/c"]);
    }

    #[test]
    fn patterns_stop_at_slashes_unless_doubled() {
        assert!(matches_pattern("steps/*/stdout", "steps/12/stdout"));
        assert!(!matches_pattern("steps/*", "steps/12/stdout"));
        assert!(matches_pattern("steps/**", "steps/12/stdout"));
        assert!(matches_pattern("**/ipam", "a/b/ipam"));
        assert!(!matches_pattern("**/ipam", "a/b/ipam2"));
    }

    #[test]
    fn patterns_have_sets_of_characters() {
        assert!(matches_pattern("steps/[12]/*", "steps/1/x"));
        assert!(!matches_pattern("steps/[12]/*", "steps/3/x"));
        assert!(!matches_pattern("steps/[12]/*", "steps/12/x"));
    }
}
