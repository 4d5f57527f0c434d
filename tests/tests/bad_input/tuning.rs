//! Configurations that plugins must refuse which change a pod's interface and sysctls.

use serde_json::{Value, json};
use tests::Known;

use super::{Bad, CONFIG, Cases, ETH0, KERNEL, good, good_but};

pub(crate) fn settings() -> Cases {
    let bad = |more: &Value, code, mentions| {
        Bad::new("tuning", &good_but("tuning", more), code, mentions).before(ETH0)
    };
    let sysctl =
        |name: &str, value: &Value, code| bad(&json!({"sysctl": {name: value}}), code, "sysctl");
    let leaves_traces = Known::new(
        "an ADD that fails leaves its backup behind, and the settings changed",
        "/files//run/cni/tuning/pod-a_eth0.json\n    expected nothing",
    );
    let twice = r#""sysctl": {"net.core.somaxconn": "1", "net.core.somaxconn": "2"}"#;
    let twice = good("tuning").to_string().replacen('{', &format!("{{{twice},"), 1);
    let cases = [
        ("tuning_mtu_is_a_text", bad(&json!({"mtu": "big"}), CONFIG, "mtu")),
        ("tuning_mtu_5", bad(&json!({"mtu": 5}), CONFIG, "mtu").go_fails(leaves_traces)),
        ("tuning_mac_is_none", bad(&json!({"mac": "here"}), CONFIG, "mac").go_fails(leaves_traces)),
        (
            "tuning_mac_that_the_kernel_refuses",
            bad(
                &json!({"mac": "00:00:00:00:00:00", "sysctl": {"net.core.somaxconn": "500"}}),
                KERNEL,
                "eth0",
            )
            .go_fails(leaves_traces),
        ),
        ("tuning_promisc_is_a_text", bad(&json!({"promisc": "yes"}), CONFIG, "promisc")),
        ("tuning_sysctl_of_the_kernel", sysctl("kernel.pid_max", &json!("5"), CONFIG)),
        ("tuning_sysctl_with_dots", sysctl("net/../kernel/pid_max", &json!("5"), CONFIG)),
        ("tuning_sysctl_unknown", sysctl("net.core.no_such", &json!("5"), CONFIG)),
        ("tuning_sysctl_is_a_number", sysctl("net.core.somaxconn", &json!(5), CONFIG)),
        ("tuning_sysctl_value", sysctl("net.ipv4.ip_default_ttl", &json!("far"), KERNEL)),
        ("tuning_sysctl_twice", Bad::new("tuning", &twice, CONFIG, "somaxconn").before(ETH0)),
        (
            "tuning_sysctl_not_allowed",
            sysctl("net.core.somaxconn", &json!("500"), CONFIG).before(
                "cp -a /etc /run/etc; mount --bind /run/etc /etc; mkdir -p /etc/cni/tuning
                 echo '^net.ipv4' > /etc/cni/tuning/allowlist.conf",
            ),
        ),
        ("tuning_no_interface", bad(&json!({}), KERNEL, "eth0").before("")),
        ("tuning_no_previous_result", bad(&json!({"prevResult": null}), CONFIG, "prevResult")),
    ];
    cases.into_iter().map(|(name, bad)| (name.to_owned(), bad)).collect()
}
