//! What is left of deleted pods on a node.

use regex::Regex;
use tests::{Cmd, NODE};

use crate::node::Node;

/// Names and addresses of single pods in a list of rules.
const OF_A_POD: &str =
    r"CNI-DN-|CNI-[0-9a-f]{24}|10(\.[0-9]+){3}(/32)?( |$)|fd00:[0-9a-f:]+(/128)?( |$)|id: ";

/// All tables that `iptables-save` does not show.
const NFT_TABLES: &str = "nft list tables | grep -Ev 'ip6? (nat|filter|mangle|raw|security)$' |
    while read -r table; do nft list $table; done";

impl Node {
    /// Links, queues, rules, flows, leases, results and namespaces of pods, one a line.
    pub(crate) fn remains(&self) -> Vec<String> {
        let mut remains = Vec::new();
        let mut look = |script: &str, is_left: &dyn Fn(&str) -> bool| {
            let seen = self.world.run(NODE, &Cmd::new("sh").args(["-ec", script])).success();
            let lines = seen.stdout.lines().filter(|line| is_left(line));
            remains.extend(lines.map(|line| format!("{script}: {line}")));
        };
        look("ip -br link show type veth", &|line| !line.starts_with("uplink"));
        look("ip -br link show type ifb", &|_| true);
        look("tc qdisc show", &|line| !line.contains("noqueue"));
        let of_a_pod = Regex::new(OF_A_POD).unwrap();
        look("iptables-save; ip6tables-save", &|line| of_a_pod.is_match(line));
        look(NFT_TABLES, &|line| of_a_pod.is_match(line));
        // Tracked TCP connections are removed by the kernel after a while, and do no harm.
        look("conntrack -L -p udp 2>/dev/null", &|line| of_a_pod.is_match(line));
        look("ls /run/netns", &|name| name != NODE && name != "outside");
        look("ls /var/lib/cni/results 2>/dev/null || true", &|_| true);
        look(
            "find /var/lib/cni/networks /run/cni-ipam-state -type f 2>/dev/null || true",
            &|path| {
                let name = path.rsplit('/').next().unwrap_or_default();
                name != "lock"
                    && !name.starts_with("last_reserved_ip.")
                    && !name.ends_with(".conflist")
            },
        );
        remains
    }

    #[track_caller]
    pub(crate) fn assert_nothing_is_left(&self) {
        let remains = self.remains();
        assert!(remains.is_empty(), "left of pods:\n{}", remains.join("\n"));
    }
}
