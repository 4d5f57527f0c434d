//! What no single value shows: keys that do not go together, and ranges of addresses.

use std::net::IpAddr;

use cni::Cidr;

use super::check::{Checker, join};
use super::document::{Content, Member, Node};
use super::finding::Problem;

/// The rules of a plugin of a chain.
pub(crate) fn plugin(checker: &mut Checker<'_>, kind: &str, node: &Node, path: &str) {
    match kind {
        "bridge" => bridge(checker, node, path),
        "portmap" => portmap(checker, node, path),
        "tuning" => from_root(checker, node, path, "dataDir"),
        "bandwidth" => {
            for (rate, burst) in [("ingressRate", "ingressBurst"), ("egressRate", "egressBurst")] {
                both(checker, node, path, rate, burst);
            }
        }
        _ => {}
    }
}

/// The rules of an `ipam` object; `conf` is the plugin's configuration that it is part of.
pub(crate) fn ipam(checker: &mut Checker<'_>, kind: &str, conf: &Node, node: &Node, path: &str) {
    let capable = |capability| {
        conf.get("capabilities").is_some_and(|declared| declared.value.is_true(capability))
    };
    match kind {
        "host-local" => {
            let has_no_range = node.get("subnet").is_none()
                && node.get("ranges").is_none_or(|it| it.value.items().is_empty());
            if has_no_range && !capable("ipRanges") {
                let why = "host-local hands out nothing without it";
                checker.error(node.line, &join(path, "ranges"), Problem::Missing(why.to_owned()));
            }
            ranges(checker, node, path);
            from_root(checker, node, path, "dataDir");
            from_root(checker, node, path, "resolvConf");
        }
        "static" => {
            let given = conf.get("args").is_some() || capable("ips");
            if node.get("addresses").is_none() && !given {
                let why =
                    "static has no address, unless \"ips\" is a capability or CNI_ARGS has IP";
                checker.warning(
                    node.line,
                    &join(path, "addresses"),
                    Problem::Missing(why.to_owned()),
                );
            }
        }
        _ => {}
    }
}

fn bridge(checker: &mut Checker<'_>, node: &Node, path: &str) {
    if node.text_of("bridge").is_some_and(|name| name.len() > 15 && name.chars().count() <= 15) {
        contradiction(checker, node, path, "bridge", "is longer than 15 bytes");
    }
    if node.is_true("hairpinMode") && node.is_true("promiscMode") {
        contradiction(checker, node, path, "promiscMode", "does not go with hairpinMode");
    }
    let has_ipam = node.get("ipam").is_some_and(|it| it.value.text_of("type").is_some());
    if node.is_true("disableContainerInterface") && has_ipam {
        let why = "does not go with ipam: an interface that is down gets no address";
        contradiction(checker, node, path, "disableContainerInterface", why);
    }
    let trunk = node.get("vlanTrunk").map_or(&[][..], |it| it.value.items());
    for (index, item) in trunk.iter().enumerate() {
        let path = format!("{}[{index}]", join(path, "vlanTrunk"));
        both(checker, item, &path, "minID", "maxID");
        let (min, max) = (number(item, "minID"), number(item, "maxID"));
        if min.zip(max).is_some_and(|(min, max)| min > max) {
            contradiction(checker, item, &path, "maxID", "is less than minID");
        }
    }
}

fn portmap(checker: &mut Checker<'_>, node: &Node, path: &str) {
    if node.get("markMasqBit").is_some() {
        let why = "does not go with markMasqBit: who marks, that chain or portmap?";
        contradiction(checker, node, path, "externalSetMarkChain", why);
    }
}

/// A range of addresses, and where it was written.
struct Range<'a> {
    node: &'a Node,
    path: String,
    first: IpAddr,
    last: IpAddr,
}

