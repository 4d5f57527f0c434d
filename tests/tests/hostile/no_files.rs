//! A FIFO or an endless file in each place where a plugin reads a file.

use tests::configs::{POD_SUBNET, bridge, host_local, portmap, tuning, with};
use tests::{Chain, Cmd, NODE, Needs, Plugins, Pod, STATE_DIR, Suite, World, conflist_program};

use serde_json::{Value, json};

use crate::{WITH_LITTLE_MEMORY, assert_has_memory};

/// Creates it in a shell; `$1` is the path.
const KINDS: [(&str, &str); 3] = [
    ("fifo", "mkfifo \"$1\""),
    ("endless", "ln -s /dev/zero \"$1\""),
    ("huge", "truncate -s 1G \"$1\""),
];

/// A file that `plugin` reads, and the command that reads it.
struct Place {
    name: &'static str,
    plugin: &'static str,
    path: &'static str,
    /// Whether a successful ADD precedes it.
    after_add: bool,
}

const PLACES: [Place; 8] = [
    Place::of("host-local", "lease", "/run/state/ipam/testnet/10.88.0.2"),
    Place::of("host-local", "lock", "/run/state/ipam/testnet/lock"),
    Place::of("host-local", "last_address", "/run/state/ipam/testnet/last_reserved_ip.0"),
    Place::of("host-local", "resolv_conf", "/run/state/resolv.conf"),
    Place::of("bridge", "lease_of_ipam", "/run/state/ipam/testnet/10.88.0.2"),
    Place::of("tuning", "allowlist", "/etc/cni/tuning/allowlist.conf"),
    Place { after_add: true, ..Place::of("tuning", "backup", "/run/state/tuning/pod-a_eth0.json") },
    Place {
        after_add: true,
        ..Place::of("host-local", "own_lease", "/run/state/ipam/testnet/10.88.0.2")
    },
];

impl Place {
    const fn of(plugin: &'static str, name: &'static str, path: &'static str) -> Self {
        Self { name, plugin, path, after_add: false }
    }
}

pub(crate) fn cases(suite: &mut Suite) {
    let needs = Needs::plugins(&Plugins::ours(), &Plugins::ALL).tools(&["prlimit"]);
    for (kind, make) in KINDS {
        for place in &PLACES {
            let name = format!("no_files::{kind}::{}::{}", place.plugin, place.name);
            suite.case(&name, &needs, move || ends(place, make));
        }
        let conflist = needs.clone().conflist();
        suite.case(&format!("no_files::{kind}::conflist::network"), &conflist, move || {
            other_networks_work(make);
        });
        suite.case(&format!("no_files::{kind}::conflist::kept_result"), &conflist, move || {
            kept_result(make);
        });
    }
}

fn put(world: &World, make: &str, path: &str) {
    let script = format!("mkdir -p \"$(dirname \"$1\")\"; rm -f \"$1\"; {make}");
    drop(world.run(NODE, &Cmd::new("sh").args(["-ec", &script, "sh", path])).success());
}

/// Each command ends with its status, and with limited memory.
fn ends(place: &Place, make: &str) {
    let world = World::new(&["pod-a"]);
    if place.path.starts_with("/etc") {
        world.sh(NODE, "mount -t tmpfs world /etc");
    }
    let (network, index) = chain(&world, place.plugin);
    let pod = Pod::new("pod-a");
    let mut previous = Value::Null;
    if place.plugin == "tuning" || place.after_add {
        previous = network.add(&pod);
        if !place.after_add {
            network.del(&pod);
            previous = first_only(&world).add(&pod);
        }
    }
    put(&world, make, place.path);
    let commands: &[&str] =
        if place.after_add { &["CHECK", "DEL", "GC"] } else { &["ADD", "STATUS", "DEL", "GC"] };
    for command in commands {
        let mut stdin = network.stdin(index, &previous);
        stdin["cni.dev/valid-attachments"] = json!([]);
        let call = tests::call(&Plugins::ours(), place.plugin, command, &pod, &stdin);
        let output = world.run(NODE, &call.wrapped_by(WITH_LITTLE_MEMORY));
        assert_has_memory(&output);
        match output.code() {
            0 => {}
            1 => drop(output.cni_error()),
            _ => panic!("{command} does not end as it should\n{output}"),
        }
    }
}

fn first_only(world: &World) -> Chain<'_> {
    Chain::new(world, &Plugins::ours(), &[bridge(&[POD_SUBNET])]).network("testnet", "1.1.0")
}

/// A network with the plugin, and the index of the plugin.
fn chain<'a>(world: &'a World, plugin: &str) -> (Chain<'a>, usize) {
    let resolv_conf = json!({"resolvConf": format!("{STATE_DIR}/resolv.conf")});
    let (configs, index) = match plugin {
        "tuning" => (vec![bridge(&[POD_SUBNET]), tuning()], 1),
        "host-local" => {
            let ipam = with(host_local(&[POD_SUBNET]), &resolv_conf);
            (vec![json!({"type": "host-local", "ipam": ipam})], 0)
        }
        _ => (vec![bridge(&[POD_SUBNET])], 0),
    };
    if plugin == "host-local" {
        world.sh(NODE, &format!("echo nameserver 10.1.1.1 > {STATE_DIR}/resolv.conf"));
    }
    let chain = Chain::new(world, &Plugins::ours(), &configs).network("testnet", "1.1.0");
    (chain, index)
}

fn conflist(world: &World, words: &[&str]) -> tests::Output {
    let call = Cmd::new(conflist_program()).args(words).env("NETCONFPATH", "/run/net.d");
    let call = call.env("CNI_PATH", Plugins::ours().dir.to_string_lossy());
    world.run(NODE, &call.wrapped_by(WITH_LITTLE_MEMORY))
}

fn write_network(world: &World) {
    let network = json!({
        "cniVersion": "1.1.0", "name": "testnet", "plugins": [bridge(&[POD_SUBNET]), portmap()],
    });
    world.files(|| {
        std::fs::create_dir("/run/net.d").unwrap();
        std::fs::write("/run/net.d/10-test.conflist", network.to_string()).unwrap();
    });
}

/// One bad file in the directory does not stop the other networks.
fn other_networks_work(make: &str) {
    let world = World::new(&["pod-a"]);
    write_network(&world);
    put(&world, make, "/run/net.d/00-other.conflist");
    drop(conflist(&world, &["add", "testnet", "/run/netns/pod-a"]).success());
    drop(conflist(&world, &["del", "testnet", "/run/netns/pod-a"]).success());
}

fn kept_result(make: &str) {
    let world = World::new(&["pod-a"]);
    write_network(&world);
    drop(conflist(&world, &["add", "testnet", "/run/netns/pod-a"]).success());
    let kept = world.sh(NODE, "find /var/lib/cni -type f -path '*results*'");
    let kept: Vec<&str> = kept.lines().collect();
    assert!(!kept.is_empty(), "nothing is kept");
    for path in &kept {
        put(&world, make, path);
    }
    let output = conflist(&world, &["del", "testnet", "/run/netns/pod-a"]);
    assert_has_memory(&output);
    assert!([0, 1].contains(&output.code()), "{output}");
}
