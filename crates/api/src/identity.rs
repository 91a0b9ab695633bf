//! The API identity: under which group and names the operator serves. Chosen once at start-up.

use std::fmt;
use std::str::FromStr;

/// Under which group, label prefix and names the operator serves (design §2). A value chosen at
/// start-up, never a constant in the code, so that the tools and manifests of a peer work as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Our own names.
    #[default]
    Matriarch,
    /// CloudNativePG's names.
    Cnpg,
    /// The names of EDB Postgres for Kubernetes.
    Edb,
}

/// A name that is no [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown API identity {0:?}: it is one of matriarch, cnpg, edb")]
pub struct UnknownIdentity(String);

impl Identity {
    /// All identities.
    pub const ALL: [Self; 3] = [Self::Matriarch, Self::Cnpg, Self::Edb];

    /// The name on the command line (`--api-identity`) and in `MATRIARCH_API_IDENTITY`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Matriarch => "matriarch",
            Self::Cnpg => "cnpg",
            Self::Edb => "edb",
        }
    }

    /// The API group of all kinds.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Matriarch => "matriarch.dev",
            Self::Cnpg => "postgresql.cnpg.io",
            Self::Edb => "postgresql.k8s.enterprisedb.io",
        }
    }

    /// The API version of all kinds.
    pub const fn version(self) -> &'static str {
        "v1"
    }

    /// Group and version, as in a manifest's `apiVersion`.
    pub fn api_version(self) -> String {
        format!("{}/{}", self.group(), self.version())
    }

    /// The prefix of labels and annotations, without the slash.
    pub const fn label_prefix(self) -> &'static str {
        match self {
            Self::Matriarch => "matriarch.dev",
            Self::Cnpg => "cnpg.io",
            Self::Edb => "k8s.enterprisedb.io",
        }
    }

    /// A label's or annotation's key: prefix, slash, `suffix`.
    pub fn key(self, suffix: &str) -> String {
        format!("{}/{suffix}", self.label_prefix())
    }

    /// The value of `app.kubernetes.io/managed-by`.
    pub const fn managed_by(self) -> &'static str {
        match self {
            Self::Matriarch => "matriarch",
            Self::Cnpg => "cloudnative-pg",
            Self::Edb => "postgresql-operator",
        }
    }

    /// The field manager of every server-side apply, and the source of events.
    pub const fn operator_name(self) -> &'static str {
        match self {
            Self::Matriarch => "matriarch",
            Self::Cnpg => "cloudnative-pg",
            Self::Edb => "postgresql-operator",
        }
    }

    /// Name of the operator's leader-election Lease.
    pub const fn leader_lease(self) -> &'static str {
        match self {
            Self::Matriarch => "matriarch-operator",
            Self::Cnpg => "db9c8771.cnpg.io",
            Self::Edb => "db9c8771.k8s.enterprisedb.io",
        }
    }

    /// Beginning of the names of slots for high availability where the user writes none.
    pub const fn slot_prefix(self) -> &'static str {
        match self {
            Self::Matriarch => "_matriarch_",
            Self::Cnpg => "_cnpg_",
            Self::Edb => "_cnp_",
        }
    }

    /// Beginning of environment variables that users may not set, besides `PG` and our own.
    pub const fn environment_prefix(self) -> &'static str {
        match self {
            Self::Matriarch => "MATRIARCH_",
            Self::Cnpg => "CNPG_",
            Self::Edb => "CNP_",
        }
    }

    /// Beginning of metric names, without the underscore.
    pub const fn metric_prefix(self) -> &'static str {
        match self {
            Self::Matriarch => "matriarch",
            Self::Cnpg => "cnpg",
            Self::Edb => "cnp",
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Identity {
    type Err = UnknownIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|identity| identity.name() == text)
            .ok_or_else(|| UnknownIdentity(text.to_owned()))
    }
}

/// A kind that we serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A PostgreSQL cluster.
    Cluster,
    /// One instance of a cluster: directive and report.
    Instance,
    /// Images by major version, for one namespace.
    ImageCatalog,
    /// Images by major version, for all namespaces.
    ClusterImageCatalog,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] =
        [Self::Cluster, Self::Instance, Self::ImageCatalog, Self::ClusterImageCatalog];

    /// The kind's name in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Instance => "Instance",
            Self::ImageCatalog => "ImageCatalog",
            Self::ClusterImageCatalog => "ClusterImageCatalog",
        }
    }

    /// The resource's plural name in URLs and roles.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Cluster => "clusters",
            Self::Instance => "instances",
            Self::ImageCatalog => "imagecatalogs",
            Self::ClusterImageCatalog => "clusterimagecatalogs",
        }
    }

    /// The resource's singular name.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Instance => "instance",
            Self::ImageCatalog => "imagecatalog",
            Self::ClusterImageCatalog => "clusterimagecatalog",
        }
    }

    /// True if objects of this kind live in a namespace.
    pub const fn namespaced(self) -> bool {
        match self {
            Self::Cluster | Self::Instance | Self::ImageCatalog => true,
            Self::ClusterImageCatalog => false,
        }
    }

    /// Name of the CustomResourceDefinition.
    pub fn crd_name(self, identity: Identity) -> String {
        format!("{}.{}", self.plural(), identity.group())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_from_its_name() {
        for identity in Identity::ALL {
            assert_eq!(identity.name().parse(), Ok(identity));
        }
        let refused = "cloudnative".parse::<Identity>().unwrap_err().to_string();
        assert!(refused.contains("matriarch, cnpg, edb"), "{refused}");
    }

    #[test]
    fn identities_share_no_group_and_no_prefix() {
        for (left, right) in [(0, 1), (0, 2), (1, 2)] {
            let (left, right) = (Identity::ALL[left], Identity::ALL[right]);
            assert_ne!(left.group(), right.group());
            assert_ne!(left.label_prefix(), right.label_prefix());
            assert_ne!(left.slot_prefix(), right.slot_prefix());
        }
    }
}
