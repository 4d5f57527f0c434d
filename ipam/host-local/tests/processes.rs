//! Many processes of the program at the same time, also with the reference plugin in the same directory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::collections::{BTreeSet, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

const OURS: &str = env!("CARGO_BIN_EXE_host-local");

/// A data directory of one test, removed at its end.
struct DataDir(PathBuf);

impl DataDir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("host-local-processes-{}-{count}", process::id());
        Self(env::temp_dir().join(name))
    }

    fn run(&self, program: &Path, command: &str, container: &str, subnet: &str) -> Output {
        self.start(program, command, container, subnet).wait_with_output().unwrap()
    }

    fn start(&self, program: &Path, command: &str, container: &str, subnet: &str) -> Child {
        let config = format!(
            r#"{{"cniVersion": "1.0.0", "name": "net", "type": "any", "ipam": {{
                "type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "{subnet}"}}]]}}}}"#,
            self.0.display()
        );
        let mut child = Command::new(program)
            .env_clear()
            .envs([
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", container),
                ("CNI_NETNS", "/run/netns/nothing"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_PATH", "/nonexistent"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        child
    }

    /// Removes the index, which remains if the reference plugin has deleted the last lease.
    fn forget_index(&self) {
        assert!(self.run(OURS.as_ref(), "DEL", "nobody", "10.1.0.0/16").status.success());
    }

    fn leases(&self) -> BTreeSet<String> {
        let names = fs::read_dir(self.0.join("net")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The address of an ADD that succeeded, or the error's code.
fn address(output: &Output) -> Result<String, u64> {
    let printed: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    if output.status.success() {
        Ok(printed["ips"][0]["address"].as_str().unwrap().to_owned())
    } else {
        Err(printed["code"].as_u64().unwrap())
    }
}

/// The reference plugin, if it is installed: in the directory `GO_PLUGINS`, where `cargo xtask test` installs
/// it, or in that of Debian's package.
fn reference() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/reference/bin");
    let named = env::var_os("GO_PLUGINS").map(PathBuf::from);
    let dirs = named.into_iter().chain([installed, "/usr/lib/cni".into()]);
    let found = dirs.map(|dir| dir.join("host-local")).find(|program| program.is_file());
    if found.is_none() {
        testbed::skip("no reference host-local; set GO_PLUGINS to its directory");
    }
    found
}

/// Runs ADDs and DELs of the programs in turn, eight at a time. No address is assigned twice, and at the end
/// exactly the leases exist that were not deleted.
fn in_parallel(programs: &[PathBuf]) {
    let dir = DataDir::new();
    let live = thread::scope(|scope| {
        let worker = |worker: usize| {
            let dir = &dir;
            scope.spawn(move || {
                let mut live = Vec::new();
                for round in 0..24 {
                    let program = &programs[(worker + round) % programs.len()];
                    let id = format!("w{worker}-{round}");
                    live.push((address(&dir.run(program, "ADD", &id, "10.1.0.0/16")).unwrap(), id));
                    // Also with the program that did not make the lease.
                    if round % 3 == 2 {
                        let (_, id) = live.remove(0);
                        let program = &programs[round % programs.len()];
                        assert!(dir.run(program, "DEL", &id, "10.1.0.0/16").status.success());
                    }
                }
                live
            })
        };
        let workers: Vec<_> = (0..8).map(worker).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let distinct: HashSet<_> = live.iter().map(|(address, _)| address).collect();
    assert_eq!((distinct.len(), live.len()), (8 * 16, 8 * 16));
    let ips = live.iter().map(|(address, _)| address.trim_end_matches("/16").to_owned());
    assert_eq!(dir.leases(), ips.collect());

    for (at, (_, id)) in live.iter().enumerate() {
        let program = &programs[at % programs.len()];
        assert!(dir.run(program, "DEL", id, "10.1.0.0/16").status.success());
    }
    assert_eq!(dir.leases(), BTreeSet::new());
    dir.forget_index();
}

#[test]
fn no_address_is_assigned_twice() {
    in_parallel(&[OURS.into()]);
}

#[test]
fn no_address_is_assigned_twice_with_the_reference_plugin() {
    let Some(reference) = reference() else { return };
    in_parallel(&[OURS.into(), reference]);
}

#[test]
fn each_sees_the_leases_of_the_other() {
    let Some(reference) = reference() else { return };
    let (dir, ours, subnet) = (DataDir::new(), PathBuf::from(OURS), "10.1.2.0/29");
    for (made_by, other) in [(&ours, &reference), (&reference, &ours)] {
        assert!(address(&dir.run(made_by, "ADD", "a", subnet)).is_ok());
        assert!(dir.run(other, "CHECK", "a", subnet).status.success());
        assert!(address(&dir.run(other, "ADD", "a", subnet)).is_err());
        assert!(dir.run(other, "DEL", "a", subnet).status.success());
        assert!(!dir.run(made_by, "CHECK", "a", subnet).status.success());
        assert_eq!(dir.leases(), BTreeSet::new());
    }
    dir.forget_index();
}

#[test]
fn a_small_range_is_assigned_completely() {
    let dir = DataDir::new();
    let given: Vec<_> = thread::scope(|scope| {
        let add = |id: usize| {
            let dir = &dir;
            scope.spawn(move || {
                address(&dir.run(OURS.as_ref(), "ADD", &format!("c{id}"), "10.1.2.0/28"))
            })
        };
        let adds: Vec<_> = (0..16).map(add).collect();
        adds.into_iter().map(|add| add.join().unwrap()).collect()
    });
    let distinct: HashSet<_> = given.iter().flatten().collect();
    assert_eq!(distinct.len(), 13);
    assert_eq!(given.iter().filter(|given| **given == Err(11)).count(), 3);
    for id in 0..16 {
        assert!(dir.run(OURS.as_ref(), "DEL", &format!("c{id}"), "10.1.2.0/28").status.success());
    }
    assert_eq!(dir.leases(), BTreeSet::new());
}

#[test]
fn commands_wait_for_the_lock_of_the_reference_plugin() {
    let (dir, subnet) = (DataDir::new(), "10.1.2.0/29");
    assert!(dir.run(OURS.as_ref(), "ADD", "a", subnet).status.success());
    for command in ["ADD", "DEL"] {
        let lock = fs::File::open(dir.0.join("net/lock")).unwrap();
        flock(&lock, FlockOperation::LockShared).unwrap();
        let waiting = dir.start(OURS.as_ref(), command, "b", subnet);
        // As /proc/locks (proc(5)) shows a waiting process: "1: -> FLOCK  ADVISORY  WRITE PID …".
        let wanted = format!("-> FLOCK ADVISORY WRITE {} ", waiting.id());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let words = locks.split_whitespace().collect::<Vec<_>>().join(" ");
            if words.contains(&wanted) {
                break;
            }
            assert!(Instant::now() < deadline, "{command} does not wait: {locks}");
            thread::yield_now();
        }
        drop(lock);
        assert!(waiting.wait_with_output().unwrap().status.success());
    }
    assert!(dir.run(OURS.as_ref(), "DEL", "a", subnet).status.success());
}

/// Runs a command from a shell that prepares the process. `$0` is the program.
fn prepared(dir: &DataDir, preparation: &str, command: &str, args: &str) -> Output {
    let mut child = Command::new("/bin/sh")
        .args(["-c", preparation, OURS])
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "a"),
            ("CNI_NETNS", "/run/netns/nothing"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/nonexistent"),
            ("CNI_ARGS", args),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let config = format!(
        r#"{{"cniVersion": "1.0.0", "name": "net", "type": "any", "ipam": {{
            "type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "10.1.2.0/24"}}]]}}}}"#,
        dir.0.display()
    );
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The reference plugin 1.10.0 exits with 1 as well, and keeps the lease.
#[test]
fn an_add_whose_result_cannot_be_written_is_undone() {
    let dir = DataDir::new();
    for preparation in
        ["exec $0 >/dev/full", "mkfifo $$ && exec 3<>$$ 4>$$ && exec 3<&- && rm $$ && exec $0 >&4"]
    {
        let preparation =
            format!("mkdir -p {dir} && cd {dir} && {preparation}", dir = dir.0.display());
        let output = prepared(&dir, &preparation, "ADD", "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("host-local: write to stdout: "), "{preparation}: {output:?}");
        assert_eq!((output.status.code(), dir.leases()), (Some(1), BTreeSet::new()), "{output:?}");
    }
    dir.forget_index();
}

/// The plugin blocks SIGXFSZ, which would end the process.
#[test]
fn a_limit_of_file_sizes_is_an_error() {
    let dir = DataDir::new();
    let output = prepared(&dir, "ulimit -f 0; exec $0", "ADD", "");
    assert_eq!((address(&output), dir.leases()), (Err(5), BTreeSet::new()));
    assert!(String::from_utf8_lossy(&output.stdout).contains("File too large"), "{output:?}");
}

/// The reference plugin 1.10.0 also refuses it in a DEL.
#[test]
fn only_add_refuses_args_that_are_not_pairs() {
    let dir = DataDir::new();
    assert_eq!(address(&prepared(&dir, "exec $0", "ADD", "none")), Err(4));
    assert!(prepared(&dir, "exec $0", "ADD", "").status.success());
    for command in ["CHECK", "DEL"] {
        assert!(prepared(&dir, "exec $0", command, "none").status.success(), "{command}");
    }
    assert_eq!(dir.leases(), BTreeSet::new());
    dir.forget_index();
}
