//! The `CNI_*` variables of a command.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, fs};

use crate::args::Args;
use crate::error::{Code, Error};
use crate::name::{ContainerId, IfName};

/// The command that a plugin runs (`CNI_COMMAND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attaches a container to the network.
    Add,
    /// Compares an attachment with what ADD made.
    Check,
    /// Detaches a container.
    Del,
    /// Removes what belongs to attachments that no longer exist.
    Gc,
    /// Reports whether an ADD can succeed now.
    Status,
    /// Reports which versions are supported.
    Version,
}

impl Command {
    const ALL: [Self; 6] =
        [Self::Add, Self::Check, Self::Del, Self::Gc, Self::Status, Self::Version];

    /// The value of `CNI_COMMAND`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

impl FromStr for Command {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|command| command.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Error::new(
                Code::InvalidEnvironment,
                format!("CNI_COMMAND={text:?} must be one of {known}"),
            )
        })
    }
}

/// The source of variables: [`env::var_os`], or a table in a test.
pub trait Variables {
    /// The value of a variable, if it is set.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The variables of this process.
#[derive(Clone, Copy, Debug)]
pub struct OfThisProcess;

impl Variables for OfThisProcess {
    fn get(&self, name: &str) -> Option<OsString> {
        env::var_os(name)
    }
}

/// The variables of an ADD, CHECK or DEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_CONTAINERID`.
    pub container_id: ContainerId,
    /// `CNI_IFNAME`.
    pub ifname: IfName,
    /// `CNI_NETNS`; `None` in a DEL if the namespace no longer exists.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: Args,
}

impl Environment {
    /// The pairs of `CNI_ARGS`; none for a command without an attachment, such as STATUS.
    #[must_use]
    pub fn args_of(environment: Option<&Self>) -> Args {
        environment.map(|it| it.args.clone()).unwrap_or_default()
    }

    /// Reads and validates the variables of `command`.
    ///
    /// Errors: code 4, naming the variable; code 8 if `CNI_NETNS` is the namespace that the
    /// plugin itself runs in and `CNI_NETNS_OVERRIDE` is not set.
    pub fn read(command: Command, variables: &impl Variables) -> Result<Self, Error> {
        let container_id = required(variables, "CNI_CONTAINERID")?;
        let ifname = required(variables, "CNI_IFNAME")?;
        let netns = match variables.get("CNI_NETNS").filter(|path| !path.is_empty()) {
            Some(path) => Some(PathBuf::from(path)),
            None if command == Command::Del => None,
            None => return Err(missing("CNI_NETNS")),
        };
        if let Some(path) = &netns
            && !is_override(variables)
            && is_own_netns(path)
        {
            return Err(Error::new(
                Code::InvalidNetns,
                format!(
                    "CNI_NETNS={} is the namespace that the plugin itself runs in; \
                     set CNI_NETNS_OVERRIDE=1 if that is intended",
                    path.display()
                ),
            ));
        }
        let args = Args::parse(&variables.get("CNI_ARGS").unwrap_or_default().to_string_lossy());
        // Only an ADD refuses what it cannot read. CHECK and DEL must work on what was attached before.
        let args = if command == Command::Add { args } else { args.without_malformed() };
        Ok(Self { container_id, ifname, netns, args })
    }
}

/// The directories of `CNI_PATH`, which contain the plugins.
#[must_use]
pub fn path(variables: &impl Variables) -> Vec<PathBuf> {
    let path = variables.get("CNI_PATH").unwrap_or_default();
    env::split_paths(&path).filter(|dir| !dir.as_os_str().is_empty()).collect()
}

