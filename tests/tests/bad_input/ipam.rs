//! Configurations that IPAM plugins must refuse.

use serde_json::{Value, json};
use tests::configs::{POD_SUBNET, host_local, with};

use super::{Bad, CONFIG, Cases, ENVIRONMENT, NOT_LOOKED_AT, good, good_but};

pub(crate) fn leases() -> Cases {
    let bad = |more: &Value, code, mentions| {
        let config = json!({"ipam": with(host_local(&[POD_SUBNET]), more)});
        Bad::new("host-local", &good_but("host-local", &config), code, mentions)
    };
    let range = |range: &Value, mentions| bad(&json!({"ranges": [[range]]}), CONFIG, mentions);
    let cases = [
        ("host-local_no_ranges", bad(&json!({"ranges": []}), CONFIG, "range")),
        ("host-local_subnet_is_no_subnet", range(&json!({"subnet": "10.88.0.0/33"}), "subnet")),
        ("host-local_subnet_without_prefix", range(&json!({"subnet": "10.88.0.0"}), "subnet")),
        ("host-local_subnet_too_small", range(&json!({"subnet": "10.88.0.0/32"}), "10.88.0.0/32")),
        (
            "host-local_start_outside",
            range(&json!({"subnet": "10.88.0.0/24", "rangeStart": "10.99.0.1"}), "10.99.0.1"),
        ),
        (
            "host-local_end_before_start",
            range(
                &json!({"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.9", "rangeEnd": "10.88.0.5"}),
                "10.88.0",
            ),
        ),
        (
            "host-local_gateway_is_no_address",
            range(&json!({"subnet": "10.88.0.0/24", "gateway": "10.88.0"}), "gateway"),
        ),
        ("host-local_ranges_is_a_text", bad(&json!({"ranges": "10.88.0.0/24"}), CONFIG, "ranges")),
        ("host-local_route_is_no_subnet", bad(&json!({"routes": [{"dst": "all"}]}), CONFIG, "dst")),
        (
            "host-local_requested_elsewhere",
            bad(&json!({}), CONFIG, "10.99.0.7").env("CNI_ARGS", "IgnoreUnknown=1;IP=10.99.0.7"),
        ),
        (
            "host-local_requested_is_no_address",
            bad(&json!({}), ENVIRONMENT, "IP").env("CNI_ARGS", "IP=10.88"),
        ),
        (
            "host-local_args_without_value",
            bad(&json!({}), ENVIRONMENT, "CNI_ARGS").env("CNI_ARGS", "IP"),
        ),
    ];
    cases.into_iter().map(|(name, bad)| (name.to_owned(), bad)).collect()
}

pub(crate) fn addresses() -> Cases {
    let bad =
        |more: &Value, mentions| Bad::new("static", &good_but("static", more), CONFIG, mentions);
    let one = |address: &Value, mentions| bad(&json!({"ipam": {"addresses": [address]}}), mentions);
    let args = |args: &str, mentions| {
        Bad::new("static", &good("static"), ENVIRONMENT, mentions).env("CNI_ARGS", args)
    };
    let twice = json!([{"address": "10.88.0.5/24"}, {"address": "10.88.0.5/24"}]);
    let two = json!([{"address": "10.88.0.5/24"}, {"address": "10.88.0.6/24"}]);
    let cases = [
        ("static_without_ipam", bad(&json!({"ipam": null}), "ipam")),
        ("static_address_without_prefix", one(&json!({"address": "10.88.0.5"}), "10.88.0.5")),
        (
            "static_gateway_is_no_address",
            one(&json!({"address": "10.88.0.5/24", "gateway": "here"}), "gateway"),
        ),
        (
            "static_gateway_of_another_family",
            one(&json!({"address": "10.88.0.5/24", "gateway": "fd00::1"}), "gateway")
                .go_fails(NOT_LOOKED_AT),
        ),
        (
            "static_same_address_twice",
            bad(&json!({"ipam": {"addresses": twice}}), "addresses[1]").go_fails(NOT_LOOKED_AT),
        ),
        (
            "static_two_addresses_of_0.2.0",
            bad(&json!({"cniVersion": "0.2.0", "ipam": {"addresses": two}}), "0.3.0"),
        ),
        (
            "static_requested_without_prefix",
            bad(&json!({"runtimeConfig": {"ips": ["10.99.0.5"]}}), "runtimeConfig.ips[0]"),
        ),
        ("static_ip_without_prefix", args("IP=10.99.0.6", "IP")),
        ("static_gateway_of_args_is_no_address", args("IP=10.88.0.6/24;GATEWAY=x", "GATEWAY")),
        (
            "static_gateway_of_no_network",
            args("IP=10.88.0.6/24;GATEWAY=10.99.0.1", "10.99.0.1").go_fails(NOT_LOOKED_AT),
        ),
    ];
    cases.into_iter().map(|(name, bad)| (name.to_owned(), bad)).collect()
}
