//! Running a plugin's methods as a process.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::attachment::ValidAttachments;
use crate::call::{Call, Network};
use crate::environment::{self, Command, Environment, OfThisProcess, Variables};
use crate::error::{Code, Error};
use crate::file::SIZE_LIMIT;
use crate::json;
use crate::purge::Purge;
use crate::result::Success;
use crate::version::{UnknownVersion, Version};

/// A plugin: what each command does after the input has been read and validated.
pub trait Plugin {
    /// The name of the plugin and of its program.
    const NAME: &'static str;

    /// The keys of the plugin's configuration, as they are written. [`Plugin::settings`] refuses values that
    /// the types cannot refuse.
    type Config: DeserializeOwned;

    /// The validated values of the configuration and of the command's variables.
    type Settings;

    /// Reads the values of a configuration, and refuses values that are not valid or contradict each other,
    /// before the command changes anything. This is the only place that refuses values: ADD, CHECK and STATUS
    /// get what it returns, and [`validate`] reports what it refuses. DEL and GC do not call it, because they
    /// must clean up even if the configuration has changed since the ADD.
    ///
    /// `environment` has the variables of the attachment; `None` for STATUS and [`validate`], which have
    /// none.
    ///
    /// Errors: code 7, naming the key; code 4 for `CNI_ARGS`.
    fn settings(
        &self,
        network: &Network<Self::Config>,
        environment: Option<&Environment>,
    ) -> Result<Self::Settings, Error>;

    /// Attaches a container and returns what it made. If it fails, it leaves nothing behind.
    fn add(&self, call: &Call<Self::Config>, settings: &Self::Settings) -> Result<Success, Error>;

    /// Compares an attachment with what ADD made.
    ///
    /// Errors: what is missing or has changed.
    fn check(&self, call: &Call<Self::Config>, settings: &Self::Settings) -> Result<(), Error>;

    /// Detaches a container. What no longer exists is not an error.
    fn del(&self, call: &Call<Self::Config>) -> Result<(), Error>;

    /// Removes what belongs to attachments of this network that no longer exist.
    fn gc(&self, network: &Network<Self::Config>, valid: &ValidAttachments) -> Result<(), Error>;

    /// Reports whether an ADD can succeed now.
    ///
    /// Errors: why it cannot.
    fn status(
        &self,
        network: &Network<Self::Config>,
        settings: &Self::Settings,
    ) -> Result<(), Error>;

    /// Removes everything that the plugin made on the node, for all networks, as GC would find it. By
    /// default, there is nothing to remove.
    fn purge(&self, _purge: &mut Purge) {}
}

/// Validates a configuration and changes nothing.
///
/// Errors: what an ADD would refuse, as [`Plugin::settings`]; code 6 if the bytes are not a JSON object; code
/// 1 if its version is not supported.
pub fn validate<P: Plugin>(plugin: &P, configuration: Vec<u8>) -> Result<(), Error> {
    let version = config_version(&json::object(&configuration)?)?;
    let network = Network::read(Command::Add, configuration, version, Vec::new())?;
    plugin.settings(&network, None).map(drop)
}

/// Runs the command of this process, and prints what the specification requires: a result, an error object,
/// or nothing. An ADD whose result cannot be printed is undone.
///
/// If the caller has closed stdout, Rust's runtime opens `/dev/null` instead before `main`. The plugin cannot
/// distinguish this from a caller that passes `/dev/null`. Such a caller does not read results, so the ADD
/// succeeds.
pub fn run<P: Plugin>(plugin: &P) -> ExitCode {
    block_file_size_signal();
    let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
    let (error, version) = match answer(plugin, &OfThisProcess, &mut stdin, &mut stdout) {
        Answer::Done => return ExitCode::SUCCESS,
        Answer::About(text) => {
            write_to_stderr(&text);
            return ExitCode::SUCCESS;
        }
        Answer::Failure(error, version) => (error, Some(version)),
        Answer::Unprinted(error) => (error, None),
    };
    let printed = version.map(|version| print(&mut stdout, &error.to_json(version)));
    if !matches!(printed, Some(Ok(()))) {
        write_to_stderr(&format!("{}: {error}\n", P::NAME));
    }
    ExitCode::FAILURE
}

/// Makes a write beyond `RLIMIT_FSIZE` fail and not kill the process, so that the plugin can undo what it did
/// and report the error. Programs that the plugin runs inherit this.
fn block_file_size_signal() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    // If this fails, the signal kills the process as usual.
    let _ = signals.thread_block();
}

/// How a command ended, and what remains to be printed.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It succeeded and has printed its result.
    Done,
    /// A text for a person who runs the program by hand.
    About(String),
    /// It failed. The error object has the configuration's version, or the latest one if that is not known.
    Failure(Error, Version),
    /// Its result could not be printed, so an error object cannot be printed either.
    Unprinted(Error),
}

