//! `conflist purge` on a node with networks of every backend; rules and files of others stay.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::{bandwidth, bridge, firewall, portmap_by, ptp, tuning, with};
use tests::{Cmd, NODE, Needs, Output, Plugins, Suite, TcpEcho, World};
use tests::{conflist_program, fetch};

const ALL: [&str; 7] =
    ["bandwidth", "bridge", "firewall", "host-local", "portmap", "ptp", "tuning"];
const NET_DIR: &str = "/run/net.d";

/// Rules and files of others, in each variant of iptables and with names similar to those of the
/// suite.
const OTHERS: &str = r#"
    for iptables in iptables-nft iptables-legacy ip6tables-nft; do
        $iptables -A INPUT -p tcp --dport 9 -m comment --comment theirs -j ACCEPT
        $iptables -t nat -N THEIRS
        $iptables -t nat -A POSTROUTING -m comment --comment theirs -j THEIRS
    done
    nft add table inet theirs
    nft add table bridge filter
    ip link add br-theirs type bridge
    ip link add veth0123456789a type veth peer name uplink2
    ip link set veth0123456789a alias "to the other rack"
    mkdir -p /var/lib/cni/networks/theirs /var/lib/cni/networks/reference
    mkdir -p /var/lib/cni/results /run/cni/tuning
    printf 'pod\r\neth0' > /var/lib/cni/networks/theirs/10.1.0.2
    printf 'pod\r\neth0' > /var/lib/cni/networks/reference/10.2.0.2
    echo '{}' > /run/cni/tuning/pod_eth0.json
    echo '{"kind":"cniCacheV1","containerId":"pod","ifName":"eth0","networkName":"theirs","config":"'"$(
        printf '{"name":"theirs","plugins":[{"type":"calico"},{"type":"portmap"}]}' | base64 -w0
    )"'","result":{}}' > /var/lib/cni/results/theirs-pod-eth0
"#;

