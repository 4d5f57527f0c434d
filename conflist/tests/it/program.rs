//! The program: its environment, its output, and its exit status.

use std::fs;
use std::process::{Command, Output};

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::sandbox::Sandbox;

fn conflist(sandbox: &Sandbox) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conflist"));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("CNI_COMMAND", "VERSION")
        .env("CNI_NETNS", "/somewhere/else")
        .env("CNI_CONTAINERID", "another")
        .env("NETCONFPATH", &sandbox.runtime.net_dir)
        .env("CNI_PATH", &sandbox.runtime.plugin_path[0])
        .arg("--cache-dir")
        .arg(&sandbox.runtime.cache_dir);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Stderr of a run that must exit with `status`.
#[track_caller]
fn fails(output: &Output, status: i32, sandbox: &Sandbox, expected: &Expect) {
    assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    expected.assert_eq(&text(&output.stderr).replace(sandbox.dir.to_str().unwrap(), "$SANDBOX"));
}

#[test]
fn cnitools_environment() {
    let sandbox = Sandbox::new();
    sandbox.network("1.0.0");
    let output = conflist(&sandbox)
        .env("CNI_ARGS", "IgnoreUnknown=1;A=b")
        .env("CAP_ARGS", r#"{"portMappings": [{"hostPort": 80}]}"#)
        .env("CNI_IFNAME", "net1")
        .args(["add", "net", "/run/netns/../netns/a"])
        .output()
        .unwrap();
    succeeds(&output);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result, json!({"cniVersion": "1.0.0", "interfaces": [{"name": "third"}]}));
    assert_eq!(sandbox.results(), ["net-cnitool-a145bc1ace582bff43bd-net1"]);
    assert_eq!(
        sandbox.calls().lines().next().unwrap(),
        "ADD first cnitool-a145bc1ace582bff43bd net1 netns=/run/netns/a args=IgnoreUnknown=1;A=b \
         path=$SANDBOX/bin"
    );

    // An empty variable counts as not set.
    let output = conflist(&sandbox)
        .env("CNI_IFNAME", "")
        .env("CNI_ARGS", "")
        .env("CAP_ARGS", "")
        .args(["add", "net", "/run/netns/a", "--container-id", "pod"])
        .output()
        .unwrap();
    succeeds(&output);
    assert_eq!(sandbox.results(), ["net-cnitool-a145bc1ace582bff43bd-net1", "net-pod-eth0"]);
    let output = conflist(&sandbox).args(["check", "net", "/run/netns/a", "-i", "net1"]).output();
    succeeds(&output.unwrap());
}

