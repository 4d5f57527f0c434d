//! The state of the kernel and the files, as `ip`, `iptables-save`, `nft` and `tc` show it.
//!
//! None of these shares code with the plugins. What every namespace and interface has is left out, so
//! that a snapshot shows what was changed. `reference/README.md` lists the rules.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::normalise::Normaliser;
use crate::process::Cmd;
use crate::world::{NODE, STATE_DIR, World};

/// The directories in which plugins keep files: that of a test and the usual ones.
const STATE_ROOTS: [&str; 3] = [STATE_DIR, "/run/cni", "/var/lib/cni"];
/// Tables of iptables, which `iptables-save` shows better than `nft`.
const XTABLES: [&str; 5] = ["nat", "filter", "mangle", "raw", "security"];
/// Sysctls of a namespace and their values in a new one.
const SYSCTLS: [(&str, &str); 3] =
    [("ipv4/ip_forward", "0"), ("ipv6/conf/all/forwarding", "0"), ("core/somaxconn", "4096")];
/// Sysctls of an interface and their values in a new one.
const SYSCTLS_OF_A_LINK: [(&str, &str); 7] = [
    ("ipv4/conf/%/route_localnet", "0"),
    ("ipv4/conf/%/arp_notify", "0"),
    ("ipv6/conf/%/accept_ra", "1"),
    ("ipv6/conf/%/accept_dad", "1"),
    ("ipv6/conf/%/enhanced_dad", "1"),
    ("ipv6/conf/%/disable_ipv6", "0"),
    ("ipv6/conf/%/keep_addr_on_down", "0"),
];

impl World {
    /// The state of the `namespaces` that exist, by name, and of the `files`.
    ///
    /// Waits until operational states and duplicate address detection have settled. Names are the
    /// kernel's own; `normaliser` only determines the order.
    pub fn snapshot_with(&self, namespaces: &[&str], normaliser: &mut Normaliser) -> Value {
        let alive: Vec<&str> = namespaces.iter().copied().filter(|n| self.has_netns(n)).collect();
        let pending: Vec<Vec<String>> =
            alive.iter().map(|n| self.inside(n, || tentative(&Eyes { netns: n }))).collect();
        let deadline = Instant::now() + Duration::from_secs(6);
        while Instant::now() < deadline
            && alive.iter().any(|n| self.inside(n, || is_unsettled(&Eyes { netns: n })))
        {
            thread::sleep(Duration::from_millis(10));
        }
        let mut state = Map::new();
        for (netns, pending) in alive.iter().zip(pending) {
            let mut seen = self.inside(netns, || observe(&Eyes { netns }, normaliser));
            if !pending.is_empty() {
                seen.insert("dad_pending".to_owned(), json!(pending));
            }
            state.insert((*netns).to_owned(), Value::Object(seen));
        }
        state.insert("files".to_owned(), self.files(files));
        Value::Object(state)
    }

    /// The state of the node and the files, with placeholders, for comparison.
    #[must_use]
    pub fn snapshot(&self) -> Value {
        self.snapshot_of(&[NODE])
    }

    /// The state of the `namespaces` that exist and of the files, with placeholders.
    #[must_use]
    pub fn snapshot_of(&self, namespaces: &[&str]) -> Value {
        let mut normaliser = Normaliser::new("/nowhere", "");
        let mut state = self.snapshot_with(namespaces, &mut normaliser);
        for namespace in state.as_object_mut().into_iter().flatten() {
            // Whether an address was in duplicate address detection when the snapshot began is not
            // compared.
            namespace.1.as_object_mut().map(|parts| parts.remove("dad_pending"));
        }
        normaliser.value(&state)
    }

    /// The connections that the node tracks, as `conntrack -L` prints them.
    #[must_use]
    pub fn conntrack(&self) -> Vec<String> {
        let output = self.run(NODE, &Cmd::new("conntrack").arg("-L")).success();
        output.stdout.lines().map(str::to_owned).collect()
    }
}

