//! A kernel that refuses each message of a large batch.

use serde_json::json;
use tests::configs::{bridge, with};
use tests::{Daemon, NODE, Needs, Plugins, Pod, Suite, World, call};

use crate::{assert_same, state};

/// Another process owns the table, so no other one may change it.
const OWNER: &str = "rm -f /run/owner; mkfifo /run/owner; exec 3<>/run/owner
    echo 'add table ip nat { flags owner; }' >&3; exec nft -i <&3";

pub(crate) fn cases(suite: &mut Suite) {
    let needs = Needs::plugins(&Plugins::ours(), &["bridge", "static"]);
    for count in [2, 300, 600] {
        suite.case(&format!("refusals::masquerade_{count}_addresses"), &needs, move || {
            masquerade(count);
        });
    }
}

/// A refusal for each message is more than a socket's buffer holds.
fn masquerade(count: usize) {
    let world = World::new(&["pod-a"]);
    let _owner = Daemon::start(&world, NODE, &["sh", "-c", OWNER]);
    world.sh(NODE, "until nft list tables | grep -q 'ip nat'; do :; done");
    let addresses: Vec<_> = (0..count)
        .map(|n| json!({"address": format!("10.{}.{}.2/24", 88 + n / 250, n % 250)}))
        .collect();
    let config = with(
        bridge(&[]),
        &json!({
            "cniVersion": "1.1.0", "name": "testnet", "isGateway": false, "ipMasqBackend": "iptables",
            "ipam": {"type": "static", "addresses": addresses},
        }),
    );
    let before = state(&world);
    let pod = Pod::new("pod-a");
    let output = world.run(NODE, &call(&Plugins::ours(), "bridge", "ADD", &pod, &config));
    drop(output.cni_error());
    assert_same(&before, &state(&world), "a failed ADD leaves something behind");
}
