//! Uses rtnetlink in new namespaces, and observes the result with iproute2. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use kernel::rtnl::{
    AddressOptions, BridgePort, Kind, LinkChange, MacvlanMode, NewLink, Parent, Place, Route,
    TokenBucket, VethPeer, wait_for_dad,
};
use kernel::{Family, Netns, Rtnl};
use nix::errno::Errno;
use testbed::{Namespace, in_new_netns, sh};

/// Runs a test in a new namespace for the node, with another one for a pod.
fn in_namespaces(test: impl FnOnce(&Rtnl, &Netns) + Send) {
    in_new_netns(|| {
        let pod = Namespace::create();
        test(&Rtnl::open().unwrap(), &Netns::open(pod.path().as_ref()).unwrap());
    });
}

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

const MAC: [u8; 6] = [0xc2, 0, 0, 0, 0, 1];

fn bridge(rtnl: &Rtnl) -> u32 {
    let kind = Kind::Bridge { promisc: true, vlan_filtering: false };
    let new = NewLink { mac: Some(MAC), mtu: Some(1400), up: true, ..NewLink::new("cni0", kind) };
    rtnl.create_link(&new).unwrap();
    rtnl.link_by_name("cni0").unwrap().unwrap().index
}

fn veth(rtnl: &Rtnl, pod: &Netns, master: Option<u32>) -> kernel::Result<()> {
    let mac = Some([0xc2, 0, 0, 0, 0, 2]);
    let peer = VethPeer { name: "eth0", mac, netns: pod };
    let new = NewLink::new("veth0", Kind::Veth(peer));
    rtnl.create_link(&NewLink { mtu: Some(1400), up: true, master, ..new })
}

#[test]
fn a_bridge() {
    in_namespaces(|rtnl, _| {
        let index = bridge(rtnl);
        let link = rtnl.link_by_index(index).unwrap().unwrap();
        assert_eq!(
            (link.kind.as_deref(), link.mac, link.mtu, link.up, link.promisc),
            (Some("bridge"), Some(MAC), 1400, true, true)
        );
        let seen = sh("ip -d link show cni0");
        for expected in
            ["<NO-CARRIER,BROADCAST,MULTICAST,PROMISC,UP>", "mtu 1400", "c2:00:00:00:00:01"]
        {
            assert!(seen.contains(expected), "{seen}");
        }
        rtnl.set_link(
            index,
            LinkChange { promisc: Some(false), mtu: Some(1300), ..LinkChange::default() },
        )
        .unwrap();
        let seen = sh("ip link show cni0");
        assert!(seen.contains("mtu 1300") && !seen.contains("PROMISC"), "{seen}");

        let change =
            LinkChange { allmulti: Some(true), tx_queue_len: Some(333), ..LinkChange::default() };
        rtnl.set_link(index, change).unwrap();
        let seen = sh("ip link show cni0");
        assert!(seen.contains("ALLMULTI") && seen.contains("qlen 333"), "{seen}");
        let link = rtnl.link_by_index(index).unwrap().unwrap();
        assert_eq!((link.allmulti, link.tx_queue_len, link.promisc), (true, 333, false));
    });
}

#[test]
fn a_veth_pair_is_born_where_it_belongs() {
    in_namespaces(|rtnl, pod| {
        let master = bridge(rtnl);
        veth(rtnl, pod, Some(master)).unwrap();
        let seen = sh("ip link show veth0");
        for expected in ["UP", "master cni0", "mtu 1400"] {
            assert!(seen.contains(expected), "{seen}");
        }
        let inside = pod.enter(|| sh("ip link show eth0")).unwrap();
        for expected in ["mtu 1400", "state DOWN", "qlen 1000", "c2:00:00:00:00:02"] {
            assert!(inside.contains(expected), "{inside}");
        }
        let link = rtnl.link_by_name("veth0").unwrap().unwrap();
        // Its other end is down, so it cannot carry packets.
        let early = rtnl.wait_until_operational(link.index, Duration::from_millis(20)).unwrap_err();
        assert_eq!(early.errno(), Some(Errno::ETIMEDOUT));
        pod.enter(|| sh("ip link set eth0 up")).unwrap();
        rtnl.wait_until_operational(link.index, Duration::from_secs(5)).unwrap();
        assert!(sh("ip link show veth0").contains("state UP"));
        let other = Rtnl::open_in(pod).unwrap().link_by_name("eth0").unwrap().unwrap();
        assert_eq!(
            (link.master, link.peer, other.peer),
            (Some(master), Some(other.index), Some(link.index))
        );

        let port = BridgePort { hairpin: true, isolated: true };
        let change = LinkChange { port: Some(port), ..LinkChange::default() };
        rtnl.set_link(link.index, change).unwrap();
        let seen = sh("ip -d link show veth0");
        for expected in ["hairpin on", "isolated on"] {
            assert!(seen.contains(expected), "{seen}");
        }
        let link = rtnl.link_by_name("veth0").unwrap().unwrap();
        assert_eq!(link.port, Some(port));
    });
}

