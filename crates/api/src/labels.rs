//! Every label key and value that we write or select by.

use crate::identity::Identity;

/// `app.kubernetes.io/managed-by`; its value is [`Identity::managed_by`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// `app.kubernetes.io/name`; its value is `postgresql`.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Value of [`APP_NAME`].
pub const APP_NAME_POSTGRESQL: &str = "postgresql";
/// `app.kubernetes.io/instance`; its value is the cluster's name.
pub const APP_INSTANCE: &str = "app.kubernetes.io/instance";
/// `app.kubernetes.io/version`; its value is PostgreSQL's major version.
pub const APP_VERSION: &str = "app.kubernetes.io/version";
/// `app.kubernetes.io/component`; its value is `database`.
pub const APP_COMPONENT: &str = "app.kubernetes.io/component";
/// Value of [`APP_COMPONENT`] on what belongs to a database.
pub const APP_COMPONENT_DATABASE: &str = "database";
/// Links an EndpointSlice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who manages an EndpointSlice.
pub const ENDPOINT_SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// A label of ours; its key is made from the identity's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// Name of the Cluster that an object belongs to.
    Cluster,
    /// Name of the instance that a pod or volume belongs to.
    InstanceName,
    /// What a pod is for: [`POD_ROLE_INSTANCE`].
    PodRole,
    /// What a pod's instance is: [`ROLE_PRIMARY`], [`ROLE_REPLICA`] or [`ROLE_UNHEALTHY`].
    InstanceRole,
    /// The deprecated twin of `instanceRole`, still read by tools.
    Role,
    /// What a volume holds: [`PVC_ROLE_DATA`], [`PVC_ROLE_WAL`] or [`PVC_ROLE_TABLESPACE`].
    PvcRole,
    /// Which tablespace a volume holds.
    TablespaceName,
    /// PostgreSQL's major version.
    MajorVersion,
    /// Whose password a Secret holds: [`USER_TYPE_APP`] or [`USER_TYPE_SUPERUSER`].
    UserType,
    /// Set to `true` on user Secrets and ConfigMaps whose changes are to be noticed at once.
    Reload,
    /// Set to `true` on objects that the operator made.
    IsManaged,
}

impl Label {
    /// What follows the prefix and the slash.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::InstanceName => "instanceName",
            Self::PodRole => "podRole",
            Self::InstanceRole => "instanceRole",
            Self::Role => "role",
            Self::PvcRole => "pvcRole",
            Self::TablespaceName => "tablespaceName",
            Self::MajorVersion => "majorVersion",
            Self::UserType => "userType",
            Self::Reload => "reload",
            Self::IsManaged => "isManaged",
        }
    }

    /// The whole key.
    pub fn key(self, identity: Identity) -> String {
        // CloudNativePG's twin of `instanceRole` never had a prefix.
        if self == Self::Role { "role".to_owned() } else { identity.key(self.suffix()) }
    }
}

/// Value of [`Label::PodRole`] on database pods.
pub const POD_ROLE_INSTANCE: &str = "instance";
/// Value of [`Label::InstanceRole`]: holder of the Lease.
pub const ROLE_PRIMARY: &str = "primary";
/// Value of [`Label::InstanceRole`]: a standby.
pub const ROLE_REPLICA: &str = "replica";
/// Value of [`Label::InstanceRole`]: an old primary that is not to be read from.
pub const ROLE_UNHEALTHY: &str = "unhealthy";
/// Value of [`Label::PvcRole`] on data volumes.
pub const PVC_ROLE_DATA: &str = "PG_DATA";
/// Value of [`Label::PvcRole`] on WAL volumes.
pub const PVC_ROLE_WAL: &str = "PG_WAL";
/// Value of [`Label::PvcRole`] on volumes of tablespaces.
pub const PVC_ROLE_TABLESPACE: &str = "PG_TABLESPACE";
/// Value of [`Label::UserType`] on `-app`.
pub const USER_TYPE_APP: &str = "app";
/// Value of [`Label::UserType`] on `-superuser`.
pub const USER_TYPE_SUPERUSER: &str = "superuser";
/// Value of labels that are switches.
pub const TRUE: &str = "true";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_carry_the_prefix_of_the_identity() {
        assert_eq!(Label::Cluster.key(Identity::Matriarch), "matriarch.dev/cluster");
        assert_eq!(Label::InstanceRole.key(Identity::Cnpg), "cnpg.io/instanceRole");
        assert_eq!(Label::PvcRole.key(Identity::Edb), "k8s.enterprisedb.io/pvcRole");
    }
}
