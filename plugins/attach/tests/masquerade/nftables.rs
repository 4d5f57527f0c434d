//! The table `inet cni_plugins_masquerade`.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use attach::{Masquerade, MasqueradeBackend};
use kernel::Nfnetlink;

use super::{collect_garbage, in_new_netns, sh};

fn wanted(attachment: (&str, &str), addresses: &[&str]) -> Masquerade {
    super::wanted(MasqueradeBackend::Nftables, attachment, addresses)
}

fn add(attachment: (&str, &str), addresses: &[&str]) {
    wanted(attachment, addresses).add(&Nfnetlink::open().unwrap()).unwrap();
}

/// Interfaces share no rules in this table, so none are kept.
fn remove(attachment: (&str, &str)) {
    super::remove(attachment);
}

/// The table as the reference plugins make it, with these rules for pods.
#[track_caller]
fn check(rules: &[&str]) {
    let rules = rules.iter().fold(String::new(), |lines, rule| lines + "\t\t" + rule + "\n");
    let expected = format!(
        "table inet cni_plugins_masquerade {{
\tcomment \"Masquerading for plugins from github.com/containernetworking/plugins\"
\tchain masq_checks {{
\t\tcomment \"Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet\"
{rules}\t}}

\tchain postrouting {{
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip daddr 224.0.0.0/4 return
\t\tip6 daddr ff00::/8 return
\t\tgoto masq_checks
\t}}
}}
"
    );
    assert_eq!(sh("nft list ruleset"), expected);
}

const POD_A: (&str, &str) = ("pod-a", "eth0");
const POD_B: (&str, &str) = ("pod-b", "eth0");
const DUAL_STACK: [&str; 2] = ["10.88.0.2/24", "fd00:88::2/64"];
const OF_POD_A: &str =
    "comment \"c5964c6794a1152e-4fc55df38455c536, net: testnet, if: eth0, id: pod-a\"";

