//! Installs what the tests need besides Rust: tools from Debian packages, programs from Go modules, a
//! kernel for the virtual machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::command::{Failure, command, read, run};
use crate::paths::target_dir;
use crate::registry::PLUGINS;

/// Files that the tests need, and the Debian package of each.
const TOOLS: [(&str, &str); 22] = [
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/tc", "iproute2"),
    ("/usr/sbin/nginx", "nginx"),
    ("/usr/bin/ping", "iputils-ping"),
    ("/usr/sbin/firewalld", "firewalld"),
    ("/usr/bin/dbus-daemon", "dbus-daemon"),
    ("/usr/bin/strace", "strace"),
    // For the benchmark.
    ("/usr/bin/iperf3", "iperf3"),
    ("/usr/bin/git", "git"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/bin/podman", "podman"),
    ("/usr/bin/conmon", "conmon"),
    ("/usr/bin/curl", "curl"),
    // The package busybox has the same program, but linked dynamically.
    ("/usr/share/doc/busybox-static", "busybox-static"),
    ("/usr/lib/python3/dist-packages/jsonschema/__init__.py", "python3-jsonschema"),
    // For tests/vm.
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/sbin/depmod", "kmod"),
];

/// The module of the reference plugins, and its version.
const REFERENCE: (&str, &str) = ("github.com/containernetworking/plugins", "v1.10.0");
/// The module of `cnitool`, and its version.
const CNITOOL: (&str, &str) = ("github.com/containernetworking/cni", "v1.3.1");

/// nerdctl in the last series that works with the containerd of Debian 12: module, version, package.
const NERDCTL: (&str, &str, &str) = ("github.com/containerd/nerdctl", "v1.7.7", "cmd/nerdctl");

/// Installs what is missing, and prints what cannot be installed. That is no failure here: tests that
/// need it are skipped or fail later (`testbed::fate`).
pub(crate) fn provide() {
    debian_packages();
    go_programs();
    if let Err(failure) = nerdctl() {
        eprintln!("needs: nerdctl: {failure}");
    }
    virtual_machine();
}

/// The directory of the Go programs: `GO_PLUGINS`, or one below `target`.
pub(crate) fn go_dir() -> PathBuf {
    std::env::var_os("GO_PLUGINS").map_or_else(|| target_dir().join("reference/bin"), PathBuf::from)
}

fn debian_packages() {
    let missing = TOOLS.iter().filter(|(file, _)| !Path::new(file).exists());
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return;
    }
    eprintln!("needs: apt-get install {}", packages.join(" "));
    let apt = |args: &[&str]| {
        let mut apt = command("apt-get", ["-qq"]);
        run(apt.args(args).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let installed = apt(&["update"]).and_then(|()| {
        apt(&[&["install", "--yes", "--no-install-recommends"], &packages[..]].concat())
    });
    if let Err(failure) = installed {
        eprintln!("needs: {}: {failure}", packages.join(" "));
    }
}

fn go_programs() {
    let (module, version) = REFERENCE;
    let packages = PLUGINS.iter().map(|plugin| {
        let dir = match plugin.kind {
            "interface" => "main",
            "chained" => "meta",
            other => other,
        };
        format!("{module}/plugins/{dir}/{}@{version}", plugin.name)
    });
    go_install(module, PLUGINS.iter().map(|plugin| plugin.name), packages);
    let (module, version) = CNITOOL;
    go_install(module, ["cnitool"], [format!("{module}/cnitool@{version}")]);
}

/// Builds packages of a Go module, unless all of their programs exist.
fn go_install(
    module: &str,
    programs: impl IntoIterator<Item = &'static str>,
    packages: impl IntoIterator<Item = String>,
) {
    let dir = go_dir();
    if programs.into_iter().all(|program| dir.join(program).is_file()) {
        return;
    }
    eprintln!("needs: go install of {module} into {}", dir.display());
    let mut install = Command::new("go");
    install.arg("install").env("GOBIN", &dir).env("CGO_ENABLED", "0").args(packages);
    if let Err(failure) = run(&mut install) {
        eprintln!("needs: {module}: {failure}");
    }
}

/// Builds nerdctl inside its module, because `go install` would query other versions of it, too.
fn nerdctl() -> Result<(), Failure> {
    let (module, version, package) = NERDCTL;
    let program = go_dir().join("nerdctl");
    if program.is_file() {
        return Ok(());
    }
    eprintln!("needs: go build {module} {version} into {}", go_dir().display());
    let module = format!("{module}@{version}");
    let downloaded = read(&mut command("go", ["mod", "download", "-json", &module]))?;
    let downloaded: Value = serde_json::from_str(&downloaded)
        .map_err(|source| Failure::Output { program: "go mod download", source })?;
    let dir = downloaded["Dir"].as_str().unwrap_or_default();
    let mut build = command("go", ["build", "-C", dir, "-o"]);
    build.arg(program).arg(format!("./{package}")).env("CGO_ENABLED", "0");
    run(&mut build)
}

/// Prepares the kernel for tests that this machine's kernel cannot run.
fn virtual_machine() {
    if let Err(failure) = run(&mut command("tests/vm/run-in-vm", ["--prepare"])) {
        eprintln!("needs: {failure}");
    }
}
