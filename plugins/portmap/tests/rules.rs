//! What the program leaves in the kernel, seen by `iptables`. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::thread;

use common::{config, names, portmap, rules, tcp};
use serde_json::json;
use testbed::routed::{on_a_node, pod};
use testbed::{cni_command, sh};

#[test]
fn names_alone_remove_everything() {
    on_a_node(|| {
        let pod = pod();
        portmap("ADD", "pod-b", &pod.path(), &config(&json!([tcp(8081, 81)]))).unwrap();
        let before = rules();
        let all = json!([
            tcp(8080, 80),
            {"hostPort": 53, "containerPort": 53, "protocol": "udp"},
            {"hostPort": 9899, "containerPort": 9899, "protocol": "sctp"},
        ]);
        portmap("ADD", "pod-a", &pod.path(), &config(&all)).unwrap();
        portmap("CHECK", "pod-a", &pod.path(), &config(&all)).unwrap();
        assert_ne!(rules(), before);
        portmap("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(rules(), before);
        portmap("DEL", "pod-a", "", &names()).expect("a second DEL finds nothing and succeeds");
        assert_eq!(sh("sysctl -n net.ipv4.conf.vethpod.route_localnet"), "1\n");
    });
}

#[test]
fn kube_proxys_rules_stay_before_ours() {
    on_a_node(|| {
        sh("iptables -t nat -N KUBE-SERVICES; iptables -t nat -A PREROUTING -j KUBE-SERVICES
            iptables -t nat -A OUTPUT -j KUBE-SERVICES; iptables -t nat -A POSTROUTING -j RETURN");
        let pod = pod();
        portmap("ADD", "pod-a", &pod.path(), &config(&json!([tcp(80, 80)]))).unwrap();
        for chain in ["PREROUTING", "OUTPUT"] {
            let listed = sh(&format!("iptables -t nat -S {chain}"));
            let ours = format!("-A {chain} -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT");
            let lines: Vec<_> = listed.lines().skip(1).collect();
            assert_eq!(lines, [format!("-A {chain} -j KUBE-SERVICES"), ours]);
        }
        let listed = sh("iptables -t nat -S POSTROUTING");
        let first = listed.lines().nth(1).unwrap();
        assert!(first.ends_with("-j CNI-HOSTPORT-MASQ"), "{listed}");
    });
}

#[test]
fn check_names_the_rule_that_is_missing() {
    on_a_node(|| {
        let pod = pod();
        let config = config(&json!([tcp(8080, 80)]));
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        for (program, chain) in [
            ("iptables", "CNI-DN-9b8cc9dd5d53e36658bb0"),
            ("ip6tables", "CNI-HOSTPORT-DNAT"),
            ("iptables", "PREROUTING"),
            ("iptables", "POSTROUTING"),
            ("ip6tables", "CNI-HOSTPORT-MASQ"),
        ] {
            sh(&format!("{program} -t nat -D {chain} 1"));
            let error = portmap("CHECK", "pod-a", &pod.path(), &config).unwrap_err();
            assert_eq!(error["code"], 101);
            let msg = error["msg"].as_str().unwrap();
            assert!(
                msg.starts_with(&format!("rule is missing: {program} -t nat -A {chain} ")),
                "{msg}"
            );
            portmap("ADD", "pod-a", &pod.path(), &config).expect("ADD makes what is missing");
            portmap("CHECK", "pod-a", &pod.path(), &config).unwrap();
        }
        // What others add is no business of ours.
        sh("iptables -t nat -I CNI-HOSTPORT-DNAT -p tcp --dport 1 -j RETURN");
        portmap("CHECK", "pod-a", &pod.path(), &config).unwrap();
    });
}

#[test]
fn a_refused_add_leaves_nothing() {
    on_a_node(|| {
        let pod = pod();
        let before = rules();
        for bad in [
            json!([tcp(8080, 80), tcp(0, 80)]),
            json!([tcp(8080, 80), {"hostPort": 70000, "containerPort": 80, "protocol": "tcp"}]),
            json!([tcp(8080, 80), tcp(8080, 81)]),
            json!([{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]),
        ] {
            let error = portmap("ADD", "pod-a", &pod.path(), &config(&bad)).unwrap_err();
            assert_eq!(error["code"], 7, "{error}");
        }
        assert_eq!(rules(), before);
        assert_eq!(sh("sysctl -n net.ipv4.conf.vethpod.route_localnet"), "0\n");
    });
}

#[test]
fn garbage_is_what_belongs_to_no_valid_attachment_of_the_network() {
    on_a_node(|| {
        let pod = pod();
        let mut other = config(&json!([tcp(8082, 82)]));
        other["name"] = "othernet".into();
        portmap("ADD", "pod-a", &pod.path(), &other).unwrap();
        portmap("ADD", "pod-b", &pod.path(), &config(&json!([tcp(8081, 81)]))).unwrap();
        let before = rules();
        portmap("ADD", "pod-a", &pod.path(), &config(&json!([tcp(8080, 80)]))).unwrap();
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "pod-b", "ifname": "eth0"}]);
        portmap("GC", "", "", &gc).unwrap();
        assert_eq!(rules(), before);
        portmap("STATUS", "", "", &names()).unwrap();
    });
}

