//! Runs the plugins of a chain, one after the other.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use cni::{Command, Success, Version, exec};
use serde_json::{Value, json};

use crate::attachment::Attachment;
use crate::cache::read_result;
use crate::error::PluginError;
use crate::network::Network;
use crate::request;

/// The chain of a network, and the directories of its programs.
pub(crate) struct Chain<'a> {
    pub(crate) network: &'a Network,
    pub(crate) path: &'a [PathBuf],
}

impl Chain<'_> {
    /// Runs ADD in order, each plugin with the result of the one before; returns the last result.
    pub(crate) fn add(&self, attachment: &Attachment) -> Result<Success, PluginError> {
        let mut result = None;
        for index in 0..self.network.plugins.len() {
            let printed = self.attach(Command::Add, index, attachment, result.as_ref())?;
            let read = match printed {
                Some(printed) => read_result(&printed, self.network.version),
                None => Err(cni::Error::new(cni::Code::Delegate, "it printed no result")),
            };
            let read = read.map_err(|error| self.error(Command::Add, index, error))?;
            result = Some(read);
        }
        Ok(result.unwrap_or_default())
    }

    /// Runs CHECK in order, each plugin with the result of the whole chain.
    pub(crate) fn check(
        &self,
        attachment: &Attachment,
        result: &Success,
    ) -> Result<(), PluginError> {
        for index in 0..self.network.plugins.len() {
            self.attach(Command::Check, index, attachment, Some(result))?;
        }
        Ok(())
    }

    /// Runs DEL in reverse order, up to the first error.
    ///
    /// The specification requires to stop there: the first plugin releases the address, which it must not do
    /// while rules of later plugins still send traffic to it.
    pub(crate) fn del(
        &self,
        attachment: &Attachment,
        result: Option<&Success>,
    ) -> Result<(), PluginError> {
        for index in (0..self.network.plugins.len()).rev() {
            self.attach(Command::Del, index, attachment, result)?;
        }
        Ok(())
    }

    /// Checks that every program exists, before the first one is run.
    pub(crate) fn find(&self, command: Command) -> Result<(), PluginError> {
        for (index, plugin) in self.network.plugins.iter().enumerate() {
            exec::find(&plugin.kind, self.path)
                .map_err(|error| self.error(command, index, error.into()))?;
        }
        Ok(())
    }

    fn attach(
        &self,
        command: Command,
        index: usize,
        attachment: &Attachment,
        previous: Option<&Success>,
    ) -> Result<Option<Value>, PluginError> {
        let plugin = &self.network.plugins[index];
        request::of_attachment(self.network, plugin, previous, &attachment.capability_args)
            .map_err(|error| self.error(command, index, error))
            .and_then(|stdin| self.run(command, index, Some(attachment), &stdin))
    }

    /// Asks a plugin for its versions. VERSION needs none of these variables, but old plugins fail without
    /// them; libcni sends the same.
    pub(crate) fn version(&self, index: usize) -> Result<Option<Value>, PluginError> {
        let stdin = json!({"cniVersion": Version::LATEST}).to_string();
        let dummy = OsStr::new("dummy");
        let environment = [
            ("CNI_COMMAND", OsStr::new(Command::Version.as_str())),
            ("CNI_CONTAINERID", OsStr::new("")),
            ("CNI_NETNS", dummy),
            ("CNI_IFNAME", dummy),
            ("CNI_ARGS", OsStr::new("")),
            ("CNI_PATH", dummy),
        ];
        self.exec(Command::Version, index, &environment, stdin.as_bytes())
    }

    /// Runs one plugin. Every `CNI_*` variable of the protocol is set, if only to an empty string, so that
    /// the plugin does not inherit variables of this program.
    pub(crate) fn run(
        &self,
        command: Command,
        index: usize,
        attachment: Option<&Attachment>,
        stdin: &[u8],
    ) -> Result<Option<Value>, PluginError> {
        let netns = attachment.and_then(|it| it.netns.as_deref());
        let args = attachment.map(|it| it.args.to_string()).unwrap_or_default();
        let path = self.joined_path();
        let environment = [
            ("CNI_COMMAND", OsStr::new(command.as_str())),
            ("CNI_CONTAINERID", OsStr::new(attachment.map_or("", |it| it.container_id.as_str()))),
            ("CNI_NETNS", netns.map_or(OsStr::new(""), |path| path.as_os_str())),
            ("CNI_IFNAME", OsStr::new(attachment.map_or("", |it| it.ifname.as_str()))),
            ("CNI_ARGS", OsStr::new(&args)),
            ("CNI_PATH", &path),
        ];
        self.exec(command, index, &environment, stdin)
    }

    fn exec(
        &self,
        command: Command,
        index: usize,
        environment: &[(&str, &OsStr)],
        stdin: &[u8],
    ) -> Result<Option<Value>, PluginError> {
        exec::find(&self.network.plugins[index].kind, self.path)
            .map_err(cni::Error::from)
            .and_then(|program| exec::run(&program, environment, stdin))
            .map_err(|error| self.error(command, index, error))
    }

    /// The directories as `CNI_PATH` contains them. Empty if the name of one has a colon, which `CNI_PATH`
    /// cannot express.
    fn joined_path(&self) -> OsString {
        env::join_paths(self.path).unwrap_or_default()
    }

    pub(crate) fn error(&self, command: Command, index: usize, error: cni::Error) -> PluginError {
        PluginError {
            network: self.network.name.to_string(),
            command,
            kind: self.network.plugins[index].kind.clone(),
            position: index + 1,
            of: self.network.plugins.len(),
            error: Box::new(error),
        }
    }
}
