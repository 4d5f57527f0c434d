//! Changes to a configuration that a careless or a hostile author could make.

use serde_json::{Value, json};

use crate::random::Random;

/// Stands for something that [`Value`] cannot represent; it is replaced in the JSON text.
const DEEP: &str = "@deep@";
const BROKEN: &str = "@broken@";

/// Values of all types, at and beyond their limits.
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "-1",
    "65535",
    "65536",
    "2147483647",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "-9223372036854775808",
    "1e308",
    "0.5",
    "1e-9",
    "99999999999999999999999999",
];
const TEXTS: [&str; 48] = [
    "",
    " ",
    "x",
    ".",
    "..",
    "../x",
    "/",
    "/dev/null",
    "relative/path",
    "%s%n",
    "\u{0}",
    "\n",
    "é☃",
    "*",
    "-j",
    "eth0",
    "lo",
    "cni0",
    "veth0",
    "sixteen-letters-",
    "tcp",
    "UDP",
    "sctp",
    "iptables",
    "nftables",
    "firewalld",
    "1.1.0",
    "0.1.0",
    "9.9.9",
    "10.88.0.0/24",
    "10.88.0.0/31",
    "10.88.0.0/32",
    "10.88.0.0/33",
    "0.0.0.0/0",
    "::/0",
    "fd00:88::/64",
    "fd00:88::/128",
    "10.88.0.255",
    "255.255.255.255",
    "0.0.0.0",
    "127.0.0.1",
    "224.0.0.1",
    "fe80::1",
    "::1",
    "10.88.0.2",
    "::ffff:10.88.0.2",
    "00:00:00:00:00:00",
    "01:00:5e:00:00:01",
];
const KEYS: [&str; 40] = [
    "name",
    "type",
    "cniVersion",
    "ipam",
    "dns",
    "args",
    "prevResult",
    "runtimeConfig",
    "capabilities",
    "bridge",
    "isGateway",
    "isDefaultGateway",
    "forceAddress",
    "ipMasq",
    "ipMasqBackend",
    "mtu",
    "hairpinMode",
    "promiscMode",
    "vlan",
    "vlanTrunk",
    "macspoofchk",
    "portIsolation",
    "enabledad",
    "disableContainerInterface",
    "ranges",
    "subnet",
    "rangeStart",
    "rangeEnd",
    "gateway",
    "exclude",
    "routes",
    "dataDir",
    "resolvConf",
    "addresses",
    "portMappings",
    "ips",
    "mac",
    "sysctl",
    "backend",
    "ingressPolicy",
];

/// Changes one place of a configuration.
pub(crate) fn mutate(config: &mut Value, random: &mut Random) {
    let mut places = Vec::new();
    collect(config, String::new(), &mut places);
    let place = random.pick(&places).clone();
    let other = config.pointer(random.pick::<String>(&places)).cloned().unwrap_or_default();
    match random.below(8) {
        0 => remove(config, &place),
        1 => set(config, &place, other),
        2 | 3 => set(config, &place, junk(random)),
        4 => {
            let exchanged = exchange(config.pointer(&place).unwrap(), random);
            set(config, &place, exchanged);
        }
        5 => {
            let key = *random.pick(&KEYS);
            let value = if random.once_in(2) { other } else { junk(random) };
            if let Some(object) = config.pointer_mut(&place).and_then(Value::as_object_mut) {
                object.insert(key.to_owned(), value);
            }
        }
        6 => repeat(config, &place, random),
        _ => set(config, &place, json!(random.pick(&TEXTS))),
    }
}

/// The configuration as text, sometimes not valid JSON.
pub(crate) fn text(config: &Value, random: &mut Random) -> Vec<u8> {
    let mut text = config.to_string();
    if text.contains(DEEP) {
        let depth = *random.pick(&[100, 127, 128, 5000, 100_000]);
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        text = text.replace(&format!("\"{DEEP}\""), &nested);
    }
    if random.once_in(20) {
        text = with_duplicate(config, &text, random);
    }
    let mut bytes = Vec::new();
    for (index, part) in text.split(BROKEN).enumerate() {
        if index > 0 {
            bytes.extend([0xff, 0xfe, 0xc0]);
        }
        bytes.extend(part.as_bytes());
    }
    if random.once_in(40) {
        bytes.truncate(random.below(bytes.len() + 1));
    }
    if random.once_in(40) {
        bytes.extend(*random.pick(&[b"{}".as_slice(), b"\0", b"garbage", b"\n \n"]));
    }
    bytes
}