#[test]
fn rules_of_a_dual_stack_pod() {
    in_new_netns(|| {
        for _ in 0..2 {
            add(POD_A, &DUAL_STACK);
            check(&[
                &format!("ip saddr 10.88.0.2 ip daddr != 10.88.0.0/24 masquerade {OF_POD_A}"),
                &format!("ip6 saddr fd00:88::2 ip6 daddr != fd00:88::/64 masquerade {OF_POD_A}"),
            ]);
            wanted(POD_A, &DUAL_STACK).check(&Nfnetlink::open().unwrap()).unwrap();
            remove(POD_A);
            check(&[]);
            remove(POD_A);
        }
        sh("nft delete table inet cni_plugins_masquerade");
        remove(POD_A);
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn the_first_pods_of_a_node_come_at_once() {
    in_new_netns(|| {
        for _ in 0..5 {
            let (pods, ready) = (["pod-b", "pod-c", "pod-d", "pod-e"], Barrier::new(4));
            thread::scope(|scope| {
                for pod in pods {
                    let ready = &ready;
                    scope.spawn(move || {
                        let netlink = Nfnetlink::open().unwrap();
                        ready.wait();
                        wanted((pod, "eth0"), &DUAL_STACK).add(&netlink).unwrap();
                    });
                }
            });
            let rules = sh("nft list ruleset");
            assert_eq!(rules.matches("10.88.0.2").count(), pods.len(), "{rules}");
            for pod in pods {
                remove((pod, "eth0"));
            }
            check(&[]);
            sh("nft delete table inet cni_plugins_masquerade");
        }
    });
}

#[test]
fn shared_rules_are_repaired() {
    for broken in [
        "flush chain inet cni_plugins_masquerade postrouting",
        "delete chain inet cni_plugins_masquerade postrouting",
        "flush chain inet cni_plugins_masquerade postrouting
         nft delete chain inet cni_plugins_masquerade masq_checks
         nft add rule inet cni_plugins_masquerade postrouting accept",
    ] {
        in_new_netns(move || {
            add(POD_B, &["10.88.0.3/24"]);
            remove(POD_B);
            let before = sh("nft list ruleset");
            sh(&format!("nft {broken}"));
            add(POD_B, &["10.88.0.3/24"]);
            wanted(POD_B, &["10.88.0.3/24"]).check(&Nfnetlink::open().unwrap()).unwrap();
            remove(POD_B);
            // nft lists chains in the order in which they were made.
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
            assert_eq!(lines(&sh("nft list ruleset")), lines(&before));
        });
    }
}

/// `nft` compares only whole bytes of an address if the prefix ends with a byte.
#[test]
fn networks_of_all_lengths() {
    for (address, shown) in [
        ("10.88.0.2/32", "ip saddr 10.88.0.2 ip daddr != 10.88.0.2"),
        ("10.88.0.2/20", "ip saddr 10.88.0.2 ip daddr != 10.88.0.0/20"),
        ("10.88.0.2/1", "ip saddr 10.88.0.2 ip daddr != 0.0.0.0/1"),
        ("10.88.0.2/0", "ip saddr 10.88.0.2 ip daddr != 0.0.0.0/0"),
        ("fd00:88::2/128", "ip6 saddr fd00:88::2 ip6 daddr != fd00:88::2"),
        ("fd00:88::2/61", "ip6 saddr fd00:88::2 ip6 daddr != fd00:88::/61"),
    ] {
        in_new_netns(move || {
            add(POD_A, &[address]);
            check(&[&format!("{shown} masquerade {OF_POD_A}")]);
            // CHECK also accepts the rule as nft itself writes it.
            let rule = format!("{shown} masquerade {OF_POD_A}").replace('"', "\\\"");
            sh(&format!(
                "nft flush chain inet cni_plugins_masquerade masq_checks
                 nft add rule inet cni_plugins_masquerade masq_checks {rule}"
            ));
            wanted(POD_A, &[address]).check(&Nfnetlink::open().unwrap()).unwrap();
        });
    }
}

#[test]
fn interfaces_of_one_container_keep_their_rules() {
    in_new_netns(|| {
        add(("pod-a", "eth1"), &["10.88.0.3/24"]);
        let before = sh("nft list ruleset");
        add(POD_A, &DUAL_STACK);
        remove(POD_A);
        assert_eq!(sh("nft list ruleset"), before);
    });
}

#[test]
fn check_names_the_rule_that_is_missing() {
    for (broken, named) in [
        ("flush chain inet cni_plugins_masquerade masq_checks", "masq_checks ip saddr 10.88.0.2 "),
        ("delete table inet cni_plugins_masquerade", "postrouting ip daddr 224.0.0.0/4 return"),
        (
            "flush chain inet cni_plugins_masquerade postrouting
             nft add rule inet cni_plugins_masquerade postrouting ip daddr 224.0.0.0/4 return
             nft add rule inet cni_plugins_masquerade postrouting goto masq_checks
             nft add rule inet cni_plugins_masquerade postrouting ip6 daddr ff00::/8 return",
            "postrouting ip6 daddr ff00::/8 return comes too late",
        ),
    ] {
        in_new_netns(move || {
            add(POD_A, &DUAL_STACK);
            add(POD_B, &["10.88.0.3/24"]);
            sh("nft insert rule inet cni_plugins_masquerade masq_checks counter comment theirs
                nft insert rule inet cni_plugins_masquerade postrouting counter");
            let (wanted, netlink) = (wanted(POD_A, &DUAL_STACK), Nfnetlink::open().unwrap());
            wanted.check(&netlink).unwrap();
            sh(&format!("nft {broken}"));
            let missing = wanted.check(&netlink).unwrap_err().to_string();
            let named = format!("nft rule inet cni_plugins_masquerade {named}");
            assert!(missing.contains(&named), "{missing}");
        });
    }
}

#[test]
fn garbage_is_what_belongs_to_no_valid_attachment_of_the_network() {
    in_new_netns(|| {
        add(POD_B, &["10.88.0.3/24"]);
        sh("nft add rule inet cni_plugins_masquerade masq_checks counter comment theirs
            nft add rule inet cni_plugins_masquerade masq_checks counter");
        let before = sh("nft list ruleset");
        add(POD_A, &DUAL_STACK);
        // Another interface of a valid container is garbage.
        add(("pod-b", "eth1"), &["10.88.0.4/24"]);
        collect_garbage(&[POD_B]);
        assert_eq!(sh("nft list ruleset"), before);
    });
}

#[test]
fn a_node_that_changes_its_backend_keeps_no_rules() {
    for by_gc in [false, true] {
        in_new_netns(move || {
            let netlink = Nfnetlink::open().unwrap();
            add(POD_A, &DUAL_STACK);
            super::wanted(MasqueradeBackend::Iptables, POD_A, &DUAL_STACK).add(&netlink).unwrap();
            assert!(sh("iptables -t nat -S; ip6tables -t nat -S").contains("CNI-"));
            let valid: &[(&str, &str)] = if by_gc { &[] } else { &[POD_A] };
            if !by_gc {
                remove(POD_A);
            }
            collect_garbage(valid);
            assert!(!sh("nft list ruleset").contains("CNI-"));
            sh("nft delete table ip nat; nft delete table ip6 nat");
            check(&[]);
        });
    }
}

#[test]
fn status_tries_and_leaves_nothing() {
    in_new_netns(|| {
        let status = || MasqueradeBackend::Nftables.status(&Nfnetlink::open().unwrap());
        status().unwrap();
        assert_eq!(sh("nft list ruleset"), "");
        // A chain of that name at another hook, so that an ADD could not work.
        sh("nft add table inet cni_plugins_masquerade
            nft add chain inet cni_plugins_masquerade postrouting \
                '{ type filter hook input priority 0; }'");
        let before = sh("nft list ruleset");
        let refused = status().unwrap_err().to_string();
        assert!(refused.contains("postrouting"), "{refused}");
        assert_eq!(sh("nft list ruleset"), before);
        // The same with the chain of the pods.
        sh("nft add chain inet cni_plugins_masquerade masq_checks");
        status().unwrap_err();
        sh("nft delete table inet cni_plugins_masquerade");
        add(POD_A, &DUAL_STACK);
        let before = sh("nft list ruleset");
        status().unwrap();
        sh("nft flush chain inet cni_plugins_masquerade postrouting");
        status().unwrap();
        add(POD_B, &["10.88.0.3/24"]);
        remove(POD_B);
        assert_eq!(sh("nft list ruleset"), before);
    });
}
