//! The names of the chains of the backend `iptables`, which are those of the reference plugin.

/// The chain of all entries.
pub(crate) const DNAT_CHAIN: &str = "CNI-HOSTPORT-DNAT";
/// What the names of containers' chains begin with.
pub(crate) const CHAIN_PREFIX: &str = "CNI-DN-";
/// The chain that marks packets which will be masqueraded.
pub(crate) const SET_MARK_CHAIN: &str = "CNI-HOSTPORT-SETMARK";
/// The chain that masquerades marked packets.
pub(crate) const MASQUERADE_CHAIN: &str = "CNI-HOSTPORT-MASQ";
/// The chains that all containers share.
pub(crate) const SHARED_CHAINS: [&str; 3] = [DNAT_CHAIN, SET_MARK_CHAIN, MASQUERADE_CHAIN];
