//! The node of a run: its pods, and what is left of a failed ADD or of a deleted pod.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tests::configs::{POD_SUBNET, POD_SUBNET6, bridge, with};
use tests::{Cmd, NODE, Plugins, Pod, STATE_DIR, World, call};

/// The directory of the IPAM plugins. It contains nothing else, because a configuration can name any
/// program.
pub(crate) const BIN: &str = "/run/bin";
/// The names of the pods.
pub(crate) const PODS: [&str; 3] = ["pod-a", "pod-b", "pod-c"];
/// The directories in which plugins keep files.
const ROOTS: [&str; 4] = [STATE_DIR, "/run/cni", "/run/podwire", "/var/lib/cni"];
/// Makes everything read-only but the node's own directories.
const READ_ONLY: &str = "while read -r _ _ _ _ place _; do
    case $place in
    /run | /run/* | /var/lib | /proc | /proc/* | /sys | /sys/* | /dev | /dev/*) ;;
    *) mount -o remount,bind,ro \"$place\" 2>/dev/null || true ;;
    esac
done < /proc/self/mountinfo";

/// A node with three pods.
pub(crate) struct Node {
    pub(crate) world: World,
    /// The previous result of each pod, if the plugin needs one.
    pub(crate) previous: Vec<Value>,
}

/// The state of the node.
#[derive(Clone, PartialEq)]
pub(crate) struct View {
    /// The names of links of the node and the pod, and the node's rules.
    parts: [String; 3],
    files: BTreeSet<String>,
}

impl Node {
    /// A node for runs of one plugin.
    pub(crate) fn new(plugin: &str) -> Self {
        let world = World::new(&PODS);
        let dir = Plugins::ours().dir;
        let dir = dir.display();
        world.sh(NODE, &format!("mkdir {BIN}; ln -s {dir}/host-local {dir}/static {BIN}"));
        world.sh(NODE, READ_ONLY);
        let mut node = Self { world, previous: Vec::new() };
        if Plugins::is_kind(plugin, "chained") {
            node.previous = PODS.iter().map(|pod| node.attach(pod)).collect();
        }
        node
    }

    fn attach(&self, pod: &str) -> Value {
        let network = json!({"cniVersion": "1.0.0", "name": "base", "ipMasq": false});
        let config = with(bridge(&[POD_SUBNET, POD_SUBNET6]), &network);
        let call = call(&Plugins::ours(), "bridge", "ADD", &Pod::new(pod), &config);
        self.world.run(NODE, &call).success().json()
    }

    /// The current state.
    pub(crate) fn view(&self, pod: &str) -> View {
        let rules = self.world.run(NODE, &Cmd::new("nft").args(["-s", "list", "ruleset"]));
        let links = |netns: &str| self.world.inside(netns, links);
        let parts = [links(NODE), links(pod), rules.success().stdout];
        View { parts, files: self.world.files(files) }
    }
}

impl View {
    /// The differences from an earlier state.
    pub(crate) fn difference(&self, before: &Self) -> Option<String> {
        let mut found = Vec::new();
        let pairs = self.parts.iter().zip(&before.parts);
        for (name, (now, then)) in ["links", "links of the pod", "rules"].iter().zip(pairs) {
            if now != then {
                found.push(format!("{name} before: {then}\n{name} after: {now}"));
            }
        }
        let files: Vec<_> = self.files.symmetric_difference(&before.files).collect();
        if !files.is_empty() {
            found.push(format!("files: {files:?}"));
        }
        (!found.is_empty()).then(|| found.join("\n"))
    }

    /// What belongs to one of the pods: interfaces, rules with its name, leases.
    pub(crate) fn of_pods(&self) -> Vec<String> {
        let [links, _, rules] = &self.parts;
        let is_of_pod = |link: &&str| ["veth", "ifb", "bwp"].iter().any(|p| link.starts_with(p));
        let links = links.split(' ').filter(is_of_pod).map(str::to_owned);
        let has_pod = |text: &&str| PODS.iter().any(|pod| text.contains(pod));
        let rules = rules.lines().filter(has_pod).map(|rule| rule.trim().to_owned());
        links.chain(rules).chain(self.files.iter().cloned()).collect()
    }
}

fn links() -> String {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = table.lines().skip(2).filter_map(|line| line.split(':').next());
    let names: BTreeSet<&str> = names.map(str::trim).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}

/// All files except those that say which address is next, locks, and host-local's index, which is
/// written again when it is out of date.
fn files() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in ROOTS {
        walk(Path::new(root), &mut found);
    }
    found.retain(|path| {
        if path.starts_with("/run/podwire/host-local/") {
            return false;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        name != "lock" && !name.starts_with("last_reserved_ip.")
    });
    found
}

fn walk(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        } else {
            found.insert(entry.path().to_string_lossy().into_owned());
        }
    }
}
