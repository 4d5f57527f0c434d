//! The entry that turns a plugin's methods into a process.

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
use crate::result::Success;
use crate::version::{UnknownVersion, Version};

/// A plugin: what each command does, once everything has been read and validated.
pub trait Plugin {
    /// The plugin's name, which is that of its program.
    const NAME: &'static str;

    /// The keys of the plugin's configuration, as they are written. [`Plugin::settings`] refuses the
    /// values that a type alone cannot refuse.
    type Config: DeserializeOwned;

    /// What the configuration and the command's variables mean, read once and found valid.
    type Settings;

    /// Reads the values of a configuration and refuses those that are wrong or contradict each other,
    /// before anything is touched. This is the only place that refuses values: ADD, CHECK and STATUS
    /// get what it returns, and [`validate`] reports what it refuses. DEL and GC do not call it, because
    /// they must clean up after an ADD whatever the configuration says by then.
    ///
    /// `environment` is that of the attachment; `None` for a command or a check that has none.
    ///
    /// Errors: code 7, naming the key; code 4 for `CNI_ARGS`.
    fn settings(
        &self,
        network: &Network<Self::Config>,
        environment: Option<&Environment>,
    ) -> Result<Self::Settings, Error>;

    /// Attaches a container, and says what was made. If it fails, nothing is left of it.
    fn add(&self, call: &Call<Self::Config>, settings: &Self::Settings) -> Result<Success, Error>;

    /// Says what of the ADD is missing or was changed.
    fn check(&self, call: &Call<Self::Config>, settings: &Self::Settings) -> Result<(), Error>;

    /// Detaches a container. What has gone already is no error.
    fn del(&self, call: &Call<Self::Config>) -> Result<(), Error>;

    /// Removes what belongs to this network and to no valid attachment.
    fn gc(&self, network: &Network<Self::Config>, valid: &ValidAttachments) -> Result<(), Error>;

    /// Says whether an ADD could work now.
    fn status(
        &self,
        network: &Network<Self::Config>,
        settings: &Self::Settings,
    ) -> Result<(), Error>;
}

/// Says what an ADD with this configuration would refuse, without touching anything.
///
/// Errors: as [`Plugin::settings`]; code 6 if the bytes are not a JSON object, code 1 if its version is
/// not known.
pub fn validate<P: Plugin>(plugin: &P, configuration: Vec<u8>) -> Result<(), Error> {
    let version = config_version(&json::object(&configuration)?)?;
    let network = Network::read(Command::Add, configuration, version, Vec::new())?;
    plugin.settings(&network, None).map(drop)
}

/// Runs the command that this process was started for, and prints what the specification asks
/// for: a result, an error object, or nothing. An ADD whose result cannot be printed is undone.
///
/// If the caller closed stdout, Rust's runtime opened `/dev/null` in its place before `main`, which cannot
/// be told from a caller's own `/dev/null`. Such a caller does not read results, and its ADD succeeds.
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

/// Makes a write beyond `RLIMIT_FSIZE` an error, which a plugin can report after undoing what it did, and
/// not the end of the process. Programs that the plugin runs inherit this.
fn block_file_size_signal() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    // If it fails, the signal is what it was.
    let _ = signals.thread_block();
}

/// How a command ended, and what is left to say.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It succeeded; what it has to print is printed.
    Done,
    /// A text for the person who runs the program by hand.
    About(String),
    /// It failed. The error object is in the configuration's version, if that can be told.
    Failure(Error, Version),
    /// Its result could not be printed, so neither can an error object.
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

/// What a command that succeeded prints.
struct Done<C> {
    result: Value,
    /// The call of an ADD, which a DEL undoes.
    undo: Option<Call<C>>,
}

/// Undoes an ADD after `error`: nobody learned what it made, so nobody else knows what to remove.
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
    // There is nobody to tell if stderr is closed.
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

/// The configuration, which has a limit like that of a file: stdin may be one, or a device that never ends.
fn read_to_end(stdin: &mut impl Read) -> Result<Vec<u8>, Error> {
    let failed = |why: String| Error::new(Code::Io, format!("read stdin: {why}"));
    // Room for a usual configuration, which then takes one read(2) and not one every 32 bytes.
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
/// Errors: code 7 if it is not a string, code 1 if it names no known version.
fn config_version(configuration: &Value) -> Result<Version, Error> {
    let text = match json::get(configuration, "cniVersion") {
        None => "",
        Some(Value::String(text)) => text,
        Some(_) => return Err(Error::invalid_key("cniVersion", "is not a text")),
    };
    text.parse().map_err(|error: UnknownVersion| {
        Error::new(Code::IncompatibleVersion, format!("key \"cniVersion\": {error}"))
    })
}

/// Commands came one by one; a configuration of an older version cannot ask for a newer one.
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
            "{} needs a configuration of cniVersion {since} or later, this one is {version}",
            command.as_str()
        ),
    ))
}

/// What a person sees who runs the program by hand; nerdctl reads the version from the first line.
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
