//! Tests with a plugin that changes nothing.

use std::cell::Cell;
use std::ffi::OsString;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Default)]
struct Sample {
    deletions: Cell<u32>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    mtu: u32,
}

impl Plugin for Sample {
    const NAME: &'static str = "sample";
    type Config = Config;

    type Settings = ();

    fn settings(
        &self,
        network: &Network<Config>,
        _environment: Option<&Environment>,
    ) -> Result<(), Error> {
        if network.config.mtu > 65535 {
            return Err(Error::invalid_key("mtu", "is more than 65535"));
        }
        Ok(())
    }

    fn add(&self, call: &Call<Config>, (): &()) -> Result<Success, Error> {
        call.previous_result().cloned()
    }

    fn check(&self, _call: &Call<Config>, (): &()) -> Result<(), Error> {
        Err(Error::new(Code::Changed, "checked"))
    }

    fn del(&self, call: &Call<Config>) -> Result<(), Error> {
        self.deletions.set(self.deletions.get() + 1);
        assert_eq!(call.container_id().as_str(), "c1");
        Ok(())
    }

    fn gc(&self, _network: &Network<Config>, valid: &ValidAttachments) -> Result<(), Error> {
        assert!(valid.attachments().map(|it| it.to_string()).eq(["n/c1/eth0"]));
        Ok(())
    }

    fn status(&self, _network: &Network<Config>, (): &()) -> Result<(), Error> {
        Err(Error::new(Code::NotAvailable, "no room"))
    }
}

struct Table<'a>(&'a str);

impl Variables for Table<'_> {
    fn get(&self, name: &str) -> Option<OsString> {
        Some(match name {
            "CNI_COMMAND" => self.0.into(),
            "CNI_CONTAINERID" => "c1".into(),
            "CNI_NETNS" if self.0 != "DEL" => "/run/netns/none".into(),
            "CNI_IFNAME" => "eth0".into(),
            _ => return None,
        })
    }
}

fn ask(command: &str, stdin: &str) -> Answer {
    answer(&Sample::default(), &Table(command), &mut stdin.as_bytes(), &mut Vec::new())
}

#[track_caller]
fn prints(command: &str, stdin: &str, expected: &Value) {
    let mut stdout = Vec::new();
    let answer = answer(&Sample::default(), &Table(command), &mut stdin.as_bytes(), &mut stdout);
    assert_eq!(answer, Answer::Done);
    assert_eq!(String::from_utf8(stdout).unwrap(), format!("{expected}\n"));
}

#[track_caller]
fn fails(command: &str, stdin: &str, version: &str, code: u32, msg: &str) {
    let Answer::Failure(error, of) = ask(command, stdin) else {
        panic!("{command} {stdin} did not fail");
    };
    let error = error.to_json(of);
    assert_eq!(
        (error["cniVersion"].as_str(), error["code"].as_u64()),
        (Some(version), Some(code.into())),
        "{error}"
    );
    assert!(error["msg"].as_str().unwrap().contains(msg), "{error}");
}

#[test]
fn without_a_command_it_prints_its_name_and_version() {
    let Answer::About(text) = ask("", "") else { panic!() };
    assert_eq!(text.lines().next(), Some("CNI sample plugin v2.0.0"));
}

#[test]
fn version_ignores_stdin() {
    let expected = json!({"cniVersion": "1.1.0", "supportedVersions":
        ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]});
    for stdin in ["", "not json", r#"{"cniVersion":"9"}"#] {
        prints("VERSION", stdin, &expected);
    }
}

