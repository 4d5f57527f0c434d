//! Removing everything from a node. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{config, of, portmap, tcp};
use serde_json::json;
use testbed::routed::{on_a_node, pod};
use testbed::sh;

#[test]
fn nothing_of_ours_is_left() {
    on_a_node(|| {
        let pod = pod();
        sh("iptables -t nat -A POSTROUTING -s 198.51.100.0/24 -j MASQUERADE
            iptables -t mangle -A PREROUTING -j RETURN; nft add table ip others
            iptables-legacy -t nat -A OUTPUT -d 198.51.100.1 -j RETURN");
        let listed = || {
            sh("iptables-save | grep -v '^[:#]'; ip6tables-save | grep -v '^[:#]' || true
                iptables-legacy-save | grep -v '^[:#]'; nft list tables")
        };
        let before = listed();
        assert_eq!(portmap::purge(false).unwrap(), Vec::<String>::new());
        for (id, port, backend) in
            [("pod-a", 8080, "iptables"), ("pod-b", 8081, "nftables"), ("pod-c", 8082, "iptables")]
        {
            let mut config = of(backend, config(&json!([tcp(port, 80)])));
            config["name"] = format!("net-{id}").into();
            portmap("ADD", id, &pod.path(), &config).unwrap();
        }
        sh("iptables-legacy -t nat -N CNI-HOSTPORT-DNAT; iptables-legacy -t nat -N CNI-DN-0123456789
            iptables-legacy -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
            iptables-legacy -t nat -A CNI-HOSTPORT-DNAT -p tcp -j CNI-DN-0123456789
            conntrack -I -t 600 -p tcp --state ESTABLISHED -s 192.0.2.1 -d 192.0.2.10 --sport 4242 \
                --dport 8080 --reply-src 10.88.0.2 --reply-dst 192.0.2.1 --reply-port-src 80 \
                --reply-port-dst 4242 2>&1");
        let with_pods = listed();

        let would = portmap::purge(true).unwrap();
        assert_eq!(listed(), with_pods, "a dry run changes nothing");
        assert_eq!(sh("sysctl -n net.ipv4.conf.vethpod.route_localnet"), "1\n");
        assert_eq!(portmap::purge(false).unwrap(), would);
        for line in [
            "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
            "iptables -t nat -N CNI-HOSTPORT-DNAT",
            "ip6tables -t nat -N CNI-HOSTPORT-SETMARK",
            "iptables -t mangle -N CNI-HOSTPORT-GUARD",
            "iptables-legacy -t nat -N CNI-DN-0123456789",
            "nft table ip6 podwire_hostport",
            "sysctl net.ipv4.conf.vethpod.route_localnet = 1",
        ] {
            assert!(would.iter().any(|one| one == line), "{line} is not in {would:#?}");
        }
        let mut after = listed();
        // Empty tables of iptables stay.
        for table in ["nat", "mangle", "filter"] {
            after = after.replace(&format!("table ip6 {table}\n"), "");
        }
        after = after.replace("*nat\nCOMMIT\n", "");
        assert_eq!(after, before.replace("*nat\nCOMMIT\n", ""));
        assert_eq!(sh("sysctl -n net.ipv4.conf.vethpod.route_localnet"), "0\n");
        assert!(!sh("conntrack -L").contains("4242"));
        assert_eq!(portmap::purge(false).unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_chain_that_others_use_stays_without_its_rules() {
    on_a_node(|| {
        let pod = pod();
        portmap("ADD", "pod-a", &pod.path(), &config(&json!([tcp(8080, 80)]))).unwrap();
        sh("iptables -t nat -N MINE; iptables -t nat -A MINE -j CNI-DN-9b8cc9dd5d53e36658bb0");
        let done = portmap::purge(false).unwrap();
        let kept = "-F CNI-DN-9b8cc9dd5d53e36658bb0 (rules of others lead to it, so it stays)";
        assert!(done.iter().any(|line| line.ends_with(kept)), "{done:#?}");
        let listed = sh("iptables -t nat -S");
        assert!(listed.contains("-A MINE -j CNI-DN-"), "{listed}");
        assert!(!listed.contains("DNAT --to") && !listed.contains("CNI-HOSTPORT"), "{listed}");
    });
}

#[test]
fn what_others_have_in_the_table_stays() {
    on_a_node(|| {
        let pod = pod();
        let config = of("nftables", config(&json!([tcp(8080, 80)])));
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        sh("nft add chain ip podwire_hostport mine
            nft add rule ip podwire_hostport mine tcp dport 9 counter comment theirs
            nft add rule ip podwire_hostport mine meta l4proto . th dport vmap @conditional_ports
            nft add rule ip podwire_hostport mine jump host_ports");
        let done = portmap::purge(false).unwrap();
        assert!(
            done.contains(&"nft rules and sets in table ip podwire_hostport".to_owned()),
            "{done:?}"
        );
        let listed = sh("nft list table ip podwire_hostport");
        for theirs in ["comment \"theirs\"", "vmap @conditional_ports", "jump host_ports"] {
            assert!(listed.contains(theirs), "{listed}");
        }
        assert!(!listed.contains("8080") && !listed.contains("dnat"), "{listed}");
        assert_eq!(portmap::purge(false).unwrap(), Vec::<String>::new());
        sh("nft delete chain ip podwire_hostport mine");
        assert_eq!(portmap::purge(false).unwrap(), ["nft table ip podwire_hostport"]);
    });
}

/// A flushed table still has the chains of ports.
#[test]
fn a_flushed_table_is_deleted() {
    on_a_node(|| {
        let pod = pod();
        let mut config = of("nftables", config(&json!([tcp(8080, 80)])));
        config["conditionsV4"] = json!(["ip saddr 192.0.2.0/24"]);
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        sh("nft flush table ip podwire_hostport");
        let done = portmap::purge(false).unwrap();
        assert!(done.contains(&"nft table ip podwire_hostport".to_owned()), "{done:?}");
        assert_eq!(sh("nft list tables | grep podwire || true"), "");
    });
}
