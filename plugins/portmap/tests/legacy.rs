//! Nodes whose rules are in the legacy tables, seen by `iptables-legacy`. Needs root, and a kernel that has
//! them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::thread;

use common::{Programs, config, names, portmap, portmap_with, rules, tcp};
use serde_json::{Value, json};
use testbed::routed::{on_a_node, pod};
use testbed::sh;

const OWN_CHAIN: &str = "CNI-DN-9b8cc9dd5d53e36658bb0";

/// What the kubelet does on a node that uses the legacy tables, and kube-proxy after it.
fn on_a_legacy_node(test: impl FnOnce() + Send) {
    on_a_node(|| {
        sh("for program in iptables ip6tables; do
            $program-legacy -t mangle -N KUBE-IPTABLES-HINT
            $program-legacy -t nat -N KUBE-SERVICES
            $program-legacy -t nat -A PREROUTING -j KUBE-SERVICES
            $program-legacy -t nat -A OUTPUT -j KUBE-SERVICES
            $program-legacy -t nat -A POSTROUTING -j RETURN
            done");
        test();
    });
}

fn legacy_rules() -> String {
    sh("iptables-legacy -t nat -S; ip6tables-legacy -t nat -S")
}

#[track_caller]
fn nothing_in_nf_tables() {
    assert_eq!(sh("nft list ruleset"), "");
}

fn one_port(host_port: u16) -> Value {
    config(&json!([tcp(host_port, 80)]))
}

#[test]
fn a_pods_whole_life() {
    on_a_legacy_node(|| {
        let pod = pod();
        portmap("STATUS", "", "", &names()).unwrap();
        portmap("ADD", "pod-b", &pod.path(), &one_port(8081)).unwrap();
        let before = legacy_rules();
        let all = config(&json!([
            tcp(8080, 80),
            {"hostPort": 53, "containerPort": 53, "protocol": "udp"},
            {"hostPort": 9899, "containerPort": 9899, "protocol": "sctp"},
            {"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.10"},
        ]));
        portmap("ADD", "pod-a", &pod.path(), &all).unwrap();
        let listed = legacy_rules();
        for expected in [
            "-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment \"dnat name: \\\"testnet\\\" id: \
             \\\"pod-a\\\"\" -m multiport --dports 8080,80 -j CNI-DN-",
            "-A CNI-DN-9b8cc9dd5d53e36658bb0 -p udp -m udp --dport 53 -j DNAT --to-destination \
             10.88.0.2:53\n",
            "-A CNI-DN-9b8cc9dd5d53e36658bb0 -p sctp -m sctp --dport 9899 -j DNAT --to-destination \
             [fd00:88::2]:9899",
        ] {
            assert!(listed.contains(expected), "{expected}\n{listed}");
        }
        portmap("CHECK", "pod-a", &pod.path(), &all).unwrap();
        portmap("CHECK", "pod-b", &pod.path(), &one_port(8081)).unwrap();
        portmap("ADD", "pod-a", &pod.path(), &all).expect("the same again");
        assert_eq!(legacy_rules(), listed);
        portmap("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(legacy_rules(), before);
        portmap("DEL", "pod-a", "", &names()).expect("a second DEL finds nothing and succeeds");
        nothing_in_nf_tables();
    });
}

#[test]
fn the_order_is_that_of_nf_tables() {
    let listed_by = |program: &'static str| {
        let (sender, receiver) = std::sync::mpsc::channel();
        on_a_node(move || {
            sh(&format!(
                "{program} -t mangle -N KUBE-IPTABLES-HINT; {program} -t nat -N KUBE-SERVICES
                 {program} -t nat -A PREROUTING -j KUBE-SERVICES; {program} -t nat -A POSTROUTING -j RETURN"
            ));
            let pod = pod();
            let first = json!([tcp(8080, 80), tcp(8081, 81)]);
            portmap("ADD", "pod-a", &pod.path(), &config(&first)).unwrap();
            portmap("ADD", "pod-b", &pod.path(), &one_port(9000)).unwrap();
            portmap("ADD", "pod-c", &pod.path(), &one_port(8080)).unwrap();
            sender.send(sh(&format!("{program} -t nat -S"))).unwrap();
        });
        let listed: String = receiver.recv().unwrap();
        // The variants list chains in orders of their own; within a chain the order is that of the packet's
        // way.
        let is_rule = |line: &&str| line.starts_with("-A ");
        let mut rules: Vec<String> =
            listed.lines().filter(is_rule).map(ToOwned::to_owned).collect();
        rules.sort_by_key(|line| line.split(' ').nth(1).map(ToOwned::to_owned));
        rules
    };
    assert_eq!(listed_by("iptables-legacy"), listed_by("iptables-nft"));
}

#[test]
fn check_names_the_rule_that_is_missing() {
    on_a_legacy_node(|| {
        let pod = pod();
        portmap("ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        for (program, chain) in [
            ("iptables", OWN_CHAIN),
            ("ip6tables", "CNI-HOSTPORT-DNAT"),
            ("iptables", "POSTROUTING"),
            ("ip6tables", "CNI-HOSTPORT-MASQ"),
        ] {
            sh(&format!("{program}-legacy -t nat -D {chain} 1"));
            let error = portmap("CHECK", "pod-a", &pod.path(), &one_port(8080)).unwrap_err();
            assert_eq!(error["code"], 101);
            let expected = format!("rule is missing: {program} -t nat -A {chain} ");
            assert!(error["msg"].as_str().unwrap().starts_with(&expected), "{error}");
            portmap("ADD", "pod-a", &pod.path(), &one_port(8080))
                .expect("ADD makes what is missing");
            portmap("CHECK", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        }
        // Of what others write, some is not understood, and none of it is touched.
        sh(
            "iptables-legacy -t nat -I CNI-HOSTPORT-DNAT -p gre -m statistic --mode random --probability 0.5 \
             \\
            -j LOG --log-prefix 'a b'",
        );
        portmap("CHECK", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        portmap("DEL", "pod-a", "", &names()).unwrap();
        assert!(legacy_rules().contains("--log-prefix \"a b\""));
    });
}

#[test]
fn conflicts_and_garbage() {
    on_a_legacy_node(|| {
        let pod = pod();
        portmap("ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        let before = legacy_rules();
        let mut refusing = one_port(8080);
        refusing["onConflict"] = "error".into();
        let error = portmap("ADD", "pod-b", &pod.path(), &refusing).unwrap_err();
        assert_eq!(error["code"], 102, "{error}");
        assert_eq!(legacy_rules(), before);
        let mut external = one_port(8081);
        external["externalSetMarkChain"] = "NO-SUCH-CHAIN".into();
        portmap("ADD", "pod-b", &pod.path(), &external).expect("the mark is our own then");
        portmap("CHECK", "pod-b", &pod.path(), &external).unwrap();
        portmap("DEL", "pod-b", "", &names()).unwrap();
        assert_eq!(legacy_rules(), before);

        portmap("ADD", "pod-b", &pod.path(), &one_port(8080)).expect("the newest gets the port");
        let entries = sh("iptables-legacy -t nat -S CNI-HOSTPORT-DNAT");
        assert!(entries.lines().nth(1).unwrap().contains("pod-b"), "{entries}");
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "pod-a", "ifname": "eth0"}]);
        portmap("GC", "", "", &gc).unwrap();
        assert_eq!(legacy_rules(), before);
        nothing_in_nf_tables();
    });
}

#[test]
fn a_chain_that_others_use_loses_its_rules_all_the_same() {
    on_a_legacy_node(|| {
        let pod = pod();
        portmap("ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        sh(&format!("iptables-legacy -t nat -A OUTPUT -p tcp --dport 8080 -j {OWN_CHAIN}"));
        let error = portmap("DEL", "pod-a", "", &names()).unwrap_err();
        let expected = format!("chain {OWN_CHAIN} is empty but cannot be deleted");
        assert!(error["msg"].as_str().unwrap().contains(&expected), "{error}");
        let listed = legacy_rules();
        assert!(!listed.contains("pod-a") && !listed.contains("-j DNAT"), "{listed}");
        sh(&format!("iptables-legacy -t nat -D OUTPUT -p tcp --dport 8080 -j {OWN_CHAIN}"));
        portmap("DEL", "pod-a", "", &names()).unwrap();
        assert!(!legacy_rules().contains("CNI-DN-"));
    });
}

#[test]
fn parallel_adds_share_the_common_rules() {
    on_a_legacy_node(|| {
        let pod = pod();
        // The chains alone: whoever finds no jump to them must be the only one to add it.
        sh("for chain in DNAT MASQ SETMARK; do
            iptables-legacy -t nat -N CNI-HOSTPORT-$chain; ip6tables-legacy -t nat -N CNI-HOSTPORT-$chain
            done");
        thread::scope(|scope| {
            for port in 1..=8 {
                let path = pod.path();
                scope.spawn(move || {
                    let (config, id) = (one_port(8000 + port), format!("pod-{port}"));
                    portmap("ADD", &id, &path, &config).unwrap();
                });
            }
            scope.spawn(|| {
                // A program that does not use our lock.
                let change = "for i in $(seq 40); do iptables-legacy -w -t nat -A KUBE-SERVICES -j RETURN; \
                    done";
                sh(change);
            });
        });
        let listed = sh("iptables-legacy -t nat -S");
        assert_eq!(listed.matches("--dst-type LOCAL -j CNI-HOSTPORT-DNAT").count(), 2, "{listed}");
        assert_eq!(listed.matches("-j CNI-HOSTPORT-MASQ").count(), 1);
        assert_eq!(listed.matches("-A CNI-HOSTPORT-DNAT").count(), 8);
        assert_eq!(listed.matches("-A KUBE-SERVICES").count(), 40);
    });
}

#[test]
fn the_hint_decides() {
    on_a_node(|| {
        sh("iptables-legacy -t nat -A OUTPUT -j ACCEPT; iptables-legacy -t nat -A OUTPUT -j ACCEPT
            ip6tables-nft -t mangle -N KUBE-KUBELET-CANARY");
        let (before, pod) = (legacy_rules(), pod());
        portmap("ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        assert_eq!(legacy_rules(), before);
        assert!(rules().contains(OWN_CHAIN));
        let none = Programs::new("hint");
        portmap_with(&none, "CHECK", "pod-a", &pod.path(), &one_port(8080))
            .expect("nothing of the legacy variant is needed");
    });
}

#[test]
fn without_a_hint_the_number_of_rules_decides() {
    on_a_node(|| {
        let pod = pod();
        sh("iptables-legacy -t nat -S; ip6tables-legacy -t nat -S");
        portmap("ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        assert!(rules().contains(OWN_CHAIN), "the legacy tables are there, but empty");
        portmap("DEL", "pod-a", "", &names()).unwrap();
        sh("nft flush ruleset; iptables-nft -t filter -A INPUT -j ACCEPT
            nft 'add table ip other; add chain ip other one; add rule ip other one accept; add rule ip other \
            one accept'
            ip6tables-legacy -A INPUT -j ACCEPT");
        portmap("ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        assert!(rules().contains(OWN_CHAIN), "as many here as there");
        portmap("DEL", "pod-a", "", &names()).unwrap();
        sh(
            "nft delete table ip nat; nft delete table ip6 nat; ip6tables-legacy -A INPUT -j ACCEPT",
        );
        portmap("ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        assert!(
            legacy_rules().contains(OWN_CHAIN),
            "rules of tables that iptables has not do not count"
        );
    });
}

#[test]
fn a_node_may_change_over() {
    on_a_node(|| {
        let pod = pod();
        portmap("ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        portmap("ADD", "pod-b", &pod.path(), &one_port(8081)).unwrap();
        sh("iptables-legacy -t mangle -N KUBE-IPTABLES-HINT");
        portmap("ADD", "pod-c", &pod.path(), &one_port(8082)).unwrap();
        portmap("ADD", "pod-d", &pod.path(), &one_port(8083)).unwrap();
        let mut gc = names();
        let valid = ["pod-a", "pod-c"].map(|id| json!({"containerID": id, "ifname": "eth0"}));
        gc["cni.dev/valid-attachments"] = json!(valid);
        portmap("GC", "", "", &gc).unwrap();
        let (old, new) = (rules(), legacy_rules());
        assert!(old.contains("pod-a") && !old.contains("pod-b") && !old.contains("pod-c"), "{old}");
        assert!(new.contains("pod-c") && !new.contains("pod-d") && !new.contains("pod-a"), "{new}");
        for id in ["pod-a", "pod-c"] {
            portmap("DEL", id, "", &names()).unwrap();
        }
        assert!(!rules().contains("CNI-DN-") && !legacy_rules().contains("CNI-DN-"));
    });
}

#[test]
fn programs_that_are_not_called_legacy() {
    on_a_legacy_node(|| {
        let pod = pod();
        let before = legacy_rules();
        let mut programs = Programs::new("plain");
        for program in ["iptables", "ip6tables"] {
            for action in ["save", "restore"] {
                let (legacy, plain) =
                    (format!("{program}-legacy-{action}"), format!("{program}-{action}"));
                programs = programs.link(&legacy, &plain);
            }
        }
        portmap_with(&programs, "ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        assert!(legacy_rules().contains(OWN_CHAIN));
        portmap_with(&programs, "DEL", "pod-a", "", &names()).unwrap();
        assert!(!legacy_rules().contains(OWN_CHAIN), "{before}");
        nothing_in_nf_tables();
    });
}

#[test]
fn without_programs_nothing_is_touched() {
    on_a_legacy_node(|| {
        let pod = pod();
        let before = legacy_rules();
        let programs =
            ["save", "restore"].iter().fold(Programs::new("none"), |programs, action| {
                programs.link(&format!("iptables-nft-{action}"), &format!("iptables-{action}"))
            });
        for (command, netns, config) in
            [("ADD", pod.path(), one_port(8080)), ("STATUS", String::new(), names())]
        {
            let error = portmap_with(&programs, command, "pod-a", &netns, &config).unwrap_err();
            assert_eq!(error["code"], 50, "{error}");
            assert!(
                error.to_string().contains("install the legacy programs of iptables"),
                "{error}"
            );
        }
        portmap_with(&programs, "ADD", "pod-b", &pod.path(), &config(&json!([])))
            .expect("a pod without ports needs no rules");
        portmap_with(&programs, "DEL", "pod-a", "", &names()).expect("nobody has written any");
        assert_eq!(legacy_rules(), before);
        nothing_in_nf_tables();
    });
}

#[test]
fn a_program_that_fails() {
    on_a_legacy_node(|| {
        let pod = pod();
        let before = legacy_rules();
        let with = |name: &str, text: &str, status| {
            ["iptables-legacy-save", "iptables-legacy-restore", "ip6tables-legacy-save"]
                .into_iter()
                .fold(Programs::new(name), |programs, program| programs.link(program, program))
                .failing("ip6tables-legacy-restore", text, status)
        };
        for (name, text, status, code) in [
            ("fails", "ip6tables-restore: line 2 failed", 1, 100),
            ("locked", "Another app is currently holding the xtables lock.", 4, 11),
        ] {
            let programs = with(name, text, status);
            let error =
                portmap_with(&programs, "ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap_err();
            assert_eq!(error["code"], code, "{error}");
            let msg = error["msg"].as_str().unwrap();
            assert!(msg.ends_with("ip6tables-legacy-restore"), "{error}");
            let details = error["details"].as_str().unwrap();
            assert!(details.contains(text), "{error}");
            let line = "-N CNI-HOSTPORT-DNAT";
            assert_eq!(details.contains(line), text.contains("line 2"), "{error}");
            assert_eq!(legacy_rules(), before, "the other family's rules are taken back");
        }
    });
}

#[test]
fn what_others_change_meanwhile_is_read_anew() {
    on_a_legacy_node(|| {
        let pod = pod();
        let programs =
            ["iptables-legacy-save", "ip6tables-legacy-save", "ip6tables-legacy-restore"]
                .into_iter()
                .fold(Programs::new("meanwhile"), |programs, program| {
                    programs.link(program, program)
                });
        // Between reading and writing, once: another program makes the same chain, with a rule.
        let (once, programs_path) =
            (format!("{}/once", programs.path()), "/usr/sbin:/usr/bin:/sbin:/bin");
        let programs = programs.script(
            "iptables-legacy-restore",
            &format!(
                "export PATH={programs_path}
                 if mkdir {once}; then
                     iptables-legacy -t nat -N CNI-HOSTPORT-DNAT
                     iptables-legacy -t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 8080 -j RETURN
                 fi
                 exec iptables-legacy-restore \"$@\""
            ),
        );
        portmap_with(&programs, "ADD", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        portmap("CHECK", "pod-a", &pod.path(), &one_port(8080)).unwrap();
        let entries = sh("iptables-legacy -t nat -S CNI-HOSTPORT-DNAT");
        let lines: Vec<&str> = entries.lines().skip(1).collect();
        assert_eq!(lines.len(), 2, "{entries}");
        assert!(lines[0].contains("pod-a") && lines[1].ends_with("-j RETURN"), "{entries}");
    });
}