/// A top-level key that is there twice, with different values.
fn with_duplicate(config: &Value, text: &str, random: &mut Random) -> String {
    let keys: Vec<&String> = config.as_object().into_iter().flatten().map(|(key, _)| key).collect();
    if keys.is_empty() {
        return text.to_owned();
    }
    text.replacen('{', &format!("{{{}:{},", json!(random.pick(&keys)), junk(random)), 1)
}

/// The paths of all values in `value`, including its own.
fn collect(value: &Value, path: String, places: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                collect(value, format!("{path}/{key}"), places);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                collect(value, format!("{path}/{index}"), places);
            }
        }
        _ => {}
    }
    places.push(path);
}

fn set(config: &mut Value, place: &str, value: Value) {
    // The whole configuration is not replaced here; truncated text covers that.
    if !place.is_empty() {
        *config.pointer_mut(place).unwrap() = value;
    }
}

fn remove(config: &mut Value, place: &str) {
    let Some((parent, key)) = place.rsplit_once('/') else { return };
    let key = key.replace("~1", "/").replace("~0", "~");
    match config.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.remove(&key)),
        Some(Value::Array(items)) => drop(items.remove(key.parse().unwrap())),
        _ => {}
    }
}

fn repeat(config: &mut Value, place: &str, random: &mut Random) {
    let times = *random.pick(&[2, 20, 300]);
    match config.pointer_mut(place) {
        Some(Value::Array(items)) if !items.is_empty() => {
            let item = random.pick(items).clone();
            items.extend(std::iter::repeat_n(item, times));
        }
        Some(Value::String(text)) => *text = text.repeat(times),
        _ => {}
    }
}

fn exchange(value: &Value, random: &mut Random) -> Value {
    match value {
        Value::String(text) if random.once_in(2) => json!(text.to_uppercase()),
        Value::String(text) => json!([text]),
        Value::Number(number) => json!(number.to_string()),
        Value::Bool(is_set) if random.once_in(2) => json!(!is_set),
        Value::Bool(is_set) => json!(is_set.to_string()),
        Value::Array(items) => items.first().cloned().unwrap_or(json!({})),
        Value::Object(_) => json!([value]),
        Value::Null => json!({}),
    }
}

fn junk(random: &mut Random) -> Value {
    match random.below(10) {
        0 => Value::Null,
        1 => json!(random.once_in(2)),
        2 => json!([]),
        3 => json!({}),
        4 => json!(DEEP),
        5 => json!(format!("a{BROKEN}b")),
        6 => json!("A".repeat(*random.pick(&[16, 256, 4096, 70_000]))),
        7 => json!(random.pick(&TEXTS)),
        _ => serde_json::from_str(random.pick::<&str>(&NUMBERS)).unwrap_or(Value::Null),
    }
}

/// Values of an environment variable that runtimes do not send, or rarely.
pub(crate) fn variable(name: &str, random: &mut Random) -> Option<String> {
    let long = "a".repeat(*random.pick(&[15, 16, 63, 64, 255, 256, 4096, 100_000]));
    let texts: &[&str] = match name {
        "CNI_IFNAME" => &["", "lo", ".", "..", "a/b", "a:b", "eth 0", "é", "cni0", "eth1", "%d"],
        "CNI_CONTAINERID" => &["", "../x", ".x", "-x", "x y", "é☃", "x_y.z-1", "\n", "*"],
        "CNI_NETNS" => &["", "/nowhere", "/dev/null", "/", "/run", "relative", "/run/netns/node"],
        "CNI_PATH" => &["", "/nowhere", ":", "relative", "/dev/null:/run"],
        "CNI_COMMAND" => &["", "add", "FROB", "ADD ", "ADD\n"],
        _ => &[
            ";;;",
            "=",
            "A=B=C",
            "IP=10.88.0.77",
            "IP=x",
            "IP=",
            "MAC=zz",
            "MAC=02:00:00:00:00:09",
            "IgnoreUnknown=1;K8S_POD_NAME=x",
            "IgnoreUnknown=maybe",
            "A",
            "IP=fd00:88::77/64",
        ],
    };
    match random.below(6) {
        0 => None,
        1 => Some(long),
        _ => Some((*random.pick(texts)).to_owned()),
    }
}