/// The tools, run on a thread that is in `netns` already.
struct Eyes<'a> {
    netns: &'a str,
}

impl Eyes<'_> {
    fn lines(&self, program: &str, args: &[&str]) -> Vec<String> {
        let output = Cmd::new(program).args(args).execute(self.netns).success();
        output.stdout.lines().map(str::to_owned).collect()
    }

    fn json(&self, program: &str, args: &[&str]) -> Vec<Value> {
        let output = Cmd::new(program).arg("-j").args(args).execute(self.netns).success();
        let found = output.json();
        let objects = found.as_array().cloned().unwrap_or_default();
        objects.into_iter().filter(|o| o.as_object().is_some_and(|o| !o.is_empty())).collect()
    }
}

fn observe(eyes: &Eyes<'_>, normaliser: &mut Normaliser) -> Map<String, Value> {
    let mut links = links(eyes);
    links.sort_by_cached_key(|l| {
        (text(l, "name").starts_with("veth"), normaliser.text(text(l, "name")))
    });
    let order: BTreeMap<String, usize> =
        links.iter().enumerate().map(|(i, l)| (text(l, "name").to_owned(), i)).collect();
    let by_dev = |v: &Value| order.get(text(v, "dev")).copied().unwrap_or(0);

    let mut addresses = addresses(eyes);
    addresses.sort_by_key(by_dev);
    let mut routes6 = routes(eyes, "-6");
    routes6.sort_by_cached_key(|r| (text(r, "dst").to_owned(), by_dev(r)));

    let parts = json!({
        "links": links,
        "addrs": addresses,
        "routes": without_empty(json!({"v4": routes(eyes, "-4"), "v6": routes6})),
        "rules": without_empty(json!({"v4": rules(eyes, "-4"), "v6": rules(eyes, "-6")})),
        "iptables": without_empty(json!({
            "v4": xtables(eyes, "iptables-save"), "v6": xtables(eyes, "ip6tables-save"),
        })),
        "nft": nft(eyes),
        "tc": qdiscs(eyes),
        "sysctl": sysctls(order.keys()),
    });
    let Value::Object(parts) = without_empty(parts) else { unreachable!("an object stays one") };
    parts
}

fn links(eyes: &Eyes<'_>) -> Vec<Value> {
    let mut result = Vec::new();
    for link in eyes.json("ip", &["-d", "link"]) {
        let flags = strings(&link["flags"]);
        let is_up = flags.iter().any(|f| f == "UP");
        if link["ifname"] == "lo" && is_up == (eyes.netns == NODE) {
            continue;
        }
        let info = &link["linkinfo"];
        let kind =
            if info["info_kind"].is_null() { &link["link_type"] } else { &info["info_kind"] };
        let mut flags: Vec<_> = flags.into_iter().filter(|f| f != "M-DOWN").collect();
        flags.sort();
        let qlen = link.get("txqlen").cloned().unwrap_or(json!(0));
        let mut seen = json!({
            "name": link["ifname"], "kind": kind, "flags": flags, "state": link["operstate"],
            "mtu": link["mtu"], "mac": link["address"], "qlen": qlen,
        });
        for name in ["master", "promiscuity", "allmulti"] {
            if !is_default(&link[name]) {
                seen[name] = link[name].clone();
            }
        }
        if info["info_kind"] == "bridge" {
            seen["bridge"] =
                pick(&info["info_data"], &["vlan_filtering", "stp_state", "ageing_time"]);
        }
        if !info["info_slave_data"].is_null() {
            let wanted = ["state", "hairpin", "isolated", "learning", "flood"];
            seen["port"] = pick(&info["info_slave_data"], &wanted);
        }
        result.push(seen);
    }
    result
}

