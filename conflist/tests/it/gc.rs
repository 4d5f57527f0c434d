//! GC, STATUS and VERSION.

use std::collections::BTreeSet;
use std::fs;

use cni::{ContainerId, IfName};
use conflist::with_causes;
use conflist::{Error, Network, Valid};
use expect_test::expect;
use serde_json::json;

use crate::sandbox::{Sandbox, attachment};

fn these(ids: &[&str]) -> BTreeSet<(ContainerId, IfName)> {
    ids.iter().map(|id| (id.parse().unwrap(), "eth0".parse().unwrap())).collect()
}

/// A network with containers `a` and `b`, and another network with `c`.
fn two_networks(sandbox: &Sandbox, version: &str) -> Network {
    let network = sandbox.network(version);
    let other = json!({"name": "net-b", "cniVersion": "1.0.0", "plugins": [{"type": "first"}]});
    sandbox.write_list("20.conflist", &other);
    for id in ["a", "b"] {
        sandbox.runtime.add(&network, &attachment(id)).unwrap();
    }
    let other = sandbox.runtime.network("net-b").unwrap();
    sandbox.runtime.add(&other, &attachment("c")).unwrap();
    sandbox.calls();
    network
}

#[test]
fn what_is_kept_is_valid_but_what_has_gone() {
    let sandbox = Sandbox::new();
    let network = two_networks(&sandbox, "1.1.0");
    sandbox.runtime.gc(&network, &Valid::KeptBut(these(&["b", "unknown"]))).unwrap();
    expect![[r#"
        DEL third b eth0 netns=/run/netns/b args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.1.0","name":"net","prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"third"}]},"type":"third"}
        DEL second b eth0 netns=/run/netns/b args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.1.0","name":"net","prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"third"}]},"runtimeConfig":{"portMappings":[{"hostPort":80}]},"type":"second"}
        DEL first b eth0 netns=/run/netns/b args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.1.0","ipam":{"type":"first"},"name":"net","prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"third"}]},"runtimeConfig":{"ips":["10.0.0.9"],"mac":"c2:0:0:0:0:1"},"type":"first"}
        GC first   netns= args= path=$SANDBOX/bin
        {"cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}],"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"cniVersion":"1.1.0","ipam":{"type":"first"},"name":"net","type":"first"}
        GC second   netns= args= path=$SANDBOX/bin
        {"cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}],"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"cniVersion":"1.1.0","name":"net","type":"second"}
        GC third   netns= args= path=$SANDBOX/bin
        {"cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}],"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"cniVersion":"1.1.0","name":"net","type":"third"}
    "#]].assert_eq(&sandbox.calls());
    assert_eq!(sandbox.results(), ["net-a-eth0", "net-b-c-eth0"]);
}

#[test]
fn only_what_is_named_is_valid() {
    let sandbox = Sandbox::new();
    let network = two_networks(&sandbox, "1.1.0");
    // "d" was attached by a runtime that keeps results elsewhere.
    sandbox.runtime.gc(&network, &Valid::Only(these(&["b", "d"]))).unwrap();
    let calls = sandbox.calls();
    let list = r#""cni.dev/valid-attachments":[{"containerID":"b","ifname":"eth0"},{"containerID":"d","ifname":"eth0"}]"#;
    assert_eq!(calls.matches(list).count(), 3, "{calls}");
    assert_eq!(calls.matches("DEL ").count(), 3, "{calls}");
    assert_eq!(sandbox.results(), ["net-b-c-eth0", "net-b-eth0"]);

    sandbox.runtime.gc(&network, &Valid::Only(these(&[]))).unwrap();
    assert_eq!(sandbox.calls().matches(r#""cni.dev/valid-attachments":[]"#).count(), 3);
    assert_eq!(sandbox.results(), ["net-b-c-eth0"]);
}

/// An unreadable file does not mean that the pod is gone: plugins would remove its network.
#[test]
fn what_cannot_be_read_is_not_taken_for_gone() {
    let sandbox = Sandbox::new();
    let network = two_networks(&sandbox, "1.1.0");
    let file = sandbox.dir.join("cache/results/net-a-eth0");
    for text in ["", r#"{"kind":"cniCacheV1","containerId":"a""#] {
        fs::write(&file, text).unwrap();
        let error = sandbox.runtime.gc(&network, &Valid::KeptBut(these(&["b"]))).unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        assert!(
            with_causes(&error).contains("results/net-a-eth0: EOF while"),
            "{}",
            with_causes(&error)
        );
        assert_eq!(sandbox.calls(), "");
    }
    // Files of other networks do not matter.
    fs::rename(&file, sandbox.dir.join("cache/results/other-a-eth0")).unwrap();
    sandbox.runtime.gc(&network, &Valid::KeptBut(these(&[]))).unwrap();
    fs::rename(sandbox.dir.join("cache/results/other-a-eth0"), &file).unwrap();
    sandbox.calls();

    sandbox.runtime.gc(&network, &Valid::Only(these(&["a"]))).unwrap();
    assert_eq!(sandbox.commands()[..3], ["DEL third b", "DEL second b", "DEL first b"]);
    assert_eq!(sandbox.results(), ["net-a-eth0", "net-b-c-eth0"]);
    sandbox.runtime.gc(&network, &Valid::Only(these(&[]))).unwrap();
    assert_eq!(sandbox.commands()[..3], ["DEL third a", "DEL second a", "DEL first a"]);
    assert_eq!(sandbox.results(), ["net-b-c-eth0"]);
}

#[test]
fn a_bare_result_of_an_early_libcni_is_valid() {
    let sandbox = Sandbox::new();
    let network = two_networks(&sandbox, "1.1.0");
    let results = sandbox.dir.join("cache/results");
    let bare = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "third"}]}).to_string();
    fs::write(results.join("net-a-eth0"), &bare).unwrap();
    sandbox.runtime.gc(&network, &Valid::KeptBut(these(&[]))).unwrap();
    let calls = sandbox.calls();
    let list = r#""cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"},{"containerID":"b","ifname":"eth0"}]"#;
    assert_eq!(calls.matches(list).count(), 3, "{calls}");
    assert_eq!(sandbox.results(), ["net-a-eth0", "net-b-c-eth0", "net-b-eth0"]);

    sandbox.runtime.gc(&network, &Valid::KeptBut(these(&["a"]))).unwrap();
    assert_eq!(sandbox.calls().matches("prevResult").count(), 3);
    assert_eq!(sandbox.results(), ["net-b-c-eth0", "net-b-eth0"]);

    // Pod "c" of network "net-b", or pod "b-c" of this one?
    fs::write(results.join("net-b-c-eth0"), &bare).unwrap();
    let error = sandbox.runtime.gc(&network, &Valid::Only(these(&[]))).unwrap_err();
    assert!(matches!(&error, Error::Ambiguous { other, .. } if other == "net-b"), "{error}");
    assert_eq!(sandbox.results(), ["net-b-c-eth0"]);
    assert_eq!(sandbox.commands().len(), 6);
    fs::remove_file(sandbox.runtime.net_dir.join("20.conflist")).unwrap();
    sandbox.runtime.gc(&network, &Valid::Only(these(&[]))).unwrap();
    assert!(sandbox.results().is_empty());
}

