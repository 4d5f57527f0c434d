//! The ingress controller: nginx in a pod.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::data;
use crate::daemon::Daemon;
use crate::echo::answers;
use crate::world::World;

/// The time limit of a reload, also on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A running nginx and its directory.
#[derive(Debug)]
pub struct Ingress<'a> {
    world: &'a World,
    dir: PathBuf,
    nginx: Daemon,
}

impl<'a> Ingress<'a> {
    /// Starts nginx in a pod, with the rule that sends `localhost` to a Service.
    pub(super) fn start(world: &'a World, pod: &str, service: &str) -> Self {
        let dir = PathBuf::from("/run/nginx").join(pod);
        let rule = data("ingress.conf").replace("BACKEND", service);
        world.files(|| {
            fs::create_dir_all(dir.join("rules")).expect("make nginx's directory");
            fs::write(dir.join("nginx.conf"), data("nginx.conf")).expect("write nginx.conf");
            fs::write(dir.join("rules/localhost.conf"), rule).expect("write the rule");
        });
        let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let (prefix, log, conf) = (file(""), file("error.log"), file("nginx.conf"));
        let nginx = Daemon::start(world, pod, &["nginx", "-p", &prefix, "-e", &log, "-c", &conf]);
        let this = Self { world, dir, nginx };
        this.wait("nginx does not listen", || answers(world, pod, "127.0.0.1:80"));
        this
    }

    /// Deletes the rule and reloads nginx; nothing else is changed.
    pub fn delete_rule(&self) {
        self.world.files(|| {
            fs::remove_file(self.dir.join("rules/localhost.conf")).expect("remove the rule");
        });
        self.nginx.signal(Signal::SIGHUP);
        // Until the old worker has ended, it may accept a connection.
        self.wait("nginx keeps the rule", || self.log().contains("exited with code 0"));
    }

    #[track_caller]
    fn wait(&self, problem: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + TIME_LIMIT;
        while !done() {
            assert!(Instant::now() < deadline, "{problem}\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        self.world.files(|| fs::read_to_string(self.dir.join("error.log")).unwrap_or_default())
    }
}