fn answer<P: Plugin>(
    plugin: &P,
    variables: &impl Variables,
    stdin: &mut impl Read,
    stdout: &mut impl Write,
) -> Answer {
    let command = match environment::text(variables, "CNI_COMMAND") {
        Ok(None) => return Answer::About(about::<P>()),
        Ok(Some(text)) => text.parse(),
        Err(error) => Err(error),
    };
    let mut version = Version::LATEST;
    let done = command.and_then(|command| perform(plugin, command, variables, stdin, &mut version));
    match done {
        Ok(None) => Answer::Done,
        Ok(Some(Done { result, undo })) => match print(stdout, &result) {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Unprinted(undone(plugin, undo.as_ref(), error)),
        },
        Err(error) => Answer::Failure(error, version),
    }
}

/// The output of a command that succeeded.
struct Done<C> {
    result: Value,
    /// The ADD to undo if the result cannot be printed.
    undo: Option<Call<C>>,
}

/// Undoes an ADD after `error`, because its caller does not know what it made.
fn undone<P: Plugin>(plugin: &P, add: Option<&Call<P::Config>>, mut error: Error) -> Error {
    if let Some(Err(another)) = add.map(|call| plugin.del(call)) {
        error.also(&format!("and undoing the ADD: {another}"));
    }
    error
}

fn print(stdout: &mut impl Write, value: &Value) -> Result<(), Error> {
    let line = format!("{value}\n");
    let written = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| Error::new(Code::Io, format!("write to stdout: {error}")))
}

fn write_to_stderr(text: &str) {
    // If stderr is closed, the message cannot be shown.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn perform<P: Plugin>(
    plugin: &P,
    command: Command,
    variables: &impl Variables,
    stdin: &mut impl Read,
    version: &mut Version,
) -> Result<Option<Done<P::Config>>, Error> {
    if command == Command::Version {
        let result = json!({"cniVersion": Version::LATEST, "supportedVersions": Version::ALL});
        return Ok(Some(Done { result, undo: None }));
    }
    let attachment = match command {
        Command::Add | Command::Check | Command::Del => {
            Some(Environment::read(command, variables)?)
        }
        Command::Gc | Command::Status | Command::Version => None,
    };
    let bytes = read_to_end(stdin)?;
    let value = json::object(&bytes)?;
    *version = config_version(&value)?;
    allowed(command, *version)?;

    let network = Network::read(command, bytes, *version, environment::path(variables))?;
    let Some(environment) = attachment else {
        if command == Command::Gc {
            plugin.gc(&network, &ValidAttachments::read(&network.name, &value)?)?;
        } else {
            plugin.status(&network, &plugin.settings(&network, None)?)?;
        }
        return Ok(None);
    };
    let call = Call { network, environment };
    if command == Command::Del {
        plugin.del(&call)?;
        return Ok(None);
    }
    let settings = plugin.settings(&call.network, Some(&call.environment))?;
    if command == Command::Add {
        let made = plugin.add(&call, &settings)?;
        let result = made.to_json(*version).map_err(|error| undone(plugin, Some(&call), error))?;
        return Ok(Some(Done { result, undo: Some(call) }));
    }
    plugin.check(&call, &settings)?;
    Ok(None)
}

/// Reads the configuration, with the size limit of files: stdin can be a file, or a device without an end.
fn read_to_end(stdin: &mut impl Read) -> Result<Vec<u8>, Error> {
    let failed = |why: String| Error::new(Code::Io, format!("read stdin: {why}"));
    // Room for a usual configuration. Without it, the first bytes are read 32 at a time.
    let mut bytes = Vec::with_capacity(16 * 1024);
    let read = stdin.take(SIZE_LIMIT + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(failed(format!("it is larger than the limit of {SIZE_LIMIT} bytes")));
    }
    Ok(bytes)
}

/// The configuration's `cniVersion`.
///
/// Errors: code 7 if it is not a string; code 1 if the version is not supported.
fn config_version(configuration: &Value) -> Result<Version, Error> {
    let text = match json::get(configuration, "cniVersion") {
        None => "",
        Some(Value::String(text)) => text,
        Some(_) => return Err(Error::invalid_key("cniVersion", "must be a string")),
    };
    text.parse().map_err(|error: UnknownVersion| {
        Error::new(Code::IncompatibleVersion, format!("key \"cniVersion\": {error}"))
    })
}

/// Refuses a command that the configuration's version does not have.
fn allowed(command: Command, version: Version) -> Result<(), Error> {
    let since = match command {
        Command::Check => Version::V0_4_0,
        Command::Gc | Command::Status => Version::V1_1_0,
        Command::Add | Command::Del | Command::Version => return Ok(()),
    };
    if version >= since {
        return Ok(());
    }
    Err(Error::new(
        Code::IncompatibleVersion,
        format!(
            "{} needs cniVersion {since} or later, but the configuration has {version}",
            command.as_str()
        ),
    ))
}

/// The text for a person who runs the program by hand. nerdctl reads the version from the first line.
fn about<P: Plugin>() -> String {
    format!(
        "CNI {} plugin v{}\nCNI protocol versions supported: {}\n",
        P::NAME,
        env!("CARGO_PKG_VERSION"),
        Version::list()
    )
}

#[cfg(test)]
mod tests;