/// Everything that a purge may change, as other programs print it.
const NODE_STATE: &str = "
    ip -o link | cut -d' ' -f2
    iptables-nft-save; ip6tables-nft-save; iptables-legacy-save
    nft list ruleset
    find /var/lib/cni /run/cni /run/podwire /run/state 2> /dev/null | sort || true
    cat /proc/sys/net/ipv4/conf/*/route_localnet
";

fn main() -> ExitCode {
    let mut suite = Suite::new();
    let tools = ["iptables-nft", "iptables-legacy", "ip6tables-nft", "nft"];
    let needs = Needs::plugins(&Plugins::ours(), &ALL).conflist().tools(&tools);
    for variant in ["iptables-nft", "iptables-legacy"] {
        suite.case(variant, &needs, move || purge(variant));
    }
    suite.run()
}

fn networks() -> [Value; 2] {
    let by_iptables = [
        with(bridge(&["10.88.0.0/24", "fd00:88::/64"]), &json!({"macspoofchk": true})),
        portmap_by("iptables"),
        firewall(),
        with(tuning(), &json!({"dataDir": "/run/cni/tuning"})),
        bandwidth(80, 80),
    ];
    let by_nftables = [
        with(ptp(&["10.89.0.0/24", "fd00:89::/64"]), &json!({"ipMasqBackend": "nftables"})),
        portmap_by("nftables"),
        with(firewall(), &json!({"backend": "nftables"})),
    ];
    [
        json!({"cniVersion": "1.1.0", "name": "one", "plugins": by_iptables}),
        json!({"cniVersion": "1.1.0", "name": "two", "plugins": by_nftables}),
    ]
}

fn purge(variant: &str) {
    let world = World::new(&["outside", "pod-one", "pod-two"]);
    world.connect((NODE, "uplink", &["192.0.2.1/24"]), ("outside", "eth0", &["192.0.2.2/24"]));
    world.sh(NODE, OTHERS);
    if variant == "iptables-legacy" {
        // The plugins choose the variant by the hint that the kubelet leaves.
        world.sh(NODE, "iptables-legacy -t mangle -N KUBE-IPTABLES-HINT");
    }
    let before = state(&world);
    world.sh(NODE, &format!("mkdir {NET_DIR}"));
    for (network, port) in networks().iter().zip([80, 81]) {
        let name = network["name"].as_str().unwrap();
        let write = Cmd::new("sh").args(["-ec", &format!("cat > {NET_DIR}/{name}.conflist")]);
        drop(world.run(NODE, &write.stdin(network.to_string())).success());
        let ports = json!({"portMappings": [
            {"hostPort": port, "containerPort": 80, "protocol": "tcp"},
        ]});
        let netns = format!("/run/netns/pod-{name}");
        let add = conflist(&world, &["add", name, &netns], &ports.to_string());
        drop(add.success());
    }
    // By their names, the plugins of this list are ours, but the reference plugin made the lease.
    world.sh(
        NODE,
        &format!(
            r#"echo '{{"name": "reference", "plugins": [{{"type": "bridge"}}]}}' > {NET_DIR}/reference.conflist
            echo '{{' > {NET_DIR}/broken.conflist"#
        ),
    );
    let with_pods = state(&world);
    assert_ne!(with_pods, before);

    // There is no terminal to ask for confirmation, and nothing is removed.
    let refused = conflist(&world, &["purge"], "");
    assert!(refused.stderr.contains("use --yes"), "{refused}");
    let dry_run = conflist(&world, &["purge", "--dry-run"], "").success();
    for left in ["/var/lib/cni/networks/reference: these leases", "broken.conflist"] {
        assert!(dry_run.stderr.contains(left), "{dry_run}");
    }
    let shown = dry_run.stdout;
    assert_eq!(state(&world), with_pods);

    // As in an uninstall script: the configurations and the programs are gone already.
    world.sh(NODE, &format!("rm -r {NET_DIR}"));
    let removed = conflist(&world, &["purge", "--yes"], "").success().stdout;
    assert_eq!(removed.replace("removed ", ""), shown.replace("would remove ", ""));
    // What iptables keeps when its chains are empty, as after DEL.
    assert_eq!(state(&world), before, "{removed}");
    assert_eq!(conflist(&world, &["purge", "--dry-run"], "").success().stdout, "");

    let _host = TcpEcho::start(&world, NODE, "0.0.0.0:80", "host");
    assert_eq!(fetch(&world, "outside", "192.0.2.1:80").unwrap(), "host 192.0.2.2");
}

/// Lines in their order within chains, without counters and without the empty tables and base chains
/// of iptables.
fn state(world: &World) -> Vec<String> {
    let listed = world.sh(NODE, NODE_STATE);
    let is_shown = |line: &&str| {
        let is_frame = line.starts_with([':', '*', '#', '}']) || line.trim() == "}";
        let is_base = [
            "chain INPUT",
            "chain FORWARD",
            "chain OUTPUT",
            "chain PREROUTING",
            "chain POSTROUTING",
        ]
        .iter()
        .any(|base| line.contains(base));
        let is_policy = line.contains("policy accept;");
        let is_table = ["ip nat", "ip6 nat", "ip filter", "ip6 filter", "ip mangle", "ip6 mangle"]
            .iter()
            .any(|table| line.starts_with(&format!("table {table} ")));
        let is_own_chain = line.starts_with(':') && line.contains(" - [");
        !line.trim().is_empty()
            && *line != "COMMIT"
            && (is_own_chain || !(is_frame || is_base || is_policy || is_table))
    };
    let without_counters = |line: &str| {
        let line = line.split(" counter packets ").next().unwrap_or_default();
        line.split(" [").next().unwrap_or_default().to_owned()
    };
    let mut lines: Vec<String> = listed.lines().filter(is_shown).map(without_counters).collect();
    lines.sort();
    lines
}

fn conflist(world: &World, args: &[&str], capability_args: &str) -> Output {
    let call = Cmd::new(conflist_program()).args(args).env("CAP_ARGS", capability_args);
    let bin = Plugins::ours().dir.display().to_string();
    world.run(NODE, &call.env("NETCONFPATH", NET_DIR).env("CNI_PATH", bin))
}
