//! The JSON Schemas of `conflist/schemas`, derived from the types that the plugins read.
//!
//! They use draft 7, which all editors support. Unknown keys are allowed, because the specification
//! lets plugins ignore them; `additionalProperties` is set where the plugins look for keys by name
//! only. `conflist.json` contains all the other schemas, because some tools do not follow references
//! to files.

mod tidy;

use cni::Plugin;
use cni::schema::keys::{Every, List};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// A file of `conflist/schemas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// A plugin and its schema.
struct Described {
    /// Its type.
    name: &'static str,
    /// Whether it is an IPAM plugin, named by `ipam.type`.
    gives_addresses: bool,
    /// The schema of its own keys.
    own: Map<String, Value>,
}

macro_rules! plugins {
    ($($kind:ident $name:literal $type:ty,)*) => {
        /// All plugins; adds the definitions that their schemas refer to.
        fn described(definitions: &mut Map<String, Value>) -> Vec<Described> {
            vec![$(describe::<$type>($name, stringify!($kind) == "ipam", definitions)),*]
        }
    };
}
include!("../../plugins/registry.in");

fn describe<P: Plugin<Config: JsonSchema>>(
    name: &'static str,
    gives_addresses: bool,
    definitions: &mut Map<String, Value>,
) -> Described {
    let (mut own, more) = read::<P::Config>();
    definitions.extend(more);
    if gives_addresses {
        // The top level has the keys of the plugin that delegates to it.
        own.insert("additionalProperties".to_owned(), true.into());
    }
    Described { name, gives_addresses, own }
}

/// All files.
#[must_use]
pub fn files() -> Vec<File> {
    let mut definitions = Map::new();
    let mut plugins = described(&mut definitions);
    plugins.sort_by_key(|plugin| plugin.name);
    let (every, more) = read::<Every>();
    definitions.extend(more);
    definitions.insert("plugin".to_owned(), every.into());

    let mut files: Vec<File> =
        plugins.iter().map(|plugin| plugin.file(definitions.clone())).collect();
    files.push(conflist(&plugins, definitions));
    files
}

/// The schema of a type, and the definitions that it refers to.
fn read<T: JsonSchema>() -> (Map<String, Value>, Map<String, Value>) {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>();
    tidy::tidy(schema.to_value())
}

impl Described {
    /// The schema of the plugin's configuration alone.
    fn file(&self, definitions: Map<String, Value>) -> File {
        let mut schema = self.own.clone();
        schema.insert("allOf".to_owned(), json!([{"$ref": "#/definitions/plugin"}, self.is_it()]));
        file(self.name, &format!("The configuration of {}", self.name), schema, definitions)
    }

    /// The condition for a configuration of this plugin.
    fn is_it(&self) -> Value {
        let is_type = json!({
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"const": self.name}},
        });
        if self.gives_addresses {
            json!({"required": ["ipam"], "properties": {"ipam": is_type}})
        } else {
            is_type
        }
    }
}

/// The schema of a network: a list of plugins, or a single plugin in a `.conf`.
fn conflist(plugins: &[Described], mut definitions: Map<String, Value>) -> File {
    if let Some(every) = definitions.get_mut("plugin") {
        let kinds = |gives_addresses| {
            let of_kind = |it: &&Described| it.gives_addresses == gives_addresses;
            plugins.iter().filter(of_kind).map(|it| it.name).collect::<Vec<_>>()
        };
        propose(&mut every["properties"]["type"], &kinds(false));
        every["allOf"] = plugins
            .iter()
            .map(|it| json!({"if": it.is_it(), "then": {"$ref": definition(it.name)}}))
            .collect();
        propose(&mut definitions["Ipam"]["properties"]["type"], &kinds(true));
    }
    for plugin in plugins {
        definitions.insert(plugin.name.to_owned(), plugin.own.clone().into());
    }
    let (list, more) = read::<List>();
    let of_network = |key: &str| list["properties"][key].clone();
    let lone = json!({
        "title": "CNI network of one plugin",
        "required": ["name"],
        "properties": {
            "$schema": of_network("$schema"),
            "name": of_network("name"),
            "cniVersion": of_network("cniVersion"),
        },
        "allOf": [{"$ref": definition("plugin")}],
    });
    for (name, of_list) in more {
        definitions.entry(name).or_insert(of_list);
    }
    definitions.insert("lone".to_owned(), lone);
    definitions.insert("list".to_owned(), list.into());
    let root = json!({
        "type": "object",
        "if": {"required": ["type"], "not": {"required": ["plugins"]}},
        "then": {"$ref": definition("lone")},
        "else": {"$ref": definition("list")},
    });
    let root = root.as_object().cloned().unwrap_or_default();
    file("conflist", "A network: *.conflist, or *.conf for one plugin", root, definitions)
}

/// Adds the known types as suggestions for editors; any other type is valid, too.
fn propose(kind: &mut Value, known: &[&str]) {
    let any = kind.take();
    let description = any["description"].clone();
    *kind = json!({"description": description, "anyOf": [{"enum": known}, any]});
}

fn definition(name: &str) -> String {
    format!("#/definitions/{name}")
}

fn file(
    name: &str,
    title: &str,
    mut schema: Map<String, Value>,
    mut definitions: Map<String, Value>,
) -> File {
    let head = [
        ("$schema", "http://json-schema.org/draft-07/schema#".to_owned()),
        ("$id", format!("urn:podwire:schema:{name}")),
        ("$comment", "Written by cargo xtask schema.".to_owned()),
        ("title", title.to_owned()),
    ];
    schema.extend(head.map(|(key, text)| (key.to_owned(), text.into())));
    tidy::keep_what_is_used(&schema, &mut definitions);
    schema.insert("definitions".to_owned(), definitions.into());
    File { name: format!("{name}.json"), text: format!("{:#}\n", Value::Object(schema)) }
}
