//! What is known of plugins beside their keys, which are in the schemas.

/// The plugins that change what a plugin before them made, and cannot be the first of a chain.
pub(crate) const CHAINED: [&str; 4] = ["bandwidth", "firewall", "portmap", "tuning"];

/// Plugins that have nothing to do without a capability.
pub(crate) const NEEDS: [(&str, &str); 2] =
    [("portmap", "portMappings"), ("bandwidth", "bandwidth")];
