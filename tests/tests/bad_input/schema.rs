//! `conflist validate` and the JSON Schema that editors use agree on every configuration of this
//! project: whether it is valid.
//!
//! Python's `jsonschema` reads the schema; it shares no code with us.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tests::docs::{Kind, blocks};
use tests::{Cmd, NODE, Needs, Plugins, STATE_DIR, Suite, World, conflist_program, workspace};

use super::Bad;

/// Mistakes that a schema cannot express, or that a validator does not see: only `validate` refuses
/// them.
const UNSAID: &[(&str, &str)] = &[
    ("bridge_hairpin_and_promiscuous", BETWEEN_KEYS),
    ("bridge_no_interface_but_addresses", BETWEEN_KEYS),
    ("bandwidth_rate_without_burst", BETWEEN_KEYS),
    ("bandwidth_burst_without_rate", BETWEEN_KEYS),
    ("host-local_no_ranges", "none are needed where the capability ipRanges is declared"),
    ("host-local_subnet_too_small", ADDRESSES),
    ("host-local_start_outside", ADDRESSES),
    ("host-local_end_before_start", ADDRESSES),
    ("portmap_same_port_twice", BETWEEN_KEYS),
    ("static_gateway_of_another_family", ADDRESSES),
    ("static_requested_without_prefix", ADDRESSES),
    ("static_same_address_twice", ADDRESSES),
    ("static_two_addresses_of_0.2.0", BETWEEN_KEYS),
    ("bridge_ipam_is_missing", PROGRAMS),
    ("conflist/tests/validate/programs.conflist", PROGRAMS),
    ("conflist/tests/validate/refused.conflist", BETWEEN_KEYS),
    ("conflist/tests/validate/chained-first.conflist", "a place in a list"),
    ("conflist/tests/validate/host-local-no-ranges.conflist", "as above"),
    ("conflist/tests/validate/list-in-a.json", FILES),
    ("conflist/tests/validate/nothing-to-run.conflist", FILES),
];
const BETWEEN_KEYS: &str = "keys that do not go together, of which 0 and false count as absent";
const ADDRESSES: &str =
    "an address is in a network, before another one, or the same as another one";
const PROGRAMS: &str = "which programs there are";
const FILES: &str = "what a file's name says, and which files are beside it";

/// Where a document was found, the name of its file, and its content.
struct Document {
    place: String,
    extension: String,
    text: String,
}

pub(crate) fn case(suite: &mut Suite, bad: &[(String, Bad)]) {
    let python = Command::new(PYTHON).args(["-c", "import jsonschema"]).output();
    let lack = match python {
        Ok(output) if output.status.success() => None,
        _ => Some("no Python with jsonschema (Debian's python3-jsonschema)"),
    };
    let needs = Needs::plugins(&Plugins::ours(), &Plugins::ALL).conflist().lacking(lack);
    let mut documents: Vec<Document> = bad.iter().map(|(name, bad)| of_case(name, bad)).collect();
    documents.extend(of_files());
    documents.extend(of_readmes());
    suite.case("schema_and_validate_agree", &needs, move || agree(&documents));
}

/// Debian's Python, for which Debian packages `jsonschema`.
const PYTHON: &str = "/usr/bin/python3";

/// The configuration of a case in a list, behind a bridge if it must not be the first; that of an IPAM
/// plugin as the `ipam` section of a bridge.
fn of_case(name: &str, bad: &Bad) -> Document {
    let place = name.to_owned();
    let mut plugin: Value = serde_json::from_str(&bad.stdin).unwrap_or_default();
    let Some(keys) = plugin.as_object_mut() else {
        return Document { place, extension: "conflist".to_owned(), text: bad.stdin.clone() };
    };
    let mut list = json!({"plugins": []});
    for key in ["name", "cniVersion"] {
        list[key] = keys.remove(key).unwrap_or_default();
    }
    if Plugins::is_kind(bad.plugin, "ipam") {
        keys.insert("type".to_owned(), json!("bridge"));
        if let Some(Value::Object(ipam)) = keys.get_mut("ipam") {
            ipam.insert("type".to_owned(), json!(bad.plugin));
        }
    }
    let is_chained = Plugins::is_kind(bad.plugin, "chained");
    let first = if is_chained { "{\"type\": \"bridge\"}, " } else { "" };
    let text = list.to_string().replace("[]", &format!("[{first}{plugin}]"));
    Document { place, extension: "conflist".to_owned(), text }
}

/// The examples, and the files of validate's own tests.
fn of_files() -> Vec<Document> {
    let mut documents = Vec::new();
    for dir in ["conflist/examples", "conflist/tests/validate"] {
        for entry in fs::read_dir(workspace().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().unwrap().to_string_lossy().into_owned();
            if extension != "txt" {
                let name = path.file_name().unwrap().to_string_lossy();
                let text = fs::read_to_string(&path).unwrap();
                documents.push(Document { place: format!("{dir}/{name}"), extension, text });
            }
        }
    }
    documents
}

fn of_readmes() -> Vec<Document> {
    let networks = blocks().into_iter().filter_map(|block| {
        let extension = match block.kind {
            Kind::List => "conflist",
            Kind::Lone => "conf",
            _ => return None,
        };
        let (place, text) = (block.place, block.text);
        Some(Document { place, extension: extension.to_owned(), text })
    });
    networks.collect()
}

fn agree(documents: &[Document]) {
    let world = World::new(&[]);
    let by_schema = judged(&world, documents);
    let mut unsaid: BTreeMap<&str, &str> = UNSAID.iter().copied().collect();
    let (mut complaints, mut refused) = (Vec::new(), 0);
    for (document, by_schema) in documents.iter().zip(by_schema) {
        let place = &document.place;
        let by_us = validated(&world, document);
        let reason = unsaid.remove(place.as_str());
        refused += usize::from(by_us.is_some() && by_schema.is_some());
        let as_expected = match reason {
            None => by_us.is_some() == by_schema.is_some(),
            Some(_) => by_us.is_some() && by_schema.is_none(),
        };
        if !as_expected {
            complaints.push(format!(
                "{place}: validate: {by_us:?}, schema: {by_schema:?}, and we say: {reason:?}\n{}",
                document.text
            ));
        }
    }
    complaints.extend(unsaid.keys().map(|place| format!("{place}: there is no such document")));
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    println!("{} documents, {refused} refused by both", documents.len());
}

/// The schema's verdict on each document.
fn judged(world: &World, documents: &[Document]) -> Vec<Option<String>> {
    let tree = workspace();
    let file = |path: &str| tree.join(path).to_string_lossy().into_owned();
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let call = Cmd::new(PYTHON)
        .args([file("tests/tests/bad_input/judge.py"), file("conflist/schemas/conflist.json")])
        .stdin(json!(texts).to_string());
    serde_json::from_value(world.run(NODE, &call).success().json()).unwrap()
}

/// The errors that `conflist validate` prints.
fn validated(world: &World, document: &Document) -> Option<String> {
    let file = PathBuf::from(STATE_DIR).join(format!("n.{}", document.extension));
    world.files(|| fs::write(&file, &document.text).unwrap());
    let call = Cmd::new(conflist_program())
        .args(["validate", &file.to_string_lossy()])
        .env("CNI_PATH", Plugins::ours().dir.to_string_lossy());
    let output = world.run(NODE, &call);
    world.files(|| fs::remove_file(&file).unwrap());
    let code = output.code();
    assert!(code == 0 || code == 1, "neither good nor bad\n{output}");
    let errors = output.stdout.lines().filter(|it| it.contains(": error: "));
    (code == 1).then(|| errors.collect())
}