fn addresses(eyes: &Eyes<'_>) -> Vec<Value> {
    let mut result = Vec::new();
    for link in eyes.json("ip", &["addr"]) {
        for address in link["addr_info"].as_array().into_iter().flatten() {
            let local = text(address, "local");
            if eyes.netns == NODE && ["127.0.0.1", "::1"].contains(&local) {
                continue;
            }
            let dev = text(&link, "ifname");
            let mut seen = json!({"dev": dev, "addr": format!("{local}/{}", address["prefixlen"])});
            let is_link_local = local.starts_with("fe80::");
            if !is_link_local {
                for name in ["scope", "broadcast", "address"] {
                    if !is_default(&address[name]) && address[name] != "global" {
                        seen[name] = address[name].clone();
                    }
                }
            }
            if address["label"].as_str().is_some_and(|label| label != dev) {
                seen["label"] = address["label"].clone();
            }
            let set = address.as_object().into_iter().flatten().filter(|(_, v)| **v == true);
            let mut flags: Vec<&String> = set.map(|(name, _)| name).collect();
            flags.retain(|flag| !(is_link_local && *flag == "tentative"));
            flags.sort();
            if !flags.is_empty() {
                seen["flags"] = json!(flags);
            }
            result.push(seen);
        }
    }
    result
}

fn routes(eyes: &Eyes<'_>, family: &str) -> Vec<Value> {
    let usual = [("type", "unicast"), ("table", "main"), ("scope", "global"), ("pref", "medium")];
    let mut result = Vec::new();
    for route in eyes.json("ip", &["-d", family, "route", "show", "table", "all"]) {
        if route["table"] == "local" || route["dst"] == "fe80::/64" {
            continue;
        }
        let fields = route.as_object().cloned().unwrap_or_default().into_iter();
        let shown = fields.filter(|(name, value)| {
            let is_usual = usual.iter().any(|(n, v)| name == n && value == v);
            !is_usual && *value != json!([]) && !value.is_null()
        });
        result.push(Value::Object(shown.collect()));
    }
    result
}

fn rules(eyes: &Eyes<'_>, family: &str) -> Vec<Value> {
    let usual = ["local", "main", "default"];
    let rules = eyes.json("ip", &[family, "rule"]);
    rules.into_iter().filter(|r| !usual.contains(&text(r, "table"))).collect()
}

/// The rules of one family without comments and counters, and without empty tables.
fn xtables(eyes: &Eyes<'_>, program: &str) -> Value {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in eyes.lines(program, &[]) {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if line.starts_with([':', '-']) {
            let counters = line.rfind(" [").filter(|_| line.starts_with(':'));
            let line = &line[..counters.unwrap_or(line.len())];
            tables.entry(table.clone()).or_default().push(line.to_owned());
        }
    }
    let holds_something =
        |line: &String| line.starts_with('-') || line.ends_with(" -") || line.ends_with(" DROP");
    tables.retain(|_, lines| lines.iter().any(holds_something));
    json!(tables)
}

fn nft(eyes: &Eyes<'_>) -> Vec<String> {
    let mut kept = true;
    let mut result = Vec::new();
    for line in eyes.lines("nft", &["-s", "list", "ruleset"]) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["table", family, name, ..] = words[..] {
            kept = !(["ip", "ip6"].contains(&family) && XTABLES.contains(&name));
        }
        if kept && !words.is_empty() && !line.starts_with('#') {
            result.push(line.replace('\t', "  "));
        }
    }
    result
}

/// The queueing disciplines of each link, and the filters of their ingress.
fn qdiscs(eyes: &Eyes<'_>) -> Value {
    let mut result: BTreeMap<String, Value> = BTreeMap::new();
    for mut qdisc in eyes.json("tc", &["qdisc", "show"]) {
        if ["noqueue", "pfifo_fast", "mq"].contains(&text(&qdisc, "kind")) {
            continue;
        }
        let dev = text(&qdisc, "dev").to_owned();
        if let Some(fields) = qdisc.as_object_mut() {
            fields.remove("refcnt");
            fields.remove("dev");
        }
        let seen = result.entry(dev.clone()).or_insert_with(|| json!({"qdisc": []}));
        if text(&qdisc, "kind") == "ingress" {
            let filters = ["filter", "show", "dev", &dev, "ingress"];
            seen["ingress-filter"] = json!(eyes.json("tc", &filters));
        }
        seen["qdisc"].as_array_mut().into_iter().for_each(|all| all.push(qdisc.clone()));
    }
    json!(result)
}

