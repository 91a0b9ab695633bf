//! The form in which a client wants objects: whole, as a table, or their metadata alone.

use http::{HeaderMap, header};
use jiff::Timestamp;
use matriarch_store::{
    ResourceType, object,
    table::{IncludeObject, partial, table},
};
use serde_json::{Value, json};

use super::request::Parameters;

/// The form of an answer. Protobuf is never chosen: clients that prefer it take JSON as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Whole,
    /// A Table.
    Table(IncludeObject),
    /// PartialObjectMetadata.
    Metadata,
}

impl Form {
    /// The first form of the Accept header that is served.
    pub fn of(headers: &HeaderMap, parameters: &Parameters) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        for kind in accept.unwrap_or_default().split(',').map(str::trim) {
            let mut parts = kind.split(';').map(str::trim);
            let base = parts.next().unwrap_or_default();
            if !matches!(base, "application/json" | "*/*" | "application/*") {
                continue;
            }
            let named: Vec<&str> = parts.collect();
            if !named.contains(&"g=meta.k8s.io") {
                return Self::Whole;
            }
            if !named.contains(&"v=v1") {
                continue;
            }
            if named.contains(&"as=Table") {
                return Self::Table(match parameters.get("includeObject") {
                    Some("Object") => IncludeObject::Object,
                    Some("None") => IncludeObject::None,
                    _ => IncludeObject::Metadata,
                });
            }
            if named.iter().any(|one| one.starts_with("as=PartialObjectMetadata")) {
                return Self::Metadata;
            }
        }
        Self::Whole
    }

    /// One object in this form; of the tables of a watch only the first has headings.
    pub fn one(
        self,
        resource: &ResourceType,
        version: &str,
        object: &Value,
        headings: bool,
        now: Timestamp,
    ) -> Value {
        let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        self.rows(resource, version, std::slice::from_ref(object), metadata, headings, now)
            .unwrap_or_else(|| match self {
                Self::Metadata => partial(object),
                Self::Whole | Self::Table(_) => object.clone(),
            })
    }

    /// A list in this form.
    pub fn list(
        self,
        resource: &ResourceType,
        version: &str,
        items: Vec<Value>,
        metadata: &Value,
        now: Timestamp,
    ) -> Value {
        if let Some(table) = self.rows(resource, version, &items, metadata.clone(), true, now) {
            return table;
        }
        let (kind, api_version, items) = match self {
            Self::Metadata => (
                "PartialObjectMetadataList".to_owned(),
                "meta.k8s.io/v1".to_owned(),
                items.iter().map(partial).collect(),
            ),
            Self::Whole | Self::Table(_) => {
                let items = listed(resource, items);
                (resource.list_kind.clone(), resource.api_version(version), items)
            }
        };
        json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items})
    }

    fn rows(
        self,
        resource: &ResourceType,
        version: &str,
        items: &[Value],
        metadata: Value,
        headings: bool,
        now: Timestamp,
    ) -> Option<Value> {
        let Self::Table(include) = self else { return None };
        let version = resource.version(version)?;
        let mut rows = table(resource, version, items, include, headings, now);
        rows["metadata"] = metadata;
        Some(rows)
    }
}

/// Items as they stand in a list: those of built-in kinds do not say what they are.
pub fn listed(resource: &ResourceType, mut items: Vec<Value>) -> Vec<Value> {
    if resource.builtin.is_some() {
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            for field in ["kind", "apiVersion"] {
                object::remove(item, field);
            }
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_served_form_is_chosen() {
        for (accept, expected) in [
            ("application/json", Form::Whole),
            ("application/vnd.kubernetes.protobuf,application/json", Form::Whole),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Form::Table(IncludeObject::Metadata),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Form::Metadata,
            ),
            ("", Form::Whole),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Form::of(&headers, &Parameters::default()), expected, "{accept}");
        }
    }
}