#[test]
fn names_that_are_taken_and_links_that_are_gone() {
    in_namespaces(|rtnl, pod| {
        veth(rtnl, pod, None).unwrap();
        let taken = veth(rtnl, pod, None).unwrap_err();
        assert!(taken.is_exists(), "{taken:?}");
        assert!(taken.operation.starts_with("create veth pair veth0 and eth0 in /proc/"));

        assert_eq!(rtnl.link_by_name("nothing").unwrap(), None);
        assert_eq!(rtnl.link_by_index(99).unwrap(), None);
        let index = rtnl.link_by_name("veth0").unwrap().unwrap().index;
        rtnl.delete_link(index).unwrap();
        assert!(rtnl.delete_link(index).unwrap_err().is_not_found());
        let change = LinkChange { up: Some(true), mtu: Some(1400), ..LinkChange::default() };
        let gone = rtnl.set_link(index, change).unwrap_err();
        assert_eq!(gone.operation, format!("set link {index} up mtu 1400"));
        let names: Vec<String> = rtnl.links().unwrap().into_iter().map(|link| link.name).collect();
        assert_eq!(names, ["lo"]);
    });
}

#[test]
fn addresses() {
    in_namespaces(|rtnl, _| {
        let index = bridge(rtnl);
        let (v4, v6) = (network("10.88.0.1/24"), network("fd00:88::1/64"));
        rtnl.add_address(index, v4, AddressOptions::default()).unwrap();
        rtnl.add_address(index, v6, AddressOptions { nodad: true, ..AddressOptions::default() })
            .unwrap();
        let seen = sh("ip addr show cni0");
        for expected in [
            "inet 10.88.0.1/24 brd 10.88.0.255 scope global cni0",
            "inet6 fd00:88::1/64 scope global nodad",
        ] {
            assert!(seen.contains(expected), "{seen}");
        }
        let again = rtnl.add_address(index, v4, AddressOptions::default()).unwrap_err();
        assert!(again.is_exists());

        let listed = |family| {
            let all = rtnl.addresses(index, Some(family)).unwrap();
            all.into_iter().map(|address| address.network).collect::<Vec<_>>()
        };
        assert_eq!(listed(Family::V4), [v4]);
        assert!(listed(Family::V6).contains(&v6));
        rtnl.delete_address(index, v4).unwrap();
        assert_eq!(listed(Family::V4), []);
        let gone = rtnl.delete_address(index, v4).unwrap_err();
        assert_eq!(gone.errno(), Some(Errno::EADDRNOTAVAIL));
    });
}

