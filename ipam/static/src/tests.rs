//! The commands, with configurations and with addresses that a runtime requests.

use cni::{Args, Command, Environment, Version};
use serde_json::{Value, json};

use super::*;

const TWO: &str = r#"{
    "type": "static",
    "addresses": [{"address": "10.10.0.5/24", "gateway": "10.10.0.254"}, {"address": "fd00:10::5/64"}],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.10.5.1", "priority": 7}],
    "dns": {"nameservers": ["8.8.8.8"], "search": ["example.test"]}
}"#;

fn call(version: Version, args: &str, keys: &Value) -> Result<Call<Config>, Error> {
    let mut configuration = json!({"name": "n"});
    configuration.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let stdin = configuration.to_string().into_bytes();
    let network = Network::read(Command::Add, stdin, version, Vec::new())?;
    Static.settings(&network, None)?;
    let environment = Environment {
        container_id: "c1".parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
        netns: None,
        args: Args::parse(args),
    };
    Ok(Call { network, environment })
}

fn add(call: &Call<Config>) -> Result<Success, Error> {
    Static.add(call, &settings(call)?)
}

fn settings(call: &Call<Config>) -> Result<Plan, Error> {
    Static.settings(&call.network, Some(&call.environment))
}

fn two() -> Value {
    serde_json::from_str(TWO).unwrap()
}

/// The addresses and gateways of an ADD.
#[track_caller]
fn given(args: &str, keys: &Value) -> Vec<String> {
    let result = add(&call(Version::V1_1_0, args, keys).unwrap()).unwrap();
    let text = |ip: &cni::IpConfig| {
        let gateway = ip.gateway.map(|gateway| format!(" by {gateway}"));
        format!("{}{}", ip.address, gateway.unwrap_or_default())
    };
    result.ips.iter().map(text).collect()
}

#[track_caller]
fn refused(version: Version, args: &str, keys: &Value, code: Code, mentions: &str) {
    let error = call(version, args, keys).and_then(|call| add(&call)).unwrap_err();
    assert!(error.msg.contains(mentions), "{error}");
    assert_eq!(error.code, code, "{error}");
}

#[test]
fn the_addresses_of_the_configuration() {
    let result = add(&call(Version::V1_0_0, "", &json!({"ipam": two()})).unwrap()).unwrap();
    let mut expected = two();
    expected.as_object_mut().unwrap().remove("type");
    expected["cniVersion"] = json!("1.0.0");
    expected["ips"] = expected.as_object_mut().unwrap().remove("addresses").unwrap();
    assert_eq!(result.to_json(Version::V1_0_0).unwrap(), expected);
}

#[test]
fn the_order_of_requests() {
    let config = json!({"ipam": two()});
    let args = "IP=10.20.0.5/24, fd00:20::5/64;GATEWAY=10.20.0.1,fd00:20::1";
    assert_eq!(
        given(args, &config),
        [
            "10.10.0.5/24 by 10.10.0.254",
            "fd00:10::5/64",
            "10.20.0.5/24 by 10.20.0.1",
            "fd00:20::5/64 by fd00:20::1",
        ]
    );
    let ips = json!({"cni": {"ips": ["10.30.0.5/24"]}});
    let config = json!({"ipam": two(), "args": ips});
    assert_eq!(given(args, &config), ["10.30.0.5/24"]);
    let config = json!({"ipam": two(), "args": ips, "runtimeConfig": {"ips": ["10.40.0.5/24"]}});
    assert_eq!(given(args, &config), ["10.40.0.5/24"]);
    let config = json!({"ipam": two(), "args": ips, "runtimeConfig": {"ips": []}});
    assert_eq!(given("", &config), ["10.30.0.5/24"]);
}

