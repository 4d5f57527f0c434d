//! The values of configurations.

use std::ffi::OsString;

use cni::environment::Variables;
use cni::{Code, Command, Environment, Plugin, Version};
use serde_json::{Value, json};

use super::*;

/// The variables of an ADD with `CNI_ARGS`.
struct Args<'a>(&'a str);

impl Variables for Args<'_> {
    fn get(&self, name: &str) -> Option<OsString> {
        match name {
            "CNI_CONTAINERID" => Some("c".into()),
            "CNI_IFNAME" => Some("eth0".into()),
            "CNI_NETNS" => Some("/run/netns/pod".into()),
            "CNI_ARGS" => Some(self.0.into()),
            _ => None,
        }
    }
}

fn settings(mut config: Value, args: &str) -> Result<Settings, cni::Error> {
    config["name"] = json!("n");
    let stdin = config.to_string().into_bytes();
    let network = Network::read(Command::Add, stdin, Version::V1_1_0, Vec::new())?;
    let environment = Environment::read(Command::Add, &Args(args))?;
    Macvlan::default().settings(&network, Some(&environment))
}

#[test]
fn defaults() {
    for config in [json!({}), json!({"master": "", "mode": "", "mtu": 0, "bcqueuelen": 0})] {
        let settings = settings(config, "").unwrap();
        assert_eq!((settings.master, settings.in_pod), (None, false));
        assert_eq!((settings.mode, settings.mtu), (MacvlanMode::Bridge, None));
        assert_eq!((settings.mac, settings.bc_queue_len), (None, None));
    }
}

#[test]
fn the_mac_of_the_runtime_is_preferred() {
    let mac = |config, args: &str| settings(config, args).unwrap().mac.unwrap().to_string();
    let mut config = json!({"mac": "c2:00:00:00:00:01"});
    assert_eq!(mac(config.clone(), ""), "c2:00:00:00:00:01");
    assert_eq!(mac(config.clone(), "MAC=c2:00:00:00:00:02"), "c2:00:00:00:00:02");
    config["runtimeConfig"] = json!({"mac": "c2:00:00:00:00:03"});
    assert_eq!(mac(config, "MAC=c2:00:00:00:00:02"), "c2:00:00:00:00:03");
}

#[test]
fn wrong_values_are_refused() {
    for (key, value) in [
        ("master", json!("a/b")),
        ("mode", json!("source")),
        ("mtu", json!(67)),
        ("mtu", json!(-1)),
        ("mac", json!("01:00:00:00:00:01")),
        ("mac", json!("c2")),
        ("bcqueuelen", json!(-1)),
        ("linkInContainer", json!("yes")),
    ] {
        let error = settings(json!({key: value}), "").unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig, "{key} {value}: {error}");
        assert!(error.msg.contains(&format!("{key:?}")), "{key} {value}: {error}");
    }
    let error = settings(json!({}), "GATEWAY=192.0.2.1").unwrap_err();
    assert_eq!(error.code, Code::InvalidEnvironment, "{error}");
}
