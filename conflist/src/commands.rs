//! What each command does.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use cni::IfName;
use conflist::validate::{self, Severity};
use conflist::{Attachment, Network, Runtime, Valid, attachment};
use serde_json::{Map, Value};

use crate::cli::{Cli, Command, Gc, Target};
use crate::failure::Failure;
use crate::report::{note, print};
use crate::uninstall;

pub(crate) fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let runtime = Runtime {
        net_dir: cli.places.net_dir(),
        plugin_path: cli.places.plugin_path(),
        cache_dir: cli.places.cache_dir.clone(),
    };
    match &cli.command {
        Command::Add(target) => {
            let attachment = target.attachment()?;
            let network = runtime.network(&target.network)?;
            let result = runtime.add(&network, &attachment)?;
            let written = result.to_json(network.version).map_err(Failure::Result);
            let printed = written.and_then(|result| print(&format!("{result:#}")));
            printed.map_err(|add| undone(&runtime, &network, &attachment, add))?;
        }
        Command::Check(target) => {
            let attachment = target.attachment()?;
            let network = runtime.network(&target.network)?;
            if network.disable_check {
                note(&format!("network {} has disableCheck: nothing was checked", network.name));
            }
            runtime.check(&network, &attachment)?;
        }
        Command::Del(target) => del(&runtime, target)?,
        Command::Gc(gc) => collect(&runtime, gc)?,
        Command::Purge(options) => return uninstall::run(&runtime, options),
        Command::Status { network, .. } => {
            let network = runtime.network(network)?;
            if network.version < cni::Version::V1_1_0 {
                let version = network.version;
                note(&format!(
                    "network {} has cniVersion {version}, which has no STATUS: only looked for \
                     the plugins",
                    network.name
                ));
            }
            runtime.status(&network)?;
        }
        Command::Version { network, .. } => versions(&runtime, network)?,
        Command::Validate { network, .. } => return validated(&runtime, network),
    }
    Ok(ExitCode::SUCCESS)
}

/// Undoes an ADD whose result could not be printed.
fn undone(runtime: &Runtime, network: &Network, attachment: &Attachment, add: Failure) -> Failure {
    match runtime.del(network, attachment) {
        Ok(()) => add,
        Err(del) => Failure::NotUndone { add: Box::new(add), del: Box::new(del) },
    }
}

fn del(runtime: &Runtime, target: &Target) -> Result<(), Failure> {
    let attachment = target.detachment()?;
    let network = runtime.network(&target.network).or_else(|error| {
        // The file was removed or cannot be read.
        let Attachment { container_id, ifname, .. } = &attachment;
        runtime.kept_network(&target.network, container_id, ifname)?.ok_or(error)
    })?;
    Ok(runtime.del(&network, &attachment)?)
}

fn collect(runtime: &Runtime, gc: &Gc) -> Result<(), Failure> {
    let network = runtime.network(&gc.network)?;
    if network.disable_gc {
        note(&format!("network {} has disableGC: nothing was removed", network.name));
    }
    let valid = if gc.none_valid || !gc.valid.is_empty() {
        Valid::Only(gc.valid.iter().cloned().collect())
    } else {
        Valid::KeptBut(gc.gone.iter().cloned().collect())
    };
    Ok(runtime.gc(&network, &valid)?)
}

fn versions(runtime: &Runtime, network: &str) -> Result<(), Failure> {
    let network = runtime.network(network)?;
    let plugins = runtime.versions(&network)?;
    for plugin in &plugins {
        print(&format!("{}: {}", plugin.program.display(), plugin.supported.join(" ")))?;
    }
    let version = network.version;
    match plugins.into_iter().find(|it| !it.supported.iter().any(|it| it == version.as_str())) {
        None => Ok(()),
        Some(plugin) => {
            Err(Failure::Version { network: network.name.to_string(), version, kind: plugin.kind })
        }
    }
}

fn validated(runtime: &Runtime, network: &str) -> Result<ExitCode, Failure> {
    let file = Path::new(network);
    let is_file = network.contains('/') || file.extension().is_some() && file.is_file();
    let findings = if is_file {
        validate::file(file, &runtime.plugin_path)
    } else {
        validate::network(&runtime.net_dir, network, &runtime.plugin_path)?
    };
    for finding in &findings {
        print(finding)?;
    }
    let wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Target {
    /// The attachment of an ADD or CHECK. They need a namespace, and valid arguments.
    fn attachment(&self) -> Result<Attachment, Failure> {
        if self.netns.is_empty() {
            return Err(Failure::NoNetns);
        }
        let attachment = self.detachment()?;
        attachment.args.refuse_malformed().map_err(Failure::Args)?;
        Ok(attachment)
    }

    /// The attachment of a DEL, which accepts invalid `CNI_ARGS`.
    fn detachment(&self) -> Result<Attachment, Failure> {
        let netns = if self.netns.is_empty() {
            None
        } else {
            let current_dir = env::current_dir().map_err(Failure::CurrentDir)?;
            Some(attachment::absolute(Path::new(&self.netns), &current_dir))
        };
        let container_id = match (&self.container_id, &netns) {
            (Some(id), _) => id.clone(),
            (None, Some(netns)) => {
                attachment::container_id_of(netns).map_err(Failure::ContainerId)?
            }
            (None, None) => return Err(Failure::NoNetns),
        };
        let ifname = self.ifname.as_deref().filter(|name| !name.is_empty()).unwrap_or("eth0");
        let ifname: IfName = ifname.parse().map_err(Failure::IfName)?;
        let capability_args = if self.capability_args.is_empty() {
            Map::new()
        } else {
            serde_json::from_str::<Map<String, Value>>(&self.capability_args)
                .map_err(Failure::CapabilityArgs)?
        };
        let args = cni::Args::parse(&self.args);
        Ok(Attachment { args, capability_args, ..Attachment::new(container_id, ifname, netns) })
    }
}
