//! Every object's name. All are made from the cluster's name, which is at most 50 characters, so
//! that the longest of them is a valid name wherever Kubernetes allows 63.

/// Greatest length of a cluster's name.
pub const MAX_CLUSTER_NAME: usize = 50;

/// Greatest length of a name that is used as a label value or a DNS label.
pub const MAX_LABEL: usize = 63;

/// Greatest serial of an instance: four digits and `-wal` keep its names within 63 characters.
pub const MAX_SERIAL: u32 = 9999;

/// Name of the database container of an instance's pod.
pub const POSTGRES_CONTAINER: &str = "postgres";

/// The program in a pod, where the init container puts it.
pub const BINARY: &str = "/controller/matriarch";
/// Environment of the keeper: which memory stands in core dumps of PostgreSQL.
pub const COREDUMP_FILTER_VARIABLE: &str = "MATRIARCH_COREDUMP_FILTER";
/// Ending of a program that was fetched to take the agent's place.
pub const BINARY_NEXT: &str = "next";
/// Ending of the agent's former program.
pub const BINARY_PREVIOUS: &str = "previous";
/// Ending of a program that was taken back.
pub const BINARY_FAILED: &str = "failed";

/// Name of the init container that copies our binary.
pub const BOOTSTRAP_CONTAINER: &str = "bootstrap-controller";

/// PostgreSQL's superuser.
pub const SUPERUSER: &str = "postgres";

/// The role of streaming, rewinding and cloning, authenticated by certificate alone.
pub const REPLICATION_USER: &str = "streaming_replica";

/// The application's database and owner where the user names none.
pub const DEFAULT_DATABASE: &str = "app";

/// PostgreSQL's port in pods and Services.
pub const POSTGRES_PORT: u16 = 5432;

/// The agent's port in pods.
pub const AGENT_PORT: u16 = 8000;

/// The metrics port in pods.
pub const METRICS_PORT: u16 = 9187;

/// A Service of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// `-rw`: the primary; no selector, its one EndpointSlice belongs to the holder of the Lease.
    ReadWrite,
    /// `-ro`: standbys.
    ReadOnly,
    /// `-r`: all ready instances.
    Read,
    /// `-primary`: the primary by label, for people (`kubectl port-forward` wants a selector).
    Primary,
}

impl Service {
    /// All Services.
    pub const ALL: [Self; 4] = [Self::ReadWrite, Self::ReadOnly, Self::Read, Self::Primary];

    /// What follows the cluster's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::ReadWrite => "-rw",
            Self::ReadOnly => "-ro",
            Self::Read => "-r",
            Self::Primary => "-primary",
        }
    }

    /// The Service's name.
    pub fn of(self, cluster: &str) -> String {
        format!("{cluster}{}", self.suffix())
    }
}

/// The Service of the primary.
pub fn service_rw(cluster: &str) -> String {
    Service::ReadWrite.of(cluster)
}

/// The Service of the standbys.
pub fn service_ro(cluster: &str) -> String {
    Service::ReadOnly.of(cluster)
}

/// The Service of all ready instances.
pub fn service_r(cluster: &str) -> String {
    Service::Read.of(cluster)
}

/// The Service of the primary by label.
pub fn service_primary(cluster: &str) -> String {
    Service::Primary.of(cluster)
}

/// The one EndpointSlice of `-rw`.
pub fn endpoint_slice_rw(cluster: &str) -> String {
    Service::ReadWrite.of(cluster)
}

/// A Secret of a cluster that the operator makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Secret {
    /// `-app`: how the application connects.
    Application,
    /// `-superuser`: how the superuser connects.
    Superuser,
    /// `-ca`: the cluster's CA with its key; never mounted into a pod.
    Authority,
    /// `-server`: the certificate that PostgreSQL and the agent's port serve.
    Server,
    /// `-replication`: the client certificate of standbys and of agents among themselves.
    Replication,
}

impl Secret {
    /// All Secrets.
    pub const ALL: [Self; 5] =
        [Self::Application, Self::Superuser, Self::Authority, Self::Server, Self::Replication];

    /// What follows the cluster's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Application => "-app",
            Self::Superuser => "-superuser",
            Self::Authority => "-ca",
            Self::Server => "-server",
            Self::Replication => "-replication",
        }
    }

    /// The Secret's name.
    pub fn of(self, cluster: &str) -> String {
        format!("{cluster}{}", self.suffix())
    }
}

/// Secret with how the application connects.
pub fn secret_app(cluster: &str) -> String {
    Secret::Application.of(cluster)
}

/// Secret with how the superuser connects.
pub fn secret_superuser(cluster: &str) -> String {
    Secret::Superuser.of(cluster)
}

/// Secret with the cluster's CA.
pub fn secret_ca(cluster: &str) -> String {
    Secret::Authority.of(cluster)
}

/// Secret with the server certificate.
pub fn secret_server(cluster: &str) -> String {
    Secret::Server.of(cluster)
}

/// Secret with the replication certificate.
pub fn secret_replication(cluster: &str) -> String {
    Secret::Replication.of(cluster)
}

