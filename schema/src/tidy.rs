//! Turns what `schemars` derives into the content of the files.

use serde_json::{Map, Value, json};

/// Definitions that several plugins use. They stay references; the others are put in their places.
const SHARED: [&str; 9] = [
    "Address",
    "AddressOrCidr",
    "Capabilities",
    "Cidr",
    "Dns",
    "Ipam",
    "Route",
    "plugin",
    "UnicastMac",
];

/// Objects in which unknown keys are expected: what runtimes and administrators pass to all plugins.
const OPEN: [&str; 3] =
    ["/properties/args", "/properties/args/properties/cni", "/properties/runtimeConfig"];

/// Splits a schema from its definitions and tidies both.
pub(crate) fn tidy(mut schema: Value) -> (Map<String, Value>, Map<String, Value>) {
    let definitions = match schema["definitions"].take() {
        Value::Object(definitions) => definitions,
        _ => Map::new(),
    };
    let is_list = schema["properties"]["plugins"].is_object();
    let put_in_place = |schema: &mut Value| {
        inline(schema, &definitions);
        clean(schema);
        if !is_list {
            allow_null(schema);
        }
    };
    put_in_place(&mut schema);
    for path in OPEN {
        if let Some(Value::Object(object)) = schema.pointer_mut(path) {
            object.insert("additionalProperties".to_owned(), true.into());
        }
    }
    let mut shared = Map::new();
    for name in SHARED {
        if let Some(mut definition) = definitions.get(name).cloned() {
            put_in_place(&mut definition);
            shared.insert(name.to_owned(), definition);
        }
    }
    let mut schema = schema.as_object().cloned().unwrap_or_default();
    for key in ["$schema", "title", "description", "definitions"] {
        schema.remove(key);
    }
    (schema, shared)
}

/// Removes unused definitions.
pub(crate) fn keep_what_is_used(schema: &Map<String, Value>, definitions: &mut Map<String, Value>) {
    loop {
        let text = format!("{}{}", json!(schema), json!(definitions));
        let before = definitions.len();
        definitions.retain(|name, _| text.contains(&format!("\"#/definitions/{name}\"")));
        if definitions.len() == before {
            return;
        }
    }
}

/// Calls `change` for a schema and then for all schemas in it.
fn each(schema: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match schema {
        Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|value| each(value, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| each(value, change)),
        _ => {}
    }
}

/// Replaces references to definitions that are not shared. A key beside the reference takes
/// precedence.
fn inline(schema: &mut Value, definitions: &Map<String, Value>) {
    let find = |value: &Value| -> Option<Map<String, Value>> {
        let name = value["$ref"].as_str()?.strip_prefix("#/definitions/")?;
        (!SHARED.contains(&name)).then(|| definitions.get(name)?.as_object().cloned())?
    };
    each(schema, &mut |object| {
        let wrapped = object.get("allOf").map(|all| all[0].clone());
        let found = find(&Value::Object(object.clone())).or_else(|| find(&wrapped?));
        if let Some(found) = found {
            object.remove("$ref");
            object.remove("allOf");
            for (key, value) in found {
                object.entry(key).or_insert(value);
            }
        }
    });
}

/// Removes empty keys; makes one list of the variants of an enum; writes down the limits of integers
/// that `schemars` gives only as the name of a format.
fn clean(schema: &mut Value) {
    each(schema, &mut |object| {
        let format = object.get("format").and_then(Value::as_str).map(str::to_owned);
        if let Some(format) = format.filter(|format| format.contains("int")) {
            object.remove("format");
            if format == "uint32" {
                object.entry("maximum").or_insert(u32::MAX.into());
            }
        }
        let says_nothing = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(object) => object.is_empty() || !object.contains_key("type"),
            _ => false,
        };
        if object.get("default").is_some_and(says_nothing) {
            object.remove("default");
        }
        if let Some(Value::Array(words)) = object.get("oneOf") {
            let all = |key: &str| words.iter().map(|it| it[key].clone()).collect::<Value>();
            let (words, descriptions) = (all("const"), all("description"));
            object.remove("oneOf");
            object.insert("type".to_owned(), "string".into());
            object.insert("enum".to_owned(), words);
            object.insert("enumDescriptions".to_owned(), descriptions);
        }
        object.retain(|_, value| *value != json!([]) && *value != json!({}));
    });
}

/// Allows `null` for each optional key, as the plugins do.
fn allow_null(schema: &mut Value) {
    each(schema, &mut |object| {
        let required = object.get("required").cloned().unwrap_or_default();
        let is_required =
            |key: &str| required.as_array().is_some_and(|it| it.contains(&json!(key)));
        let Some(Value::Object(properties)) = object.get_mut("properties") else { return };
        for (_, property) in properties.iter_mut().filter(|(key, _)| !is_required(key)) {
            if let Value::Object(property) = property {
                or_null(property);
            }
        }
    });
}

fn or_null(property: &mut Map<String, Value>) {
    let null = json!("null");
    match property.get_mut("type") {
        Some(Value::Array(types)) if !types.contains(&null) => types.push(null),
        Some(text @ Value::String(_)) => *text = json!([text.take(), "null"]),
        _ => {}
    }
    if let Some(Value::Array(words)) = property.get_mut("enum")
        && !words.contains(&Value::Null)
    {
        words.push(Value::Null);
    }
    let has_type = property.contains_key("type");
    if let Some(Value::Array(alternatives)) = property.get_mut("anyOf") {
        let null = json!({"type": "null"});
        if has_type && !alternatives.contains(&null) {
            alternatives.push(null);
        }
    } else if let Some(Value::Array(all)) = property.remove("allOf") {
        let null = json!({"type": "null"});
        property.insert("anyOf".to_owned(), [all, vec![null]].concat().into());
    } else if let Some(reference) = property.remove("$ref") {
        property.insert("anyOf".to_owned(), json!([{"$ref": reference}, {"type": "null"}]));
    }
}