#[test]
fn before_1_1_0_there_is_only_del() {
    let sandbox = Sandbox::new();
    let network = two_networks(&sandbox, "1.0.0");
    sandbox.runtime.gc(&network, &Valid::Only(these(&["a"]))).unwrap();
    assert_eq!(sandbox.commands(), ["DEL third b", "DEL second b", "DEL first b"]);
}

#[test]
fn the_administrator_may_disable_it() {
    let sandbox = Sandbox::new();
    let mut network = two_networks(&sandbox, "1.1.0");
    network.disable_gc = true;
    sandbox.runtime.gc(&network, &Valid::Only(these(&[]))).unwrap();
    assert_eq!(sandbox.calls(), "");
    assert_eq!(sandbox.results().len(), 3);
}

#[test]
fn every_step_runs_and_every_error_is_reported() {
    let sandbox = Sandbox::new();
    let network = two_networks(&sandbox, "1.1.0");
    sandbox.fail("DEL", "second", "busy");
    sandbox.fail("GC", "first", "not now");
    let error = sandbox.runtime.gc(&network, &Valid::Only(these(&[]))).unwrap_err();
    expect![[r#"detach container a, interface eth0, which is not valid: DEL of plugin "second" (2 of 3 of network "net"): busy: why; also: detach container b, interface eth0, which is not valid: DEL of plugin "second" (2 of 3 of network "net"): busy: why; also: GC of plugin "first" (1 of 3 of network "net"): not now: why"#]].assert_eq(&with_causes(&error));
    assert_eq!(
        sandbox.commands(),
        [
            "DEL third a",
            "DEL second a",
            "DEL third b",
            "DEL second b",
            "GC first ",
            "GC second ",
            "GC third ",
        ]
    );
}

#[test]
fn status_is_asked_up_to_the_first_error() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.1.0");
    sandbox.runtime.status(&network).unwrap();
    expect![[r#"
        STATUS first   netns= args= path=$SANDBOX/bin
        {"cniVersion":"1.1.0","ipam":{"type":"first"},"name":"net","type":"first"}
        STATUS second   netns= args= path=$SANDBOX/bin
        {"cniVersion":"1.1.0","name":"net","type":"second"}
        STATUS third   netns= args= path=$SANDBOX/bin
        {"cniVersion":"1.1.0","name":"net","type":"third"}
    "#]]
    .assert_eq(&sandbox.calls());
    sandbox.fail("STATUS", "second", "no addresses");
    let error = sandbox.runtime.status(&network).unwrap_err();
    assert!(with_causes(&error).ends_with("no addresses: why"), "{error}");
    assert_eq!(sandbox.commands(), ["STATUS first ", "STATUS second "]);

    let older = sandbox.network("1.0.0");
    sandbox.runtime.status(&older).unwrap();
    assert_eq!(sandbox.calls(), "");
    fs::remove_file(sandbox.dir.join("bin/third")).unwrap();
    assert!(sandbox.runtime.status(&older).is_err());
}

#[test]
fn versions_of_each_plugin() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.1.0");
    sandbox.answer("VERSION", "third", &json!({"supportedVersions": ["0.1.0"]}));
    let versions = sandbox.runtime.versions(&network).unwrap();
    let third = versions.last().unwrap();
    assert_eq!((third.kind.as_str(), third.supported.as_slice()), ("third", &["0.1.0".into()][..]));
    expect![[r#"
        VERSION first  dummy netns=dummy args= path=dummy
        {"cniVersion":"1.1.0"}
        VERSION second  dummy netns=dummy args= path=dummy
        {"cniVersion":"1.1.0"}
        VERSION third  dummy netns=dummy args= path=dummy
        {"cniVersion":"1.1.0"}
    "#]]
    .assert_eq(&sandbox.calls());
    sandbox.answer("VERSION", "second", &json!({"supportedVersions": "all"}));
    let error = with_causes(&sandbox.runtime.versions(&network).unwrap_err());
    assert!(error.contains("\"second\"") && error.contains("supportedVersions"), "{error}");
}
