//! The keys that are known: those of the specification, those that runtimes add to a list, and
//! one table for each plugin of the suite.

use super::schema::Form::{
    Address, AddressInNetwork, AnyVersion, FileName, Interface, Mac, Network, NetworkName, Version,
};
use super::schema::Key;
use super::schema::Shape::{Any, Bool, BoolOrText, Form, List, Map, Number, Object, OneOf, Text};

/// What is known of a plugin.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// Its type.
    pub(crate) kind: &'static str,
    /// Its keys, beside those of every plugin.
    pub(crate) keys: &'static [Key],
    /// Whether it changes what a plugin before it made, and cannot be the first of a chain.
    pub(crate) chained: bool,
    /// The capability without which it has nothing to do.
    pub(crate) needs: Option<&'static str>,
}

/// The keys of a list of plugins: the specification's section 1, and what nerdctl and podman keep
/// there for themselves.
pub(crate) static LIST: &[Key] = &[
    Key::new("cniVersion", Form(Version)),
    Key::new("cniVersions", List(&Form(AnyVersion))),
    Key::required("name", Form(NetworkName), "every network has a name"),
    Key::new("disableCheck", BoolOrText),
    Key::new("disableGC", BoolOrText),
    Key::new("loadOnlyInlinedPlugins", BoolOrText),
    Key::new("plugins", List(&Object(&[]))),
    Key::new("args", Any),
    Key::new("nerdctlID", Text),
    Key::new("nerdctlLabels", Map(&Text)),
];

/// The keys of every plugin.
pub(crate) static COMMON: &[Key] = &[
    Key::required("type", Form(FileName), "it is the name of the plugin's program"),
    Key::new("capabilities", Map(&Bool)),
    Key::new("args", Any),
    // Overwritten by those of the list.
    Key::new("name", Text),
    Key::new("cniVersion", Text),
];

/// The keys of a lone plugin, which is a network at the same time.
pub(crate) static LONE: &[Key] = &[
    Key::new("cniVersion", Form(Version)),
    Key::required("name", Form(NetworkName), "every network has a name"),
];

/// Keys that runtimes write into what a plugin reads.
pub(crate) static RUNTIME: &[Key] = &[
    Key::new("runtimeConfig", Any),
    Key::new("prevResult", Any),
    Key::new("cni.dev/valid-attachments", Any),
    Key::new("cni.dev/attachments", Any),
];

/// The capabilities of the conventions (CONVENTIONS.md of the specification).
pub(crate) static CAPABILITIES: &[&str] = &[
    "portMappings",
    "ipRanges",
    "bandwidth",
    "dns",
    "ips",
    "mac",
    "infinibandGUID",
    "deviceID",
    "aliases",
    "cgroupPath",
    "io.kubernetes.cri.pod-annotations",
];

/// The plugins that make interfaces or change them.
pub(crate) static PLUGINS: &[Plugin] = &[
    Plugin { kind: "bridge", keys: BRIDGE, chained: false, needs: None },
    Plugin { kind: "ptp", keys: PTP, chained: false, needs: None },
    Plugin { kind: "loopback", keys: &[], chained: false, needs: None },
    Plugin { kind: "portmap", keys: PORTMAP, chained: true, needs: Some("portMappings") },
    Plugin { kind: "firewall", keys: FIREWALL, chained: true, needs: None },
    Plugin { kind: "tuning", keys: TUNING, chained: true, needs: None },
    Plugin { kind: "bandwidth", keys: BANDWIDTH, chained: true, needs: Some("bandwidth") },
];

/// The plugins that hand out addresses: the keys of their `ipam` object.
pub(crate) static IPAM: &[Plugin] = &[
    Plugin { kind: "host-local", keys: HOST_LOCAL, chained: false, needs: None },
    Plugin { kind: "static", keys: STATIC, chained: false, needs: None },
];

/// The one key that every `ipam` object has.
pub(crate) static IPAM_COMMON: &[Key] =
    &[Key::required("type", Form(FileName), "it is the name of the IPAM plugin's program")];

static BRIDGE: &[Key] = &[
    Key::new("bridge", Form(Interface)),
    Key::new("isGateway", Bool),
    Key::new("isDefaultGateway", Bool),
    Key::new("forceAddress", Bool),
    Key::new("ipMasq", Bool),
    Key::new("ipMasqBackend", OneOf(&["iptables", "nftables"])),
    Key::new("mtu", MTU),
    Key::new("hairpinMode", Bool),
    Key::new("promiscMode", Bool),
    Key::new("vlan", Number(0, 4094)),
    Key::new("vlanTrunk", List(&Object(TRUNK))),
    Key::new("preserveDefaultVlan", Bool),
    Key::new("macspoofchk", Bool),
    Key::new("enabledad", Bool),
    Key::new("disableContainerInterface", Bool),
    Key::new("portIsolation", Bool),
    Key::new("ipam", Object(&[])),
    Key::new("dns", Object(DNS)),
];

