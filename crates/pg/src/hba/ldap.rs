//! The line by which everybody who comes over the network is asked for by LDAP
//! (the documentation's chapter "LDAP Authentication").

/// Authentication by LDAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ldap {
    /// Host names or addresses, separated by blanks.
    pub server: String,
    /// The port, if it is not the scheme's.
    pub port: Option<u16>,
    /// `ldap` or `ldaps`, if written.
    pub scheme: Option<String>,
    /// StartTLS.
    pub tls: bool,
    /// How a user's entry is found.
    pub bind: Bind,
}

/// How a user's entry is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// The distinguished name is made from the user's name.
    Name {
        /// Before it.
        prefix: String,
        /// After it.
        suffix: String,
    },
    /// It is searched for.
    Search {
        /// Where.
        base: String,
        /// Who searches; nobody in particular if empty.
        as_dn: String,
        /// Their password.
        password: Option<String>,
        /// The attribute that holds the user's name.
        attribute: Option<String>,
        /// A filter with `$username` in it.
        filter: Option<String>,
    },
}

impl Ldap {
    /// The line of pg_hba.conf. A value with a line break or a NUL has no form there, and an option
    /// with such a one is left out, so that nobody gets in by what stands after it.
    pub fn line(&self) -> String {
        let mut line = "hostssl all all all ldap".to_owned();
        let mut option = |name: &str, value: &str| {
            if !value.is_empty() && !value.contains(['\n', '\r', '\0']) {
                line.push_str(&format!(" {name}=\"{}\"", value.replace('"', "\"\"")));
            }
        };
        option("ldapserver", &self.server);
        option("ldapport", &self.port.map(|port| port.to_string()).unwrap_or_default());
        option("ldapscheme", self.scheme.as_deref().unwrap_or_default());
        option("ldaptls", if self.tls { "1" } else { "" });
        match &self.bind {
            Bind::Name { prefix, suffix } => {
                option("ldapprefix", prefix);
                option("ldapsuffix", suffix);
            }
            Bind::Search { base, as_dn, password, attribute, filter } => {
                option("ldapbasedn", base);
                option("ldapbinddn", as_dn);
                option("ldapbindpasswd", password.as_deref().unwrap_or_default());
                option("ldapsearchfilter", filter.as_deref().unwrap_or_default());
                option("ldapsearchattribute", attribute.as_deref().unwrap_or_default());
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ldap(bind: Bind) -> Ldap {
        Ldap {
            server: "a b".to_owned(),
            port: Some(636),
            scheme: Some("ldaps".to_owned()),
            tls: false,
            bind,
        }
    }

    #[test]
    fn a_name_is_made_or_searched_for() {
        let name = Bind::Name { prefix: "uid=".to_owned(), suffix: ",dc=\"x\"".to_owned() };
        assert_eq!(
            ldap(name).line(),
            r#"hostssl all all all ldap ldapserver="a b" ldapport="636" ldapscheme="ldaps" ldapprefix="uid=" ldapsuffix=",dc=""x""""#
        );
        let search = |password: &str| Bind::Search {
            base: "dc=x".to_owned(),
            as_dn: "cn=pg".to_owned(),
            password: Some(password.to_owned()),
            attribute: Some("uid".to_owned()),
            filter: None,
        };
        let line = ldap(search("s#1")).line();
        assert!(line.ends_with(r#"ldapbasedn="dc=x" ldapbinddn="cn=pg" ldapbindpasswd="s#1" ldapsearchattribute="uid""#), "{line}");
        let broken = ldap(search("a\nlocal all all trust")).line();
        assert!(!broken.contains("trust") && !broken.contains('\n'), "{broken}");
    }
}
