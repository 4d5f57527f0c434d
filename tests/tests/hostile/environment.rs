//! Trace variables: libcni 1.3.1 passes three of them to plugins in the environment.

use tests::configs::{POD_SUBNET, bridge, port, portmap};
use tests::{Chain, Cmd, NODE, Needs, Plugins, Pod, Suite, World, call, search_path};

use serde_json::{Value, json};

use crate::{BIN, direct, install};

/// Their names.
const TRACE: [(&str, &str); 3] = [
    ("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("TRACESTATE", "vendor=opaque"),
    ("BAGGAGE", "pod=web,tenant=a%20b"),
];
const SEEN: &str = "/run/seen";

pub(crate) fn cases(suite: &mut Suite) {
    let ours = Plugins::ours();
    let needs = Needs::plugins(&ours, &["bridge", "host-local", "portmap", "ptp"]);
    for plugin in ["bridge", "ptp"] {
        suite.case(&format!("traces::reach_the_ipam_plugin_of_{plugin}"), &needs, move || {
            reach_the_ipam_plugin(plugin);
        });
    }
    let legacy = needs.tools(&["iptables-legacy", "iptables-legacy-restore"]);
    suite.case("traces::do_not_reach_iptables", &legacy, do_not_reach_iptables);
}

fn reach_the_ipam_plugin(plugin: &str) {
    let world = World::new(&["pod-a"]);
    let real = Plugins::ours().path("host-local");
    let script = format!("env > {SEEN}.$CNI_COMMAND; exec {}", real.display());
    let plugins = install(&world, "host-local", &script);
    let mut more = json!({"cni.dev/valid-attachments": []});
    for command in ["ADD", "CHECK", "DEL", "GC", "STATUS"] {
        let output = world.run(NODE, &traced(direct(&plugins, plugin, command, &more))).success();
        if command == "ADD" {
            more["prevResult"] = output.json();
        }
        let seen = world.sh(NODE, &format!("cat {SEEN}.{command}"));
        for (name, value) in TRACE {
            let line = format!("{name}={value}");
            assert!(seen.lines().any(|l| l == line), "{command}: no {line} in\n{seen}");
        }
    }
}

fn traced(call: Cmd) -> Cmd {
    TRACE.iter().fold(call, |call, (name, value)| call.env(*name, *value))
}

/// Plugins start no other program than the legacy variant of iptables.
fn do_not_reach_iptables() {
    let world = World::new(&["pod-a"]);
    world.sh(
        NODE,
        &format!(
            "iptables-legacy -t mangle -N KUBE-IPTABLES-HINT
             mkdir -p {BIN}
             for p in iptables-legacy-save iptables-legacy-restore \
                      ip6tables-legacy-save ip6tables-legacy-restore; do
                 printf '#!/bin/sh\\nenv >> {SEEN}\\nexec /usr/sbin/%s \"$@\"\\n' $p > {BIN}/$p
                 chmod +x {BIN}/$p
             done"
        ),
    );
    let ours = Plugins::ours();
    let chain = Chain::new(&world, &ours, &[bridge(&[POD_SUBNET]), portmap()])
        .ports(&json!([port("tcp", 8080, 80)]));
    let mut result = Value::Null;
    for (index, plugin) in ["bridge", "portmap"].into_iter().enumerate() {
        let stdin = chain.stdin(index, &result);
        let add = call(&ours, plugin, "ADD", &Pod::new("pod-a"), &stdin);
        let add = add.env("PATH", format!("{BIN}:{}", search_path()));
        result = world.run(NODE, &traced(add)).success().json();
    }
    let seen = world.sh(NODE, &format!("cat {SEEN}"));
    let leaked: Vec<_> =
        TRACE.iter().filter(|(name, _)| seen.contains(&format!("{name}="))).collect();
    assert!(leaked.is_empty(), "iptables-legacy-restore gets {leaked:?}\n{seen}");
}