#[test]
fn parallel_adds_share_the_common_rules() {
    on_a_node(|| {
        let pod = pod();
        let before_any = rules();
        thread::scope(|scope| {
            for port in 1..=8 {
                let path = pod.path();
                scope.spawn(move || {
                    let config = config(&json!([tcp(8000 + port, 80)]));
                    let id = format!("pod-{port}");
                    portmap("ADD", &id, &path, &config).unwrap();
                });
            }
        });
        let listed = sh("iptables -t nat -S");
        assert_eq!(listed.matches("--dst-type LOCAL -j CNI-HOSTPORT-DNAT").count(), 2, "{listed}");
        assert_eq!(listed.matches("-A POSTROUTING").count(), 1);
        assert_eq!(listed.matches("-A CNI-HOSTPORT-DNAT").count(), 8);
        for port in 1..=8 {
            portmap("DEL", &format!("pod-{port}"), "", &names()).unwrap();
        }
        assert!(!rules().contains("CNI-DN-"), "{before_any}");
    });
}

#[test]
fn an_add_replaces_all_that_an_add_before_made() {
    on_a_node(|| {
        let pod = pod();
        portmap("ADD", "pod-b", &pod.path(), &config(&json!([tcp(8081, 81)]))).unwrap();
        let before = rules();
        let mut again = config(&json!([tcp(8080, 80)]));
        portmap("ADD", "pod-a", &pod.path(), &again).unwrap();
        again["prevResult"]["ips"].as_array_mut().unwrap().pop();
        portmap("ADD", "pod-a", &pod.path(), &again).unwrap();
        assert!(sh("iptables -t nat -S").contains("pod-a"));
        let v6 = sh("ip6tables -t nat -S");
        assert!(before.ends_with(&v6), "the pod has no IPv6 address any more: {v6}");
        portmap("ADD", "pod-a", &pod.path(), &config(&json!([]))).unwrap();
        assert_eq!(rules(), before);
    });
}

#[test]
fn a_chain_that_others_use_loses_its_rules_all_the_same() {
    on_a_node(|| {
        let pod = pod();
        portmap("ADD", "pod-a", &pod.path(), &config(&json!([tcp(8080, 80)]))).unwrap();
        sh("iptables -t nat -A OUTPUT -p tcp --dport 8080 -j CNI-DN-9b8cc9dd5d53e36658bb0");
        let error = portmap("DEL", "pod-a", "", &names()).unwrap_err();
        let msg = error["msg"].as_str().unwrap();
        assert!(
            msg.contains("chain CNI-DN-9b8cc9dd5d53e36658bb0 is empty but cannot be deleted"),
            "{msg}"
        );
        let listed = sh("iptables -t nat -S");
        assert!(!listed.contains("pod-a") && !listed.contains("-j DNAT"), "{listed}");
        assert!(!sh("ip6tables -t nat -S").contains("CNI-DN-"));
        sh("iptables -t nat -D OUTPUT -p tcp --dport 8080 -j CNI-DN-9b8cc9dd5d53e36658bb0");
        portmap("DEL", "pod-a", "", &names()).unwrap();
        assert!(!rules().contains("CNI-DN-"));
    });
}

