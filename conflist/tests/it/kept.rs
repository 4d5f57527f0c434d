//! The configuration that is kept with a result: a DEL runs every plugin of the ADD, even if the list changed
//! since. cnitool and runtimes that use libcni run the current list.

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};
use conflist::with_causes;
use conflist::{Network, Valid};
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, attachment};

const EVERY_DEL: [&str; 3] = ["DEL third pod", "DEL second pod", "DEL first pod"];

fn shortened() -> Value {
    json!({"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "first"}]})
}

/// A network of three plugins with an attachment, and the same network after its list was shortened.
fn edited(sandbox: &Sandbox) -> Network {
    let network = sandbox.network("1.1.0");
    sandbox.runtime.add(&network, &attachment("pod")).unwrap();
    sandbox.write_list("10.conflist", &shortened());
    sandbox.calls();
    sandbox.runtime.network("net").unwrap()
}

#[test]
fn a_del_reaches_plugins_that_are_no_longer_in_the_list() {
    let sandbox = Sandbox::new();
    let network = edited(&sandbox);
    sandbox.runtime.del(&network, &attachment("pod")).unwrap();
    let calls = sandbox.calls();
    // Each with its own configuration and result, as at the ADD.
    assert!(calls.contains(r#""ipam":{"type":"first"}"#), "{calls}");
    assert_eq!(calls.matches(r#""prevResult":{"cniVersion":"1.1.0""#).count(), 3, "{calls}");
    assert!(sandbox.results().is_empty());
    // The kept result is removed.
    sandbox.runtime.del(&network, &attachment("pod")).unwrap();
    assert_eq!(sandbox.commands(), ["DEL first pod"]);
}

#[test]
fn a_kept_configuration_that_cannot_be_read_is_not_used() {
    let sandbox = Sandbox::new();
    let network = edited(&sandbox);
    let file = sandbox.dir.join("cache/results/net-pod-eth0");
    let other = json!({"name": "other", "plugins": [{"type": "second"}]}).to_string();
    for text in ["{", &other, ""] {
        let mut kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        kept["config"] = BASE64_STANDARD.encode(text).into();
        fs::write(&file, kept.to_string()).unwrap();
        let kept = kept.to_string();
        sandbox.runtime.del(&network, &attachment("pod")).unwrap();
        assert_eq!(sandbox.commands(), ["DEL first pod"], "{text}");
        fs::write(&file, kept).unwrap();
    }
}

#[test]
fn a_gc_detaches_by_the_kept_configuration() {
    let sandbox = Sandbox::new();
    let network = edited(&sandbox);
    sandbox.runtime.gc(&network, &Valid::Only([].into())).unwrap();
    assert_eq!(sandbox.commands(), EVERY_DEL);
    assert!(sandbox.results().is_empty());
}

/// CHECK uses the configuration of the ADD.
#[test]
fn a_check_uses_the_kept_configuration() {
    let sandbox = Sandbox::new();
    let network = edited(&sandbox);
    sandbox.runtime.check(&network, &attachment("pod")).unwrap();
    assert_eq!(sandbox.commands(), ["CHECK first pod", "CHECK second pod", "CHECK third pod"]);
    // But not if CHECK is disabled now.
    let mut list = shortened();
    list["disableCheck"] = true.into();
    sandbox.write_list("10.conflist", &list);
    let network = sandbox.runtime.network("net").unwrap();
    sandbox.runtime.check(&network, &attachment("pod")).unwrap();
    assert!(sandbox.commands().is_empty());
}

/// libcni keeps only the list's file, but plugins may be in files of their own.
#[test]
fn plugins_beside_a_list_that_libcni_kept() {
    let sandbox = Sandbox::new();
    let network = edited(&sandbox);
    let file = sandbox.dir.join("cache/results/net-pod-eth0");
    let mut kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    kept["config"] = BASE64_STANDARD.encode(shortened().to_string()).into();
    fs::write(&file, kept.to_string()).unwrap();
    fs::create_dir(sandbox.dir.join("net.d/net")).unwrap();
    sandbox.write_list("net/20.conf", &json!({"type": "second"}));
    fs::write(sandbox.dir.join("net.d/net/30.conf"), "{").unwrap();
    sandbox.runtime.del(&network, &attachment("pod")).unwrap();
    assert_eq!(sandbox.commands(), ["DEL second pod", "DEL first pod"]);
}

#[test]
fn without_a_list_the_kept_one_is_found() {
    let sandbox = Sandbox::new();
    edited(&sandbox);
    fs::remove_file(sandbox.dir.join("net.d/10.conflist")).unwrap();
    let pod = attachment("pod");
    let kept = |name: &str| sandbox.runtime.kept_network(name, &pod.container_id, &pod.ifname);
    let network = kept("net").unwrap().unwrap();
    assert_eq!(network.plugins.len(), 3);
    assert_eq!(kept("other").unwrap(), None);
    assert!(with_causes(&kept("../net").unwrap_err()).contains("network name"));
}