#[test]
fn commands_reach_the_plugin() {
    let add = r#"{"cniVersion":"0.4.0","name":"n","prevResult":{"dns":{}}}"#;
    prints("ADD", add, &json!({"cniVersion": "0.4.0", "dns": {}}));
    assert_eq!(ask("DEL", r#"{"name":"n"}"#), Answer::Done);
    assert_eq!(ask("DEL", r#"{"name":"n","mtu":70000}"#), Answer::Done);
    assert_eq!(ask("DEL", r#"{"name":"n","mtu":"x","prevResult":5}"#), Answer::Done);
    let gc = r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}"#;
    assert_eq!(ask("GC", gc), Answer::Done);
    fails("CHECK", r#"{"cniVersion":"0.4.0","name":"n"}"#, "0.4.0", 101, "checked");
    fails("STATUS", r#"{"cniVersion":"1.1.0","name":"n"}"#, "1.1.0", 50, "no room");
}

/// A stdout that has room for this many bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_add_is_undone_if_its_result_cannot_be_printed() {
    let add = r#"{"cniVersion":"0.4.0","name":"n","prevResult":{"dns":{}}}"#;
    let sample = Sample::default();
    for room in [0, 9] {
        let answer = answer(&sample, &Table("ADD"), &mut add.as_bytes(), &mut Full(room));
        let Answer::Unprinted(error) = answer else { panic!("{answer:?}") };
        assert_eq!(error.msg, "write to stdout: no storage space");
    }
    assert_eq!(sample.deletions.get(), 2);
    // VERSION makes nothing, so its result needs no DEL.
    let answer = answer(&sample, &Table("VERSION"), &mut io::empty(), &mut Full(0));
    assert!(matches!(answer, Answer::Unprinted(_)));
    assert_eq!(sample.deletions.get(), 2);
}

#[test]
fn a_configuration_without_end_is_refused() {
    let mut stdin = io::repeat(b' ');
    let answer = answer(&Sample::default(), &Table("ADD"), &mut stdin, &mut Vec::new());
    let Answer::Failure(error, _) = answer else { panic!("{answer:?}") };
    assert_eq!((error.code, error.msg.contains("larger than the limit")), (Code::Io, true));
}

#[test]
fn configurations_of_older_versions_do_not_have_newer_commands() {
    fails("CHECK", r#"{"cniVersion":"0.3.1","name":"n"}"#, "0.3.1", 1, "CHECK needs");
    fails("GC", r#"{"cniVersion":"1.0.0","name":"n"}"#, "1.0.0", 1, "GC needs");
    fails("STATUS", r#"{"name":"n"}"#, "0.1.0", 1, "STATUS needs");
}

#[test]
fn bad_input() {
    fails("add", "", "1.1.0", 4, "CNI_COMMAND");
    fails("ADD", "", "1.1.0", 6, "empty");
    fails("ADD", "{", "1.1.0", 6, "line 1 column 1");
    fails("ADD", "[]", "1.1.0", 6, "object");
    fails("ADD", r#"{"cniVersion":"2.0.0","name":"n"}"#, "1.1.0", 1, "2.0.0");
    fails("ADD", r#"{"cniVersion":5,"name":"n"}"#, "1.1.0", 7, "cniVersion");
    fails("ADD", r#"{"cniVersion":"1.0.0"}"#, "1.0.0", 7, "name");
    fails("ADD", r#"{"cniVersion":"1.0.0","name":"n","mtu":"x"}"#, "1.0.0", 7, "mtu");
    fails("ADD", r#"{"cniVersion":"1.0.0","name":"n","mtu":70000}"#, "1.0.0", 7, "65535");
    fails("ADD", r#"{"cniVersion":"1.0.0","name":"n"}"#, "1.0.0", 7, "prevResult");
    fails("GC", r#"{"cniVersion":"1.1.0","name":"n"}"#, "1.1.0", 7, "valid-attachments");
}

proptest! {
    #[test]
    fn no_stdin_panics(stdin: Vec<u8>, command in "ADD|CHECK|DEL|GC|STATUS|VERSION|.{0,5}") {
        if !command.contains('\0') {
            let _ = answer(&Sample::default(), &Table(&command), &mut stdin.as_slice(), &mut Vec::new());
        }
    }
}
