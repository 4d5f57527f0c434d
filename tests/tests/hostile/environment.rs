//! Traces: libcni 1.3.1 hands them to plugins in three variables of the environment.

use tests::configs::{POD_SUBNET, bridge, port, portmap};
use tests::{Chain, NODE, Needs, Plugins, Pod, Suite, World, call};

use serde_json::json;

use crate::{BIN, direct, install};

/// The variables, and one that is nobody's business.
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
    for command in ["ADD", "CHECK", "DEL", "GC", "STATUS"] {
        let previous = world.sh(NODE, "cat /run/result 2>/dev/null || echo null");
        let previous: serde_json::Value = serde_json::from_str(&previous).unwrap();
        let mut more = json!({"cni.dev/valid-attachments": []});
        if !previous.is_null() {
            more["prevResult"] = previous;
        }
        let mut call = direct(&plugins, plugin, command, &more);
        for (name, value) in TRACE {
            call = call.env(name, value);
        }
        let output = world.run(NODE, &call).success();
        if command == "ADD" {
            world.files(|| std::fs::write("/run/result", &output.stdout).unwrap());
        }
        let seen = world.sh(NODE, &format!("cat {SEEN}.{command}"));
        for (name, value) in TRACE {
            let line = format!("{name}={value}");
            assert!(seen.lines().any(|l| l == line), "{command}: no {line} in\n{seen}");
        }
    }
}

/// The only other programs that plugins start: the legacy variant of iptables.
fn do_not_reach_iptables() {
    let world = World::new(&["pod-a"]);
    world.sh(
        NODE,
        &format!(
            "iptables-legacy -t mangle -N KUBE-IPTABLES-HINT
             mkdir -p {BIN}; for p in iptables-legacy-restore ip6tables-legacy-restore; do
                 printf '#!/bin/sh\\nenv >> {SEEN}\\nexec /usr/sbin/%s \"$@\"\\n' $p > {BIN}/$p
                 chmod +x {BIN}/$p
             done"
        ),
    );
    let ours = Plugins::ours();
    let chain = Chain::new(&world, &ours, &[bridge(&[POD_SUBNET]), portmap()])
        .ports(&json!([port("tcp", 8080, 80)]));
    for index in [0, 1] {
        let plugin = ["bridge", "portmap"][index];
        let previous = world.sh(NODE, "cat /run/result 2>/dev/null || echo null");
        let stdin = chain.stdin(index, &serde_json::from_str(&previous).unwrap());
        let mut call = call(&ours, plugin, "ADD", &Pod::new("pod-a"), &stdin);
        call = call.env("PATH", format!("{BIN}:{}", tests::search_path()));
        for (name, value) in TRACE {
            call = call.env(name, value);
        }
        let output = world.run(NODE, &call).success();
        world.files(|| std::fs::write("/run/result", &output.stdout).unwrap());
    }
    let seen = world.sh(NODE, &format!("cat {SEEN}"));
    let leaked: Vec<_> =
        TRACE.iter().filter(|(name, _)| seen.contains(&format!("{name}="))).collect();
    assert!(leaked.is_empty(), "iptables-legacy-restore gets {leaked:?}\n{seen}");
}
