//! Runs commands with a time limit and reports how they ended.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// The time limit of a plugin or a tool, also on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A command for [`crate::World::run`]. Its environment contains only `PATH` and the variables that
/// are set here.
#[derive(Clone, Debug)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    stdin: Vec<u8>,
}

impl Cmd {
    /// A command without arguments and with an empty stdin.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: vec![("PATH".to_owned(), search_path())],
            stdin: Vec::new(),
        }
    }

    /// Appends one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets what is written to stdin.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Makes this command the arguments of another one, for example of `strace …`.
    #[must_use]
    pub fn wrapped_by<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        let mut words: Vec<OsString> = words.into_iter().map(|w| w.as_ref().to_owned()).collect();
        words.push(self.program);
        words.append(&mut self.args);
        self.program = words.remove(0);
        self.args = words;
        self
    }

    /// Runs on the calling thread, so in its namespaces. `netns` is only used in the report.
    pub(crate) fn execute(&self, netns: &str) -> Output {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("start {}: {e}", self.program.to_string_lossy()));
        if let Some(mut stdin) = child.stdin.take() {
            // A command may end without reading all of its stdin.
            let _ = stdin.write_all(&self.stdin);
        }
        self.wait(child, netns)
    }

    fn wait(&self, child: Child, netns: &str) -> Output {
        let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits an i32"));
        let (done, end) = channel();
        thread::spawn(move || done.send(child.wait_with_output()));
        let (result, timed_out) = match end.recv_timeout(TIME_LIMIT) {
            Err(RecvTimeoutError::Timeout) => {
                let _ = killpg(group, Signal::SIGKILL);
                (end.recv(), true)
            }
            other => (other.map_err(|_| std::sync::mpsc::RecvError), false),
        };
        let output = result.expect("the waiting thread reports").expect("wait for the command");
        Output {
            command: self.clone(),
            netns: netns.to_owned(),
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            timed_out,
        }
    }
}

/// How a command ended. `Display` shows all of it, for the report of a failed test.
#[derive(Clone, Debug)]
pub struct Output {
    command: Cmd,
    netns: String,
    /// The exit status.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    timed_out: bool,
}

impl Output {
    /// The exit code; -1 if a signal ended the command.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Panics unless the command exited with status 0 in time.
    #[must_use = "call it for its check, then use the output or drop it"]
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(!self.timed_out, "timed out after {} s\n{self}", TIME_LIMIT.as_secs());
        assert!(self.status.success(), "expected exit status 0\n{self}");
        self
    }

    /// Stdout as one JSON value; null if it is empty.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        if self.stdout.trim().is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("stdout is no JSON value: {e}\n{self}"))
    }

    /// The error object that a plugin printed. Checks exit status 1 and the keys that the
    /// specification requires (`cniVersion`, `code`, `msg`).
    #[must_use]
    #[track_caller]
    pub fn cni_error(&self) -> Value {
        assert_eq!(self.code(), 1, "expected an error and exit status 1\n{self}");
        let error = self.json();
        assert!(error["cniVersion"].is_string(), "the error has no cniVersion\n{self}");
        assert!(error["code"].as_u64().is_some_and(|c| c > 0), "the error has no code\n{self}");
        assert!(error["msg"].as_str().is_some_and(|m| !m.is_empty()), "it has no msg\n{self}");
        error
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cmd { program, args, env, stdin } = &self.command;
        write!(f, "in namespace {}:", self.netns)?;
        for (name, value) in env.iter().filter(|(name, _)| name != "PATH") {
            write!(f, " {name}={value:?}")?;
        }
        write!(f, " {}", program.to_string_lossy())?;
        for arg in args {
            write!(f, " {:?}", arg.to_string_lossy())?;
        }
        writeln!(f, "\n{}", self.status)?;
        let stdin = String::from_utf8_lossy(stdin);
        for (name, text) in
            [("stdin", stdin.as_ref()), ("stdout", &self.stdout), ("stderr", &self.stderr)]
        {
            if !text.is_empty() {
                writeln!(f, "--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// The `PATH` of all commands: that of an ordinary user lacks `sbin`, which contains `ip` and
/// `iptables`.
#[must_use]
pub fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin")
}
