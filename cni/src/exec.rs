//! Running a plugin: the part of the protocol that runtimes and delegating plugins share.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{fs, io};

use serde_json::Value;

use crate::error::{Code, Error};

/// Why a plugin could not be run, or what it answered could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The type is no file name.
    #[error("plugin type {0:?} is no file name")]
    Type(String),
    /// No directory has it.
    #[error("find plugin {kind:?} in CNI_PATH {path}")]
    NotFound {
        /// The type that was looked for.
        kind: String,
        /// The directories that were looked into.
        path: String,
    },
    /// The program could not be started, or its pipes broke.
    #[error("run plugin {program}")]
    Run {
        /// The path of the program.
        program: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// It failed without saying why.
    #[error("plugin {program} ended with {status} and printed no error object")]
    Silent {
        /// The path of the program.
        program: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It succeeded, but what it printed is not JSON.
    #[error("read the result of plugin {program}")]
    Result {
        /// The path of the program.
        program: String,
        /// Where it stops being JSON.
        #[source]
        source: serde_json::Error,
    },
}

impl From<ExecError> for Error {
    fn from(error: ExecError) -> Self {
        let code = match error {
            ExecError::Type(_) => Code::InvalidConfig,
            _ => Code::Delegate,
        };
        Self::from_source(code, &error)
    }
}

/// Finds the program of a plugin type.
pub fn find(kind: &str, path: &[PathBuf]) -> Result<PathBuf, ExecError> {
    if kind.is_empty() || kind.contains('/') || kind == "." || kind == ".." {
        return Err(ExecError::Type(kind.to_owned()));
    }
    let found = path.iter().map(|dir| dir.join(kind)).find(|program| is_executable(program));
    found.ok_or_else(|| {
        let path: Vec<String> = path.iter().map(|dir| dir.display().to_string()).collect();
        ExecError::NotFound { kind: kind.to_owned(), path: path.join(":") }
    })
}

/// A plugin that was started. If it is dropped, its end is waited for and what it says is lost.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: Child,
    written: io::Result<()>,
}

/// Runs a plugin with this process's environment and `changes` to it, hands it the
/// configuration, and returns what it printed: `None` if that is nothing.
///
/// Errors: the plugin's own error as it printed it; code 103 if it printed none.
pub fn run(
    program: &Path,
    changes: &[(&str, &OsStr)],
    configuration: &[u8],
) -> Result<Option<Value>, Error> {
    start(program, changes, configuration)?.finish()
}

/// As [`run`], without waiting for its end.
pub fn start(
    program: &Path,
    changes: &[(&str, &OsStr)],
    configuration: &[u8],
) -> Result<Running, Error> {
    let name = program.display().to_string();
    // The plugin's stderr is ours: what it says there reaches whoever reads ours.
    let started = Command::new(program)
        .envs(changes.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = started.map_err(|source| ExecError::Run { program: name.clone(), source })?;
    // Written before anything is read: a configuration that fills the pipe (64 KiB) waits for
    // the plugin to read on, which every plugin does before it prints.
    let written = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(configuration));
    Ok(Running { program: name, child, written })
}

impl Running {
    /// Waits for its end, and returns what it printed, as [`run`] does.
    pub fn finish(mut self) -> Result<Option<Value>, Error> {
        let program = std::mem::take(&mut self.program);
        let (status, stdout) = match self.listen() {
            Ok(said) => said,
            Err(source) => return Err(ExecError::Run { program, source }.into()),
        };
        let printed = serde_json::from_slice(&stdout);
        if !status.success() {
            let error = printed.ok().as_ref().and_then(Error::from_json);
            return Err(error.unwrap_or_else(|| ExecError::Silent { program, status }.into()));
        }
        if stdout.trim_ascii().is_empty() {
            return Ok(None);
        }
        let value = printed.map_err(|source| ExecError::Result { program, source })?;
        Ok(Some(value))
    }

    fn listen(&mut self) -> io::Result<(ExitStatus, Vec<u8>)> {
        let mut stdout = Vec::new();
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_end(&mut stdout)?;
        }
        let status = self.child.wait()?;
        match std::mem::replace(&mut self.written, Ok(())) {
            // A plugin that ended early has said why, on stdout or by its status.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok((status, stdout)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // So that it does not wait for somebody to read; then nothing of it is left to fail.
        drop(self.child.stdout.take());
        let _ = self.child.wait();
    }
}

fn is_executable(program: &Path) -> bool {
    fs::metadata(program).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Result<Option<Value>, Error> {
        run(Path::new("/bin/sh"), &[("CNI_X", OsStr::new("it"))], script.as_bytes())
    }

    #[test]
    fn results_and_errors() {
        assert_eq!(sh("").unwrap(), None);
        assert_eq!(sh(r#"echo "{\"a\":\"$CNI_X\"}""#).unwrap().unwrap()["a"], "it");
        let theirs = sh(r#"echo '{"code":999,"msg":"why"}'; exit 1"#).unwrap_err();
        assert_eq!(theirs, Error::new(Code::Other(999), "why"));
    }

    #[test]
    fn neither_result_nor_error() {
        assert_eq!(sh("exit 3").unwrap_err().code, Code::Delegate);
        assert_eq!(sh("echo nonsense; exit 1").unwrap_err().code, Code::Delegate);
        assert_eq!(sh("echo nonsense").unwrap_err().code, Code::Delegate);
        assert_eq!(sh("kill -9 $$").unwrap_err().code, Code::Delegate);
    }

    #[test]
    fn a_plugin_that_does_not_read_is_still_heard() {
        let much = vec![b' '; 1 << 20];
        let error = run(Path::new("/bin/false"), &[], &much).unwrap_err();
        assert!(error.msg.contains("exit status: 1"), "{error}");
    }

    #[test]
    fn a_plugin_that_nobody_listens_to_any_more_is_waited_for() {
        let dir = std::env::temp_dir().join(format!("cni-exec-{}", std::process::id()));
        let script = format!("sleep 0.1; touch {}", dir.display());
        drop(start(Path::new("/bin/sh"), &[], script.as_bytes()).unwrap());
        assert!(dir.exists());
        fs::remove_file(dir).unwrap();
    }

    #[test]
    fn looking_for_programs() {
        let path = [PathBuf::from("/nonexistent"), PathBuf::from("/bin")];
        assert_eq!(find("sh", &path).unwrap(), Path::new("/bin/sh"));
        for bad in ["", ".", "..", "../sh", "a/b"] {
            assert!(matches!(find(bad, &path), Err(ExecError::Type(_))), "{bad}");
        }
        let error = Error::from(find("no-such", &path).unwrap_err());
        assert_eq!(error.msg, "find plugin \"no-such\" in CNI_PATH /nonexistent:/bin");
    }
}
