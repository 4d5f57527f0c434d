//! Tests of the kept results: the file that cnitool writes, and that every attachment is read as written.

use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Written by cnitool v1.3.1 for `CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAME=ab' CAP_ARGS=… cnitool
/// add probe /run/netns/a` with the Go plugins bridge, host-local and portmap v1.9.1.
const BY_CNITOOL: &str = include_str!("probe-cnitool-a145bc1ace582bff43bd-eth0.json");

/// A directory, removed with the value.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("conflist-cache-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn network(name: &str) -> Network {
    let list = json!({"name": name, "cniVersion": "1.0.0", "plugins": [{"type": "t"}]});
    Network::from_list(list.to_string().as_bytes()).unwrap()
}

fn attachment(id: &str, ifname: &str) -> Attachment {
    Attachment::new(id.parse().unwrap(), ifname.parse().unwrap(), None)
}

#[test]
fn the_text_is_that_of_cnitool() {
    let cached = parse(BY_CNITOOL.as_bytes()).unwrap();
    assert_eq!(cached.network.as_str(), "probe");
    assert_eq!(cached.attachment.netns.as_deref(), Some(Path::new("/run/netns/a")));
    assert_eq!(cached.attachment.args.get("K8S_POD_NAME"), Some("ab"));
    let network = Network::from_list(&cached.config).unwrap();
    let result = cached.success(network.version).unwrap();

    let dir = Dir::new();
    let cache = Cache::new(&dir.0);
    let written = result.to_json(network.version).unwrap();
    cache.store(&network, &cached.attachment, &written).unwrap();
    let file = dir.0.join("results/probe-cnitool-a145bc1ace582bff43bd-eth0");
    assert_eq!(fs::read_to_string(file).unwrap(), BY_CNITOOL);
}

#[test]
fn nothing_lies_beside_the_results() {
    let dir = Dir::new();
    let cache = Cache::new(&dir.0);
    let pod = attachment("pod", "eth0");
    cache.store(&network("n"), &pod, &json!({})).unwrap();
    let entries = fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(entries.collect::<Vec<_>>(), ["results"]);
    let network = network("n").name;
    for _ in 0..2 {
        cache.remove(&network, &pod.container_id, &pod.ifname).unwrap();
        assert_eq!(cache.load(&network, &pod.container_id, &pod.ifname).unwrap(), None);
    }
}

#[test]
fn a_bare_result_of_an_early_libcni_is_read() {
    let dir = Dir::new();
    let cache = Cache::new(&dir.0);
    let pod = attachment("pod", "eth0");
    let network = network("n");
    let file = cache.file(&network.name, &pod.container_id, &pod.ifname);
    fs::create_dir_all(dir.0.join("results")).unwrap();
    let load = || cache.load(&network.name, &pod.container_id, &pod.ifname);

    fs::write(&file, r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/24"}]}"#)
        .unwrap();
    let of_network = || cache.of_network(&network.name).unwrap().remove(0);
    let cached = load().unwrap().unwrap();
    assert!(matches!(of_network(), Kept::Unnamed { error: None, .. }));
    assert_eq!(cached.success(Version::V1_0_0).unwrap().ips.len(), 1);
    assert!(cached.config.is_empty());
    for broken in ["", "{", "{}", "[]", r#"{"kind":"cniCacheV2","containerId":"pod"}"#] {
        fs::write(&file, broken).unwrap();
        assert!(matches!(load(), Err(CacheError::Invalid { .. })), "{broken}");
        assert!(matches!(of_network(), Kept::Unnamed { error: Some(_), .. }), "{broken}");
    }
}

/// Names may contain the dash that separates them: the file's content decides.
#[test]
fn attachments_are_not_mixed_up() {
    let dir = Dir::new();
    let cache = Cache::new(&dir.0);
    let store = |name, id, ifname| cache.store(&network(name), &attachment(id, ifname), &json!({}));
    for (name, id, ifname) in
        [("n", "pod", "eth0"), ("n", "pod", "eth1"), ("n", "a-pod", "eth0"), ("n-b", "pod", "eth0")]
    {
        store(name, id, ifname).unwrap();
    }
    // The same attachment may be stored again, but not another one.
    store("n", "a-pod", "eth0").unwrap();
    let taken = store("n-a", "pod", "eth0").unwrap_err();
    assert!(matches!(&taken, CacheError::Taken { id, .. } if id.as_str() == "a-pod"), "{taken}");
    let other = attachment("pod", "eth0");
    assert_eq!(cache.load(&network("n-a").name, &other.container_id, &other.ifname).unwrap(), None);
    cache.remove(&network("n-a").name, &other.container_id, &other.ifname).unwrap();
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);

    let describe = |it: Cached| format!("{} {}", it.attachment.container_id, it.attachment.ifname);
    let of_network = cache.of_network(&"n".parse().unwrap()).unwrap();
    let of_network = of_network.into_iter().map(|kept| match kept {
        Kept::Named(cached) => describe(cached),
        Kept::Unnamed { file, .. } => panic!("{}", file.display()),
    });
    assert_eq!(of_network.collect::<Vec<_>>(), ["a-pod eth0", "pod eth0", "pod eth1"]);
    let of_interface = cache.of_interface(&other.container_id, &other.ifname).unwrap();
    assert_eq!(of_interface.into_iter().map(describe).collect::<Vec<_>>(), ["pod eth0"; 2]);
}

#[test]
fn what_a_file_may_keep_by_its_name() {
    let network: NetworkName = "n-a".parse().unwrap();
    let readings = |name| {
        let readings = readings(name, &network).into_iter();
        readings.map(|(id, ifname)| format!("{id} {ifname}")).collect::<Vec<_>>()
    };
    assert_eq!(readings("n-a-pod-eth0"), ["pod eth0"]);
    assert_eq!(readings("n-a-b-c-eth0"), ["b-c eth0", "b c-eth0"]);
    assert_eq!(readings("n-a-pod-0123456789-0123456789"), ["pod-0123456789 0123456789"]);
    for other in ["n-a", "n-a-", "n-a-pod", "n-a-pod-", "n-a--eth0", "n-ab-pod-eth0", "n-pod-eth0"]
    {
        assert!(readings(other).is_empty(), "{other}");
    }
}

proptest! {
    #[test]
    fn what_is_kept_comes_back(
        id in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}",
        ifname in "[a-z][a-z0-9._-]{0,14}",
        netns in proptest::option::of("/[a-z/]{1,20}"),
        pairs in proptest::collection::vec(("[A-Z_]{1,8}", "[^;\0]{0,8}"), 0..3),
        capability in ".{0,8}",
        config: Vec<u8>,
    ) {
        let dir = Dir::new();
        let cache = Cache::new(&dir.0);
        let network = Network { text: config.clone(), ..network("n") };
        let attachment = Attachment {
            args: pairs.into_iter().collect(),
            capability_args: [(capability, json!([1, null]))].into_iter().collect(),
            ..Attachment::new(id.parse().unwrap(), ifname.parse().unwrap(), netns.map(Into::into))
        };
        let result = json!({"cniVersion": "1.0.0"});
        cache.store(&network, &attachment, &result).unwrap();
        let kept = cache.load(&network.name, &attachment.container_id, &attachment.ifname);
        let expected = Cached { network: network.name, attachment, config, result };
        prop_assert_eq!(kept.unwrap(), Some(expected));
    }

    #[test]
    fn no_text_panics(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }
}
