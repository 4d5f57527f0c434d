//! The rule "plain words": phrases that comments, messages and documents must not contain.

use std::path::Path;

/// A phrase, in lower case, and what to write instead.
const PHRASES: [(&str, &str); 56] = [
    ("anew", "again"),
    ("are told", "get"),
    ("as far as it fits", "up to the limit"),
    ("as good as", "counts as"),
    ("as it stands", "as it is written"),
    ("belongs into", "belongs in"),
    ("by lot", "at random"),
    ("came of", "the outcome of"),
    ("came to nothing", "failed"),
    ("closed door", "not allowed"),
    ("come to nothing", "fail"),
    ("comes to nothing", "fails"),
    ("for ever", "forever"),
    ("goes before", "comes before"),
    ("has the last word", "decides"),
    ("in vain", "without success"),
    ("is no address", "is not a valid address"),
    ("is no boolean", "must be a boolean"),
    ("is no integer", "must be an integer"),
    ("is no list", "must be a list"),
    ("is no matter", "does not matter"),
    ("is no number", "must be a number"),
    ("is no object", "must be an object"),
    ("is no string", "must be a string"),
    ("is no subnet", "is not a valid subnet"),
    ("is no text", "must be a string"),
    ("is nobody's", "has no owner"),
    ("is told", "gets"),
    ("lest", "so that … not"),
    ("lets go", "releases"),
    ("none the worse", "not changed"),
    ("of its own accord", "by itself"),
    ("of nobody", "without owner"),
    ("slip of the finger", "a typing error"),
    ("slips of the finger", "typing errors"),
    ("somebody", "another program"),
    ("somebody's", "another program's"),
    ("stands in", "is in"),
    ("stands in for", "replaces"),
    ("take the place of", "replace"),
    ("taken for", "treated as"),
    ("takes for", "treats as"),
    ("takes note of", "records"),
    ("takes the place of", "replaces"),
    ("tell of", "report"),
    ("tells of", "describes"),
    ("the way to rules", "finds the rules"),
    ("to be had", "available"),
    ("told of", "reported"),
    ("truth value", "boolean"),
    ("turn about", "alternately"),
    ("what stands", "what is"),
    ("who fulfils", "a packet that matches"),
    ("who has it", "its owner"),
    ("whose a link is", "the owner of a link"),
    ("whose a rule is", "the owner of a rule"),
];

/// The files that the rule reads. This one contains the phrases.
pub(super) const FILES: [&str; 3] = ["*.rs", "*.md", ":!xtask/src/tidy/words.rs"];

/// The first phrase in a file, with its line. A phrase may continue in the next line.
pub(super) fn are_not_plain(_: &Path, text: &str) -> Option<String> {
    let text = text.to_lowercase();
    let lines: Vec<&str> = text.lines().map(words).collect();
    lines.iter().zip(1..).find_map(|(line, number)| {
        let next = lines.get(number).unwrap_or(&"");
        let both = format!("{line} {next}");
        let found = PHRASES.iter().find(|(phrase, _)| begins_in(line, &both, phrase));
        found.map(|(phrase, instead)| format!("line {number}: \"{phrase}\"; write \"{instead}\""))
    })
}

/// A line without its indentation and the mark of a comment.
fn words(line: &str) -> &str {
    line.trim().trim_start_matches('/').trim_start_matches('!').trim_start()
}

/// Whether a phrase begins in `line`, which `both` continues, and consists of whole words.
fn begins_in(line: &str, both: &str, phrase: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    both.match_indices(phrase).take_while(|(at, _)| *at < line.len()).any(|(at, _)| {
        !both[..at].ends_with(is_word) && !both[at + phrase.len()..].starts_with(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_found_with_its_line_and_what_to_write() {
        let found = |text| are_not_plain(Path::new("a.rs"), text);
        let expected = Some("line 2: \"truth value\"; write \"boolean\"".to_owned());
        assert_eq!(found("//! A.\n/// The truth value.\n"), expected);
        assert_eq!(found("//! A.\n    /// The Truth\n    /// value.\n"), expected);
        assert_eq!(found("//! A.\n\"a truth value\"\n"), expected);
        assert_eq!(found("//! A.\nthe untruth value, truth values, truth_value\n"), None);
    }
}
