//! Every annotation that we write or read.

use std::collections::BTreeSet;

use crate::identity::Identity;

/// Asks for a restart of all instances, one after the other; `kubectl rollout restart` writes it.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// An annotation of ours; its key is made from the identity's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Annotation {
    /// On a Cluster: JSON list of instances whose PostgreSQL is to stay stopped, or `["*"]`.
    FencedInstances,
    /// On a Cluster: asks for a reload.
    ReloadedAt,
    /// On a Cluster: `disabled` lets the operator leave it alone.
    ReconciliationLoop,
    /// On a Cluster: `on` removes its pods and keeps its volumes, `off` brings them back.
    Hibernation,
    /// On objects: version of the operator that made them.
    OperatorVersion,
    /// On volumes: number of the instance.
    NodeSerial,
    /// On volumes: `initializing`, `ready` or `detached`.
    PvcStatus,
    /// On objects: hash of what was applied last.
    Hash,
    /// On pods: what the pod was made from, as JSON; a difference is a rollout.
    PodSpec,
    /// On a Cluster: `disabled` keeps pods as they are, whatever the spec says of them.
    ReconcilePodSpec,
    /// On a Cluster: JSON Patch (RFC 6902) on each pod that is made.
    PodPatch,
    /// On a Cluster: which memory stands in core dumps (core(5), `coredump_filter`).
    CoredumpFilter,
    /// On a pod: `true` has the instance made anew on new volumes.
    Unrecoverable,
    /// On EndpointSlices that lead to the primary: the term of the Lease under which it wrote them.
    Term,
}

impl Annotation {
    /// What follows the prefix and the slash.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::FencedInstances => "fencedInstances",
            Self::ReloadedAt => "reloadedAt",
            Self::ReconciliationLoop => "reconciliationLoop",
            Self::Hibernation => "hibernation",
            Self::OperatorVersion => "operatorVersion",
            Self::NodeSerial => "nodeSerial",
            Self::PvcStatus => "pvcStatus",
            Self::Hash => "hash",
            Self::PodSpec => "podSpec",
            Self::ReconcilePodSpec => "reconcilePodSpec",
            Self::PodPatch => "podPatch",
            Self::CoredumpFilter => "coredumpFilter",
            Self::Unrecoverable => "unrecoverable",
            Self::Term => "term",
        }
    }

    /// The whole key.
    pub fn key(self, identity: Identity) -> String {
        match self {
            // CloudNativePG has it among what may change.
            Self::Unrecoverable => format!("alpha.{}", identity.key(self.suffix())),
            Self::FencedInstances
            | Self::ReloadedAt
            | Self::ReconciliationLoop
            | Self::Hibernation
            | Self::OperatorVersion
            | Self::NodeSerial
            | Self::PvcStatus
            | Self::Hash
            | Self::PodSpec
            | Self::ReconcilePodSpec
            | Self::PodPatch
            | Self::CoredumpFilter
            | Self::Term => identity.key(self.suffix()),
        }
    }
}

/// What a user may set, on which kind, and what it does.
pub const FOR_USERS: [(Annotation, &str, &str); 8] = [
    (
        Annotation::FencedInstances,
        "Cluster",
        "JSON list of instances whose PostgreSQL is kept stopped, or `[\"*\"]` for all; the plugin's \
         `fencing` writes it",
    ),
    (
        Annotation::Hibernation,
        "Cluster",
        "`on` removes the pods of a healthy cluster and keeps its volumes, `off` brings them back",
    ),
    (
        Annotation::ReloadedAt,
        "Cluster",
        "any new value: the operator looks at all of it, Secrets too",
    ),
    (
        Annotation::ReconciliationLoop,
        "Cluster",
        "`disabled`: the operator leaves the cluster alone; its instances still fail over",
    ),
    (
        Annotation::ReconcilePodSpec,
        "Cluster",
        "`disabled`: pods stay as they are when the spec would make others; new ones are as it says",
    ),
    (
        Annotation::PodPatch,
        "Cluster",
        "JSON Patch (RFC 6902) on each pod that is made; a change replaces the pods one after the \
         other. Name, labels, owner and the two containers are the operator's",
    ),
    (
        Annotation::CoredumpFilter,
        "Cluster",
        "which memory stands in core dumps (core(5)); 0x31, without shared buffers, if not given",
    ),
    (
        Annotation::Unrecoverable,
        "Pod",
        "`true`: the volumes of this standby are deleted, and a new instance is cloned in its place",
    ),
];

/// Value of [`Annotation::ReconciliationLoop`] that stops the operator's work on a cluster, and of
/// [`Annotation::ReconcilePodSpec`] that stops its work on the form of pods.
pub const RECONCILIATION_DISABLED: &str = "disabled";

/// Value of [`Annotation::Unrecoverable`] that counts.
pub const UNRECOVERABLE: &str = "true";

/// Values of [`Annotation::Hibernation`].
pub mod hibernation {
    /// No pods.
    pub const ON: &str = "on";
    /// As usual.
    pub const OFF: &str = "off";
}

/// Which instances the user has fenced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fenced {
    /// None.
    #[default]
    None,
    /// All, also those to come.
    All,
    /// These.
    Some(BTreeSet<String>),
}

impl Fenced {
    /// True if this instance is fenced.
    pub fn contains(&self, instance: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(names) => names.contains(instance),
        }
    }

    /// The annotation's value; none if nothing is fenced.
    pub fn to_annotation(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::All => Some("[\"*\"]".to_owned()),
            Self::Some(names) => {
                Some(serde_json::Value::from_iter(names.iter().cloned()).to_string())
            }
        }
    }
}

/// A value of the annotation `fencedInstances` that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FencedError {
    /// It is no JSON list of strings.
    #[error("annotation fencedInstances is not a JSON list of instance names: {text:?}")]
    Parse {
        /// What was there.
        text: String,
        /// Why it cannot be read.
        #[source]
        source: serde_json::Error,
    },
    /// `*` stands beside names.
    #[error("annotation fencedInstances names instances beside \"*\": {0:?}")]
    StarBesideNames(String),
}

/// Reads the annotation `fencedInstances`.
pub fn parse_fenced(text: &str) -> Result<Fenced, FencedError> {
    if text.trim().is_empty() {
        return Ok(Fenced::None);
    }
    let names: BTreeSet<String> = serde_json::from_str(text)
        .map_err(|source| FencedError::Parse { text: text.to_owned(), source })?;
    match (names.contains("*"), names.len()) {
        (_, 0) => Ok(Fenced::None),
        (true, 1) => Ok(Fenced::All),
        (true, _) => Err(FencedError::StarBesideNames(text.to_owned())),
        (false, _) => Ok(Fenced::Some(names)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fenced_instances_are_read_as_cloudnativepg_writes_them() {
        assert_eq!(parse_fenced("").unwrap(), Fenced::None);
        assert_eq!(parse_fenced("[]").unwrap(), Fenced::None);
        assert_eq!(parse_fenced(r#"["*"]"#).unwrap(), Fenced::All);
        let some = parse_fenced(r#"["c-1","c-2"]"#).unwrap();
        assert!(some.contains("c-2") && !some.contains("c-3"));
        assert_eq!(parse_fenced(&some.to_annotation().unwrap()).unwrap(), some);
    }

    #[test]
    fn an_unreadable_fence_is_an_error_and_never_no_fence() {
        assert!(parse_fenced("c-1").is_err());
        assert!(parse_fenced(r#"["*","c-1"]"#).is_err());
    }
}