fn ranges(checker: &mut Checker<'_>, ipam: &Node, path: &str) {
    let mut seen: Vec<Range<'_>> = Vec::new();
    let mut read = |checker: &mut Checker<'_>, node, path| {
        let Some(range) = range(checker, node, path) else { return };
        if let Some(other) = seen.iter().find(|it| it.first <= range.last && range.first <= it.last)
        {
            let why = format!("overlaps with {}", other.path);
            let key = join(&range.path, "subnet");
            checker.error(range.node.line, &key, Problem::Contradiction(why));
        }
        seen.push(range);
    };
    if ipam.get("subnet").is_some() {
        read(checker, ipam, path.to_owned());
    }
    let sets = ipam.get("ranges").map_or(&[][..], |it| it.value.items());
    for (index, set) in sets.iter().enumerate() {
        let path = format!("{}[{index}]", join(path, "ranges"));
        for (index, range) in set.items().iter().enumerate() {
            read(checker, range, format!("{path}[{index}]"));
        }
        let families = set.items().iter().filter_map(|it| it.text_of("subnet")?.parse().ok());
        let mut families = families.map(Cidr::is_ipv4);
        if families.next().is_some_and(|first| families.any(|other| other != first)) {
            let why = "has IPv4 and IPv6: an address is handed out from each set, so make it two";
            checker.error(set.line, &path, Problem::Contradiction(why.into()));
        }
    }
}

/// One range; `None` if it is wrong in itself, which is told once.
fn range<'a>(checker: &mut Checker<'_>, node: &'a Node, path: String) -> Option<Range<'a>> {
    let member = node.get("subnet")?;
    let subnet: Cidr = member.value.text()?.parse().ok()?;
    if subnet.network() != subnet {
        let why = format!("is not a network without host bits, such as {}", subnet.network());
        checker.error(member.line, &join(&path, "subnet"), Problem::Contradiction(why));
        return None;
    }
    let longest = if subnet.is_ipv4() { 30 } else { 126 };
    if subnet.prefix() > longest {
        let why = format!("{subnet} has no address to hand out: /{longest} is the smallest");
        checker.error(member.line, &join(&path, "subnet"), Problem::Contradiction(why));
        return None;
    }
    let mut bound = |key: &str| {
        let member = node.get(key)?;
        let address: IpAddr = member.value.text()?.parse().ok()?;
        if subnet.contains(address) {
            return Some(address);
        }
        let why = format!("{address} is not in {subnet}");
        checker.error(member.line, &join(&path, key), Problem::Contradiction(why));
        None
    };
    let first = bound("rangeStart").unwrap_or_else(|| subnet.ip());
    let last = bound("rangeEnd").unwrap_or_else(|| end(subnet));
    if first > last {
        let why = format!("{last} is before rangeStart {first}");
        contradiction(checker, node, &path, "rangeEnd", &why);
        return None;
    }
    Some(Range { node, path, first, last })
}

/// The last address of a network.
fn end(network: Cidr) -> IpAddr {
    match network.ip() {
        IpAddr::V4(ip) => {
            let host = u32::MAX.checked_shr(network.prefix().into()).unwrap_or(0);
            IpAddr::V4((u32::from(ip) | host).into())
        }
        IpAddr::V6(ip) => {
            let host = u128::MAX.checked_shr(network.prefix().into()).unwrap_or(0);
            IpAddr::V6((u128::from(ip) | host).into())
        }
    }
}

/// Two keys that go together: each one without the other is an error. A zero is as good as none.
fn both(checker: &mut Checker<'_>, node: &Node, path: &str, one: &str, other: &str) {
    let set = |key: &str| node.get(key).filter(|it| !is_zero(it));
    for (there, missing) in [(one, other), (other, one)] {
        if let (Some(member), None) = (set(there), set(missing)) {
            let why = format!("does not go without {missing}");
            checker.error(member.line, &join(path, there), Problem::Contradiction(why));
        }
    }
}

/// A path that means another file with each runtime, depending on where that was started.
fn from_root(checker: &mut Checker<'_>, node: &Node, path: &str, key: &str) {
    let Some(member) = node.get(key) else { return };
    if member.value.text().is_some_and(|text| !text.is_empty() && !text.starts_with('/')) {
        let why = "does not begin with /: it depends on where the runtime was started".to_owned();
        checker.warning(member.line, &join(path, key), Problem::Contradiction(why));
    }
}

fn contradiction(checker: &mut Checker<'_>, node: &Node, path: &str, key: &str, why: &str) {
    if let Some(member) = node.get(key) {
        checker.error(member.line, &join(path, key), Problem::Contradiction(why.to_owned()));
    }
}

fn number(node: &Node, key: &str) -> Option<i128> {
    match &node.get(key)?.value.content {
        Content::Number(text) => text.parse().ok(),
        _ => None,
    }
}

fn is_zero(member: &Member) -> bool {
    member.value.content == Content::Number("0".into())
}
