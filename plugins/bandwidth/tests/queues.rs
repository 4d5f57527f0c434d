//! What each command makes, compares and removes on the node. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Call, Pod, ifbs, json_of, qdiscs};
use serde_json::{Value, json};
use testbed::{on_a_node, sh};

/// The ifb device of container `c1` in the network `testnet`.
const IFB: &str = "bwp328e3d85e6c0";

fn tbf(rate: u64, burst: u64) -> (String, Value) {
    ("tbf".to_owned(), json!({"rate": rate, "burst": burst, "lat": 25_000}))
}

#[track_caller]
fn assert_clean() {
    assert_eq!(ifbs(), Vec::<String>::new());
    assert_eq!(qdiscs("vethpod"), []);
}

#[track_caller]
fn refused(call: &Call, command: &str, code: u32, mentions: &str) {
    let error = call.run(command).unwrap_err();
    assert_eq!(error["code"], code, "{error}");
    let text = format!("{} {}", error["msg"], error["details"]);
    assert!(text.contains(mentions), "{mentions:?} is missing: {error}");
}

#[test]
fn both_directions() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod);
        let result = call.run("ADD").unwrap();
        let ingress = ("ingress".to_owned(), json!({}));
        assert_eq!(qdiscs("vethpod"), [tbf(500_000, 100_000), ingress]);
        assert_eq!(qdiscs(IFB), [tbf(625_000, 100_000)]);
        let ifb = json_of(&format!("ip -j -d link show {IFB}"));
        assert_eq!(ifb[0]["ifalias"], "testnet/c1/eth0");
        assert_eq!(ifb[0]["mtu"], 1500);
        let mut expected = pod.result();
        let described = json!({"name": IFB, "mac": ifb[0]["address"], "mtu": 1500});
        expected["interfaces"].as_array_mut().unwrap().push(described);
        assert_eq!(result, expected);

        let filters = json_of("tc -j filter show dev vethpod ingress");
        let actions = &filters[2]["options"]["actions"];
        assert_eq!(actions.as_array().unwrap().len(), 1);
        assert_eq!(actions[0]["to_dev"], IFB);
        sh("tc qdisc del dev vethpod root; tc qdisc del dev vethpod ingress");
        call.run("DEL").unwrap();
        assert_clean();
    });
}

#[test]
fn one_direction() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod).with(&json!({"egressRate": 0, "egressBurst": 0}));
        assert_eq!(call.run("ADD").unwrap(), pod.result());
        assert_eq!(qdiscs("vethpod"), [tbf(500_000, 100_000)]);
        assert_eq!(ifbs(), Vec::<String>::new());
        call.run("CHECK").unwrap();
        sh("tc qdisc del dev vethpod root");

        let call = Call::new("c1", &pod).with(&json!({"ingressRate": 0, "ingressBurst": 0}));
        call.run("ADD").unwrap();
        assert_eq!(qdiscs("vethpod"), [("ingress".to_owned(), json!({}))]);
        assert_eq!(qdiscs(IFB), [tbf(625_000, 100_000)]);
        call.run("CHECK").unwrap();
    });
}

/// containerd sends keys with capital letters and the largest burst of 32 bits. At this rate, the kernel
/// cannot store its ticks.
#[test]
fn limits_of_a_runtime() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let nothing = json!({"cniVersion": "1.0.0", "name": "testnet", "type": "bandwidth"});
        let nothing = Call { network: nothing, ..Call::new("c1", &pod) };
        let nothing = nothing.with(&json!({"prevResult": pod.result()}));
        nothing.run("ADD").unwrap();
        assert_clean();
        nothing.run("CHECK").unwrap();

        let limits = json!({
            "IngressRate": 10_000_000, "IngressBurst": u32::MAX, "EgressRate": 0, "EgressBurst": 0,
        });
        let call = nothing.with(&json!({
            "latency": 50, "runtimeConfig": {"bandwidth": limits},
        }));
        call.run("ADD").unwrap();
        let (kind, options) = qdiscs("vethpod").remove(0);
        assert_eq!((kind.as_str(), &options["rate"]), ("tbf", &json!(1_250_000)));
        call.run("CHECK").unwrap();
        let other = call.with(&json!({"latency": 51}));
        refused(&other, "CHECK", 101, "has room for 536933411 bytes, not 536934661");
    });
}

#[test]
fn limits_beyond_32_bits() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod).with(&json!({"ingressRate": 40_000_000_000_u64}));
        call.run("ADD").unwrap();
        assert_eq!(qdiscs("vethpod")[0].1["rate"], 5_000_000_000_u64);
        call.run("CHECK").unwrap();
    });
}

