//! Configurations of plugins: minimal ones, and those of runtimes.

use serde_json::{Value, json};

/// A subnet and the destination of its default route.
pub(super) const V4: (&str, &str) = ("10.88.0.0/16", "0.0.0.0/0");
pub(super) const V6: (&str, &str) = ("fd00:88::/64", "::/0");

pub(super) fn bridge(masquerade: bool) -> Value {
    json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": masquerade,
        "ipam": ipam(&[V4]),
    })
}

/// As in kind, which does not use `ipMasq`.
pub(super) fn ptp(networks: &[(&str, &str)]) -> Value {
    json!({"type": "ptp", "ipMasq": false, "ipam": ipam(networks)})
}

fn ipam(networks: &[(&str, &str)]) -> Value {
    let ranges: Vec<_> = networks.iter().map(|(subnet, _)| json!([{"subnet": subnet}])).collect();
    let routes: Vec<_> = networks.iter().map(|(_, dst)| json!({"dst": dst})).collect();
    json!({"type": "host-local", "ranges": ranges, "routes": routes})
}

pub(super) fn portmap(backend: &str) -> Value {
    portmap_of(backend, &[(8080, 80), (8443, 443)])
}

/// portmap with pairs of a hostPort and a containerPort.
pub(super) fn portmap_of(backend: &str, ports: &[(u16, u16)]) -> Value {
    let mapping = |ports: &(u16, u16)| {
        let (host, pod) = ports;
        json!({"hostPort": host, "containerPort": pod, "protocol": "tcp"})
    };
    let mappings: Vec<_> = ports.iter().map(mapping).collect();
    json!({
        "type": "portmap", "backend": backend, "runtimeConfig": {"portMappings": mappings},
    })
}

/// bandwidth with the same rate (bits a second) and burst (bits) in both directions.
pub(super) fn bandwidth(rate: u64, burst: u64) -> Value {
    json!({
        "type": "bandwidth", "ingressRate": rate, "ingressBurst": burst,
        "egressRate": rate, "egressBurst": burst,
    })
}

/// An IPAM plugin alone; it reads the `ipam` section of the plugin that calls it.
pub(super) fn static_ipam() -> Value {
    let ipam = json!({
        "type": "static", "addresses": [{"address": "10.88.0.5/16", "gateway": "10.88.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    json!({"type": "static", "ipam": ipam})
}

/// A network of `conflist/examples`, and port mappings with the keys that its runtime uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    list: &'static str,
    port_mappings: &'static str,
}

pub(super) const CONTAINERD: Example = Example {
    list: include_str!("../../../conflist/examples/containerd.conflist"),
    port_mappings: r#"[
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
        {"HostPort": 8443, "ContainerPort": 443, "Protocol": "tcp", "HostIP": ""}
    ]"#,
};
/// It has no portmap, so it gets no port mappings.
pub(super) const CRI_O: Example =
    Example { list: include_str!("../../../conflist/examples/crio.conflist"), port_mappings: "[]" };
pub(super) const NERDCTL: Example = Example {
    list: include_str!("../../../conflist/examples/nerdctl.conflist"),
    port_mappings: r#"[
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "0.0.0.0"},
        {"HostPort": 8443, "ContainerPort": 443, "Protocol": "tcp", "HostIP": "0.0.0.0"}
    ]"#,
};
pub(super) const PODMAN: Example = Example {
    list: include_str!("../../../conflist/examples/podman.conflist"),
    port_mappings: r#"[
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8443, "containerPort": 443, "protocol": "tcp"}
    ]"#,
};

impl Example {
    /// The configurations of the plugins as the runtime passes them on.
    pub(super) fn chain(self) -> Vec<Value> {
        let parse = |text| serde_json::from_str::<Value>(text).unwrap_or_default();
        let (mut list, port_mappings) = (parse(self.list), parse(self.port_mappings));
        let [name, version] = ["name", "cniVersion"].map(|key| list[key].take());
        let mut plugins = match list["plugins"].take() {
            Value::Array(plugins) => plugins,
            _ => Vec::new(),
        };
        for plugin in &mut plugins {
            plugin["name"] = name.clone();
            plugin["cniVersion"] = version.clone();
            if plugin["capabilities"]["portMappings"] == true {
                plugin["runtimeConfig"] = json!({"portMappings": port_mappings});
            }
        }
        plugins
    }

    /// The same with nftables for each plugin that has this setting in both suites; firewall has not.
    pub(super) fn nftables(self) -> Vec<Value> {
        let mut plugins = self.chain();
        for plugin in &mut plugins {
            match plugin["type"].as_str() {
                Some("bridge") => plugin["ipMasqBackend"] = json!("nftables"),
                Some("portmap") => plugin["backend"] = json!("nftables"),
                _ => {}
            }
        }
        plugins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_passed_on_as_its_runtime_does() {
        let chain = NERDCTL.chain();
        let types: Vec<_> = chain.iter().map(|plugin| plugin["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["bridge", "portmap", "firewall", "tuning"]);
        assert!(chain.iter().all(|plugin| plugin["name"] == "bridge"));
        assert_eq!(chain[1]["runtimeConfig"]["portMappings"][1]["ContainerPort"], 443);
        assert_eq!(chain[2]["runtimeConfig"], Value::Null);
        for example in [CONTAINERD, CRI_O, PODMAN] {
            let chain = example.nftables();
            assert_eq!(chain[0]["ipMasqBackend"], "nftables");
        }
    }
}