#[test]
fn containers_whose_chains_have_one_name() {
    on_a_node(|| {
        let pod = pod();
        let of = |network: &str, mut config: serde_json::Value| {
            config["name"] = network.into();
            config
        };
        let wanted = config(&json!([tcp(8080, 80)]));
        portmap("ADD", "1abc", &pod.path(), &of("net", wanted.clone())).unwrap();
        let before = rules();
        let error = portmap("ADD", "abc", &pod.path(), &of("net1", wanted)).unwrap_err();
        assert_eq!(error["code"], 102);
        let msg = error["msg"].as_str().unwrap();
        assert!(msg.contains("is that of dnat name: \"net\" id: \"1abc\""), "{msg}");
        portmap("DEL", "abc", "", &of("net1", names())).unwrap();
        portmap("ADD", "abc", &pod.path(), &of("net1", config(&json!([])))).unwrap();
        assert_eq!(rules(), before);
        portmap("DEL", "1abc", "", &of("net", names())).unwrap();
        assert!(!rules().contains("CNI-DN-"));
    });
}

#[test]
fn garbage_of_containers_with_long_names() {
    on_a_node(|| {
        let pod = pod();
        let (one, other) = ("a".repeat(240), "b".repeat(240));
        portmap("ADD", &one, &pod.path(), &config(&json!([tcp(8081, 81)]))).unwrap();
        let before = rules();
        portmap("ADD", &other, &pod.path(), &config(&json!([tcp(8080, 80)]))).unwrap();
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": one, "ifname": "eth0"}]);
        portmap("GC", "", "", &gc).unwrap();
        assert_eq!(rules(), before);
    });
}

#[test]
fn more_garbage_than_one_batch_takes() {
    on_a_node(|| {
        let pod = pod();
        for port in 1..=70 {
            let config = config(&json!([tcp(8000 + port, 80)]));
            portmap("ADD", &format!("pod-{port}"), &pod.path(), &config).unwrap();
        }
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([]);
        portmap("GC", "", "", &gc).unwrap();
        assert!(!rules().contains("CNI-DN-"));
    });
}

/// kube-proxy has no such chain in its nftables mode. The reference plugin's ADD fails then.
#[test]
fn a_chain_of_others_that_is_not_there() {
    on_a_node(|| {
        let pod = pod();
        let mut external = config(&json!([tcp(8080, 80)]));
        external["externalSetMarkChain"] = "KUBE-MARK-MASQ".into();
        portmap("STATUS", "", "", &external).unwrap();
        let mut add = cni_command(env!("CARGO_BIN_EXE_portmap"), "ADD", "pod-a", &pod.path());
        let errors = std::env::temp_dir().join(format!("portmap-stderr-{}", std::process::id()));
        add.stderr(std::fs::File::create(&errors).unwrap());
        testbed::run(&mut add, &external).unwrap();
        let said = std::fs::read_to_string(&errors).unwrap();
        std::fs::remove_file(&errors).unwrap();
        assert!(said.contains("iptables has no chain KUBE-MARK-MASQ in its table nat"), "{said}");
        let own = rules();
        assert!(own.contains("--dport 8080 -j CNI-HOSTPORT-SETMARK"), "{own}");
        portmap("CHECK", "pod-a", &pod.path(), &external).unwrap();

        // Its rules do as well if the chain comes later; the next ADD uses that.
        sh("iptables -t nat -N KUBE-MARK-MASQ; ip6tables -t nat -N KUBE-MARK-MASQ");
        portmap("CHECK", "pod-a", &pod.path(), &external).unwrap();
        portmap("ADD", "pod-a", &pod.path(), &external).unwrap();
        portmap("CHECK", "pod-a", &pod.path(), &external).unwrap();
        assert!(rules().contains("--dport 8080 -j KUBE-MARK-MASQ"), "{}", rules());
        portmap("DEL", "pod-a", "", &names()).unwrap();
        assert!(!rules().contains("CNI-DN-"));
    });
}

