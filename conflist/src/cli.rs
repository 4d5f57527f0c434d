//! The command line, and the environment variables of cnitool.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use cni::{ContainerId, IfName};

/// Runs the plugins of a CNI network as a container runtime does.
///
/// The result of an ADD is printed on stdout and kept, where libcni keeps it, for CHECK and DEL.
/// conflist can detach what cnitool attached, and the other way round.
///
/// Exit status: 0 on success; 1 if a plugin failed or a configuration has errors (see stderr;
/// validate: stdout); 2 if the command line is wrong.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) places: Places,
}

/// Directories.
#[derive(Debug, Args)]
#[command(next_help_heading = "Directories")]
pub(crate) struct Places {
    /// Directory of networks: *.conflist, *.conf and *.json files
    #[arg(long, global = true, value_name = "DIR", env = "NETCONFPATH", hide_env_values = true)]
    #[arg(default_value = "/etc/cni/net.d")]
    net_dir: OsString,
    /// Directories of plugins, separated by colons
    #[arg(long, global = true, value_name = "DIRS", env = "CNI_PATH", hide_env_values = true)]
    #[arg(default_value = "/opt/cni/bin")]
    plugin_path: OsString,
    /// Directory of kept results: results/NETWORK-CONTAINERID-IFNAME
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/cni")]
    pub(crate) cache_dir: PathBuf,
}

impl Places {
    /// An empty variable counts as not set, as in cnitool.
    pub(crate) fn net_dir(&self) -> PathBuf {
        let dir = &self.net_dir;
        if dir.is_empty() { "/etc/cni/net.d".into() } else { dir.into() }
    }

    pub(crate) fn plugin_path(&self) -> Vec<PathBuf> {
        let dirs: Vec<PathBuf> =
            env::split_paths(&self.plugin_path).filter(|dir| !dir.as_os_str().is_empty()).collect();
        if dirs.is_empty() { vec!["/opt/cni/bin".into()] } else { dirs }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Attach a namespace to a network, and print the result
    ///
    /// If a plugin fails, the whole chain gets a DEL, which removes what the others made.
    Add(Target),
    /// Detach a namespace from a network
    ///
    /// NETNS must be empty ("") if the namespace was removed; then --container-id is required.
    /// The plugins are those of the configuration that the ADD kept, even if the network's file was
    /// changed or removed since. Without --args and --capability-args, those of the ADD are used.
    Del(Target),
    /// Check whether an attachment is still as its ADD made it
    Check(Target),
    /// Remove everything that belongs to no valid attachment of a network
    ///
    /// By default, all attachments whose results are kept are valid, and all kept results must be
    /// readable; --valid and --none-valid replace that. Attachments that are not valid get a DEL. Then
    /// every plugin gets a GC, if the network's cniVersion is 1.1.0 or later.
    Gc(Gc),
    /// Ask whether an ADD could work now (cniVersion 1.1.0 or later)
    Status {
        /// The network's name
        network: String,
        #[command(flatten)]
        ignored: Ignored,
    },
    /// Show which versions of the specification the plugins of a network support
    Version {
        /// The network's name
        network: String,
        #[command(flatten)]
        ignored: Ignored,
    },
    /// Remove everything that the plugins made on this node, for all networks
    ///
    /// Removes links, rules, leases, backups and results, also those of running pods, but nothing of other
    /// programs. Does not need the plugins' programs. Shows what it found and asks before it removes it.
    Purge(Purge),
    /// Find mistakes in the configuration of a network: file, line, key and a suggestion
    Validate {
        /// The network's name, or the path of a file
        network: String,
        #[command(flatten)]
        ignored: Ignored,
    },
}

/// An attachment.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The network's name
    pub(crate) network: String,
    /// The path of the network namespace
    pub(crate) netns: OsString,
    /// The container's ID [default: "cnitool-" and a hash of NETNS, as in cnitool]
    #[arg(long, value_name = "ID")]
    pub(crate) container_id: Option<ContainerId>,
    /// The interface's name inside the namespace [default: eth0]
    #[arg(long, short, value_name = "NAME", env = "CNI_IFNAME", hide_env_values = true)]
    pub(crate) ifname: Option<String>,
    /// Arguments for all plugins: KEY=VALUE;KEY=VALUE
    #[arg(long, value_name = "PAIRS", env = "CNI_ARGS", hide_env_values = true)]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) args: String,
    /// A JSON object; each key goes to the plugins that declare this capability
    #[arg(long, value_name = "JSON", env = "CAP_ARGS", hide_env_values = true)]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) capability_args: String,
}

/// The argument that cnitool requires for every command, also for those on a whole network.
#[derive(Debug, Args)]
pub(crate) struct Ignored {
    /// Ignored; allowed because cnitool requires it
    netns: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// Only show what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// The network's name
    pub(crate) network: String,
    #[command(flatten)]
    ignored: Ignored,
    /// An attachment that is not valid, even if its result is kept (may be repeated)
    #[arg(long, value_name = "ID:IFNAME", value_parser = attachment)]
    pub(crate) gone: Vec<(ContainerId, IfName)>,
    /// An attachment that is valid; all others are not (may be repeated)
    #[arg(long, value_name = "ID:IFNAME", value_parser = attachment, conflicts_with = "gone")]
    pub(crate) valid: Vec<(ContainerId, IfName)>,
    /// No attachment is valid: remove everything of this network
    #[arg(long, conflicts_with_all = ["gone", "valid"])]
    pub(crate) none_valid: bool,
}

/// Neither part can contain a colon.
fn attachment(text: &str) -> Result<(ContainerId, IfName), String> {
    let (id, ifname) = text.split_once(':').ok_or("must be ID:IFNAME")?;
    let id = id.parse().map_err(|error: cni::name::InvalidName| error.to_string())?;
    let ifname = ifname.parse().map_err(|error: cni::name::InvalidName| error.to_string())?;
    Ok((id, ifname))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn attachments() {
        assert!(attachment("pod-1:eth0").is_ok());
        for bad in ["pod-1", ":eth0", "pod:", "a/b:eth0", "pod:eth0:1"] {
            assert!(attachment(bad).is_err(), "{bad}");
        }
    }
}
