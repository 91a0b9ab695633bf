//! Volume claims.

use matriarch_api::annotations::Annotation;
use matriarch_api::cluster::Storage;
use matriarch_api::labels::{self, Label};
use matriarch_api::names;
use matriarch_api::quantity::Amount;
use matriarch_plan::action::VolumeRole;
use serde_json::{Value, json};

use crate::resolve::Resolved;
use crate::setup::Owner;

/// Name of an instance's claim.
pub fn name(instance: &str, volume: &VolumeRole) -> String {
    match volume {
        VolumeRole::Data => names::data_claim(instance),
        VolumeRole::Wal => names::wal_claim(instance),
        VolumeRole::Tablespace(name) => names::tablespace_claim(instance, name),
    }
}

/// Metadata of a claim; without an owner if volumes outlive the Cluster.
pub fn metadata(
    owner: &Owner<'_>,
    resolved: &Resolved,
    instance: &str,
    volume: &VolumeRole,
) -> Value {
    let name = name(instance, volume);
    let mut metadata =
        if resolved.retain_volumes { owner.metadata_unowned(&name) } else { owner.metadata(&name) };
    let role = match volume {
        VolumeRole::Data => labels::PVC_ROLE_DATA,
        VolumeRole::Wal => labels::PVC_ROLE_WAL,
        VolumeRole::Tablespace(name) => {
            metadata["labels"][owner.label(Label::TablespaceName)] = json!(name);
            labels::PVC_ROLE_TABLESPACE
        }
    };
    metadata["labels"][owner.label(Label::InstanceName)] = json!(instance);
    metadata["labels"][owner.label(Label::PvcRole)] = json!(role);
    let serial = names::serial_of(owner.name(), instance).unwrap_or_default();
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    metadata["annotations"][owner.annotation(Annotation::NodeSerial)] = json!(serial.to_string());
    metadata
}

/// A claim to be made.
pub fn new(owner: &Owner<'_>, resolved: &Resolved, instance: &str, volume: &VolumeRole) -> Value {
    let user = &owner.cluster.spec;
    let storage = match volume {
        VolumeRole::Data => user.storage.clone(),
        VolumeRole::Wal => user.wal_storage.clone(),
        VolumeRole::Tablespace(name) => {
            let mut all = user.tablespaces.iter();
            all.find(|it| it.name.as_ref() == Some(name)).and_then(|it| it.storage.clone())
        }
    };
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(owner, resolved, instance, volume),
        "spec": spec(&storage.unwrap_or_default()),
    })
}

/// How much a claim made now would ask for, in bytes.
pub fn requested(storage: &Storage) -> Option<u64> {
    let spec = spec(storage);
    bytes(spec["resources"]["requests"]["storage"].as_str()?)
}

/// A quantity of storage in bytes.
pub fn bytes(quantity: &str) -> Option<u64> {
    Amount::parse(quantity)?.units()
}

/// A claim that is there asks for more.
pub fn growth(bytes: u64) -> Value {
    json!({"spec": {"resources": {"requests": {"storage": quantity(bytes)}}}})
}

/// As people write it where that is the same.
fn quantity(bytes: u64) -> String {
    let units = [(1_u64 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let whole = units.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit));
    whole.map_or_else(|| bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// Labels and owner of a claim that is there.
pub fn adoption(
    owner: &Owner<'_>,
    resolved: &Resolved,
    instance: &str,
    volume: &VolumeRole,
) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(owner, resolved, instance, volume),
    })
}

fn spec(storage: &Storage) -> Value {
    let mut spec = storage
        .pvc_template
        .as_ref()
        .and_then(|template| serde_json::to_value(template).ok())
        .unwrap_or_else(|| json!({}));
    if spec.get("accessModes").is_none() {
        spec["accessModes"] = json!(["ReadWriteOnce"]);
    }
    if let Some(class) = &storage.storage_class {
        spec["storageClassName"] = json!(class);
    }
    if let Some(size) = &storage.size {
        if !spec["resources"].is_object() {
            spec["resources"] = json!({});
        }
        if !spec["resources"]["requests"].is_object() {
            spec["resources"]["requests"] = json!({});
        }
        spec["resources"]["requests"]["storage"] = json!(size);
    }
    spec
}
