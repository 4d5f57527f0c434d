//! Random sequences of commands, compared with a model of the leases.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cni::Code;
use proptest::prelude::*;
use serde_json::json;

use super::Node;

/// An event on a node.
#[derive(Clone, Debug)]
enum Event {
    Add(u8),
    Del(u8),
    /// An ADD of the reference plugin.
    Foreign(u8, u8),
    Remove(u8),
    Gc(BTreeSet<u8>),
    IndexLost,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u8..12).prop_map(Event::Add),
        3 => (0u8..12).prop_map(Event::Del),
        2 => (0u8..16, 0u8..6).prop_map(|(id, at)| Event::Foreign(id, at)),
        1 => (0u8..6).prop_map(Event::Remove),
        1 => prop::collection::btree_set(0u8..16, 0..12).prop_map(Event::Gc),
        1 => Just(Event::IndexLost),
    ]
}

/// The usable addresses of the test's two ranges: 10.1.2.2 to .6, and 10.1.3.2.
const USABLE: [&str; 6] = ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6", "10.1.3.2"];

fn play(node: &Node, model: &mut BTreeMap<String, u8>, event: &Event) {
    match event {
        Event::Add(id) => {
            let before = model.values().any(|owner| owner == id);
            match node.add(&format!("c{id}")) {
                Ok(ips) => {
                    assert!(!before && USABLE.contains(&ips[0].as_str()), "{ips:?}");
                    assert_eq!(model.insert(ips[0].clone(), *id), None);
                }
                Err(error) if error.code == Code::TryAgain => assert_eq!(model.len(), 6),
                Err(error) => assert!(before && error.code == Code::Conflict, "{error}"),
            }
        }
        Event::Del(id) => {
            node.del(&format!("c{id}"));
            model.retain(|_, owner| owner != id);
        }
        Event::Foreign(id, at) => {
            let ip = USABLE[usize::from(*at)];
            if !model.contains_key(ip) {
                node.write(ip, &format!("c{id}\r\neth0"));
                model.insert(ip.to_owned(), *id);
            }
        }
        Event::Remove(at) => {
            let ip = USABLE[usize::from(*at)];
            if model.remove(ip).is_some() {
                node.remove(ip);
            }
        }
        Event::Gc(valid) => {
            let ids: Vec<_> = valid.iter().map(|id| format!("c{id}")).collect();
            node.gc(&ids.iter().map(|id| (id.as_str(), "eth0")).collect::<Vec<_>>());
            model.retain(|_, owner| valid.contains(owner));
        }
        Event::IndexLost => {
            let _ = fs::remove_dir_all(node.dir.path().join("index"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_assigned_twice_or_lost(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let node = Node::new(json!({
            "ranges": [[{"subnet": "10.1.2.0/29"}, {"subnet": "10.1.3.0/30"}]],
        }));
        let mut model = BTreeMap::new();
        for event in &events {
            play(&node, &mut model, event);
            let expected: Vec<_> = model.iter().map(|(ip, id)| format!("{ip} c{id} eth0")).collect();
            prop_assert_eq!(node.held(), expected);
        }
    }
}
