//! Reading the keys of configurations as runtimes expect it.
//!
//! Runtimes that are written in Go send Go's field names (`HostPort`), `null` for what is not set, and
//! sometimes a key twice. Therefore keys are case-insensitive (an exact match is preferred), `null` is the
//! same as absent, and unknown keys are ignored. Errors name the path of the key.

use std::collections::BTreeMap;

use serde::de::value::{Error as ValueError, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::error::{Code, Error};

/// Reads a text that must be one JSON object.
///
/// Errors: code 6, with line and column.
pub fn object(text: &[u8]) -> Result<Value, Error> {
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        let why =
            if text.trim_ascii().is_empty() { "it is empty".to_owned() } else { error.to_string() };
        Error::new(Code::Decode, format!("the configuration on stdin is not JSON: {why}"))
    })?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Error::new(Code::Decode, "the configuration on stdin is not a JSON object"))
    }
}

/// Reads a typed value from JSON.
///
/// Errors: code 7, naming the key whose value is not valid.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(Lenient(value)).map_err(|error| {
        let key = error.path().to_string();
        let why = error.into_inner();
        if key == "." {
            Error::new(Code::InvalidConfig, format!("the configuration: {why}"))
        } else {
            Error::invalid_key(&key, why)
        }
    })
}

/// As [`read`], but leaves out keys of the object whose values are not valid. For commands that clean up,
/// also after an ADD that refused these values.
///
/// Errors: code 7 if the value is not valid for another reason.
pub fn read_what_is_right<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    let mut value = value.clone();
    loop {
        let wrong = match serde_path_to_error::deserialize::<_, T>(Lenient(&value)) {
            Ok(read) => return Ok(read),
            Err(error) => match error.path().iter().next() {
                Some(Segment::Map { key }) => key.clone(),
                _ => return read(&value),
            },
        };
        let Some(object) = value.as_object_mut() else { return read(&value) };
        let before = object.len();
        object.retain(|key, _| !key.eq_ignore_ascii_case(&wrong));
        if object.len() == before {
            return read(&value);
        }
    }
}

/// The value of a key of an object, case-insensitively. `null` is absent.
#[must_use]
pub fn get<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    let object = object.as_object()?;
    let found = object.get(key).or_else(|| {
        object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    });
    found.filter(|value| !value.is_null())
}

#[derive(Clone, Copy)]
struct Lenient<'de>(&'de Value);

impl<'de> Lenient<'de> {
    fn map<V: Visitor<'de>>(
        entries: impl Iterator<Item = (&'de str, &'de Value)>,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let entries = entries.filter(|(_, value)| !value.is_null());
        visitor.visit_map(MapDeserializer::new(entries.map(|(key, value)| (key, Lenient(value)))))
    }
}

impl<'de> Deserializer<'de> for Lenient<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(boolean) => visitor.visit_bool(*boolean),
            Value::Number(number) => number.deserialize_any(visitor).map_err(ValueError::custom),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.iter().map(Lenient)))
            }
            Value::Object(object) => {
                Self::map(object.iter().map(|(key, value)| (key.as_str(), value)), visitor)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(ValueError::custom("expected a string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let object = match self.0 {
            Value::Object(object) => object,
            // A derived visitor would accept a list of the fields' values.
            Value::Array(_) => return Err(ValueError::custom("expected an object, found a list")),
            // A derived visitor's error would contain the name of the Rust type.
            other => {
                let why = format!("expected an object, found {other}");
                return Err(ValueError::custom(why));
            }
        };
        let mut found: BTreeMap<&'static str, (bool, &'de Value)> = BTreeMap::new();
        for (key, value) in object {
            let Some(field) = fields.iter().find(|field| field.eq_ignore_ascii_case(key)) else {
                continue;
            };
            let exact = field == key;
            if exact || found.get(field).is_none_or(|(other_exact, _)| !other_exact) {
                found.insert(field, (exact, value));
            }
        }
        Self::map(found.into_iter().map(|(field, (_, value))| (field, value)), visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, ValueError> for Lenient<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Mapping {
        host_port: u16,
        #[serde(rename = "hostIP")]
        host_ip: String,
        note: Option<String>,
        ports: Vec<Mapping>,
    }

    #[test]
    fn keys_are_case_insensitive() {
        let port: Mapping =
            read(&json!({"HostPort": 80, "HOSTIP": "::1", "ports": [{"hostport": 1}], "x": {}}))
                .unwrap();
        assert_eq!((port.host_port, port.host_ip.as_str()), (80, "::1"));
        assert_eq!(port.ports[0].host_port, 1);
    }

    #[test]
    fn an_exact_match_is_preferred() {
        let port: Mapping = read(&json!({"HostPort": 1, "hostPort": 2, "hostport": 3})).unwrap();
        assert_eq!(port.host_port, 2);
    }

    #[test]
    fn null_is_absent() {
        let port: Mapping = read(&json!({"hostPort": null, "note": null, "ports": null})).unwrap();
        assert_eq!(port, Mapping::default());
        assert_eq!(get(&json!({"A": null}), "a"), None);
        assert_eq!(get(&json!({"A": 1}), "a"), Some(&json!(1)));
    }

    #[test]
    fn errors_name_the_key() {
        let error = read::<Mapping>(&json!({"Ports": [{}, {"hostPort": 70000}]})).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig);
        assert!(error.msg.contains("\"ports[1].hostPort\""), "{error}");
        assert!(error.msg.contains("70000"), "{error}");
        assert!(read::<Mapping>(&json!({"note": 5})).unwrap_err().msg.contains("note"));
        assert!(read::<Mapping>(&json!([])).is_err());
        let error = read::<Mapping>(&json!({"ports": ["80:80"]})).unwrap_err();
        assert!(error.msg.ends_with("expected an object, found \"80:80\""), "{error}");
    }

    #[test]
    fn wrong_values_can_be_left_out() {
        let value = json!({"HostPort": 70000, "note": 5, "hostIP": "::1", "ports": [{"note": 1}]});
        let mapping: Mapping = read_what_is_right(&value).unwrap();
        assert_eq!(mapping, Mapping { host_ip: "::1".into(), ..Mapping::default() });
        assert!(read_what_is_right::<Mapping>(&json!([])).is_err());
    }

    #[test]
    fn only_one_object_is_a_configuration() {
        for bad in ["", " ", "[]", "null", "{", "{} x", "not json", "\u{fffd}", "{\"a\":1,}"] {
            assert_eq!(object(bad.as_bytes()).unwrap_err().code, Code::Decode, "{bad}");
        }
        assert!(object(b"\xff\xfe").is_err());
        assert!(object(b" {} \n").is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            if let Ok(value) = object(&bytes) {
                let _ = read::<Mapping>(&value);
            }
        }
    }
}
