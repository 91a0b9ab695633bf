//! The one body that kubectl sends in protobuf alone: a review of somebody's own rights. Its
//! clients do not try JSON after a refusal, so the few fields that are needed are read here.

use matriarch_store::Refusal;
use serde_json::{Value, json};

/// The content type of Kubernetes' protobuf bodies.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Members of ResourceAttributes and NonResourceAttributes by their numbers.
const RESOURCE: &[(u64, &str)] = &[
    (1, "namespace"),
    (2, "verb"),
    (3, "group"),
    (4, "version"),
    (5, "resource"),
    (6, "subresource"),
    (7, "name"),
];
const NON_RESOURCE: &[(u64, &str)] = &[(1, "path"), (2, "verb")];

/// Reads a SelfSubjectAccessReview or a SelfSubjectReview.
pub fn review(body: &[u8]) -> Result<Value, Refusal> {
    read(body).ok_or_else(|| {
        Refusal::BadRequest("the body of the request is not a review in protobuf".to_owned())
    })
}

fn read(body: &[u8]) -> Option<Value> {
    // The envelope (runtime.Unknown): 1 is the kind, 2 the object.
    let envelope = fields(body.strip_prefix(MAGIC)?)?;
    let kind = texts(last(&envelope, 1), &[(1, "apiVersion"), (2, "kind")])?;
    let object = fields(last(&envelope, 2))?;
    let mut review = Value::Object(kind);
    review["metadata"] = json!({"creationTimestamp": null});
    // Of the object: 2 is the spec, in which 1 and 2 say what is asked about.
    let spec = fields(last(&object, 2))?;
    for (number, field, names) in
        [(1, "resourceAttributes", RESOURCE), (2, "nonResourceAttributes", NON_RESOURCE)]
    {
        if spec.iter().any(|(found, _)| *found == number) {
            review["spec"][field] = Value::Object(texts(last(&spec, number), names)?);
        }
    }
    Some(review)
}

/// The texts of a message that are not empty, by name.
fn texts(message: &[u8], names: &[(u64, &str)]) -> Option<serde_json::Map<String, Value>> {
    let found = fields(message)?;
    let mut members = serde_json::Map::new();
    for (number, name) in names {
        let text = String::from_utf8(last(&found, *number).to_vec()).ok()?;
        if !text.is_empty() {
            members.insert((*name).to_owned(), text.into());
        }
    }
    Some(members)
}

/// A field's last value, which is the one that counts.
fn last<'a>(fields: &[(u64, &'a [u8])], number: u64) -> &'a [u8] {
    fields.iter().rev().find(|(found, _)| *found == number).map_or(&[], |(_, value)| value)
}

/// The fields of a message that hold bytes, in their order; numbers are passed over.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                varint(&mut message)?;
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (value, rest) = message.split_at_checked(length)?;
                found.push((tag >> 3, value));
                message = rest;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(value.len()).expect("short")];
        bytes.extend_from_slice(value);
        bytes
    }

    #[test]
    fn a_review_is_read() {
        let kind = [field(1, b"authorization.k8s.io/v1"), field(2, b"SelfSubjectAccessReview")];
        let attributes = [field(1, b"default"), field(2, b"get"), field(5, b"pods")].concat();
        let spec = field(1, &attributes);
        let object = [field(1, b""), field(2, &spec), field(3, &[8, 0])].concat();
        let body = [MAGIC, &field(1, &kind.concat()), &field(2, &object)].concat();
        assert_eq!(
            review(&body).expect("a review"),
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "metadata": {"creationTimestamp": null},
                "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}}})
        );
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for body in [&b"k8s"[..], b"k8s\0\x0a\x05ab", b"k8s\0\xff", b"{}"] {
            assert!(review(body).is_err(), "{body:?}");
        }
    }
}