#[test]
fn an_add_that_fails_leaves_nothing_behind() {
    for (before, after, code, mentions) in [
        ("tc qdisc add dev vethpod root pfifo", "tc qdisc del dev vethpod root", 102, "tbf"),
        ("tc qdisc add dev vethpod ingress", "tc qdisc del dev vethpod ingress", 102, "ingress"),
        (&format!("ip link add {IFB} type bridge"), &format!("ip link del {IFB}"), 102, IFB),
        (&format!("ip link add {IFB} type ifb"), &format!("ip link del {IFB}"), 102, "detach"),
    ] {
        let [before, after] = [before, after].map(str::to_owned);
        on_a_node(move || {
            let pod = Pod::new("vethpod");
            let call = Call::new("c1", &pod);
            sh(&before);
            let links = sh("ip -o link");
            refused(&call, "ADD", code, mentions);
            assert_eq!(sh("ip -o link").lines().count(), links.lines().count());
            sh(&after);
            assert_clean();
            call.run("ADD").unwrap();
        });
    }
}

#[test]
fn a_second_add_does_not_change_the_first() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod);
        let result = call.run("ADD").unwrap();
        call.run("ADD").unwrap_err();
        call.with(&json!({"prevResult": result})).run("CHECK").unwrap();

        let other = Pod::new("vethother");
        let second = Call { ifname: "eth1", ..Call::new("c1", &other) };
        other.enter(|| sh("ip link set eth0 down; ip link set eth0 name eth1"));
        refused(&second, "ADD", 102, "of testnet/c1/eth0");
        assert_eq!(qdiscs("vethother"), []);
        second.run("DEL").unwrap();
        second.by_names().run("DEL").unwrap();
        call.with(&json!({"prevResult": result})).run("CHECK").unwrap();
    });
}

#[test]
fn what_cannot_be_limited() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod);
        refused(&Call { ifname: "eth9", ..call.clone() }, "ADD", 7, "interface eth9 of the pod");
        pod.enter(|| sh("ip link add br0 type bridge"));
        refused(&Call { ifname: "br0", ..call.clone() }, "ADD", 7, "veth pair");
        let elsewhere = json!({"interfaces": [{"name": "veth1"}], "cniVersion": "1.1.0"});
        refused(&call.with(&json!({"prevResult": elsewhere})), "ADD", 7, "not contain vethpod");
        let inside = json!({"interfaces": [{"name": "vethpod", "sandbox": pod.netns()}]});
        refused(&call.with(&json!({"prevResult": inside})), "ADD", 7, "not contain vethpod");
        refused(&Call { netns: "/nowhere".to_owned(), ..call.clone() }, "ADD", 8, "CNI_NETNS");
        refused(&call.with(&json!({"prevResult": null})), "ADD", 7, "prevResult");
        assert_clean();
    });
}

/// Results had no interfaces before 0.3.0.
#[test]
fn results_of_old_versions() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let old = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.88.0.2/24"}});
        let call = Call::new("c1", &pod);
        let call = call.with(&json!({"cniVersion": "0.2.0", "prevResult": old}));
        assert_eq!(call.run("ADD").unwrap()["ip4"]["ip"], "10.88.0.2/24");
        assert_eq!((ifbs().len(), qdiscs("vethpod").len()), (1, 2));
    });
}

#[test]
fn del_needs_the_names_only() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod);
        for del in [
            call.clone(),
            call.by_names(),
            Call { netns: "/nowhere".to_owned(), ..call.clone() },
            call.with(&json!({"ingressRate": "fast", "egressBurst": 0})),
            call.with(&json!({"ingressRate": -1, "egressBurst": u64::MAX, "latency": 0})),
            call.with(&json!({"maxBurst": 1, "runtimeConfig": {"bandwidth": [5]}})),
        ] {
            call.run("ADD").unwrap();
            assert_eq!(ifbs(), [IFB]);
            del.run("DEL").unwrap();
            assert_eq!(ifbs(), Vec::<String>::new());
            del.run("DEL").unwrap();
            sh("tc qdisc del dev vethpod root; tc qdisc del dev vethpod ingress");
        }
    });
}

/// The reference plugin sets no alias. A link with the name that is not an ifb device is not deleted.
#[test]
fn del_of_what_the_reference_plugin_made() {
    on_a_node(|| {
        let call = Call::new("c1", &Pod::new("vethpod")).by_names();
        sh(&format!("ip link add {IFB} type ifb"));
        call.run("DEL").unwrap();
        assert_eq!(ifbs(), Vec::<String>::new());
        sh(&format!("ip link add {IFB} type bridge"));
        call.run("DEL").unwrap();
        sh(&format!("ip link show {IFB}"));
    });
}

