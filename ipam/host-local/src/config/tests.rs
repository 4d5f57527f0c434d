//! Configurations that are valid, and others.

use serde_json::json;

use super::*;

fn plan_of(config: &Value, version: Version, args: &str) -> Result<Plan, Error> {
    let config: Config = json::read(config).unwrap();
    config.plan(version, &Args::parse(args))
}

fn plan(config: &Value) -> Result<Plan, Error> {
    plan_of(config, Version::V1_0_0, "")
}

fn sets_of(config: &Value) -> Vec<(String, String)> {
    let sets = plan(config).unwrap().sets;
    sets.into_iter().map(|named| (named.key, named.set.to_string())).collect()
}

#[track_caller]
fn refused(config: &Value, expected: &str) {
    let error = plan(config).unwrap_err();
    assert_eq!(error.code, Code::InvalidConfig);
    assert!(error.msg.contains(expected), "{error}");
}

#[test]
fn sets_in_the_order_of_their_numbers() {
    let config = json!({
        "ipam": {
            "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "", "gateway": null,
            "ranges": [[{"subnet": "10.2.0.0/24"}, {"Subnet": "10.3.0.0/24"}]],
        },
        "runtimeConfig": {"ipRanges": [[{"subnet": "fd00::/120"}]]},
    });
    let text = |key: &str, set: &str| (key.to_owned(), set.to_owned());
    assert_eq!(
        sets_of(&config),
        [
            text("runtimeConfig.ipRanges[0]", "fd00::1-fd00::ff"),
            text("ipam", "10.1.0.10-10.1.0.254"),
            text("ipam.ranges[0]", "10.2.0.1-10.2.0.254,10.3.0.1-10.3.0.254"),
        ]
    );
}

#[test]
fn other_keys() {
    let config = json!({"ipam": {
        "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}],
        "resolvConf": "/etc/resolv.conf", "reclaimAfterReboot": false,
    }});
    let plan = plan(&config).unwrap();
    assert_eq!(plan.routes[0].gw, Some("10.1.0.9".parse().unwrap()));
    assert_eq!(plan.resolv_conf, Some("/etc/resolv.conf".into()));
    assert!(!plan.reclaim_after_reboot);

    let least = plan_of(&json!({"ipam": {"subnet": "10.1.0.0/24"}}), Version::V0_1_0, "").unwrap();
    assert!(least.reclaim_after_reboot && least.resolv_conf.is_none() && least.routes.is_empty());
}

#[test]
fn data_dir() {
    let dir = |ipam: Value| json::read::<Config>(&json!({"ipam": ipam})).unwrap().data_dir();
    assert_eq!(dir(json!({"dataDir": "/run/x"})), PathBuf::from("/run/x"));
    assert_eq!(dir(json!({"DATADIR": "/run/x"})), PathBuf::from("/run/x"));
    for default in [
        json!({}),
        json!({"dataDir": ""}),
        json!({"dataDir": null}),
        json!(null),
        json!({"dataDir": 5}),
        json!({"dataDir": "/run/\u{0}"}),
    ] {
        assert_eq!(dir(default), PathBuf::from(DEFAULT_DATA_DIR));
    }
    // The value that a DEL needs can be read even if others are not valid.
    assert_eq!(dir(json!({"dataDir": "/d", "ranges": 5})), PathBuf::from("/d"));
}

