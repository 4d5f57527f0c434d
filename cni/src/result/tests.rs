//! Tests of the forms of results: literal ones, and conversions from and to every version.

use expect_test::{Expect, expect};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn dual_stack() -> Success {
    let route = |dst: &str, gw: &str| Route {
        gw: gw.parse().ok(),
        mtu: Some(1300),
        ..Route::to(dst.parse().unwrap())
    };
    let ip = |address: &str, gateway: &str| IpConfig {
        interface: Some(1),
        address: address.parse().unwrap(),
        gateway: gateway.parse().ok(),
    };
    Success {
        interfaces: vec![
            Interface { name: "cni0".into(), mac: "c2:0:0:0:0:1".into(), ..Interface::default() },
            Interface {
                name: "eth0".into(),
                mtu: Some(1500),
                sandbox: "/run/netns/a".into(),
                ..Interface::default()
            },
        ],
        ips: vec![ip("10.1.2.3/24", "10.1.2.1"), ip("fd00::3/64", "")],
        routes: vec![route("::/0", "fd00::1"), route("0.0.0.0/0", "")],
        dns: Dns { nameservers: vec!["10.1.1.1".into()], ..Dns::default() },
    }
}

#[track_caller]
fn check(version: Version, expected: &Expect) {
    expected.assert_eq(&dual_stack().to_json(version).unwrap().to_string());
}

#[test]
fn forms() {
    check(
        Version::V0_2_0,
        &expect![[
            r#"{"cniVersion":"0.2.0","dns":{"nameservers":["10.1.1.1"]},"ip4":{"gateway":"10.1.2.1","ip":"10.1.2.3/24","routes":[{"dst":"0.0.0.0/0"}]},"ip6":{"ip":"fd00::3/64","routes":[{"dst":"::/0","gw":"fd00::1"}]}}"#
        ]],
    );
    check(
        Version::V0_4_0,
        &expect![[
            r#"{"cniVersion":"0.4.0","dns":{"nameservers":["10.1.1.1"]},"interfaces":[{"mac":"c2:0:0:0:0:1","name":"cni0"},{"name":"eth0","sandbox":"/run/netns/a"}],"ips":[{"address":"10.1.2.3/24","gateway":"10.1.2.1","interface":1,"version":"4"},{"address":"fd00::3/64","interface":1,"version":"6"}],"routes":[{"dst":"::/0","gw":"fd00::1","mtu":1300},{"dst":"0.0.0.0/0","mtu":1300}]}"#
        ]],
    );
    check(
        Version::V1_1_0,
        &expect![[
            r#"{"cniVersion":"1.1.0","dns":{"nameservers":["10.1.1.1"]},"interfaces":[{"mac":"c2:0:0:0:0:1","name":"cni0"},{"mtu":1500,"name":"eth0","sandbox":"/run/netns/a"}],"ips":[{"address":"10.1.2.3/24","gateway":"10.1.2.1","interface":1},{"address":"fd00::3/64","interface":1}],"routes":[{"dst":"::/0","gw":"fd00::1","mtu":1300},{"dst":"0.0.0.0/0","mtu":1300}]}"#
        ]],
    );
}

#[test]
fn interfaces_have_the_keys_of_their_version() {
    let interface = Interface {
        name: "eth0".into(),
        mac: "c2:0:0:0:0:1".into(),
        mtu: Some(1500),
        sandbox: "/run/netns/a".into(),
        socket_path: "/run/socket".into(),
        pci_id: "0000:00:1f.6".into(),
    };
    let result = Success { interfaces: vec![interface], ..Success::default() };
    let written = |version| result.to_json(version).unwrap()["interfaces"].clone();
    let older = json!([{"name": "eth0", "mac": "c2:0:0:0:0:1", "sandbox": "/run/netns/a"}]);
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0] {
        assert_eq!(written(version), older, "{version}");
    }
    let newest = json!([{
        "name": "eth0", "mac": "c2:0:0:0:0:1", "mtu": 1500, "sandbox": "/run/netns/a",
        "socketPath": "/run/socket", "pciID": "0000:00:1f.6",
    }]);
    assert_eq!(written(Version::V1_1_0), newest);
}

#[test]
fn an_empty_result_still_has_dns_up_to_0_4_0() {
    let written = |version| Success::default().to_json(version).unwrap();
    assert_eq!(written(Version::V0_2_0), json!({"cniVersion": "0.2.0", "dns": {}}));
    assert_eq!(written(Version::V0_4_0), json!({"cniVersion": "0.4.0", "dns": {}}));
    assert_eq!(written(Version::V1_0_0), json!({"cniVersion": "1.0.0"}));
}

