//! ADD, CHECK and DEL: which plugins are called, in which order, with which input.

use std::{fs, process};

use conflist::with_causes;
use conflist::{Error, Network};
use expect_test::expect;
use serde_json::json;

use crate::sandbox::{Sandbox, attachment, bare_attachment};

#[test]
fn add_passes_each_result_on() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.0.0");
    let result = sandbox.runtime.add(&network, &attachment("pod")).unwrap();
    assert_eq!(result.interfaces[0].name, "third");
    expect![[r#"
        ADD first pod eth0 netns=/run/netns/pod args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.0.0","ipam":{"type":"first"},"name":"net","runtimeConfig":{"ips":["10.0.0.9"],"mac":"c2:0:0:0:0:1"},"type":"first"}
        ADD second pod eth0 netns=/run/netns/pod args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.0.0","name":"net","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"first"}]},"runtimeConfig":{"portMappings":[{"hostPort":80}]},"type":"second"}
        ADD third pod eth0 netns=/run/netns/pod args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.0.0","name":"net","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"second"}]},"type":"third"}
    "#]].assert_eq(&sandbox.calls());
    assert_eq!(sandbox.results(), ["net-pod-eth0"]);
}

#[test]
fn check_has_the_last_result_and_the_arguments_of_the_add() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.0.0");
    sandbox.runtime.add(&network, &attachment("pod")).unwrap();
    sandbox.calls();
    sandbox.runtime.check(&network, &bare_attachment("pod")).unwrap();
    expect![[r#"
        CHECK first pod eth0 netns=/run/netns/pod args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.0.0","ipam":{"type":"first"},"name":"net","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"third"}]},"runtimeConfig":{"ips":["10.0.0.9"],"mac":"c2:0:0:0:0:1"},"type":"first"}
        CHECK second pod eth0 netns=/run/netns/pod args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.0.0","name":"net","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"third"}]},"runtimeConfig":{"portMappings":[{"hostPort":80}]},"type":"second"}
        CHECK third pod eth0 netns=/run/netns/pod args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.0.0","name":"net","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"third"}]},"type":"third"}
    "#]].assert_eq(&sandbox.calls());
}

#[test]
fn del_goes_backwards_with_the_last_result() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.0.0");
    sandbox.runtime.add(&network, &attachment("pod")).unwrap();
    sandbox.calls();
    sandbox.runtime.del(&network, &bare_attachment("pod")).unwrap();
    expect![[r#"
        DEL third pod eth0 netns=/run/netns/pod args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.0.0","name":"net","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"third"}]},"type":"third"}
        DEL second pod eth0 netns=/run/netns/pod args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.0.0","name":"net","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"third"}]},"runtimeConfig":{"portMappings":[{"hostPort":80}]},"type":"second"}
        DEL first pod eth0 netns=/run/netns/pod args=IgnoreUnknown=1;A=b path=$SANDBOX/bin
        {"cniVersion":"1.0.0","ipam":{"type":"first"},"name":"net","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"third"}]},"runtimeConfig":{"ips":["10.0.0.9"],"mac":"c2:0:0:0:0:1"},"type":"first"}
    "#]].assert_eq(&sandbox.calls());
    assert!(sandbox.results().is_empty());

    let mut gone = bare_attachment("pod");
    gone.netns = None;
    sandbox.runtime.del(&network, &gone).unwrap();
    expect![[r#"
        DEL third pod eth0 netns= args= path=$SANDBOX/bin
        {"cniVersion":"1.0.0","name":"net","type":"third"}
        DEL second pod eth0 netns= args= path=$SANDBOX/bin
        {"cniVersion":"1.0.0","name":"net","type":"second"}
        DEL first pod eth0 netns= args= path=$SANDBOX/bin
        {"cniVersion":"1.0.0","ipam":{"type":"first"},"name":"net","type":"first"}
    "#]]
    .assert_eq(&sandbox.calls());
}

#[test]
fn results_are_translated_between_versions() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("0.3.1");
    let ip = json!({"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.0.0.2/8"}]});
    sandbox.answer("ADD", "first", &ip);
    // Without a version: the network's.
    sandbox.answer("ADD", "second", &json!({"ips": [{"version": "4", "address": "10.0.0.3/8"}]}));
    sandbox.runtime.add(&network, &bare_attachment("pod")).unwrap();
    let calls = sandbox.calls();
    for prev_result in [
        r#""prevResult":{"cniVersion":"0.3.1","dns":{},"ips":[{"address":"10.0.0.2/8","version":"4"}]}"#,
        r#""prevResult":{"cniVersion":"0.3.1","dns":{},"ips":[{"address":"10.0.0.3/8","version":"4"}]}"#,
    ] {
        assert!(calls.contains(prev_result), "{calls}");
    }
    // DEL has a result from version 0.4.0 on.
    sandbox.runtime.del(&network, &bare_attachment("pod")).unwrap();
    assert!(!sandbox.calls().contains("prevResult"));
    let error = sandbox.runtime.check(&network, &bare_attachment("pod")).unwrap_err();
    assert!(matches!(error, Error::NoCheck { .. }), "{error}");
}

