//! Running a plugin, as a runtime does and as a plugin does that delegates.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::error::Error;

mod error;
mod running;

pub use error::ExecError;
pub use running::Running;

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

/// Runs a plugin with this process's environment and `changes` to it, writes the configuration to its stdin,
/// and returns what it printed; `None` if it printed nothing.
///
/// Errors: the error object that the plugin printed; code 103 if it printed none.
pub fn run(
    program: &Path,
    changes: &[(&str, &OsStr)],
    configuration: &[u8],
) -> Result<Option<Value>, Error> {
    start(program, changes, configuration)?.finish()
}

/// As [`run`], but does not wait until the plugin ends.
pub fn start(
    program: &Path,
    changes: &[(&str, &OsStr)],
    configuration: &[u8],
) -> Result<Running, Error> {
    let name = program.display().to_string();
    // The plugin's stderr is ours, so its messages are shown where ours are.
    let started = Command::new(program)
        .envs(changes.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|child| Running::new(name.clone(), child, configuration));
    Ok(started.map_err(|source| ExecError::Run { program: name, source })?)
}

fn is_executable(program: &Path) -> bool {
    fs::metadata(program).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::error::Code;

    /// Runs a script as a plugin, with its configuration on stdin.
    fn run_script(script: &str, configuration: &[u8]) -> Result<Option<Value>, Error> {
        let name = format!("cni-exec-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        // A child of another test can keep the file open for writing until its execve(2).
        let is_busy = |result: &Result<_, Error>| {
            result.as_ref().is_err_and(|error| error.details.contains("Text file busy"))
        };
        let results = std::iter::repeat_with(|| run(&path, &[], configuration));
        let result = results.into_iter().find(|result| !is_busy(result)).unwrap();
        fs::remove_file(path).unwrap();
        result
    }

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
    fn neither_a_result_nor_an_error() {
        assert_eq!(sh("exit 3").unwrap_err().code, Code::Delegate);
        assert_eq!(sh("echo nonsense; exit 1").unwrap_err().code, Code::Delegate);
        assert_eq!(sh("echo nonsense").unwrap_err().code, Code::Delegate);
        assert_eq!(sh("kill -9 $$").unwrap_err().code, Code::Delegate);
    }

    #[test]
    fn the_error_of_a_plugin_that_does_not_read() {
        let much = vec![b' '; 1 << 20];
        let error = run(Path::new("/bin/false"), &[], &much).unwrap_err();
        assert!(error.msg.contains("exit status: 1"), "{error}");
    }

    /// Both pipes have room for 64 KiB, so each side must read while it writes.
    #[test]
    fn a_plugin_prints_before_it_reads() {
        let script =
            "head -c 300000 /dev/zero | tr '\\0' ' '; echo '{}'; exec >&-; [ $(wc -c) = 1048576 ]";
        let much = vec![b' '; 1 << 20];
        assert_eq!(run_script(script, &much).unwrap(), Some(Value::Object(Map::new())));
    }

    #[test]
    fn a_plugin_reads_slowly() {
        let much = vec![b' '; 1 << 20];
        assert_eq!(run_script("printf %s $(wc -c)", &much).unwrap(), Some(Value::from(1 << 20)));
    }

    #[test]
    fn processes_that_a_plugin_leaves_behind_are_not_waited_for() {
        let printed = run_script("sleep 1000 & echo \"{\\\"pid\\\":$!}\"", b"").unwrap().unwrap();
        let pid = i32::try_from(printed["pid"].as_i64().unwrap()).unwrap();
        let sleeping = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(sleeping, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn a_plugin_prints_too_much() {
        for script in
            ["exec cat /dev/zero", "trap '' PIPE; while true; do head -c 1000000 /dev/zero; done"]
        {
            let error = run_script(script, b"").unwrap_err();
            assert_eq!(error.code, Code::Delegate);
            assert!(error.msg.contains("more than the limit of 16777216 bytes"), "{error}");
        }
    }

    #[test]
    fn the_environment_is_passed_on() {
        let printed = run_script("printf '\"%s\"' \"$PATH\"", b"").unwrap();
        assert_eq!(printed, Some(Value::from(std::env::var("PATH").unwrap())));
    }

    #[test]
    fn a_plugin_is_waited_for_even_if_its_output_is_not_read() {
        let dir = std::env::temp_dir().join(format!("cni-exec-{}", std::process::id()));
        let script = format!("sleep 0.1; touch {}", dir.display());
        drop(start(Path::new("/bin/sh"), &[], script.as_bytes()).unwrap());
        assert!(dir.exists());
        fs::remove_file(dir).unwrap();
    }

    #[test]
    fn finding_programs() {
        let path = [PathBuf::from("/nonexistent"), PathBuf::from("/bin")];
        assert_eq!(find("sh", &path).unwrap(), Path::new("/bin/sh"));
        for bad in ["", ".", "..", "../sh", "a/b"] {
            assert!(matches!(find(bad, &path), Err(ExecError::Type(_))), "{bad}");
        }
        let error = Error::from(find("no-such", &path).unwrap_err());
        assert_eq!(error.msg, "find plugin \"no-such\" in CNI_PATH /nonexistent:/bin");
    }
}