static TRUNK: &[Key] = &[
    Key::new("minID", Number(1, 4094)),
    Key::new("maxID", Number(1, 4094)),
    Key::new("id", Number(1, 4094)),
];

static PTP: &[Key] = &[
    Key::new("ipMasq", Bool),
    Key::new("ipMasqBackend", OneOf(&["iptables", "nftables"])),
    Key::new("mtu", MTU),
    Key::required("ipam", Object(&[]), "ptp has no link without addresses"),
    Key::new("dns", Object(DNS)),
];

static PORTMAP: &[Key] = &[
    Key::new("snat", Bool),
    Key::new("masqAll", Bool),
    Key::new("markMasqBit", Number(0, 31)),
    Key::new("externalSetMarkChain", Text),
    Key::new("conditionsV4", List(&Text)),
    Key::new("conditionsV6", List(&Text)),
    Key::new("backend", OneOf(&["iptables", "nftables"])),
    Key::new("onConflict", OneOf(&["replace", "error"])),
];

static FIREWALL: &[Key] = &[
    Key::new("backend", OneOf(&["", "iptables", "nftables", "firewalld"])),
    Key::new("iptablesAdminChainName", Text),
    Key::new("firewalldZone", Text),
    Key::new("ingressPolicy", OneOf(&["", "open", "same-bridge", "isolated"])),
];

static TUNING: &[Key] = &[
    Key::new("dataDir", Text),
    Key::new("sysctl", Map(&Text)),
    Key::new("mac", Form(Mac)),
    Key::new("promisc", Bool),
    Key::new("mtu", MTU),
    Key::new("txQLen", Number(0, u32::MAX as i128)),
    Key::new("allmulti", Bool),
];

static BANDWIDTH: &[Key] = &[
    Key::new("ingressRate", BITS),
    Key::new("ingressBurst", BURST),
    Key::new("egressRate", BITS),
    Key::new("egressBurst", BURST),
    Key::new("latency", Number(1, 10_000)),
];

static HOST_LOCAL: &[Key] = &[
    Key::new("ranges", List(&List(&Object(RANGE)))),
    Key::new("subnet", Form(Network)),
    Key::new("rangeStart", Form(Address)),
    Key::new("rangeEnd", Form(Address)),
    Key::new("gateway", Form(Address)),
    Key::new("routes", List(&Object(ROUTE))),
    Key::new("dataDir", Text),
    Key::new("resolvConf", Text),
    Key::new("reclaimAfterReboot", Bool),
];

static RANGE: &[Key] = &[
    Key::required("subnet", Form(Network), "a range is part of a network"),
    Key::new("rangeStart", Form(Address)),
    Key::new("rangeEnd", Form(Address)),
    Key::new("gateway", Form(Address)),
];

static STATIC: &[Key] = &[
    Key::new("addresses", List(&Object(ADDRESS))),
    Key::new("routes", List(&Object(ROUTE))),
    Key::new("dns", Object(DNS)),
];

static ADDRESS: &[Key] = &[
    Key::required("address", Form(AddressInNetwork), "it is what the container gets"),
    Key::new("gateway", Form(Address)),
];

/// The keys of a route (specification, section 5).
static ROUTE: &[Key] = &[
    Key::required("dst", Form(AddressInNetwork), "a route leads somewhere"),
    Key::new("gw", Form(Address)),
    Key::new("mtu", Number(0, u32::MAX as i128)),
    Key::new("advmss", Number(0, u32::MAX as i128)),
    Key::new("priority", Number(0, u32::MAX as i128)),
    Key::new("table", Number(0, u32::MAX as i128)),
    Key::new("scope", Number(0, 255)),
];

static DNS: &[Key] = &[
    Key::new("nameservers", List(&Form(Address))),
    Key::new("domain", Text),
    Key::new("search", List(&Text)),
    Key::new("options", List(&Text)),
];

/// Bytes; 0 leaves it to the kernel, which takes no less than 68 (see the rules).
const MTU: super::schema::Shape = Number(0, 65535);

/// Bits, or bits a second.
const BITS: super::schema::Shape = Number(0, u64::MAX as i128);

/// Bits; what the kernel counts in bytes has to fit into 32 bits.
const BURST: super::schema::Shape = Number(0, 8 * u32::MAX as i128 - 1);