#[test]
fn a_failed_add_is_undone() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.0.0");
    sandbox.fail("ADD", "second", "no port");
    let error = sandbox.runtime.add(&network, &attachment("pod")).unwrap_err();
    expect![[r#"ADD of plugin "second" (2 of 3 of network "net"): no port: why"#]]
        .assert_eq(&with_causes(&error));
    assert_eq!(
        sandbox.commands(),
        ["ADD first pod", "ADD second pod", "DEL third pod", "DEL second pod", "DEL first pod"]
    );
    assert!(sandbox.results().is_empty());

    sandbox.fail("DEL", "third", "no way");
    let error = sandbox.runtime.add(&network, &attachment("pod")).unwrap_err();
    expect![[r#"ADD of plugin "second" (2 of 3 of network "net"): no port: why; undoing it failed, too: DEL of plugin "third" (3 of 3 of network "net"): no way: why"#]].assert_eq(&with_causes(&error));
}

#[test]
fn an_add_whose_result_cannot_be_used_is_undone() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.0.0");
    for (answer, expected) in [
        (json!({"cniVersion": "9.0.0"}), "cniVersion \"9.0.0\" is not supported"),
        (json!({"ips": [{"address": "10.0.0.1"}]}), "ips[0].address"),
    ] {
        sandbox.answer("ADD", "third", &answer);
        let error = with_causes(&sandbox.runtime.add(&network, &attachment("pod")).unwrap_err());
        assert!(error.contains(expected) && error.contains("\"third\""), "{error}");
        assert_eq!(sandbox.commands().len(), 6);
    }
    fs::write(sandbox.dir.join("answers/ADD-third"), "").unwrap();
    let error = with_causes(&sandbox.runtime.add(&network, &attachment("pod")).unwrap_err());
    assert!(error.ends_with("it printed no result"), "{error}");
}

#[test]
fn an_add_whose_result_cannot_be_kept_is_undone() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.0.0");
    // Blocks the temporary file, which is written first and then renamed.
    let new = format!("cache/.net-pod-eth0.{}", process::id());
    fs::create_dir_all(sandbox.dir.join(new)).unwrap();
    let error = with_causes(&sandbox.runtime.add(&network, &attachment("pod")).unwrap_err());
    assert!(error.starts_with("keep the result in "), "{error}");
    assert_eq!(sandbox.commands().len(), 6);
}

/// The DEL that undoes a failed ADD must not remove the interface of another attachment.
#[test]
fn a_second_add_of_an_interface_is_refused() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.0.0");
    sandbox.write_list(
        "20.conflist",
        &json!({"name": "b", "cniVersion": "1.0.0", "plugins": [{"type": "first"}]}),
    );
    sandbox.runtime.add(&network, &attachment("pod")).unwrap();
    sandbox.calls();
    for name in ["net", "b"] {
        let network = sandbox.runtime.network(name).unwrap();
        let error = sandbox.runtime.add(&network, &attachment("pod")).unwrap_err();
        assert!(matches!(&error, Error::Attached { network, .. } if network == "net"), "{error}");
    }
    assert_eq!(sandbox.calls(), "");

    // Files of an early libcni and unreadable files may belong to a running pod.
    let file = sandbox.dir.join("cache/results/net-pod-eth0");
    fs::write(&file, r#"{"cniVersion":"1.0.0"}"#).unwrap();
    let error = sandbox.runtime.add(&network, &attachment("pod")).unwrap_err();
    assert!(matches!(error, Error::Attached { .. }), "{error}");
    fs::write(&file, "").unwrap();
    let error = sandbox.runtime.add(&network, &attachment("pod")).unwrap_err();
    assert!(matches!(error, Error::Cache(_)), "{error}");
    assert_eq!(sandbox.calls(), "");
}

#[test]
fn nothing_runs_if_a_plugin_is_missing() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.0.0");
    fs::remove_file(sandbox.dir.join("bin/third")).unwrap();
    let error = sandbox.runtime.add(&network, &attachment("pod")).unwrap_err();
    let error = with_causes(&error).replace(sandbox.dir.to_str().unwrap(), "$SANDBOX");
    expect![[r#"ADD of plugin "third" (3 of 3 of network "net"): find plugin "third" in CNI_PATH $SANDBOX/bin"#]].assert_eq(&error);
    assert_eq!(sandbox.calls(), "");
}

/// The address is released last, when nothing refers to it.
#[test]
fn del_halts_at_an_error_and_can_be_repeated() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.0.0");
    sandbox.runtime.add(&network, &attachment("pod")).unwrap();
    sandbox.fail("DEL", "second", "busy");
    sandbox.calls();
    let error = sandbox.runtime.del(&network, &bare_attachment("pod")).unwrap_err();
    let Error::Plugin(error) = error else { panic!("{error}") };
    assert_eq!(
        (error.kind.as_str(), error.position, error.error.msg.as_str()),
        ("second", 2, "busy")
    );
    assert_eq!(sandbox.commands(), ["DEL third pod", "DEL second pod"]);
    assert_eq!(sandbox.results(), ["net-pod-eth0"]);

    fs::remove_file(sandbox.dir.join("answers/DEL-second.error")).unwrap();
    sandbox.runtime.del(&network, &bare_attachment("pod")).unwrap();
    assert!(sandbox.calls().contains("prevResult"));
    assert!(sandbox.results().is_empty());
}

#[test]
fn check_needs_an_add_and_the_administrators_leave() {
    let sandbox = Sandbox::new();
    let mut network = sandbox.network("1.0.0");
    let error = sandbox.runtime.check(&network, &attachment("pod")).unwrap_err();
    assert!(matches!(error, Error::NotAttached { .. }), "{error}");
    network.disable_check = true;
    sandbox.runtime.check(&network, &attachment("pod")).unwrap();
    assert_eq!(sandbox.calls(), "");
}

#[test]
fn a_kept_result_that_is_broken_does_not_hinder_a_del() {
    let sandbox = Sandbox::new();
    let network = sandbox.network("1.0.0");
    sandbox.runtime.add(&network, &attachment("pod")).unwrap();
    fs::write(sandbox.dir.join("cache/results/net-pod-eth0"), "{\"kind\":").unwrap();
    assert!(matches!(sandbox.runtime.check(&network, &attachment("pod")), Err(Error::Cache(_))));
    sandbox.runtime.del(&network, &attachment("pod")).unwrap();
    assert!(sandbox.results().is_empty());
}

#[test]
fn networks_are_found_in_libcnis_order() {
    let sandbox = Sandbox::new();
    let net_dir = &sandbox.runtime.net_dir;
    let one = |mark: &str| json!({"name": "n", "plugins": [{"type": "first", "mark": mark}]});
    sandbox.write_list("05.conf", &json!({"name": "n", "type": "first", "mark": "conf"}));
    sandbox.write_list("20.conflist", &one("20"));
    sandbox.write_list("30.conflist", &one("30"));
    sandbox.write_list("01.txt", &one("txt"));
    fs::write(net_dir.join("10.conflist"), "{ broken").unwrap();
    fs::create_dir(net_dir.join("dir.conflist")).unwrap();
    let marks = || {
        let network = sandbox.runtime.network("n").unwrap();
        // The kept configuration contains the whole chain.
        assert_eq!(Network::from_list(&network.text).unwrap().plugins, network.plugins);
        network.plugins.iter().map(|it| it.conf["mark"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(marks(), ["\"20\""]);

    // Plugins in files of their own come last.
    fs::create_dir(net_dir.join("n")).unwrap();
    for (file, mark) in [("b.conf", "b"), ("a.conf", "a"), ("c.json", "c")] {
        sandbox.write_list(&format!("n/{file}"), &json!({"type": "second", "mark": mark}));
    }
    assert_eq!(marks(), ["\"20\"", "\"a\"", "\"b\""]);
    let mut only_inlined = one("only");
    only_inlined["loadOnlyInlinedPlugins"] = json!(true);
    sandbox.write_list("20.conflist", &only_inlined);
    assert_eq!(marks(), ["\"only\""]);
    sandbox.write_list("20.conflist", &json!({"name": "n"}));
    assert_eq!(marks(), ["\"a\"", "\"b\""]);

    for file in ["20.conflist", "30.conflist"] {
        fs::remove_file(net_dir.join(file)).unwrap();
    }
    assert_eq!(marks(), ["\"conf\""]);
    fs::remove_file(net_dir.join("05.conf")).unwrap();
    let error = with_causes(&sandbox.runtime.network("n").unwrap_err());
    let error = error.replace(sandbox.dir.to_str().unwrap(), "$SANDBOX");
    expect![[r#"no file in $SANDBOX/net.d has network "n"; read $SANDBOX/net.d/10.conflist: read JSON: key must be a string at line 1 column 3"#]].assert_eq(&error);
}
