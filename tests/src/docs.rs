//! The fenced blocks in the READMEs of the plugins and of conflist, and their kinds.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::binaries::workspace;

/// A fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// `FILE:LINE` of its first line, as editors accept it.
    pub place: String,
    /// Its kind.
    pub kind: Kind,
    /// Its content.
    pub text: String,
}

/// The kind of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A network with a list of plugins: the content of a `.conflist`.
    List,
    /// A network of one plugin: the content of a `.conf`.
    Lone,
    /// Commands after `# `, and their output.
    Session,
    /// Another kind of block, and why it is not run here.
    Other(&'static str),
    /// A block whose kind is not known.
    Unknown,
}

/// The files with blocks, relative to the workspace.
#[must_use]
pub fn readmes() -> Vec<PathBuf> {
    let root = workspace();
    let mut files = vec![PathBuf::from("README.md"), PathBuf::from("conflist/README.md")];
    for room in ["plugins", "ipam"] {
        for entry in fs::read_dir(root.join(room)).unwrap() {
            let file = PathBuf::from(room).join(entry.unwrap().file_name()).join("README.md");
            if root.join(&file).is_file() {
                files.push(file);
            }
        }
    }
    files.sort();
    files
}

/// All blocks of all files.
#[must_use]
pub fn blocks() -> Vec<Block> {
    readmes().iter().flat_map(|file| blocks_of(&file.to_string_lossy())).collect()
}

fn blocks_of(file: &str) -> Vec<Block> {
    let text = fs::read_to_string(workspace().join(file)).unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let inside = lines.by_ref().map(|(line, _)| line);
            let inside: Vec<&str> =
                inside.take_while(|line| !line.trim_start().starts_with("```")).collect();
            let text = inside.join("\n");
            let kind = kind(language, &text);
            blocks.push(Block { place: format!("{file}:{}", number + 1), kind, text });
        }
    }
    blocks
}

fn kind(language: &str, text: &str) -> Kind {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    match language {
        "json" if json["plugins"].is_array() => Kind::List,
        "json" if json["type"].is_string() => Kind::Lone,
        "console" => Kind::Session,
        "jsonc" => Kind::Other("a part of an editor's settings"),
        "rust" => {
            Kind::Other("conflist's own tests call these functions; the suite shares no code")
        }
        _ => Kind::Unknown,
    }
}