#[test]
fn a_result_is_read_in_its_own_version() {
    let old = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}});
    assert_eq!(Success::read(&old, Version::V1_0_0).unwrap().ips.len(), 1);
    let silent = json!({"ips": [{"address": "10.0.0.2/24"}]});
    assert_eq!(Success::read(&silent, Version::V1_0_0).unwrap().ips.len(), 1);
}

#[test]
fn addresses_of_an_interface() {
    let mut result = dual_stack();
    result.ips[1].interface = None;
    result.ips.push(IpConfig { interface: Some(0), ..result.ips[0].clone() });
    let of_eth0: Vec<_> = result.ips_of("eth0").collect();
    assert_eq!(of_eth0, [&result.ips[0], &result.ips[1]]);
}

#[test]
fn errors_name_the_key() {
    let error = Success::from_json(&json!({"ips": [{"address": "10.0.0.1"}]}), Version::V1_0_0);
    assert!(error.unwrap_err().msg.contains("ips[0].address"));
}

/// Go's `net.IP` accepts it, and templates of configurations produce it.
#[test]
fn an_empty_gateway_is_none() {
    let result = json!({
        "ips": [{"address": "10.0.0.2/24", "gateway": ""}], "routes": [{"dst": "0.0.0.0/0", "gw": ""}],
    });
    let result = Success::from_json(&result, Version::V1_0_0).unwrap();
    assert_eq!((result.ips[0].gateway, result.routes[0].gw), (None, None));
    let wrong = json!({"routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1/24"}]});
    let error = Success::from_json(&wrong, Version::V1_0_0).unwrap_err();
    assert!(error.msg.contains("\"routes[0].gw\"") && error.msg.contains("10.0.0.1/24"), "{error}");
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn cidr() -> impl Strategy<Value = Cidr> {
    (address(), 0u8..=128).prop_map(|(ip, prefix)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        Cidr::new(ip, prefix.min(longest)).unwrap()
    })
}

fn result() -> impl Strategy<Value = Success> {
    let interface =
        ("[a-z0-9]{1,15}", ".{0,17}", option::of(any::<u32>()), ".{0,20}", "", "[a-z]?").prop_map(
            |(name, mac, mtu, sandbox, socket_path, pci_id)| Interface {
                name,
                mac,
                mtu,
                sandbox,
                socket_path,
                pci_id,
            },
        );
    let ip = (option::of(0usize..9), cidr(), option::of(address()))
        .prop_map(|(interface, address, gateway)| IpConfig { interface, address, gateway });
    let number = || option::of(any::<u32>());
    let route = (
        cidr(),
        option::of(address()),
        number(),
        number(),
        number(),
        number(),
        option::of(any::<u8>()),
    )
        .prop_map(|(dst, gw, mtu, advmss, priority, table, scope)| Route {
            dst,
            gw,
            mtu,
            advmss,
            priority,
            table,
            scope,
        });
    let texts = || vec(".{0,9}", 0..3);
    let dns =
        (texts(), ".{0,9}", texts(), texts()).prop_map(|(nameservers, domain, search, options)| {
            Dns { nameservers, domain, search, options }
        });
    (vec(interface, 0..4), vec(ip, 0..4), vec(route, 0..4), dns)
        .prop_map(|(interfaces, ips, routes, dns)| Success { interfaces, ips, routes, dns })
}

proptest! {
    #[test]
    fn the_newest_form_loses_nothing(result in result()) {
        let value = result.to_json(Version::V1_1_0).unwrap();
        prop_assert_eq!(&Success::from_json(&value, Version::V1_1_0).unwrap(), &result);
    }

    /// The newest form keeps everything that an older version can contain.
    #[test]
    fn up_and_down_again(result in result()) {
        for version in Version::ALL {
            let value = result.to_json(version).unwrap();
            let up = Success::from_json(&value, version).unwrap();
            let newest = up.to_json(Version::LATEST).unwrap();
            let down = Success::from_json(&newest, Version::LATEST).unwrap();
            prop_assert_eq!(down.to_json(version).unwrap(), value);
        }
    }

    #[test]
    fn no_object_panics(text in r#"\{("(ips|ip4|routes|dns|interfaces)":[\[\]{}0-9",:a-z./]{0,20},?)*\}"#) {
        if let Ok(value) = serde_json::from_str(&text) {
            for version in Version::ALL {
                let _ = Success::from_json(&value, version);
            }
        }
    }
}
