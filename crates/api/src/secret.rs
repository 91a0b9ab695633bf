//! Keys of the Secrets that we make and read.

/// Keys of `-app` and `-superuser` that CloudNativePG writes.
pub mod connection {
    /// Role.
    pub const USERNAME: &str = "username";
    /// Role, once more.
    pub const USER: &str = "user";
    /// Password.
    pub const PASSWORD: &str = "password";
    /// Database.
    pub const DBNAME: &str = "dbname";
    /// Service `-rw`, short.
    pub const HOST: &str = "host";
    /// Port.
    pub const PORT: &str = "port";
    /// A line of a password file.
    pub const PGPASS: &str = "pgpass";
    /// URI with the short host name.
    pub const URI: &str = "uri";
    /// JDBC URI with the short host name.
    pub const JDBC_URI: &str = "jdbc-uri";
    /// URI with the full host name.
    pub const FQDN_URI: &str = "fqdn-uri";
    /// JDBC URI with the full host name.
    pub const FQDN_JDBC_URI: &str = "fqdn-jdbc-uri";
    /// The CA that verifies the server (traps K12: applications must not mount `-ca`, which holds
    /// the CA's key).
    pub const CA_CERTIFICATE: &str = "ca.crt";
    /// `verify-full`.
    pub const SSLMODE: &str = "sslmode";
    /// URI that verifies the server; expects `ca.crt` of this Secret beside it.
    pub const VERIFY_FULL_URI: &str = "verify-full-uri";
    /// JDBC URI that verifies the server.
    pub const VERIFY_FULL_JDBC_URI: &str = "verify-full-jdbc-uri";

    /// All keys.
    pub const ALL: [&str; 15] = [
        USERNAME,
        USER,
        PASSWORD,
        DBNAME,
        HOST,
        PORT,
        PGPASS,
        URI,
        JDBC_URI,
        FQDN_URI,
        FQDN_JDBC_URI,
        CA_CERTIFICATE,
        SSLMODE,
        VERIFY_FULL_URI,
        VERIFY_FULL_JDBC_URI,
    ];
}

/// Type of Secrets with a name and a password.
pub const TYPE_BASIC_AUTH: &str = "kubernetes.io/basic-auth";
/// Type of Secrets with a certificate and a key.
pub const TYPE_TLS: &str = "kubernetes.io/tls";
/// Type of all other Secrets.
pub const TYPE_OPAQUE: &str = "Opaque";
/// A certificate.
pub const TLS_CERTIFICATE: &str = "tls.crt";
/// The key of the certificate.
pub const TLS_KEY: &str = "tls.key";
/// A CA's certificate, or several while one replaces the other.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// A CA's key.
pub const CA_KEY: &str = "ca.key";
/// In `-passwd`: the passwd file.
pub const PASSWD: &str = "passwd";
/// In `-passwd`: the group file.
pub const GROUP: &str = "group";

/// What the keys of `-app` and `-superuser` are made from.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Role.
    pub user: &'a str,
    /// Password.
    pub password: &'a str,
    /// Database; `*` (any) for the superuser.
    pub database: &'a str,
    /// Service, short.
    pub host: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Domain of the Kubernetes cluster, e.g. `cluster.local`.
    pub domain: &'a str,
    /// Port.
    pub port: u16,
    /// Certificates of the CA, PEM.
    pub ca: &'a str,
}

impl Connection<'_> {
    /// All keys with their values.
    pub fn data(&self) -> std::collections::BTreeMap<String, String> {
        let short = format!("{}.{}", self.host, self.namespace);
        let full = format!("{short}.svc.{}", self.domain);
        let entries = [
            (connection::USERNAME, self.user.to_owned()),
            (connection::USER, self.user.to_owned()),
            (connection::PASSWORD, self.password.to_owned()),
            (connection::DBNAME, self.database.to_owned()),
            (connection::HOST, self.host.to_owned()),
            (connection::PORT, self.port.to_string()),
            (connection::PGPASS, self.pgpass()),
            (connection::URI, self.uri(&short, "")),
            (connection::JDBC_URI, self.jdbc(&short, "")),
            (connection::FQDN_URI, self.uri(&full, "")),
            (connection::FQDN_JDBC_URI, self.jdbc(&full, "")),
            (connection::CA_CERTIFICATE, self.ca.to_owned()),
            (connection::SSLMODE, "verify-full".to_owned()),
            (
                connection::VERIFY_FULL_URI,
                self.uri(&full, "?sslmode=verify-full&sslrootcert=ca.crt"),
            ),
            (
                connection::VERIFY_FULL_JDBC_URI,
                self.jdbc(&full, "&sslmode=verify-full&sslrootcert=ca.crt"),
            ),
        ];
        entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn pgpass(&self) -> String {
        let field = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let database = if self.database == "*" { "*".to_owned() } else { field(self.database) };
        format!(
            "{}:{}:{database}:{}:{}\n",
            self.host,
            self.port,
            field(self.user),
            field(self.password)
        )
    }

    fn uri(&self, host: &str, query: &str) -> String {
        format!(
            "postgresql://{}:{}@{host}:{}/{}{query}",
            percent(self.user),
            percent(self.password),
            self.port,
            percent(self.database)
        )
    }

    fn jdbc(&self, host: &str, query: &str) -> String {
        format!(
            "jdbc:postgresql://{host}:{}/{}?password={}&user={}{query}",
            self.port,
            percent(self.database),
            percent(self.password),
            percent(self.user)
        )
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters and `*`.
fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'*' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Connection<'static> {
        Connection {
            user: "app",
            password: "p:w/\\d",
            database: "app",
            host: "c-rw",
            namespace: "ns",
            domain: "cluster.local",
            port: 5432,
            ca: "PEM",
        }
    }

    #[test]
    fn every_key_is_written_and_no_other() {
        let data = sample().data();
        let keys: Vec<_> = data.keys().map(String::as_str).collect();
        let mut expected = connection::ALL;
        expected.sort_unstable();
        assert_eq!(keys, expected);
    }

    #[test]
    fn passwords_are_escaped_as_each_format_demands() {
        let data = sample().data();
        assert_eq!(data["pgpass"], "c-rw:5432:app:app:p\\:w/\\\\d\n");
        assert_eq!(data["uri"], "postgresql://app:p%3Aw%2F%5Cd@c-rw.ns:5432/app");
        assert_eq!(
            data["fqdn-jdbc-uri"],
            "jdbc:postgresql://c-rw.ns.svc.cluster.local:5432/app?password=p%3Aw%2F%5Cd&user=app"
        );
        assert!(data["verify-full-uri"].contains("sslmode=verify-full"));
    }
}
