//! The one shape of all user-facing types: every field may be absent, and what is absent is not
//! written back. A schema tells what is required; a type that refuses to be read would stop the
//! operator's watch for all clusters.
//!
//! The conversions are written by macro and not derived: for more than a hundred types serde's and
//! schemars' derived code makes this crate, on which all others wait, several times slower to build.

use std::collections::BTreeMap;

use schemars::Schema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A value that may be absent from the JSON.
pub(crate) trait Absent {
    /// True if it is not to be written.
    fn absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Absent for BTreeMap<K, V> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

/// Takes a field out of an object; an absent one has its default. The error names the field, so
/// that errors of nested fields read as a path.
pub(crate) fn take<T: DeserializeOwned + Default>(
    fields: &mut Map<String, Value>,
    name: &str,
) -> Result<T, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => serde_json::from_value(value).map_err(|error| format!("{name}: {error}")),
    }
}

/// The schema of an object from its description and its fields' names, descriptions and schemas.
pub(crate) fn object_schema(description: &str, fields: Vec<(&str, &str, Schema)>) -> Schema {
    let mut properties = Map::new();
    for (name, description, schema) in fields {
        let mut schema = match schema.to_value() {
            Value::Object(keywords) => keywords,
            // `true`: anything.
            _ => Map::new(),
        };
        schema.insert("description".to_owned(), json!(description.trim()));
        properties.insert(name.to_owned(), Value::Object(schema));
    }
    let mut schema = Schema::default();
    schema.insert("description".to_owned(), json!(description.trim()));
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema
}

/// The schema of a choice between words.
pub(crate) fn words_schema(words: &[&str]) -> Schema {
    let mut schema = Schema::default();
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), json!(words));
    schema
}

/// Declares structs whose every field is an `Option`, a `Vec` or a `BTreeMap`, with its name in the
/// JSON beside it.
macro_rules! record {
    ($(
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $field_doc:literal])* $field:ident $json:literal: $type:ty, )*
        }
    )*) => { $(
        $(#[doc = $doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $( $(#[doc = $field_doc])* pub $field: $type, )*
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $(
                    if !crate::record::Absent::absent(&self.$field) {
                        serde::ser::SerializeMap::serialize_entry(&mut map, $json, &self.$field)?;
                    }
                )*
                serde::ser::SerializeMap::end(map)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut fields = serde_json::Map::deserialize(deserializer)?;
                Ok(Self {
                    $(
                        $field: crate::record::take(&mut fields, $json)
                            .map_err(<D::Error as serde::de::Error>::custom)?,
                    )*
                })
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                crate::record::object_schema(
                    concat!($($doc),*),
                    vec![$(
                        ($json, concat!($($field_doc),*), generator.subschema_for::<$type>()),
                    )*],
                )
            }
        }
    )* };
}

/// Declares enums of words.
macro_rules! words {
    ($(
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )*
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
        }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in the JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                Self::ALL.iter().find(|value| value.word() == word).copied().ok_or_else(|| {
                    <D::Error as serde::de::Error>::unknown_variant(&word, &[$($word),*])
                })
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                crate::record::words_schema(&[$($word),*])
            }
        }
    )* };
}

pub(crate) use {record, words};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cluster::{ClusterSpec, LogLevel};

    #[test]
    fn an_error_names_the_path_of_the_field() {
        let spec = json!({ "storage": { "size": 3 } });
        let error = serde_json::from_value::<ClusterSpec>(spec).unwrap_err().to_string();
        assert!(error.starts_with("storage: size: "), "{error}");
        let spec = json!({ "logLevel": "loud" });
        let error = serde_json::from_value::<ClusterSpec>(spec).unwrap_err().to_string();
        assert!(error.contains("loud") && error.contains("trace"), "{error}");
    }

    #[test]
    fn a_spec_is_written_as_it_was_read() {
        let spec = json!({
            "instances": 3,
            "postgresUID": 26,
            "logLevel": "debug",
            "postgresql": { "pg_hba": ["local all all peer"], "parameters": { "a": "b" } },
            "storage": { "size": "1Gi", "retainPolicy": "keep" },
        });
        let read: ClusterSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(read.log_level, Some(LogLevel::Debug));
        assert_eq!(serde_json::to_value(&read).unwrap(), spec);
    }
}
