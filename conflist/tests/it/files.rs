//! Files and directories of wrong types or owners, and the permissions of new ones.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use serde_json::json;

use crate::sandbox::Sandbox;

/// Runs the program in a shell, after `before`. A program that does not end is killed.
fn conflist(sandbox: &Sandbox, before: &str, arguments: &str) -> Output {
    let conflist = env!("CARGO_BIN_EXE_conflist");
    let cache = sandbox.runtime.cache_dir.display();
    let command = format!("{before} exec timeout 60 {conflist} --cache-dir {cache} {arguments}");
    let mut shell = Command::new("sh");
    shell
        .env("NETCONFPATH", &sandbox.runtime.net_dir)
        .env("CNI_PATH", &sandbox.runtime.plugin_path[0])
        .args(["-c", &command]);
    shell.output().unwrap()
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn fails(output: &Output, expected: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(reported.contains(expected), "{reported}");
}

fn fifo(path: &Path) {
    mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap();
}

/// libcni reads the files in order, up to the network's, and blocks on a FIFO.
#[test]
fn a_network_is_found_beside_files_that_are_no_files() {
    let sandbox = Sandbox::new();
    sandbox.network("1.0.0");
    let net_dir = &sandbox.runtime.net_dir;
    fifo(&net_dir.join("00-fifo.conflist"));
    symlink("/dev/zero", net_dir.join("01-zero.conflist")).unwrap();
    File::create(net_dir.join("02-large.conflist")).unwrap().set_len(1 << 30).unwrap();
    succeeds(&conflist(&sandbox, "", "add net /run/netns/a"));
    succeeds(&conflist(&sandbox, "", "del net /run/netns/a"));
    let reported = succeeds(&conflist(&sandbox, "", "validate net"));
    for (file, why) in [
        ("00-fifo", "it is not a regular file"),
        ("01-zero", "it is not a regular file"),
        ("02-large", "it is larger than the limit of 16777216 bytes"),
    ] {
        let expected =
            format!("{}/{file}.conflist:1: warning: cannot be read: {why}", net_dir.display());
        assert!(reported.contains(&expected), "{reported}");
    }
    fs::remove_file(net_dir.join("10.conflist")).unwrap();
    fails(
        &conflist(&sandbox, "", "add net /run/netns/a"),
        "00-fifo.conflist: it is not a regular file",
    );
}

#[test]
fn a_result_that_is_no_file_is_refused_and_forgotten() {
    let sandbox = Sandbox::new();
    sandbox.network("1.0.0");
    let result = sandbox.dir.join("cache/results/net-pod-eth0");
    fs::create_dir_all(result.parent().unwrap()).unwrap();
    let run =
        |command| conflist(&sandbox, "", &format!("{command} net /run/netns/a --container-id pod"));
    fifo(&result);
    fails(&run("add"), "results/net-pod-eth0: it is not a regular file");
    fails(&run("check"), "results/net-pod-eth0: it is not a regular file");
    succeeds(&run("del"));
    assert!(sandbox.results().is_empty());
    symlink("/dev/zero", &result).unwrap();
    fails(&run("add"), "results/net-pod-eth0: it is not a regular file");
}

#[test]
fn a_lock_that_is_no_file_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.network("1.0.0");
    fs::create_dir(sandbox.dir.join("cache")).unwrap();
    let lock = sandbox.dir.join("cache/conflist.lock");
    let run = || conflist(&sandbox, "", "add net /run/netns/a");
    fifo(&lock);
    fails(&run(), "conflist.lock: it is not a regular file");
    fs::remove_file(&lock).unwrap();
    symlink(sandbox.dir.join("elsewhere"), &lock).unwrap();
    fails(&run(), "conflist.lock: Too many levels of symbolic links");
    assert!(!sandbox.dir.join("elsewhere").exists());
}

/// With any umask, only the user can write to the results, and files of other users are refused.
#[test]
fn directories_are_ours_alone() {
    let sandbox = Sandbox::new();
    sandbox.network("1.0.0");
    let cache = sandbox.dir.join("cache");
    let mode = |path: &str| fs::metadata(cache.join(path)).unwrap().mode() & 0o777;
    let add =
        |id| conflist(&sandbox, "umask 000;", &format!("add net /run/netns/a --container-id {id}"));
    succeeds(&add("one"));
    let modes = ["", "results", "results/net-one-eth0", "conflist.lock"].map(mode);
    assert_eq!(modes, [0o755, 0o700, 0o600, 0o600]);
    // As an earlier version left them.
    for dir in ["", "results"] {
        fs::set_permissions(cache.join(dir), Permissions::from_mode(0o777)).unwrap();
    }
    succeeds(&add("two"));
    assert_eq!(["", "results"].map(mode), [0o755, 0o755]);
    if geteuid().is_root() {
        let result = cache.join("results/net-one-eth0");
        chown(&result, Some(1), None).unwrap();
        let check = conflist(&sandbox, "", "check net /run/netns/a --container-id one");
        fails(
            &check,
            "results/net-one-eth0: it belongs to user 1, not to user 0, and is not trusted",
        );
        chown(cache.join("results"), Some(1), None).unwrap();
        fails(&add("three"), "it belongs to user 1, not to user 0, and is not trusted");
    }
}

/// The limit that `ulimit -f` sets. By default, the kernel ends the process after writing a part of the file.
#[test]
fn a_result_over_the_limit_leaves_no_file() {
    let sandbox = Sandbox::new();
    sandbox.network("1.0.0");
    let note = json!({"note": "x".repeat(100_000)}).to_string();
    let add = |limit| {
        conflist(
            &sandbox,
            &format!("ulimit -f {limit}; CAP_ARGS='{note}'; export CAP_ARGS;"),
            "add net /run/netns/a",
        )
    };
    fails(&add("16"), "keep the result in");
    assert!(sandbox.results().is_empty());
    let names = fs::read_dir(sandbox.dir.join("cache")).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["conflist.lock", "results"]);
    let commands = sandbox.commands();
    assert_eq!(commands.len(), 6, "{commands:?}");
    assert!(commands[3..].iter().all(|it| it.starts_with("DEL ")), "{commands:?}");
    succeeds(&add("unlimited"));
}
