//! Checks that hold for each call with any input.

use std::net::IpAddr;

use serde_json::Value;
use tests::Output;

/// The length limit of the answer to a failed call, because it ends up in logs.
const LONGEST_ERROR: usize = 16 * 1024;
/// The versions of the specification that the plugins support.
const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// One call.
#[derive(Clone)]
pub(crate) struct Input {
    pub(crate) plugin: String,
    pub(crate) env: Vec<(&'static str, Option<String>)>,
    pub(crate) stdin: Vec<u8>,
    /// Whether a runtime could send this environment.
    pub(crate) is_usual: bool,
}

impl Input {
    /// The same call for another command.
    pub(crate) fn command(&self, command: &str) -> Self {
        let mut call = self.clone();
        for (name, value) in &mut call.env {
            if *name == "CNI_COMMAND" {
                *value = Some(command.to_owned());
            }
        }
        call
    }

    /// Whether it is this command.
    pub(crate) fn is(&self, command: &str) -> bool {
        self.env
            .iter()
            .any(|(name, value)| *name == "CNI_COMMAND" && value.as_deref() == Some(command))
    }

    /// The configuration, if it is a JSON object.
    pub(crate) fn config(&self) -> Option<Value> {
        serde_json::from_slice(&self.stdin).ok().filter(Value::is_object)
    }

    /// Whether a DEL with this input must succeed: the network and the attachment can be read, and the
    /// IPAM plugin exists.
    pub(crate) fn can_be_deleted(&self) -> bool {
        let Some(config) = self.config() else { return false };
        let name = config["name"].as_str().unwrap_or_default();
        let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        let has_version = config["cniVersion"].as_str().is_some_and(|v| VERSIONS.contains(&v));
        let has_ipam = !["bridge", "ptp", "host-local", "static"].contains(&self.plugin.as_str())
            || ["host-local", "static"].iter().any(|name| config["ipam"]["type"] == *name)
            || (self.plugin == "bridge" && config["ipam"].is_null());
        self.is_usual && is_name && has_version && has_ipam
    }
}

/// What is wrong with the end of a call.
pub(crate) fn complaint(input: &Input, output: &Output) -> Option<String> {
    let stdout = output.stdout.trim();
    if output.stderr.len() > LONGEST_ERROR {
        return Some(format!("stderr has {} bytes", output.stderr.len()));
    }
    match output.code() {
        0 if input.is("ADD") => result(input, stdout),
        0 if input.is("VERSION") => {
            let versions: Value = serde_json::from_str(stdout).unwrap_or_default();
            let has_versions = versions["supportedVersions"].is_array();
            (!has_versions).then(|| "VERSION prints no supportedVersions".to_owned())
        }
        0 => (!stdout.is_empty()).then(|| "prints something but has nothing to say".to_owned()),
        1 => error(stdout),
        _ => Some(format!("ends with {}", output.status)),
    }
}

fn error(stdout: &str) -> Option<String> {
    if stdout.len() > LONGEST_ERROR {
        return Some(format!("the error has {} bytes", stdout.len()));
    }
    let error: Value = match serde_json::from_str(stdout) {
        Ok(error) => error,
        Err(e) => return Some(format!("stdout is not one error object: {e}")),
    };
    let is_code = |code: u64| matches!(code, 1..=11 | 50 | 51 | 100..=999);
    let has_code = error["code"].as_u64().is_some_and(is_code);
    if !has_code || error["msg"].as_str().is_none_or(str::is_empty) {
        return Some("the error has no valid code or no msg".to_owned());
    }
    (!error["cniVersion"].is_string()).then(|| "the error has no cniVersion".to_owned())
}

fn result(input: &Input, stdout: &str) -> Option<String> {
    let result: Value = match serde_json::from_str(stdout) {
        Ok(result) => result,
        Err(e) => return Some(format!("stdout is not one result: {e}")),
    };
    let config = input.config().unwrap_or_default();
    // A configuration without a version has the first one.
    let asked = config["cniVersion"].as_str().filter(|v| !v.is_empty()).unwrap_or(VERSIONS[0]);
    if result["cniVersion"] != asked {
        return Some(format!("a result of version {} for {asked}", result["cniVersion"]));
    }
    let is_address = |text: &str| {
        text.split_once('/').is_some_and(|(ip, length)| {
            ip.parse::<IpAddr>().is_ok() && length.parse::<u8>().is_ok_and(|l| l <= 128)
        })
    };
    let bad = addresses(&result).into_iter().find(|address| !is_address(address));
    bad.map(|address| format!("{address} in the result is not an address"))
}

/// The addresses of a result, in any version.
pub(crate) fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().into_iter().flatten().map(|ip| &ip["address"]);
    let old = ["ip4", "ip6"].into_iter().map(|family| &result[family]["ip"]);
    ips.chain(old).filter_map(Value::as_str).map(str::to_owned).collect()
}