#[test]
fn wrong_values_are_named() {
    refused(&json!({}), "\"ipam.ranges\"");
    refused(&json!({"ipam": {"ranges": []}}), "there is no range");
    refused(
        &json!({"ipam": {"ranges": [[]]}}),
        "\"ipam.ranges[0]\" of the configuration: the set is",
    );
    refused(&json!({"ipam": {"ranges": [[{}]]}}), "subnet");
    refused(&json!({"ipam": {"ranges": [{"subnet": "10.1.0.0/24"}]}}), "\"ipam.ranges[0]\"");
    refused(&json!({"ipam": {"subnet": "10.1.0.0"}}), "\"ipam.subnet\"");
    refused(&json!({"ipam": {"subnet": "10.1.0.1/24"}}), "\"ipam.subnet\"");
    refused(&json!({"ipam": {"subnet": "10.1.0.0/24", "gateway": "x"}}), "\"ipam.gateway\"");
    refused(
        &json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24",
            "rangeStart": "10.1.0.9"}]]}}),
        "\"ipam.ranges[0][1].rangeStart\" of the configuration: 10.1.0.9 is not in subnet",
    );
    refused(
        &json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]}}),
        "\"ipam.ranges[0]\"",
    );
    refused(
        &json!({"ipam": {"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.1.0.0/16"}]]}}),
        "\"ipam.ranges[0]\" of the configuration: 10.1.0.1-10.1.255.254 overlaps with \
         10.1.0.1-10.1.0.254 of key \"ipam\"",
    );
    refused(
        &json!({"ipam": {"subnet": "10.1.0.0/24"}, "runtimeConfig": {"ips": ["10.1.0"]}}),
        "\"runtimeConfig.ips[0]\"",
    );
    refused(
        &json!({"ipam": {"subnet": "10.1.0.0/24", "reclaimAfterReboot": "no"}}),
        "\"ipam.reclaimAfterReboot\"",
    );
    refused(&json!({"ipam": {"subnet": "10.1.0.0/24", "dataDir": 5}}), "\"ipam.dataDir\"");
    // The reference plugin 1.10.0 accepts it, relative to its working directory.
    let relative = json!({"ipam": {"subnet": "10.1.0.0/24", "dataDir": "leases"}});
    refused(&relative, "leases must be an absolute path");
    let zero = json!({"ipam": {"subnet": "10.1.0.0/24", "dataDir": "/run/\u{0}"}});
    refused(&zero, "without zero bytes");
    assert_eq!(json::read::<Config>(&relative).unwrap().data_dir(), PathBuf::from("leases"));
}

#[test]
fn old_results_have_room_for_one_address_of_each_family() {
    let two =
        json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}});
    let both =
        json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}});
    let error = plan_of(&two, Version::V0_2_0, "").unwrap_err();
    assert!(error.msg.contains("\"ipam.ranges[1]\""), "{error}");
    assert!(plan_of(&two, Version::V0_3_0, "").is_ok());
    assert!(plan_of(&both, Version::V0_1_0, "").is_ok());
}

fn requested(extra: &Value, args: &str) -> Result<[Option<String>; 2], Error> {
    let mut config =
        json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}});
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    let sets = plan_of(&config, Version::V1_0_0, args)?.sets;
    let mut sets = sets.into_iter().map(|named| named.requested.map(|ip| ip.to_string()));
    Ok([sets.next().unwrap(), sets.next().unwrap()])
}

#[test]
fn requests() {
    let (v4, v6) = (Some("10.1.0.9".to_owned()), Some("fd00::9".to_owned()));
    let none = json!({});
    let runtime = json!({"runtimeConfig": {"ips": ["fd00::9/64", "10.1.0.9"]}});
    let args = json!({"args": {"cni": {"ips": ["::ffff:10.1.0.9"]}}});
    assert_eq!(
        requested(&none, "IP=10.1.0.9/16;IgnoreUnknown=1;K8S=x").unwrap(),
        [v4.clone(), None]
    );
    assert_eq!(requested(&none, "IP=").unwrap(), [None, None]);
    assert_eq!(requested(&runtime, "IP=10.1.0.9").unwrap(), [v4.clone(), v6]);
    assert_eq!(requested(&args, "").unwrap(), [v4, None]);
}

#[test]
fn requests_that_are_refused() {
    for (extra, args, expected) in [
        (json!({}), "IP=bogus", "CNI_ARGS: IP: \"bogus\" is not an address"),
        (json!({}), "FOO=1", "unknown keys FOO"),
        (json!({}), "IP=10.1.0.1", "requested address 10.1.0.1 is a gateway"),
        (json!({}), "IP=10.1.0.0", "10.1.0.0 is not in the ranges"),
        (json!({}), "IP=10.1.0.255", "10.1.0.255 is not in the ranges"),
        (
            json!({"runtimeConfig": {"ips": ["10.1.0.8"]}}),
            "IP=10.1.0.9",
            "10.1.0.8 is of the same set as 10.1.0.9",
        ),
    ] {
        let error = requested(&extra, args).unwrap_err();
        assert!(error.msg.contains(expected), "{error}");
    }
}
