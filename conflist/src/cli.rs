//! The command line, and cnitool's environment beside it.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use cni::{ContainerId, IfName};

/// Runs the plugins of a CNI network as a container runtime does.
///
/// The result of an ADD is printed on stdout and kept, where libcni keeps it, for the CHECK and
/// DEL. What either program attached, conflist or cnitool, the other one can detach.
///
/// Exit status: 0 if all went well; 1 if a plugin failed or a configuration has errors, which
/// stderr tells (validate: stdout); 2 if the command line is wrong.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) places: Places,
}

/// Where things are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Places")]
pub(crate) struct Places {
    /// Where networks are configured: *.conflist, *.conf and *.json files
    #[arg(long, global = true, value_name = "DIR", env = "NETCONFPATH", hide_env_values = true)]
    #[arg(default_value = "/etc/cni/net.d")]
    net_dir: OsString,
    /// Where plugins are looked for: directories between colons
    #[arg(long, global = true, value_name = "DIRS", env = "CNI_PATH", hide_env_values = true)]
    #[arg(default_value = "/opt/cni/bin")]
    plugin_path: OsString,
    /// Where results are kept, in results/NETWORK-CONTAINERID-IFNAME
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/cni")]
    pub(crate) cache_dir: PathBuf,
}

impl Places {
    /// A variable that is set to nothing is as good as none, as in cnitool.
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
    /// If a plugin fails, the whole chain gets a DEL: nothing is left of the attempt.
    Add(Target),
    /// Detach a namespace from a network
    ///
    /// An empty NETNS says that the namespace has vanished; --container-id must be given then.
    /// Without --args and --capability-args, those of the ADD are used. If the network's file has gone,
    /// so is the configuration.
    Del(Target),
    /// See whether an attachment is still as its ADD made it
    Check(Target),
    /// Remove what belongs to no valid attachment of a network
    ///
    /// Valid are the attachments whose results are kept, all of which must be readable, unless
    /// --valid or --none-valid says otherwise. Those that are not valid get a DEL; then every
    /// plugin is asked to look for more, if the network's cniVersion is 1.1.0 or later.
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
    /// Links, rules, leases, backups and results go, also those of pods that still run; what others made
    /// stays. The plugins' programs are not needed. Shows what it found and asks, unless told otherwise.
    Purge(Purge),
    /// Name the mistakes in the configuration of a network: file, line, key, and what was meant
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
    /// The container's ID [default: "cnitool-" and a hash of NETNS, as cnitool has it]
    #[arg(long, value_name = "ID")]
    pub(crate) container_id: Option<ContainerId>,
    /// The interface's name inside the namespace [default: eth0]
    #[arg(long, short, value_name = "NAME", env = "CNI_IFNAME", hide_env_values = true)]
    pub(crate) ifname: Option<String>,
    /// Pairs for every plugin: KEY=VALUE;KEY=VALUE
    #[arg(long, value_name = "PAIRS", env = "CNI_ARGS", hide_env_values = true)]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) args: String,
    /// A JSON object; each key goes to the plugins that declare this capability
    #[arg(long, value_name = "JSON", env = "CAP_ARGS", hide_env_values = true)]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) capability_args: String,
}

/// What cnitool wants of every command, those on a network as a whole included.
#[derive(Debug, Args)]
pub(crate) struct Ignored {
    /// Ignored; allowed because cnitool wants it
    netns: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// Only show what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// The network's name
    pub(crate) network: String,
    #[command(flatten)]
    ignored: Ignored,
    /// An attachment that has gone, whatever is kept of it (may be repeated)
    #[arg(long, value_name = "ID:IFNAME", value_parser = attachment)]
    pub(crate) gone: Vec<(ContainerId, IfName)>,
    /// An attachment that is valid; no others are (may be repeated)
    #[arg(long, value_name = "ID:IFNAME", value_parser = attachment, conflicts_with = "gone")]
    pub(crate) valid: Vec<(ContainerId, IfName)>,
    /// No attachment is valid: remove all there is of this network
    #[arg(long, conflicts_with_all = ["gone", "valid"])]
    pub(crate) none_valid: bool,
}

/// Neither half can hold a colon.
fn attachment(text: &str) -> Result<(ContainerId, IfName), String> {
    let (id, ifname) = text.split_once(':').ok_or("it has no ':'")?;
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