#[test]
fn duplicate_address_detection_is_waited_for() {
    in_namespaces(|rtnl, pod| {
        veth(rtnl, pod, None).unwrap();
        let inside = Rtnl::open_in(pod).unwrap();
        let index = inside.link_by_name("eth0").unwrap().unwrap().index;
        inside.set_link(index, LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
        inside.add_address(index, network("fd00::2/64"), AddressOptions::default()).unwrap();
        wait_for_dad(pod, index, Duration::from_secs(10)).unwrap();
        let seen = pod.enter(|| sh("ip -6 addr show dev eth0")).unwrap();
        assert!(seen.contains("fd00::2/64") && !seen.contains("tentative"), "{seen}");
        inside.add_address(index, network("fd00::4/64"), AddressOptions::default()).unwrap();
        let late = wait_for_dad(pod, index, Duration::ZERO).unwrap_err();
        assert_eq!(late.errno(), Some(Errno::ETIMEDOUT));
        // Without a carrier, the detection begins later.
        sh("ip link set veth0 down");
        inside.add_address(index, network("fd00::3/64"), AddressOptions::default()).unwrap();
        wait_for_dad(pod, index, Duration::from_millis(50)).unwrap();
    });
}

#[test]
fn routes() {
    in_namespaces(|rtnl, _| {
        let index = bridge(rtnl);
        rtnl.add_address(index, network("10.88.0.1/24"), AddressOptions::default()).unwrap();
        let gateway: IpAddr = "10.88.0.9".parse().unwrap();
        let default = Route { gateway: Some(gateway), ..Route::new(network("0.0.0.0/0"), index) };
        let special = Route {
            priority: 50,
            table: 1077,
            mtu: Some(1300),
            advmss: Some(1200),
            source: "10.88.0.1".parse().ok(),
            scope: 253,
            ..Route::new(network("192.0.2.0/24"), index)
        };
        rtnl.add_route(&default).unwrap();
        rtnl.add_route(&special).unwrap();
        assert!(sh("ip route").contains("default via 10.88.0.9 dev cni0"));
        let seen = sh("ip route show table 1077");
        assert!(
            seen.starts_with(
                "192.0.2.0/24 dev cni0 scope link src 10.88.0.1 metric 50 linkdown mtu 1300 advmss 1200"
            ),
            "{seen}"
        );
        let all = rtnl.routes(Family::V4).unwrap();
        assert!(all.contains(&default) && all.contains(&special), "{all:?}");

        assert!(rtnl.add_route(&special).unwrap_err().is_exists());
    });
}

/// The kernel joins IPv6 routes to one destination into one route with several next hops.
#[test]
fn routes_with_several_next_hops() {
    in_namespaces(|rtnl, _| {
        let index = bridge(rtnl);
        let nodad = AddressOptions { nodad: true, ..AddressOptions::default() };
        rtnl.add_address(index, network("fd00:88::1/64"), nodad).unwrap();
        let default = |gateway: &str| Route {
            gateway: gateway.parse().ok(),
            priority: 1024,
            ..Route::new(network("::/0"), index)
        };
        rtnl.add_route(&default("fd00:88::8")).unwrap();
        sh("ip -6 route append default via fd00:88::9 dev cni0");
        let all = rtnl.routes(Family::V6).unwrap();
        for gateway in ["fd00:88::8", "fd00:88::9"] {
            assert!(all.contains(&default(gateway)), "{gateway}: {all:?}");
        }
    });
}

#[test]
fn the_kernels_own_text_arrives() {
    in_namespaces(|rtnl, _| {
        let index = bridge(rtnl);
        let gateway = "172.16.0.1".parse().ok();
        let route = Route { gateway, ..Route::new(network("0.0.0.0/0"), index) };
        let error = rtnl.add_route(&route).unwrap_err();
        assert_eq!(error.operation, "add route 0.0.0.0/0 via 172.16.0.1");
        assert_eq!(error.cause.to_string(), "Network is unreachable (Nexthop has invalid gateway)");
    });
}

/// More links than fit in one datagram.
#[test]
fn long_lists_are_whole() {
    in_namespaces(|rtnl, _| {
        for number in 0..120 {
            let name = format!("br{number}");
            let kind = Kind::Bridge { promisc: false, vlan_filtering: false };
            rtnl.create_link(&NewLink::new(&name, kind)).unwrap();
        }
        assert_eq!(rtnl.links().unwrap().len(), 121);
    });
}

/// A link is created with its alias, or not at all.
#[test]
fn a_link_and_its_alias() {
    in_namespaces(|rtnl, pod| {
        let create = |alias: &str| {
            let peer = VethPeer { name: "eth0", mac: None, netns: pod };
            let alias = Some(alias);
            rtnl.create_link(&NewLink { alias, ..NewLink::new("veth0", Kind::Veth(peer)) })
        };
        let refused = create(&"a".repeat(300)).unwrap_err();
        assert!(refused.errno().is_some(), "{refused:?}");
        assert_eq!(rtnl.link_by_name("veth0").unwrap(), None);
        create("net/id/eth0").unwrap();
        let ifb = NewLink { alias: Some("net/id"), ..NewLink::new("bwp0", Kind::Ifb) };
        rtnl.create_link(&ifb).unwrap();
        for (name, alias) in [("veth0", "net/id/eth0"), ("bwp0", "net/id")] {
            let seen = sh(&format!("ip link show {name}"));
            assert!(seen.contains(&format!("alias {alias}\n")), "{seen}");
        }
        assert!(create("net/id/eth0").unwrap_err().is_exists());
    });
}

/// A link of another namespace has an ID there, and a macvlan link on it can have the same name.
#[test]
fn a_macvlan_link_of_another_namespace() {
    in_namespaces(|rtnl, pod| {
        veth(rtnl, pod, None).unwrap();
        let inside = Rtnl::open_in(pod).unwrap();
        let here = Netns::current().unwrap();
        let id = inside.id_of(&here).unwrap();
        assert_eq!(inside.id_of(&here).unwrap(), id);
        let parent = rtnl.link_by_name("veth0").unwrap().unwrap();
        let parent = Parent { index: parent.index, namespace: Some(id) };
        let kind = Kind::Macvlan { mode: MacvlanMode::Private, bc_queue_len: Some(50) };
        let new = NewLink { mtu: Some(1300), mac: Some(MAC), ..NewLink::new("veth0", kind) };
        inside.create_link(&NewLink { parent: Some(parent), ..new }).unwrap();
        let link = inside.link_by_name("veth0").unwrap().unwrap();
        assert_eq!(
            (link.macvlan, link.mtu, link.mac),
            (Some(MacvlanMode::Private), 1300, Some(MAC))
        );
        assert_eq!((link.peer, link.peer_namespace), (Some(parent.index), Some(id)));
        let seen = pod.enter(|| sh("ip -d link show veth0")).unwrap();
        assert!(seen.contains("macvlan mode private bcqueuelen 50"), "{seen}");
        assert_eq!(rtnl.links().unwrap().len(), 2);
    });
}

#[test]
fn queueing_disciplines() {
    in_namespaces(|rtnl, pod| {
        veth(rtnl, pod, None).unwrap();
        let ifb = NewLink { mtu: Some(1400), up: true, ..NewLink::new("bwp0", Kind::Ifb) };
        rtnl.create_link(&ifb).unwrap();
        let index = |name| rtnl.link_by_name(name).unwrap().unwrap().index;
        let (veth, ifb) = (index("veth0"), index("bwp0"));
        let bucket = TokenBucket { rate: 375_000, limit: 109_375, buffer: 4_166_656 };
        let fast = TokenBucket { rate: 5_000_000_000, limit: 126_000_000, ..bucket };
        let set = |link| {
            let all = rtnl.qdiscs(link).unwrap().into_iter();
            all.map(|it| (it.kind, it.place, it.token_bucket)).collect::<Vec<_>>()
        };
        assert_eq!(set(veth), [("noqueue".to_owned(), Place::Root, None)]);
        assert_eq!(rtnl.redirections(veth).unwrap(), Vec::<u32>::new());

        rtnl.add_token_bucket(veth, &bucket).unwrap();
        rtnl.add_token_bucket(ifb, &fast).unwrap();
        rtnl.add_ingress(veth).unwrap();
        rtnl.redirect(veth, ifb).unwrap();
        let seen = sh("tc -d qdisc show dev veth0");
        assert!(seen.contains("qdisc tbf 1: root"), "{seen}");
        assert!(seen.contains("rate 3Mbit burst 99999b/1 mpu 0b lat 25ms"), "{seen}");
        let seen = sh("tc -d qdisc show dev bwp0");
        assert!(seen.contains("rate 40Gbit"), "{seen}");
        let seen = sh("tc filter show dev veth0 ingress");
        assert!(seen.contains("Egress Redirect to device bwp0"), "{seen}");
        let ingress = ("ingress".to_owned(), Place::Ingress, None);
        assert_eq!(set(veth), [("tbf".to_owned(), Place::Root, Some(bucket)), ingress]);
        assert_eq!(set(ifb), [("tbf".to_owned(), Place::Root, Some(fast))]);
        assert_eq!(rtnl.redirections(veth).unwrap(), [ifb]);
        for again in [rtnl.add_token_bucket(veth, &bucket), rtnl.add_ingress(veth)] {
            assert!(again.unwrap_err().is_exists());
        }

        rtnl.delete_ingress(veth).unwrap();
        rtnl.delete_root_qdisc(veth).unwrap();
        assert_eq!(set(veth), [("noqueue".to_owned(), Place::Root, None)]);
        for gone in [rtnl.delete_root_qdisc(veth), rtnl.delete_ingress(veth)] {
            let errno = gone.unwrap_err().errno();
            assert!(matches!(errno, Some(Errno::ENOENT | Errno::EINVAL)), "{errno:?}");
        }
    });
}

/// The longest time that ticks of 32 bits can express: 274 seconds.
#[test]
fn a_large_bucket() {
    in_namespaces(|rtnl, _| {
        let ifb = NewLink { mtu: Some(1500), up: true, ..NewLink::new("bwp0", Kind::Ifb) };
        rtnl.create_link(&ifb).unwrap();
        let ifb = rtnl.link_by_name("bwp0").unwrap().unwrap().index;
        let bucket = TokenBucket { rate: 1_250_000, limit: 600_000_000, buffer: u32::MAX };
        rtnl.add_token_bucket(ifb, &bucket).unwrap();
        assert_eq!(rtnl.qdiscs(ifb).unwrap()[0].token_bucket, Some(bucket));
    });
}

/// Queueing disciplines and filters of other programs are not an error.
#[test]
fn what_others_queue_with() {
    in_namespaces(|rtnl, pod| {
        veth(rtnl, pod, None).unwrap();
        let index = rtnl.link_by_name("veth0").unwrap().unwrap().index;
        for kind in ["htb", "pfifo", "bfifo"] {
            sh(&format!("tc qdisc add dev veth0 root handle 1: {kind}"));
            let found = rtnl.qdiscs(index).unwrap();
            assert!(kind.starts_with(&found[0].kind), "{found:?}");
            sh("tc qdisc del dev veth0 root");
        }
        sh("tc qdisc add dev veth0 clsact");
        for filter in [
            "protocol all prio 1 u32 match u32 1 1 action mirred egress redirect dev lo",
            "protocol ip prio 2 u32 match u32 0 0 action mirred egress redirect dev lo",
            "protocol all prio 3 u32 match u32 0 0 action mirred egress mirror dev lo",
            "protocol all prio 4 u32 match u32 0 0 flowid 1:1",
        ] {
            sh(&format!("tc filter add dev veth0 ingress {filter}"));
        }
        assert_eq!(rtnl.redirections(index).unwrap(), Vec::<u32>::new());
    });
}

/// Earlier versions could not read a link with a description of more than 32 KiB.
#[test]
fn hundreds_of_alternative_names() {
    in_new_netns(|| {
        let names = (0..300).map(|number| format!("altname {number:0>120}"));
        let commands = names.map(|name| format!("link property add dev lo {name}"));
        let file = std::env::temp_dir().join(format!("altnames-{}", std::process::id()));
        std::fs::write(&file, commands.collect::<Vec<_>>().join("\n")).unwrap();
        sh(&format!("ip -batch {}", file.display()));
        std::fs::remove_file(file).unwrap();

        let rtnl = || Rtnl::open().unwrap();
        assert_eq!(rtnl().link_by_name("lo").unwrap().unwrap().index, 1);
        assert_eq!(rtnl().links().unwrap().len(), 1);
        let rtnl = rtnl();
        rtnl.links().unwrap();
        assert_eq!(rtnl.link_by_index(1).unwrap().unwrap().name, "lo");
    });
}
