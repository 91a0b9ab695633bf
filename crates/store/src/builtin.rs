//! The kinds that are always there.

use std::sync::Arc;

use crate::{
    registry::{Column, ResourceType, Version},
    schema,
};

/// The built-in kinds, where their semantics differ from those of custom resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the variants are the names of Kubernetes' kinds")]
pub enum Builtin {
    Namespace,
    Pod,
    PersistentVolumeClaim,
    PersistentVolume,
    Service,
    Secret,
    ConfigMap,
    ServiceAccount,
    Event,
    Node,
    Lease,
    EndpointSlice,
    PodDisruptionBudget,
    Role,
    RoleBinding,
    ClusterRole,
    ClusterRoleBinding,
    StorageClass,
    CustomResourceDefinition,
}

impl Builtin {
    /// Whether an update without resourceVersion is taken as it comes.
    #[must_use]
    pub fn allows_unconditional_update(self) -> bool {
        match self {
            Self::Lease | Self::PodDisruptionBudget | Self::CustomResourceDefinition => false,
            Self::Namespace
            | Self::Pod
            | Self::PersistentVolumeClaim
            | Self::PersistentVolume
            | Self::Service
            | Self::Secret
            | Self::ConfigMap
            | Self::ServiceAccount
            | Self::Event
            | Self::Node
            | Self::EndpointSlice
            | Self::Role
            | Self::RoleBinding
            | Self::ClusterRole
            | Self::ClusterRoleBinding
            | Self::StorageClass => true,
        }
    }

    /// Whether PUT to a name that does not exist creates the object.
    #[must_use]
    pub fn creates_on_update(self) -> bool {
        match self {
            Self::Lease
            | Self::Event
            | Self::Service
            | Self::Role
            | Self::RoleBinding
            | Self::ClusterRole
            | Self::ClusterRoleBinding => true,
            Self::Namespace
            | Self::Pod
            | Self::PersistentVolumeClaim
            | Self::PersistentVolume
            | Self::Secret
            | Self::ConfigMap
            | Self::ServiceAccount
            | Self::Node
            | Self::EndpointSlice
            | Self::PodDisruptionBudget
            | Self::StorageClass
            | Self::CustomResourceDefinition => false,
        }
    }

    /// Whether `metadata.generation` is kept.
    #[must_use]
    pub fn has_generation(self) -> bool {
        matches!(
            self,
            Self::Pod
                | Self::PodDisruptionBudget
                | Self::EndpointSlice
                | Self::CustomResourceDefinition
        )
    }

    /// Whether a deletion that is done at once answers with the object instead of a Status.
    #[must_use]
    pub fn returns_deleted(self) -> bool {
        matches!(
            self,
            Self::Pod
                | Self::PersistentVolumeClaim
                | Self::PersistentVolume
                | Self::ServiceAccount
                | Self::Service
        )
    }

    fn selectable_fields(self) -> &'static [&'static str] {
        match self {
            Self::Pod => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            Self::Secret => &["type"],
            Self::Namespace => &["status.phase"],
            Self::Node => &["spec.unschedulable"],
            Self::Service => &["spec.clusterIP", "spec.type"],
            Self::Event => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "reason",
                "reportingComponent",
                "reportingController",
                "source",
                "type",
            ],
            Self::PersistentVolumeClaim
            | Self::PersistentVolume
            | Self::ConfigMap
            | Self::ServiceAccount
            | Self::Lease
            | Self::EndpointSlice
            | Self::PodDisruptionBudget
            | Self::Role
            | Self::RoleBinding
            | Self::ClusterRole
            | Self::ClusterRoleBinding
            | Self::StorageClass
            | Self::CustomResourceDefinition => &[],
        }
    }
}

struct Row {
    builtin: Builtin,
    group: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    status: bool,
    schema: &'static str,
    columns: &'static [(&'static str, &'static str, i64)],
}

/// Every built-in resource.
#[must_use]
pub fn types() -> Vec<ResourceType> {
    ROWS.iter().map(resource).collect()
}

