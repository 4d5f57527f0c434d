//! Configurations that several suites use.

use serde_json::{Value, json};

use crate::world::STATE_DIR;

/// The IPv4 subnet of the pods; its gateway, the node, is 10.88.0.1.
pub const POD_SUBNET: &str = "10.88.0.0/24";
/// The IPv6 subnet of the pods; its gateway is `fd00:88::1`.
pub const POD_SUBNET6: &str = "fd00:88::/64";

/// host-local with one range for each subnet, and default routes.
#[must_use]
pub fn host_local(subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    let default = |subnet: &&str| if subnet.contains(':') { "::/0" } else { "0.0.0.0/0" };
    let routes: Vec<Value> = subnets.iter().map(|s| json!({"dst": default(s)})).collect();
    json!({
        "type": "host-local", "dataDir": format!("{STATE_DIR}/ipam"),
        "ranges": ranges, "routes": routes,
    })
}

/// bridge `cni0` as gateway with masquerading for these subnets, and in hairpin mode: if the kernel
/// module `br_netfilter` is loaded, a pod cannot reach its own hostPort without it.
#[must_use]
pub fn bridge(subnets: &[&str]) -> Value {
    json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
        "hairpinMode": true, "ipam": host_local(subnets),
    })
}

/// ptp with masquerading for these subnets.
#[must_use]
pub fn ptp(subnets: &[&str]) -> Value {
    json!({"type": "ptp", "ipMasq": true, "ipam": host_local(subnets)})
}

/// portmap as runtimes configure it.
#[must_use]
pub fn portmap() -> Value {
    json!({"type": "portmap", "capabilities": {"portMappings": true}})
}

/// firewall with the backend iptables, as in podman's and nerdctl's networks.
#[must_use]
pub fn firewall() -> Value {
    json!({"type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge"})
}

/// tuning that changes a sysctl and attributes of the interface.
#[must_use]
pub fn tuning() -> Value {
    json!({
        "type": "tuning", "dataDir": format!("{STATE_DIR}/tuning"), "mtu": 1420,
        "mac": "c2:11:22:33:44:55", "promisc": true, "allmulti": true,
        "sysctl": {"net.core.somaxconn": "500"},
    })
}

/// The backends of portmap; the Go plugin has both.
pub const PORTMAP_BACKENDS: &[&str] = &["iptables", "nftables"];

/// The masquerading backends of ptp and bridge; the Go plugins have both.
pub const MASQUERADE_BACKENDS: &[&str] = &["iptables", "nftables"];

/// portmap with this backend.
#[must_use]
pub fn portmap_by(backend: &str) -> Value {
    with(portmap(), &json!({"backend": backend}))
}

/// kind's chain: ptp without masquerading, and portmap with this backend.
#[must_use]
pub fn kind(subnets: &[&str], backend: &str) -> [Value; 2] {
    [with(ptp(subnets), &json!({"ipMasq": false})), portmap_by(backend)]
}

/// bandwidth with limits for both directions, in Mbit/s.
#[must_use]
pub fn bandwidth(ingress: u64, egress: u64) -> Value {
    let [ingress, egress] = [ingress, egress].map(|rate| rate * 1_000_000);
    json!({
        "type": "bandwidth", "ingressRate": ingress, "ingressBurst": 800_000,
        "egressRate": egress, "egressBurst": 800_000,
    })
}

/// `base` with some keys added or replaced.
#[must_use]
pub fn with(mut base: Value, more: &Value) -> Value {
    if let (Some(base), Some(more)) = (base.as_object_mut(), more.as_object()) {
        base.extend(more.clone());
    }
    base
}

/// A port mapping: `port("tcp", 8080, 80)`.
#[must_use]
pub fn port(protocol: &str, host: u16, container: u16) -> Value {
    json!({"hostPort": host, "containerPort": container, "protocol": protocol})
}