#[test]
fn gc_keeps_what_is_valid() {
    on_a_node(|| {
        let (one, two) = (Pod::new("vethpod"), Pod::new("vethtwo"));
        let (first, second) = (Call::new("c1", &one), Call::new("c2", &two));
        first.run("ADD").unwrap();
        second.run("ADD").unwrap();
        let other = second.with(&json!({"name": "othernet"}));
        sh("tc qdisc del dev vethtwo root; tc qdisc del dev vethtwo ingress");
        other.run("ADD").unwrap();
        sh(
            "ip link add bwp0123456789ab type ifb; ip link set bwp0123456789ab alias testnet/c9/eth0",
        );
        assert_eq!(ifbs().len(), 4);

        let gc = |valid: &Value| {
            first.with(&json!({"cni.dev/valid-attachments": valid})).run("GC").unwrap();
        };
        gc(&json!([
            {"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "eth0"},
        ]));
        assert_eq!(ifbs().len(), 4);
        gc(&json!([{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "x"}]));
        assert_eq!(ifbs().len(), 3);
        assert!(ifbs().contains(&IFB.to_owned()));
        gc(&json!([]));
        // The device of the other network, and a device whose name does not follow from its alias.
        assert_eq!(ifbs().len(), 2);
        assert!(!ifbs().contains(&IFB.to_owned()));
    });
}

#[test]
fn check_finds_changes() {
    let tbf = "root handle 1: tbf limit 115624 burst 100000";
    for (broken, mentions) in [
        ("tc qdisc del dev vethpod root", "tbf of vethpod is missing"),
        ("tc qdisc replace dev vethpod root handle 2: pfifo", "tbf of vethpod is missing"),
        (
            &format!("tc qdisc change dev vethpod {tbf} rate 3mbit"),
            "tbf of vethpod has a rate of 3000000 bit/s, not 4000000",
        ),
        (
            "tc qdisc change dev vethpod root tbf rate 4mbit burst 90000 limit 112500",
            "tbf of vethpod has a burst that lasts",
        ),
        (
            &format!("tc qdisc change dev {IFB} {tbf} rate 5mbit"),
            &format!("tbf of {IFB} has room for 115624 bytes, not 115625"),
        ),
        (&format!("tc qdisc del dev {IFB} root"), &format!("tbf of {IFB} is missing")),
        (&format!("ip link del {IFB}"), &format!("ifb device {IFB} is missing")),
        (&format!("ip link set {IFB} down"), "is down"),
        (&format!("ip link del {IFB}; ip link add {IFB} up type ifb"), "has the hardware address"),
        ("tc filter del dev vethpod ingress", &format!("packets from vethpod to {IFB} is missing")),
        ("tc qdisc del dev vethpod ingress", &format!("packets from vethpod to {IFB} is missing")),
        (
            "tc filter del dev vethpod ingress; tc filter add dev vethpod parent ffff: protocol ip \
             prio 1 u32 match u32 0 0 flowid 1:1 action mirred egress redirect dev lo",
            &format!("packets from vethpod to {IFB} is missing"),
        ),
        ("ip link del vethpod", "interface eth0 of the pod is missing"),
    ] {
        let [broken, mentions] = [broken, mentions].map(str::to_owned);
        on_a_node(move || {
            let pod = Pod::new("vethpod");
            let call = Call::new("c1", &pod);
            let result = call.run("ADD").unwrap();
            let check = call.with(&json!({"prevResult": result}));
            // Additional queues of others are ignored.
            sh("tc filter add dev vethpod parent ffff: protocol ip prio 9 u32 match u32 1 1");
            check.run("CHECK").unwrap();
            sh(&broken);
            refused(&check, "CHECK", 101, &mentions);
        });
    }
}

#[test]
fn status_leaves_nothing_behind() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod);
        // Only the names, because the states change later.
        let seen = || sh("ip -o link | cut -d: -f2; tc qdisc show | cut -d' ' -f2-5");
        let before = seen();
        call.run("STATUS").unwrap();
        assert_eq!(seen(), before);
        refused(&call.with(&json!({"ingressBurst": 0})), "STATUS", 7, "ingressBurst");
    });
}

/// Only what the configuration needs is tried, so no ifb device for ingress.
#[test]
fn status_of_one_direction() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod);
        let no_ifb = "sendto:error=EPERM:when=3";
        let ingress = call.with(&json!({"egressRate": 0, "egressBurst": 0}));
        ingress.run_with("STATUS", no_ifb).unwrap();
        let error = call.run_with("STATUS", no_ifb).unwrap_err();
        assert_eq!(error["code"], 50, "{error}");
        let nothing =
            json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0});
        call.with(&nothing).run_with("STATUS", "unshare:error=EPERM").unwrap();
    });
}

/// The kubelet and containerd send the largest number if the pod has no burst.
#[test]
fn the_largest_burst_of_a_runtime() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod);
        let limits = json!({"ingressRate": 4_000_000, "ingressBurst": u32::MAX});
        let unlimited = json!({"ingressRate": null, "ingressBurst": null, "egressRate": null,
            "egressBurst": null, "maxBurst": 800_000, "runtimeConfig": {"bandwidth": limits}});
        let call = call.with(&unlimited);
        call.run("ADD").unwrap();
        assert_eq!(qdiscs("vethpod"), [tbf(500_000, 100_000)]);
        call.run("CHECK").unwrap();
    });
}

/// The kernel makes no namespace to try it in, because this user namespace has a limit of 0.
#[test]
fn status_fails_if_the_kernel_makes_no_namespace() {
    let output = sh(&format!(
        "unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_net_namespaces
            CNI_COMMAND=STATUS CNI_PATH=/nowhere {} || true' << END
        {{\"cniVersion\": \"1.1.0\", \"name\": \"testnet\", \"type\": \"bandwidth\"}}
END",
        env!("CARGO_BIN_EXE_bandwidth")
    ));
    let error: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(error["code"], 50, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("make a network namespace"), "{error}");
}
