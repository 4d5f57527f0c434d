//! hostPorts in nftables in a common form. The reference plugin writes a rule for each into the table
//! `cni_hostport`; ours writes an element of a map. The common form has their destinations and their
//! owners.

use serde_json::{Value, json};

/// The table of the reference plugins, and ours.
const TABLES: [&str; 2] = ["cni_hostport", "podwire_hostport"];
/// Our maps from ports to pods.
const MAPS: [&str; 2] = ["host_ports", "host_ip_ports"];

/// Replaces these tables in the output of `nft` by one line for each port, in their order: `ip tcp
/// 8080 to 10.88.0.2:80 of pod-a`.
pub(crate) fn summarise(listing: &mut Value) {
    let Some(lines) = listing.as_array() else { return };
    let (mut kept, mut ports) = (Vec::new(), Vec::new());
    let (mut family, mut in_map) = (None, false);
    for line in lines.iter().filter_map(Value::as_str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["table", of, name, ..] = words[..] {
            family = TABLES.contains(&name).then_some(of);
        }
        let Some(family) = family else {
            kept.push(line.to_owned());
            continue;
        };
        match words[..] {
            ["map", name, ..] => in_map = MAPS.contains(&name),
            ["}"] => in_map = false,
            _ if in_map => ports.extend(elements(family, line)),
            _ => ports.extend(rule(family, &words)),
        }
    }
    ports.sort();
    kept.extend(ports);
    *listing = json!(kept);
}

/// Reads `ip daddr 192.0.2.1 tcp dport 8080 dnat to 10.88.0.2:80 comment "pod-a"`; the address is
/// optional.
fn rule(family: &str, words: &[&str]) -> Option<String> {
    let (host_ip, rest) = match words {
        [_, "daddr", host_ip, rest @ ..] => (format!("{host_ip} "), rest),
        rest => (String::new(), rest),
    };
    let [protocol, "dport", port, "dnat", "to", pod, "comment", owner] = rest else { return None };
    Some(format!("{family} {host_ip}{protocol} {port} to {pod} of {}", owner.trim_matches('"')))
}

/// Reads `elements = { 192.0.2.1 . tcp . 8080 comment "dnat name: net id: pod-a" : 10.88.0.2 . 80,`;
/// the address is optional, and the line may be in the middle of a list.
fn elements(family: &str, line: &str) -> Vec<String> {
    let list = line.trim().trim_start_matches("elements = {").trim_end_matches('}');
    let one = |element: &str| {
        let (key, pod) = element.split_once(" : ")?;
        let (key, comment) = key.split_once(" comment ")?;
        let owner = comment.trim_matches('"').rsplit_once(" id: ")?.1.to_owned();
        let (address, port) = pod.trim().split_once(" . ")?;
        let address = if family == "ip6" { format!("[{address}]") } else { address.to_owned() };
        let key = key.trim().replace(" . ", " ");
        Some(format!("{family} {key} to {address}:{port} of {owner}"))
    };
    list.split(',').filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_one() {
        let theirs = [
            "table ip cni_hostport {",
            "  chain hostports {",
            "    tcp dport 8080 dnat to 10.88.0.2:80 comment \"pod-a\"",
            "  }",
            "  chain hostip_hostports {",
            "    ip daddr 192.0.2.1 udp dport 53 dnat to 10.88.0.2:53 comment \"pod-a\"",
            "  }",
            "}",
            "table ip6 cni_hostport {",
            "  chain hostports {",
            "    tcp dport 8080 dnat to [fd00::2]:80 comment \"pod-a\"",
            "  }",
            "}",
            "table ip others {",
            "}",
        ];
        let ours = [
            "table ip podwire_hostport {",
            "  map host_ports {",
            "    type inet_proto . inet_service : ipv4_addr . inet_service",
            "    elements = { tcp . 8080 comment \"dnat name: net id: pod-a\" : 10.88.0.2 . 80 }",
            "  }",
            "  map host_ip_ports {",
            "    elements = { 192.0.2.1 . udp . 53 comment \"dnat name: net id: pod-a\" : 10.88.0.2 . 53 }",
            "  }",
            "}",
            "table ip6 podwire_hostport {",
            "  map host_ports {",
            "    elements = { tcp . 8080 comment \"dnat name: net id: pod-a\" : fd00::2 . 80 }",
            "  }",
            "}",
            "table ip others {",
            "}",
        ];
        let expected = json!([
            "table ip others {",
            "}",
            "ip 192.0.2.1 udp 53 to 10.88.0.2:53 of pod-a",
            "ip tcp 8080 to 10.88.0.2:80 of pod-a",
            "ip6 tcp 8080 to [fd00::2]:80 of pod-a",
        ]);
        for mut listing in [json!(theirs), json!(ours)] {
            summarise(&mut listing);
            assert_eq!(listing, expected);
        }
    }
}