/// Runtimes send no gateways, and podman sends no prefix length. In the reference suite 1.10.0, static then
/// sets no gateway, and refuses an address without a prefix length.
#[test]
fn requested_addresses_get_gateway_and_prefix_of_the_configuration() {
    let by_key = |ip: &str, key: &str| {
        let mut config = json!({"ipam": two()});
        match key {
            "IP" => return given(&format!("IP={ip}"), &config).split_off(2),
            "args" => config["args"] = json!({"cni": {"ips": [ip]}}),
            _ => config["runtimeConfig"] = json!({"ips": [ip]}),
        }
        given("", &config)
    };
    for key in ["IP", "args", "runtimeConfig"] {
        assert_eq!(by_key("10.10.0.9/24", key), ["10.10.0.9/24 by 10.10.0.254"]);
        assert_eq!(by_key("10.10.0.9", key), ["10.10.0.9/24 by 10.10.0.254"]);
        assert_eq!(by_key("10.10.0.9/28", key), ["10.10.0.9/28 by 10.10.0.254"]);
        assert_eq!(by_key("fd00:10::9", key), ["fd00:10::9/64"]);
        assert_eq!(by_key("10.11.0.9/24", key), ["10.11.0.9/24"]);
    }
    let args = "IP=10.10.0.9;GATEWAY=10.10.0.1";
    assert_eq!(given(args, &json!({"ipam": two()})).pop().unwrap(), "10.10.0.9/24 by 10.10.0.1");

    let outside = json!({"ipam": two(), "runtimeConfig": {"ips": ["10.11.0.9"]}});
    let why = "10.11.0.9 has no prefix length, and is in no network of ipam.addresses";
    refused(Version::V1_0_0, "", &outside, Code::InvalidConfig, why);
    let env = Code::InvalidEnvironment;
    refused(Version::V1_0_0, "IP=10.11.0.9", &json!({"ipam": two()}), env, why);
}

#[test]
fn addresses_that_cannot_work_are_refused() {
    for (address, gateway, why) in [
        ("10.1.2.255/24", "10.1.2.1", "address 10.1.2.255 is the broadcast address"),
        ("224.0.0.2/24", "", "a multicast address"),
        ("127.0.0.2/8", "", "a loopback address"),
        ("0.0.0.0/0", "", "the unspecified address"),
        ("::ffff:10.1.2.3/120", "", "an IPv4 address written as IPv6"),
        ("10.1.2.3/24", "10.1.2.255", "gateway 10.1.2.255 is the broadcast address"),
        ("fd00::2/64", "ff02::1", "gateway ff02::1 is a multicast address"),
    ] {
        let keys = json!({"ipam": {"addresses": [{"address": address, "gateway": gateway}]}});
        refused(Version::V1_1_0, "", &keys, Code::InvalidConfig, why);
    }
    for works in ["10.1.2.1/31", "10.1.2.255/32", "10.1.2.255/23", "fd00::ff/120", "240.0.0.5/4"] {
        let keys = json!({"ipam": {"addresses": [{"address": works}]}});
        assert_eq!(given("", &keys), [works]);
    }
}

#[test]
fn a_configuration_without_addresses() {
    assert_eq!(given("", &json!({"ipam": {"type": "static"}})), Vec::<String>::new());
    assert_eq!(given("IP=;GATEWAY=", &json!({"ipam": {}})), Vec::<String>::new());
}

