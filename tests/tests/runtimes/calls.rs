//! The calls of the plugins as the recorder saw them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// One call of a plugin.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Call {
    pub plugin: String,
    /// The name of the calling process.
    pub parent: String,
    /// The environment variables whose names begin with `CNI_`.
    pub env: BTreeMap<String, String>,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub exit: Option<i32>,
}

impl Call {
    /// All calls in the file of a recorder.
    pub(crate) fn parse_all(text: &str) -> Vec<Self> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        text.lines().map(parse).collect()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, parent, env, stdin, stdout, stderr, exit } = self;
        let exit = exit.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        write!(f, "{parent} -> {plugin}")?;
        for (name, value) in env {
            write!(f, " {name}={value:?}")?;
        }
        write!(f, "\n  < {}\n  > {exit}: {}", stdin.trim(), one_line(stdout))?;
        if !stderr.is_empty() {
            write!(f, "\n  stderr: {}", stderr.trim())?;
        }
        Ok(())
    }
}

/// JSON without optional white space.
fn one_line(json: &str) -> String {
    json.lines().map(str::trim_start).collect()
}