fn resource(row: &Row) -> ResourceType {
    let columns = row
        .columns
        .iter()
        .map(|(name, kind, priority)| Column {
            name: (*name).into(),
            kind: (*kind).into(),
            format: String::new(),
            description: String::new(),
            priority: *priority,
            path: String::new(),
        })
        .collect();
    let text = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<String>>();
    let mut schema = schema::resolve(&schema::reference(row.schema)).clone();
    // A constant of the kind, for the openapi document's readers.
    if let Some(members) = schema.as_object_mut() {
        members.insert("x-kubernetes-schema-name".into(), row.schema.into());
    }
    ResourceType {
        group: row.group.into(),
        plural: row.plural.into(),
        singular: row.singular.into(),
        kind: row.kind.into(),
        list_kind: format!("{}List", row.kind),
        short_names: text(row.short),
        categories: if matches!(row.builtin, Builtin::Pod | Builtin::Service) {
            vec!["all".into()]
        } else {
            Vec::new()
        },
        namespaced: row.namespaced,
        versions: vec![Version {
            name: "v1".into(),
            served: true,
            storage: true,
            schema: Arc::new(schema),
            rules: None,
            status: row.status,
            scale: None,
            columns,
            selectable_fields: text(row.builtin.selectable_fields()),
        }],
        builtin: Some(row.builtin),
    }
}

const AGE: (&str, &str, i64) = ("Age", "string", 0);