#[test]
fn garbage_that_has_lost_its_owners_name() {
    on_a_node(|| {
        let pod = pod();
        for (id, port) in [("pod-a", 8080), ("pod-b", 8081)] {
            portmap("ADD", id, &pod.path(), &config(&json!([tcp(port, 80)]))).unwrap();
        }
        let mut other = config(&json!([tcp(8082, 80)]));
        other["prevResult"]["ips"][0]["address"] = "10.88.0.9/24".into();
        other["prevResult"]["ips"][1]["address"] = "fd00:88::9/64".into();
        portmap("ADD", "pod-c", &pod.path(), &other).unwrap();
        sh("for p in iptables ip6tables; do
                $p-save -t nat | sed 's/-m comment --comment \"dnat [^ ]* [^ ]* [^ ]* [^ ]*\"//' |
                    $p-restore -T nat
            done");
        assert!(!rules().contains("dnat name"), "{}", rules());
        portmap("ADD", "pod-b", &pod.path(), &config(&json!([tcp(8081, 80)]))).unwrap();
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "pod-b", "ifname": "eth0"}]);
        portmap("GC", "", "", &gc).unwrap();
        // pod-a's address is pod-b's; that of pod-c, which may be of another network, is nobody else's.
        let left =
            ["8080", "8081", "8082"].map(|port| rules().contains(&format!("--dport {port} ")));
        assert_eq!(left, [false, true, true], "{}", rules());
    });
}

/// Whatever an ADD would refuse, and names as long as they can be.
#[test]
fn a_del_does_not_mind_the_configuration() {
    on_a_node(|| {
        let pod = pod();
        portmap("ADD", "pod-z", &pod.path(), &config(&json!([tcp(8081, 80)]))).unwrap();
        let before = rules();
        let (network, id) = ("n".repeat(250), "c".repeat(250));
        for backend in ["iptables", "nftables"] {
            let mut add = config(&json!([tcp(8080, 80)]));
            (add["name"], add["backend"]) = (network.as_str().into(), backend.into());
            portmap("ADD", &id, &pod.path(), &add).unwrap();
            portmap("CHECK", &id, &pod.path(), &add).unwrap();
            let mut del = names();
            del["name"] = network.as_str().into();
            del["backend"] = "ipvs".into();
            del["markMasqBit"] = 77.into();
            del["conditionsV4"] = json!(["nonsense"]);
            del["runtimeConfig"] = json!({"portMappings": [{"hostPort": 70000}]});
            portmap("DEL", &id, &pod.path(), &del).unwrap();
            assert_eq!(rules(), before);
            let left = sh("nft list ruleset");
            assert!(!left.contains("10.88.0.2 . 80") && !left.contains("sha256"), "{left}");
        }
    });
}

/// The answer to the batch is lost, say, or any other: the kernel has made the rules all the same.
#[test]
fn an_answer_that_is_lost() {
    on_a_node(|| {
        let pod = pod();
        for backend in ["iptables", "nftables"] {
            let mut config = config(&json!([tcp(8080, 80)]));
            config["backend"] = backend.into();
            portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
            portmap("DEL", "pod-a", "", &names()).unwrap();
            let mut failed = 0;
            for when in 1.. {
                let mut add = cni_command("strace", "ADD", "pod-a", &pod.path());
                add.args(["-qq", "-o", "/dev/null", "-e"]);
                add.arg(format!("inject=recvfrom:error=EIO:when={when}"));
                add.arg(env!("CARGO_BIN_EXE_portmap"));
                if testbed::run(&mut add, &config).is_ok() {
                    break;
                }
                failed += 1;
                let left = format!("{}{}", rules(), sh("nft list ruleset"));
                assert!(!left.contains("10.88.0.2"), "after answer {when}: {left}");
            }
            assert!(failed > 3, "{failed}");
            portmap("DEL", "pod-a", "", &names()).unwrap();
        }
    });
}

/// Root of a user namespace may not force the size of a socket's buffer.
#[test]
fn many_ports_in_a_user_namespace() {
    on_a_node(|| {
        let pod = pod();
        let mappings: Vec<_> = (0..300).map(|port| tcp(8000 + port, 80)).collect();
        let config = config(&json!(mappings)).to_string();
        let (program, netns) = (env!("CARGO_BIN_EXE_portmap"), pod.path());
        let listed = sh(&format!(
            "unshare --user --map-root-user --net sh -ec '
                echo '\\''{config}'\\'' | CNI_COMMAND=ADD CNI_CONTAINERID=pod-a CNI_NETNS={netns} \
                CNI_IFNAME=eth0 \\
                    CNI_PATH=/nowhere {program} >&2
                iptables -t nat -S'"
        ));
        assert_eq!(listed.matches("-j DNAT").count(), 300);
    });
}
