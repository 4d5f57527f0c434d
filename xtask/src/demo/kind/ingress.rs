//! The ingress controller: nginx in a pod, with its files in the workplace.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{data, programs};
use crate::demo::DemoError;
use crate::demo::machine::{Machine, Workplace};

const PATIENCE: Duration = Duration::from_secs(10);

/// A running nginx; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ingress {
    nginx: Child,
    dir: PathBuf,
}

impl Ingress {
    /// Starts nginx with the rule that sends `localhost` to a Service, and waits until it answers
    /// `seen_from`.
    pub(super) fn start(
        pod: &Machine,
        workplace: &Workplace,
        service: SocketAddr,
        (seen_from, address): (&Machine, SocketAddr),
    ) -> Result<Self, DemoError> {
        let dir = workplace.path().join(format!("nginx-{}", address.ip()));
        let rule = data("ingress.conf")?.replace("BACKEND", &service.to_string());
        create_dir(&dir.join("rules"))?;
        write(&dir.join("nginx.conf"), &data("nginx.conf")?)?;
        write(&dir.join("rules/localhost.conf"), &rule)?;

        let mut nginx = Command::new(programs::find(programs::SETPRIV)?);
        nginx.args(["--pdeathsig", "TERM"]).arg(programs::find(programs::NGINX)?);
        nginx.arg("-p").arg(&dir).arg("-e").arg(dir.join("error.log"));
        nginx.arg("-c").arg(dir.join("nginx.conf")).stdin(Stdio::null());
        // The thread that starts nginx lives as long as the pod.
        let started = pod.run(move || nginx.spawn());
        let nginx = started.map_err(|error| DemoError::Run("nginx", error.to_string()))?;
        let ingress = Self { nginx, dir };
        ingress.wait("it does not listen", || {
            seen_from.run(move || TcpStream::connect_timeout(&address, PATIENCE).is_ok())
        })?;
        Ok(ingress)
    }

    /// Deletes the rule and reloads nginx; nothing else is changed.
    pub(super) fn delete_rule(&self) -> Result<(), DemoError> {
        let rule = self.dir.join("rules/localhost.conf");
        fs::remove_file(&rule).map_err(|error| DemoError::File("remove", rule, error))?;
        self.signal(Signal::SIGHUP)?;
        // Until the old worker has ended, it may accept a connection.
        self.wait("it keeps the rule", || self.log().contains("exited with code 0"))
    }

    fn signal(&self, signal: Signal) -> Result<(), DemoError> {
        let pid = Pid::from_raw(self.nginx.id().cast_signed());
        kill(pid, signal).map_err(|errno| DemoError::Run("nginx", errno.to_string()))
    }

    fn wait(&self, problem: &str, done: impl Fn() -> bool) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            if Instant::now() > deadline {
                return Err(DemoError::Run("nginx", format!("{problem}\n{}", self.log())));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("error.log")).unwrap_or_default()
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        match self.signal(Signal::SIGTERM) {
            // Its status does not matter.
            Ok(()) => drop(self.nginx.wait()),
            Err(error) => eprintln!("{error}"),
        }
    }
}

fn create_dir(path: &Path) -> Result<(), DemoError> {
    fs::create_dir_all(path).map_err(|error| DemoError::File("create", path.to_owned(), error))
}

fn write(path: &Path, text: &str) -> Result<(), DemoError> {
    fs::write(path, text).map_err(|error| DemoError::File("write", path.to_owned(), error))
}