/// A DEL after the namespace and the network's file were removed.
#[test]
fn del_with_nothing_but_names() {
    let sandbox = Sandbox::new();
    sandbox.network("1.0.0");
    let run = |arguments: &[&str]| {
        conflist(&sandbox).args(arguments).args(["--container-id", "pod"]).output().unwrap()
    };
    succeeds(&run(&["add", "net", "/run/netns/a"]));
    fs::remove_file(sandbox.runtime.net_dir.join("10.conflist")).unwrap();
    sandbox.calls();
    succeeds(&run(&["del", "net", ""]));
    let calls = sandbox.calls();
    assert!(calls.starts_with("DEL third pod eth0 netns= args= "), "{calls}");
    assert_eq!(calls.matches("prevResult").count(), 3);
    // Without file and result, the plugins are not known.
    let output = run(&["del", "net", ""]);
    fails(
        &output,
        1,
        &sandbox,
        &expect![[r#"
            conflist: no file in $SANDBOX/net.d has network "net"
        "#]],
    );
}

/// Otherwise the attachment and its result stay, and the next ADD is refused because of them.
#[test]
fn an_add_whose_result_cannot_be_printed_is_undone() {
    let sandbox = Sandbox::new();
    sandbox.network("1.0.0");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let add =
        conflist(&sandbox).args(["add", "net", "/run/netns/a"]).stdout(full).output().unwrap();
    fails(
        &add,
        1,
        &sandbox,
        &expect![[r#"
            conflist: print on stdout: No space left on device (os error 28)
        "#]],
    );
    assert_eq!(sandbox.results(), [""; 0]);
    let deleted = sandbox.commands().into_iter().filter(|it| it.starts_with("DEL")).count();
    assert_eq!(deleted, 3);
}

/// cnitool 1.3.1 refuses it.
#[test]
fn a_del_does_not_fail_for_cni_args() {
    let sandbox = Sandbox::new();
    sandbox.network("1.0.0");
    let run = |command| {
        let mut conflist = conflist(&sandbox);
        conflist.env("CNI_ARGS", "none").args([command, "net", "/run/netns/a"]).output().unwrap()
    };
    assert!(text(&run("add").stderr).contains("\"none\" is not a KEY=VALUE pair"));
    succeeds(&run("del"));
    assert_eq!(sandbox.commands().len(), 3);
}

#[test]
fn failures_are_printed() {
    let sandbox = Sandbox::new();
    sandbox.network("1.1.0");
    sandbox.fail("ADD", "second", "add port 80");
    sandbox.fail("DEL", "first", "remove link");
    let run = |arguments: &[&str]| conflist(&sandbox).args(arguments).output().unwrap();
    fails(
        &run(&["add", "net", "/run/netns/a"]),
        1,
        &sandbox,
        &expect![[r#"
        conflist: ADD of plugin "second" (2 of 3 of network "net"): code 100: add port 80
          details: why
        conflist: undoing it failed, too: DEL of plugin "first" (1 of 3 of network "net"): code 100: remove link
          details: why
    "#]],
    );
    sandbox.fail("ADD", "second", &format!("add {} port", "x".repeat(100_000)));
    let printed = run(&["add", "net", "/run/netns/a"]).stderr;
    let printed = String::from_utf8(printed).unwrap();
    assert!(printed.contains("bytes left out") && printed.len() < 2000, "{printed}");
    fails(
        &run(&["check", "net", "/run/netns/a"]),
        1,
        &sandbox,
        &expect![[r#"
        conflist: no result of an ADD is kept for container cnitool-a145bc1ace582bff43bd, interface eth0, network "net"
    "#]],
    );
    fails(
        &run(&["add", "none", "/run/netns/a"]),
        1,
        &sandbox,
        &expect![[r#"
            conflist: no file in $SANDBOX/net.d has network "none"
        "#]],
    );
    fails(
        &run(&["add", "../net", "/run/netns/a"]),
        1,
        &sandbox,
        &expect![[r#"
        conflist: network name "../net" must begin with a letter or digit, and contain only letters, digits, '_', '.' and '-'
    "#]],
    );
    fails(
        &run(&["add", "net", ""]),
        1,
        &sandbox,
        &expect![[r#"
        conflist: NETNS must not be empty (only del allows that, with --container-id)
    "#]],
    );
    fails(
        &run(&["add", "net", "/n", "-i", "a/b"]),
        1,
        &sandbox,
        &expect![[r#"
            conflist: CNI_IFNAME: interface name "a/b" must have at most 15 bytes, not be "." or "..", and contain no '/', ':', '%' or white space
        "#]],
    );
    fails(
        &run(&["add", "net", "/n", "--args", "x"]),
        1,
        &sandbox,
        &expect![[r#"
            conflist: CNI_ARGS: "x" is not a KEY=VALUE pair
        "#]],
    );
    fails(
        &run(&["add", "net", "/n", "--capability-args", "[]"]),
        1,
        &sandbox,
        &expect![[r#"
        conflist: CAP_ARGS must be a JSON object: invalid type: sequence, expected a map at line 1 column 0
    "#]],
    );
    sandbox.fail("STATUS", "third", "no addresses left");
    fails(
        &run(&["status", "net"]),
        1,
        &sandbox,
        &expect![[r#"
        conflist: STATUS of plugin "third" (3 of 3 of network "net"): code 100: no addresses left
          details: why
    "#]],
    );
    let usage = run(&["add", "net"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn gc_takes_attachments() {
    let sandbox = Sandbox::new();
    sandbox.network("1.1.0");
    let run = |arguments: &[&str]| conflist(&sandbox).args(arguments).output().unwrap();
    for id in ["a", "b", "c"] {
        succeeds(&run(&["add", "net", "/run/netns/a", "--container-id", id]));
    }
    succeeds(&run(&["gc", "net"]));
    assert_eq!(sandbox.results().len(), 3);
    succeeds(&run(&["gc", "net", "--gone", "a:eth0"]));
    assert_eq!(sandbox.results(), ["net-b-eth0", "net-c-eth0"]);
    succeeds(&run(&["gc", "net", "--valid", "b:eth0", "--valid", "x:eth0"]));
    assert_eq!(sandbox.results(), ["net-b-eth0"]);
    assert_eq!(run(&["gc", "net", "--valid", "b"]).status.code(), Some(2));
    assert_eq!(run(&["gc", "net", "--none-valid", "--gone", "b:eth0"]).status.code(), Some(2));
    succeeds(&run(&["gc", "net", "--none-valid"]));
    assert!(sandbox.results().is_empty());
}

#[test]
fn gc_leaves_alone_what_it_cannot_read() {
    let sandbox = Sandbox::new();
    sandbox.network("1.1.0");
    let run = |arguments: &[&str]| conflist(&sandbox).args(arguments).output().unwrap();
    for id in ["a", "b"] {
        succeeds(&run(&["add", "net", "/run/netns/a", "--container-id", id]));
    }
    let results = sandbox.dir.join("cache/results");
    let bare = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "third"}]});
    fs::write(results.join("net-a-eth0"), bare.to_string()).unwrap();
    fs::write(results.join("net-b-eth0"), "").unwrap();
    sandbox.calls();
    fails(
        &run(&["gc", "net"]),
        1,
        &sandbox,
        &expect![[r#"
            conflist: remove nothing of network "net", because a kept result cannot be read: read the result kept in $SANDBOX/cache/results/net-b-eth0: EOF while parsing a value at line 1 column 0
        "#]],
    );
    assert_eq!(sandbox.calls(), "");
    succeeds(&run(&["gc", "net", "--valid", "a:eth0", "--valid", "b:eth0"]));
    assert_eq!(sandbox.commands(), ["GC first ", "GC second ", "GC third "]);
    // A DEL of the pod removes the unreadable result.
    succeeds(&run(&["del", "net", "", "--container-id", "b"]));
    sandbox.calls();
    succeeds(&run(&["gc", "net"]));
    let calls = sandbox.calls();
    let list = r#""cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]"#;
    assert_eq!(calls.matches(list).count(), 3, "{calls}");
    assert_eq!(sandbox.results(), ["net-a-eth0"]);
}

/// Network "net" with container "a-b", and network "net-a" with container "b".
#[test]
fn attachments_that_would_share_a_file() {
    let sandbox = Sandbox::new();
    sandbox.network("1.1.0");
    let other = json!({"name": "net-a", "cniVersion": "1.1.0", "plugins": [{"type": "first"}]});
    sandbox.write_list("20.conflist", &other);
    let run = |command, network, id| {
        let arguments = [command, network, "/run/netns/a", "--container-id", id];
        conflist(&sandbox).args(arguments).output().unwrap()
    };
    succeeds(&run("add", "net", "a-b"));
    sandbox.calls();
    fails(
        &run("add", "net-a", "b"),
        1,
        &sandbox,
        &expect![[r#"
            conflist: $SANDBOX/cache/results/net-a-b-eth0 is taken by container a-b, interface eth0, network "net"
        "#]],
    );
    assert_eq!(sandbox.calls(), "");
    succeeds(&run("del", "net-a", "b"));
    assert_eq!(sandbox.results(), ["net-a-b-eth0"]);
    succeeds(&run("check", "net", "a-b"));
    succeeds(&run("del", "net", "a-b"));
    assert!(sandbox.results().is_empty());
    succeeds(&run("add", "net-a", "b"));
}

#[test]
fn version_and_validate() {
    let sandbox = Sandbox::new();
    sandbox.network("1.0.0");
    let run = |arguments: &[&str]| conflist(&sandbox).args(arguments).output().unwrap();
    let output = run(&["version", "net"]);
    succeeds(&output);
    assert_eq!(text(&output.stdout).lines().count(), 3);
    sandbox.answer("VERSION", "second", &json!({"supportedVersions": ["0.1.0"]}));
    let output = run(&["version", "net"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "conflist: plugin \"second\" does not support cniVersion 1.0.0 of network \"net\"\n"
    );

    succeeds(&run(&["validate", "net"]));
    sandbox.write_list("10.conflist", &json!({"name": "net", "plugins": [{"type": "fourth"}]}));
    let file = sandbox.runtime.net_dir.join("10.conflist");
    for target in ["net", file.to_str().unwrap()] {
        let output = run(&["validate", target]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stdout).contains("10.conflist:1: error: key \"plugins[0].type\": "));
    }
    assert_eq!(run(&["validate", "none"]).status.code(), Some(1));
}

/// `cnitool COMMAND NETWORK NETNS`, for every command.
#[test]
fn every_command_takes_a_netns() {
    let sandbox = Sandbox::new();
    sandbox.network("1.1.0");
    let run = |arguments: &[&str]| conflist(&sandbox).args(arguments).output().unwrap();
    for command in ["validate", "version", "status", "add", "check", "gc", "status", "del"] {
        succeeds(&run(&[command, "net", "/run/netns/a"]));
    }
    assert!(sandbox.results().is_empty());
    assert!(sandbox.calls().contains("GC first   netns= args= "));
    for command in ["validate", "version", "status", "gc"] {
        succeeds(&run(&[command, "net"]));
        assert_eq!(run(&[command, "net", "/run/netns/a", "x"]).status.code(), Some(2));
    }
}
