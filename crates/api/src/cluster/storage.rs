//! Volumes: `spec.storage`, `walStorage`, `tablespaces`, scratch volumes.

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::record::{record, words};

record! {
    /// A volume of each instance.
    pub struct Storage {
        /// Storage class; the default one if absent.
        storage_class "storageClass": Option<String>,
        /// Size; cannot shrink.
        size "size": Option<String>,
        /// Are existing volumes enlarged when the size grows.
        resize_in_use_volumes "resizeInUseVolumes": Option<bool>,
        /// What else the volume claim says.
        pvc_template "pvcTemplate": Option<PersistentVolumeClaimSpec>,
        /// What becomes of the volumes when the Cluster is deleted: `delete`, or `keep`. Only in spec.storage, for all volumes.
        retain_policy "retainPolicy": Option<RetainPolicy>,
    }

    /// A tablespace with a volume in each instance. It is made once every instance has its volume, and
    /// cannot be removed.
    pub struct Tablespace {
        /// Its name: letters, digits, `_` and `-`, a letter first. Names that differ in nothing but
        /// case, or in `_` and `-`, have the same volume and are refused.
        name "name": Option<String>,
        /// Its volume.
        storage "storage": Option<Storage>,
        /// Who owns it; the application's owner if absent.
        owner "owner": Option<TablespaceOwner>,
        /// Is it used for temporary tables and files (temp_tablespaces). PostgreSQL uses it for
        /// those who may create in it.
        temporary "temporary": Option<bool>,
    }

    /// Who owns a tablespace.
    pub struct TablespaceOwner {
        /// A role; until it is there, the tablespace waits for it.
        name "name": Option<String>,
    }

    /// Limits of the pods' scratch volumes.
    pub struct EphemeralVolumesSizeLimit {
        /// /dev/shm.
        shm "shm": Option<Quantity>,
        /// Temporary data.
        temporary_data "temporaryData": Option<Quantity>,
    }
}

words! {
    /// What becomes of the volumes when the Cluster is deleted.
    pub enum RetainPolicy {
        /// They stay.
        Keep = "keep",
        /// They are deleted.
        Delete = "delete",
    }
}