#[test]
fn wrong_requests_are_named() {
    let (new, config, args) = (Version::V1_1_0, Code::InvalidConfig, Code::InvalidEnvironment);
    let none = json!({"ipam": {"type": "static"}});
    refused(new, "", &json!({}), config, "\"ipam\"");
    for ip in ["10.10.0.6", "10.10.0.6/33", "10.10.0.6/24,", "x"] {
        refused(new, &format!("IP={ip}"), &none, args, "IP: ");
    }
    refused(new, "IP=10.10.0.6/24;GATEWAY=x", &none, args, "GATEWAY: \"x\"");
    refused(
        new,
        "IP=10.10.0.6/24;GATEWAY=10.11.0.1",
        &none,
        args,
        "10.11.0.1 is not in the network",
    );
    refused(new, "MAC=02:00:00:00:00:01", &none, args, "MAC");

    let ipam = |more: Value| json!({"ipam": {"addresses": [{"address": "10.10.0.4/24"}, more]}});
    let wrong = |more, key| refused(new, "", &ipam(more), config, key);
    wrong(json!({"address": "10.10.0.5"}), "\"ipam.addresses[1].address\"");
    wrong(json!({"gateway": "10.10.0.1"}), "address");
    let gateway = |gateway: &str| json!({"address": "10.10.0.5/24", "gateway": gateway});
    wrong(gateway("bogus"), "\"ipam.addresses[1].gateway\"");
    wrong(gateway("fd00::1"), "\"ipam.addresses[1].gateway\"");
    wrong(json!({"address": "10.10.0.4/16"}), "\"ipam.addresses[1]\"");
    refused(new, "IP=10.10.0.4/24", &ipam(gateway("")), config, "ipam.addresses[0]");

    let asked = |key: &str, ips: Value| match key {
        "args.cni.ips" => json!({"ipam": {}, "args": {"cni": {"ips": ips}}}),
        _ => json!({"ipam": {}, "runtimeConfig": {"ips": ips}}),
    };
    for key in ["args.cni.ips", "runtimeConfig.ips"] {
        refused(new, "", &asked(key, json!(["10.10.0.7"])), config, &format!("\"{key}[0]\""));
        refused(new, "", &asked(key, json!("10.10.0.7/24")), config, key);
        let twice = json!(["10.10.0.7/24", "10.10.0.7/24"]);
        refused(new, "", &asked(key, twice), config, &format!("\"{key}[1]\""));
    }
}

#[test]
fn an_old_result_has_room_for_one_address_of_each_family() {
    assert!(call(Version::V0_2_0, "", &json!({"ipam": two()})).is_ok());
    let of_args = "IP=10.10.0.6/24";
    let ipam = json!({"ipam": two()});
    refused(Version::V0_2_0, of_args, &ipam, Code::InvalidConfig, "0.3.0 or later");
    refused(Version::V0_1_0, "IP=fd00::1/64", &ipam, Code::InvalidConfig, "IPv6");
}

#[test]
fn check_finds_each_address_in_the_result() {
    let check = |ips: Value, args: &str| {
        let result = json!({"cniVersion": "1.0.0", "ips": ips});
        let keys = json!({"ipam": two(), "prevResult": result});
        let call = call(Version::V1_0_0, args, &keys).unwrap();
        Static.check(&call, &settings(&call).unwrap())
    };
    let first = json!({"address": "10.10.0.5/24", "gateway": "10.10.0.254"});
    // The bridge plugin chooses its gateway.
    let second = json!({"address": "fd00:10::5/64", "gateway": "fd00:10::1"});
    let foreign = json!({"address": "10.99.0.1/24"});
    check(json!([foreign, second, first]), "").unwrap();

    let missing = |ips: Value, args: &str, mentions: &str| {
        let error = check(ips, args).unwrap_err();
        assert_eq!(error.code, Code::Changed);
        assert!(error.msg.contains(mentions), "{error}");
    };
    missing(json!([first]), "", "fd00:10::5/64 (ipam.addresses[1])");
    missing(json!([first, second]), "IP=10.20.0.5/24", "10.20.0.5/24 (IP of CNI_ARGS)");
    missing(json!([second, {"address": "10.10.0.5/16"}]), "", "10.10.0.5/24");
    let elsewhere = json!({"address": "10.10.0.5/24", "gateway": "10.10.0.1"});
    missing(json!([second, elsewhere]), "", "is 10.10.0.1 in the result");
    missing(json!([second, {"address": "10.10.0.5/24"}]), "", "is not set in the result");

    let without = call(Version::V1_0_0, "", &json!({"ipam": two()})).unwrap();
    assert!(
        Static
            .check(&without, &settings(&without).unwrap())
            .unwrap_err()
            .msg
            .contains("prevResult")
    );
}

#[test]
fn del_and_gc_accept_any_configuration() {
    for command in [Command::Del, Command::Gc] {
        let stdin = json!({"name": "n", "ipam": {"addresses": [{}]}}).to_string().into_bytes();
        assert!(Network::<Config>::read(command, stdin, Version::V1_1_0, Vec::new()).is_ok());
    }
}