/// ConfigMap with the passwd and group files of the pods (traps P4).
pub fn config_map_passwd(cluster: &str) -> String {
    format!("{cluster}-passwd")
}

/// PodDisruptionBudget of the standbys.
pub fn pdb(cluster: &str) -> String {
    cluster.to_owned()
}

/// PodDisruptionBudget of the primary.
pub fn pdb_primary(cluster: &str) -> String {
    format!("{cluster}-primary")
}

/// Lease of the cluster: its holder is the primary.
pub fn lease(cluster: &str) -> String {
    cluster.to_owned()
}

/// ServiceAccount, Role and RoleBinding of the cluster's pods.
pub fn service_account(cluster: &str) -> String {
    cluster.to_owned()
}

/// Instance, pod and data volume with this serial.
pub fn instance(cluster: &str, serial: u32) -> String {
    format!("{cluster}-{serial}")
}

/// The data volume of an instance.
pub fn data_claim(instance: &str) -> String {
    instance.to_owned()
}

/// The WAL volume of an instance.
pub fn wal_claim(instance: &str) -> String {
    format!("{instance}-wal")
}

/// Greatest length of a tablespace's name: with `tbs-` it names a volume of a pod.
pub const MAX_TABLESPACE_NAME: usize = 59;

/// Below it are the volumes of tablespaces, each under its tablespace's name.
pub const TABLESPACES: &str = "/var/lib/postgresql/tablespaces";

/// A tablespace's name as a part of Kubernetes' names.
fn sanitized(tablespace: &str) -> String {
    tablespace.to_ascii_lowercase().replace('_', "-")
}

/// The volume of a tablespace of an instance.
pub fn tablespace_claim(instance: &str, tablespace: &str) -> String {
    format!("{instance}-tbs-{}", sanitized(tablespace))
}

/// The volume of a tablespace within a pod.
pub fn tablespace_volume(tablespace: &str) -> String {
    format!("tbs-{}", sanitized(tablespace))
}

/// Where a pod has the volume of a tablespace.
pub fn tablespace_mount(tablespace: &str) -> String {
    format!("{TABLESPACES}/{tablespace}")
}

/// A name that a tablespace can have: one of Kubernetes' label values that begins with a letter.
pub fn is_tablespace_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        && bytes.len() <= MAX_TABLESPACE_NAME
}

/// The serial in an instance's name, if it is one of this cluster's.
pub fn serial_of(cluster: &str, instance: &str) -> Option<u32> {
    let digits = instance.strip_prefix(cluster)?.strip_prefix('-')?;
    if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|serial| *serial <= MAX_SERIAL)
}

/// The names under which a Service can be reached, shortest first.
pub fn service_dns_names(service: &str, namespace: &str, domain: &str) -> [String; 4] {
    [
        service.to_owned(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.{domain}"),
    ]
}

/// True for a DNS label as in RFC 1035: lower-case letters, digits and hyphens, a letter first.
pub fn is_dns_1035_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(b'a'..=b'z'))
        && bytes.last().is_some_and(|last| *last != b'-')
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && bytes.len() <= MAX_LABEL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_longest_cluster_is_a_label() {
        let cluster = "c".repeat(MAX_CLUSTER_NAME);
        let member = instance(&cluster, MAX_SERIAL);
        let mut names = vec![
            config_map_passwd(&cluster),
            pdb(&cluster),
            pdb_primary(&cluster),
            lease(&cluster),
            service_account(&cluster),
            data_claim(&member),
            wal_claim(&member),
            tablespace_volume(&"t".repeat(MAX_TABLESPACE_NAME)),
            member,
        ];
        names.extend(Service::ALL.map(|service| service.of(&cluster)));
        names.extend(Secret::ALL.map(|secret| secret.of(&cluster)));
        for name in names {
            assert!(is_dns_1035_label(&name), "{name} has {} characters", name.len());
        }
    }

    #[test]
    fn a_serial_is_read_back_from_the_name_and_from_nothing_else() {
        assert_eq!(serial_of("c", &instance("c", 12)), Some(12));
        for other in ["c", "c-", "c-0", "c-01", "c-1-wal", "d-1", "c-99999", "c-+1"] {
            assert_eq!(serial_of("c", other), None, "{other}");
        }
    }

    #[test]
    fn a_tablespaces_name_is_one_of_volumes_too() {
        assert_eq!(tablespace_claim("c-1", "Fast_idx"), "c-1-tbs-fast-idx");
        assert_eq!(tablespace_mount("Fast_idx"), "/var/lib/postgresql/tablespaces/Fast_idx");
        for good in ["a", "Fast_idx", "t-1"] {
            assert!(is_tablespace_name(good), "{good}");
        }
        for bad in ["", "1a", "_a", "a_", "a.b", "a/b", "a b", "ä", &"a".repeat(60)] {
            assert!(!is_tablespace_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_dns_label_begins_with_a_letter() {
        for good in ["a", "a-1", "pg15"] {
            assert!(is_dns_1035_label(good), "{good}");
        }
        for bad in ["", "1a", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(64)] {
            assert!(!is_dns_1035_label(bad), "{bad}");
        }
    }
}