const ROWS: &[Row] = &[
    Row {
        builtin: Builtin::Namespace,
        group: "",
        plural: "namespaces",
        singular: "namespace",
        kind: "Namespace",
        short: &["ns"],
        namespaced: false,
        status: true,
        schema: "io.k8s.api.core.v1.Namespace",
        columns: &[("Status", "string", 0), AGE],
    },
    Row {
        builtin: Builtin::Pod,
        group: "",
        plural: "pods",
        singular: "pod",
        kind: "Pod",
        short: &["po"],
        namespaced: true,
        status: true,
        schema: "io.k8s.api.core.v1.Pod",
        columns: &[
            ("Ready", "string", 0),
            ("Status", "string", 0),
            ("Restarts", "string", 0),
            AGE,
            ("IP", "string", 1),
            ("Node", "string", 1),
            ("Nominated Node", "string", 1),
            ("Readiness Gates", "string", 1),
        ],
    },
    Row {
        builtin: Builtin::PersistentVolumeClaim,
        group: "",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        kind: "PersistentVolumeClaim",
        short: &["pvc"],
        namespaced: true,
        status: true,
        schema: "io.k8s.api.core.v1.PersistentVolumeClaim",
        columns: &[
            ("Status", "string", 0),
            ("Volume", "string", 0),
            ("Capacity", "string", 0),
            ("Access Modes", "string", 0),
            ("StorageClass", "string", 0),
            ("VolumeAttributesClass", "string", 0),
            AGE,
            ("VolumeMode", "string", 1),
        ],
    },
    Row {
        builtin: Builtin::PersistentVolume,
        group: "",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        kind: "PersistentVolume",
        short: &["pv"],
        namespaced: false,
        status: true,
        schema: "io.k8s.api.core.v1.PersistentVolume",
        columns: &[
            ("Capacity", "string", 0),
            ("Access Modes", "string", 0),
            ("Reclaim Policy", "string", 0),
            ("Status", "string", 0),
            ("Claim", "string", 0),
            ("StorageClass", "string", 0),
            ("VolumeAttributesClass", "string", 0),
            ("Reason", "string", 0),
            AGE,
            ("VolumeMode", "string", 1),
        ],
    },
    Row {
        builtin: Builtin::Service,
        group: "",
        plural: "services",
        singular: "service",
        kind: "Service",
        short: &["svc"],
        namespaced: true,
        status: true,
        schema: "io.k8s.api.core.v1.Service",
        columns: &[
            ("Type", "string", 0),
            ("Cluster-IP", "string", 0),
            ("External-IP", "string", 0),
            ("Port(s)", "string", 0),
            AGE,
            ("Selector", "string", 1),
        ],
    },
    Row {
        builtin: Builtin::Secret,
        group: "",
        plural: "secrets",
        singular: "secret",
        kind: "Secret",
        short: &[],
        namespaced: true,
        status: false,
        schema: "io.k8s.api.core.v1.Secret",
        columns: &[("Type", "string", 0), ("Data", "string", 0), AGE],
    },
    Row {
        builtin: Builtin::ConfigMap,
        group: "",
        plural: "configmaps",
        singular: "configmap",
        kind: "ConfigMap",
        short: &["cm"],
        namespaced: true,
        status: false,
        schema: "io.k8s.api.core.v1.ConfigMap",
        columns: &[("Data", "string", 0), AGE],
    },
    Row {
        builtin: Builtin::ServiceAccount,
        group: "",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        kind: "ServiceAccount",
        short: &["sa"],
        namespaced: true,
        status: false,
        schema: "io.k8s.api.core.v1.ServiceAccount",
        columns: &[("Secrets", "string", 0), AGE],
    },
    Row {
        builtin: Builtin::Event,
        group: "",
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        namespaced: true,
        status: false,
        schema: "io.k8s.api.core.v1.Event",
        columns: EVENT_COLUMNS,
    },
    Row {
        builtin: Builtin::Event,
        group: "events.k8s.io",
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        namespaced: true,
        status: false,
        schema: "io.k8s.api.events.v1.Event",
        columns: EVENT_COLUMNS,
    },
    Row {
        builtin: Builtin::Node,
        group: "",
        plural: "nodes",
        singular: "node",
        kind: "Node",
        short: &["no"],
        namespaced: false,
        status: true,
        schema: "io.k8s.api.core.v1.Node",
        columns: &[
            ("Status", "string", 0),
            ("Roles", "string", 0),
            AGE,
            ("Version", "string", 0),
            ("Internal-IP", "string", 1),
        ],
    },
    Row {
        builtin: Builtin::Lease,
        group: "coordination.k8s.io",
        plural: "leases",
        singular: "lease",
        kind: "Lease",
        short: &[],
        namespaced: true,
        status: false,
        schema: "io.k8s.api.coordination.v1.Lease",
        columns: &[("Holder", "string", 0), AGE],
    },
    Row {
        builtin: Builtin::EndpointSlice,
        group: "discovery.k8s.io",
        plural: "endpointslices",
        singular: "endpointslice",
        kind: "EndpointSlice",
        short: &[],
        namespaced: true,
        status: false,
        schema: "io.k8s.api.discovery.v1.EndpointSlice",
        columns: &[
            ("AddressType", "string", 0),
            ("Ports", "string", 0),
            ("Endpoints", "string", 0),
            AGE,
        ],
    },
    Row {
        builtin: Builtin::PodDisruptionBudget,
        group: "policy",
        plural: "poddisruptionbudgets",
        singular: "poddisruptionbudget",
        kind: "PodDisruptionBudget",
        short: &["pdb"],
        namespaced: true,
        status: true,
        schema: "io.k8s.api.policy.v1.PodDisruptionBudget",
        columns: &[
            ("Min Available", "string", 0),
            ("Max Unavailable", "string", 0),
            ("Allowed Disruptions", "integer", 0),
            AGE,
        ],
    },
    Row {
        builtin: Builtin::Role,
        group: "rbac.authorization.k8s.io",
        plural: "roles",
        singular: "role",
        kind: "Role",
        short: &[],
        namespaced: true,
        status: false,
        schema: "io.k8s.api.rbac.v1.Role",
        columns: &[("Created At", "date", 0)],
    },
    Row {
        builtin: Builtin::RoleBinding,
        group: "rbac.authorization.k8s.io",
        plural: "rolebindings",
        singular: "rolebinding",
        kind: "RoleBinding",
        short: &[],
        namespaced: true,
        status: false,
        schema: "io.k8s.api.rbac.v1.RoleBinding",
        columns: &[("Role", "string", 0), AGE],
    },
    Row {
        builtin: Builtin::ClusterRole,
        group: "rbac.authorization.k8s.io",
        plural: "clusterroles",
        singular: "clusterrole",
        kind: "ClusterRole",
        short: &[],
        namespaced: false,
        status: false,
        schema: "io.k8s.api.rbac.v1.ClusterRole",
        columns: &[("Created At", "date", 0)],
    },
    Row {
        builtin: Builtin::ClusterRoleBinding,
        group: "rbac.authorization.k8s.io",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        kind: "ClusterRoleBinding",
        short: &[],
        namespaced: false,
        status: false,
        schema: "io.k8s.api.rbac.v1.ClusterRoleBinding",
        columns: &[("Role", "string", 0), AGE],
    },
    Row {
        builtin: Builtin::StorageClass,
        group: "storage.k8s.io",
        plural: "storageclasses",
        singular: "storageclass",
        kind: "StorageClass",
        short: &["sc"],
        namespaced: false,
        status: false,
        schema: "io.k8s.api.storage.v1.StorageClass",
        columns: &[("Provisioner", "string", 0), AGE],
    },
    Row {
        builtin: Builtin::CustomResourceDefinition,
        group: "apiextensions.k8s.io",
        plural: "customresourcedefinitions",
        singular: "customresourcedefinition",
        kind: "CustomResourceDefinition",
        short: &["crd", "crds"],
        namespaced: false,
        status: true,
        schema: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        columns: &[("Created At", "date", 0)],
    },
];

const EVENT_COLUMNS: &[(&str, &str, i64)] = &[
    ("Last Seen", "string", 0),
    ("Type", "string", 0),
    ("Reason", "string", 0),
    ("Object", "string", 0),
    ("Subobject", "string", 1),
    ("Source", "string", 1),
    ("Message", "string", 0),
    ("First Seen", "string", 1),
    ("Count", "string", 1),
    ("Name", "string", 1),
];
