//! A caller whose umask is 0: nothing that we create is writable by others.

use serde_json::{Value, json};
use tests::{Cmd, NODE, Needs, Plugins, Pod, Suite, World, call, conflist_program};

use crate::{network, whole_chain};

/// Files and directories that the group or others may write to.
const WRITABLE: &str = "find /run /var/lib -xdev -perm /022 ! -type l ! -type s | sort";
const UMASK: [&str; 3] = ["sh", "-c", "umask 000; exec \"$0\" \"$@\""];

pub(crate) fn cases(suite: &mut Suite) {
    let needs = Needs::plugins(&Plugins::ours(), &Plugins::ALL);
    for main in ["bridge", "ptp"] {
        suite.case(&format!("umask::chain_of_{main}"), &needs, move || chain(main));
        let conflist = needs.clone().conflist();
        suite.case(&format!("umask::conflist_with_{main}"), &conflist, move || by_conflist(main));
    }
}

fn chain(main: &str) {
    let world = World::new(&["pod-a"]);
    let before = world.sh(NODE, WRITABLE);
    let configs = whole_chain(main);
    let chain = network(&world, &Plugins::ours(), &configs);
    let run = |command: &str, index: usize, previous: &Value| {
        let mut stdin = chain.stdin(index, previous);
        let valid = json!([{"containerID": "pod-a", "ifname": "eth0"}]);
        stdin["cni.dev/valid-attachments"] = valid;
        let plugin = configs[index]["type"].as_str().unwrap();
        let call = call(&Plugins::ours(), plugin, command, &Pod::new("pod-a"), &stdin);
        world.run(NODE, &call.wrapped_by(UMASK)).success().json()
    };
    let result = (0..configs.len()).fold(Value::Null, |previous, i| run("ADD", i, &previous));
    for command in ["CHECK", "STATUS", "GC"] {
        (0..configs.len()).for_each(|index| drop(run(command, index, &result)));
    }
    assert_eq!(before, world.sh(NODE, WRITABLE), "after the ADD");
    (0..configs.len()).rev().for_each(|index| drop(run("DEL", index, &result)));
    assert_eq!(before, world.sh(NODE, WRITABLE), "after the DEL");
}

fn by_conflist(main: &str) {
    let world = World::new(&["pod-a"]);
    let before = world.sh(NODE, WRITABLE);
    let network = json!({"cniVersion": "1.1.0", "name": "testnet", "plugins": whole_chain(main)});
    world.files(|| {
        std::fs::create_dir("/run/net.d").unwrap();
        std::fs::write("/run/net.d/10-test.conflist", network.to_string()).unwrap();
    });
    for words in [&["add", "testnet", "/run/netns/pod-a"][..], &["gc", "testnet"]] {
        let call = Cmd::new(conflist_program()).args(words).env("NETCONFPATH", "/run/net.d");
        let call = call.env("CNI_PATH", Plugins::ours().dir.to_string_lossy());
        drop(world.run(NODE, &call.wrapped_by(UMASK)).success());
    }
    assert_eq!(before, world.sh(NODE, WRITABLE));
}