fn sysctls<'a>(links: impl Iterator<Item = &'a String>) -> Value {
    let mut usual: Vec<(String, &str)> =
        SYSCTLS.iter().map(|(path, value)| ((*path).to_owned(), *value)).collect();
    for link in links.filter(|l| *l != "lo") {
        usual.extend(SYSCTLS_OF_A_LINK.iter().map(|(path, v)| (path.replace('%', link), *v)));
    }
    let mut result = Map::new();
    for (path, usual) in usual {
        let found = fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap_or_default();
        if !found.is_empty() && found.trim_end() != usual {
            result.insert(format!("net.{}", path.replace('/', ".")), json!(found.trim_end()));
        }
    }
    Value::Object(result)
}

fn files() -> Value {
    let mut found = Map::new();
    for root in STATE_ROOTS {
        walk(Path::new(root), &mut found);
    }
    Value::Object(found)
}

/// `[mode]` for a directory, `[mode, text]` for a file; what vanishes meanwhile is left out.
fn walk(dir: &Path, found: &mut Map<String, Value>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let mode = format!("0o{:o}", metadata.permissions().mode() & 0o7777);
        let name = path.to_string_lossy();
        if metadata.is_dir() {
            found.insert(format!("{name}/"), json!([mode]));
            walk(&path, found);
        } else {
            let content = fs::read(&path).unwrap_or_default();
            found.insert(name.into_owned(), json!([mode, String::from_utf8_lossy(&content)]));
        }
    }
}

/// Whether an operational state does not agree with the carrier yet, or an address is in duplicate
/// address detection on a link on which that can end.
fn is_unsettled(eyes: &Eyes<'_>) -> bool {
    let links = eyes.json("ip", &["-d", "link"]);
    let mut ready = Vec::new();
    for link in &links {
        let flags = strings(&link["flags"]);
        let has = |flag: &str| flags.iter().any(|f| f == flag);
        let (state, kind) = (text(link, "operstate"), text(&link["linkinfo"], "info_kind"));
        let has_no_ports = kind == "bridge" && links.iter().all(|l| l["master"] != link["ifname"]);
        let never_knows = has_no_ports || kind == "ifb" || link["link_type"] == "loopback";
        if state == "UNKNOWN" && has("LOWER_UP") && never_knows {
            continue;
        }
        if has("UP") && has("LOWER_UP") {
            ready.push(text(link, "ifname").to_owned());
            if state != "UP" {
                return true;
            }
        } else if !["DOWN", "LOWERLAYERDOWN"].contains(&state) {
            return true;
        }
    }
    tentative(eyes).iter().any(|t| ready.iter().any(|dev| t.starts_with(&format!("{dev} "))))
}

/// Global addresses in duplicate address detection, as "DEV ADDRESS".
fn tentative(eyes: &Eyes<'_>) -> Vec<String> {
    let mut result = Vec::new();
    for link in eyes.json("ip", &["-6", "addr", "show", "tentative"]) {
        for address in link["addr_info"].as_array().into_iter().flatten() {
            if address["scope"] == "global" {
                result.push(format!("{} {}", text(&link, "ifname"), text(address, "local")));
            }
        }
    }
    result.sort();
    result
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn is_default(value: &Value) -> bool {
    [Value::Null, json!(false), json!(0), json!("")].contains(value)
}

fn pick(value: &Value, keys: &[&str]) -> Value {
    let present = keys.iter().filter(|k| !value[**k].is_null());
    Value::Object(present.map(|k| ((*k).to_owned(), value[*k].clone())).collect())
}

/// Removes the keys of an object whose values are empty.
fn without_empty(value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let holds_nothing = |v: &Value| *v == json!([]) || *v == json!({});
    Value::Object(map.into_iter().filter(|(_, v)| !holds_nothing(v)).collect())
}