/// The value of a variable, if it is set and not empty.
///
/// Errors: code 4 if it is not UTF-8.
pub fn text(variables: &impl Variables, name: &str) -> Result<Option<String>, Error> {
    let Some(value) = variables.get(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    value.into_string().map(Some).map_err(|value| {
        Error::new(Code::InvalidEnvironment, format!("{name}={} is not UTF-8", value.display()))
    })
}

fn required<T: FromStr<Err: ToString>>(variables: &impl Variables, name: &str) -> Result<T, Error> {
    let value = text(variables, name)?.ok_or_else(|| missing(name))?;
    value.parse().map_err(|error: T::Err| {
        Error::new(Code::InvalidEnvironment, format!("{name}: {}", error.to_string()))
    })
}

fn missing(name: &str) -> Error {
    Error::new(Code::InvalidEnvironment, format!("{name} is not set"))
}

/// Whether `CNI_NETNS_OVERRIDE` has a value that the reference plugins accept as true.
fn is_override(variables: &impl Variables) -> bool {
    let value = variables.get("CNI_NETNS_OVERRIDE").unwrap_or_default().to_ascii_lowercase();
    value == "1" || value == "true"
}

/// Whether a path is this process's own network namespace. All paths of a namespace are the same file of nsfs
/// (namespaces(7)).
fn is_own_netns(path: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let own = identity(Path::new("/proc/thread-self/ns/net"));
    own.is_some() && own == identity(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table(Vec<(&'static str, &'static str)>);

    impl Variables for Table {
        fn get(&self, name: &str) -> Option<OsString> {
            self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        }
    }

    fn table(changes: &[(&'static str, &'static str)]) -> Table {
        let usual = [
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/nothing"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1"),
        ];
        Table(changes.iter().copied().chain(usual).collect())
    }

    #[track_caller]
    fn refused(command: Command, changes: &[(&'static str, &'static str)], expected: &str) {
        let error = Environment::read(command, &table(changes)).unwrap_err();
        assert!(error.msg.contains(expected), "{error}");
    }

    #[test]
    fn all_variables() {
        let environment = Environment::read(Command::Add, &table(&[])).unwrap();
        assert_eq!(environment.container_id.as_str(), "c1");
        assert_eq!(environment.netns.as_deref(), Some(Path::new("/run/netns/nothing")));
    }

    #[test]
    fn only_del_works_without_a_namespace() {
        let without = table(&[("CNI_NETNS", "")]);
        assert_eq!(Environment::read(Command::Del, &without).unwrap().netns, None);
        refused(Command::Add, &[("CNI_NETNS", "")], "CNI_NETNS is not set");
        refused(Command::Check, &[("CNI_NETNS", "")], "CNI_NETNS is not set");
    }

    #[test]
    fn bad_values_are_named() {
        refused(Command::Add, &[("CNI_CONTAINERID", "")], "CNI_CONTAINERID is not set");
        refused(Command::Del, &[("CNI_CONTAINERID", "../x")], "CNI_CONTAINERID: container ID");
        refused(Command::Add, &[("CNI_IFNAME", "sixteen-letters-")], "CNI_IFNAME: interface name");
    }

    #[test]
    fn only_an_add_that_reads_the_pairs_refuses_other_parts() {
        let args = |command| {
            let environment = Environment::read(command, &table(&[("CNI_ARGS", "none")])).unwrap();
            environment.args.allow(&[])
        };
        assert_eq!(args(Command::Add).unwrap_err().code, Code::InvalidEnvironment);
        assert_eq!((args(Command::Check), args(Command::Del)), (Ok(()), Ok(())));
    }

    #[test]
    fn the_own_namespace_is_refused() {
        let own = ("CNI_NETNS", "/proc/self/task/../ns/net");
        for command in [Command::Add, Command::Check, Command::Del] {
            let error = Environment::read(command, &table(&[own])).unwrap_err();
            assert_eq!(error.code, Code::InvalidNetns);
            let allowed = table(&[own, ("CNI_NETNS_OVERRIDE", "TRUE")]);
            assert!(Environment::read(command, &allowed).is_ok());
        }
    }

    #[test]
    fn commands() {
        for command in Command::ALL {
            assert_eq!(command.as_str().parse(), Ok(command));
        }
        assert!("add".parse::<Command>().is_err());
    }
}
