//! `pg_hba.conf`: who may connect, and how they prove who they are.
//!
//! Follows the documentation's chapter "The pg_hba.conf File" and PostgreSQL's
//! `src/backend/libpq/hba.c`. Ours come first (local by peer, replication by certificate), then
//! the user's, and last everybody by SCRAM over TLS. Over the network only TLS is taken: a user's
//! `host` line is written as `hostssl`. Nothing by `trust` or `password`; what a line lets in by
//! `md5`, which is how most manifests for CloudNativePG say it, comes in by SCRAM.

mod ldap;

pub use ldap::{Bind, Ldap};

use crate::version::Major;

/// The role that standbys, pg_rewind and pg_basebackup connect as.
pub const REPLICATION_ROLE: &str = "streaming_replica";

/// Name of the map in pg_ident.conf by which the pod's own user becomes `postgres`.
pub const LOCAL_MAP: &str = "local";

/// Why a line of the user's cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HbaProblem {
    /// It would be several lines for PostgreSQL.
    #[error("it contains a line break or a NUL; write one entry per line")]
    LineBreak,
    /// The next line would be taken for its continuation.
    #[error(
        "it ends with a backslash, so that the next line would continue it; remove the backslash"
    )]
    Continuation,
    /// A quote without end.
    #[error("a double quote is not ended; add the closing one")]
    Quote,
    /// An include directive.
    #[error("it includes a file, whose lines would go unchecked; write the lines here instead")]
    Include,
    /// Not a connection type.
    #[error("{found:?} is not a connection type; use hostssl, or local for the socket in the pod")]
    ConnectionType {
        /// The first field.
        found: String,
    },
    /// A type that lets TLS out.
    #[error("{found} takes connections without TLS; use hostssl")]
    WithoutTls {
        /// The first field.
        found: String,
    },
    /// Fields are missing.
    #[error(
        "the {missing} is missing; a line is: TYPE DATABASE USER ADDRESS METHOD (local has no ADDRESS)"
    )]
    Missing {
        /// What comes next in the line.
        missing: &'static str,
    },
    /// A field is a list or empty where one word is expected.
    #[error(
        "{found:?} is not an address; use all, samehost, samenet, a name, an address with /LENGTH, or an address and a mask"
    )]
    Address {
        /// The field.
        found: String,
    },
    /// Authentication that proves nothing.
    #[error("method {found} lets in whoever asks; use scram-sha-256 or cert")]
    ProvesNothing {
        /// The method.
        found: String,
    },
    /// Authentication that gives the password away.
    #[error("method {found} gives the password to whoever listens; use scram-sha-256")]
    WeakPassword {
        /// The method.
        found: String,
    },
    /// Not a method of this major.
    #[error(
        "{found:?} is not an authentication method of PostgreSQL {major}; use scram-sha-256, cert, ldap, gss, pam, radius or reject"
    )]
    Method {
        /// The field.
        found: String,
        /// The major version.
        major: Major,
    },
    /// A method in a line where it cannot work.
    #[error("method {method} works in lines of type {works_in} only; use scram-sha-256 here")]
    MethodPlace {
        /// The method.
        method: &'static str,
        /// Where it works.
        works_in: &'static str,
    },
    /// Not an option.
    #[error("{found:?} is not an option of a method; options are written NAME=VALUE")]
    Option {
        /// The field.
        found: String,
    },
}

/// A line of the user's that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pg_hba line {line} ({text:?}): {problem}")]
pub struct HbaError {
    /// Counted from 1 in the user's list.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What is wrong and what to do instead.
    pub problem: HbaProblem,
}

/// Splits a line into fields as `next_field_expand` does: blanks part fields, a comma goes on
/// with the list, `#` begins a comment. Each field is its list of words, without quotes.
pub(crate) fn split_fields(text: &str) -> Result<Vec<Vec<String>>, HbaProblem> {
    if text.contains(['\n', '\r', '\0']) {
        return Err(HbaProblem::LineBreak);
    }
    if text.ends_with('\\') {
        return Err(HbaProblem::Continuation);
    }
    let mut fields: Vec<Vec<String>> = Vec::new();
    let mut word: Option<String> = None;
    let (mut quoted, mut list_goes_on) = (false, false);
    let mut end_word = |word: &mut Option<String>, list_goes_on: &mut bool| {
        let Some(word) = word.take() else { return };
        match fields.last_mut() {
            Some(list) if *list_goes_on => list.push(word),
            _ => fields.push(vec![word]),
        }
        *list_goes_on = false;
    };
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if quoted => word.get_or_insert_default().push(c),
            '#' => break,
            ',' => {
                end_word(&mut word, &mut list_goes_on);
                list_goes_on = true;
            }
            c if c.is_ascii_whitespace() => end_word(&mut word, &mut list_goes_on),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err(HbaProblem::Quote);
    }
    end_word(&mut word, &mut list_goes_on);
    Ok(fields)
}

pub(crate) fn is_include(word: &str) -> bool {
    ["include", "include_if_exists", "include_dir"].contains(&word)
}

/// Options of all methods (`parse_hba_auth_opt`); values are for PostgreSQL to judge.
const OPTIONS: [&str; 30] = [
    "clientcert",
    "clientname",
    "compat_realm",
    "delegate_ident_mapping",
    "include_realm",
    "issuer",
    "krb_realm",
    "ldapbasedn",
    "ldapbinddn",
    "ldapbindpasswd",
    "ldapport",
    "ldapprefix",
    "ldapscheme",
    "ldapsearchattribute",
    "ldapsearchfilter",
    "ldapserver",
    "ldapsuffix",
    "ldaptls",
    "ldapurl",
    "map",
    "pam_use_hostname",
    "pamservice",
    "radiusidentifiers",
    "radiusports",
    "radiussecrets",
    "radiusservers",
    "realm",
    "scope",
    "upn_username",
    "validator",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Local,
    Network,
}

/// Checks one line of the user's. None if it is empty or a comment; else the text to write:
/// `host` and `hostnogssenc` become `hostssl`, `md5` becomes `scram-sha-256`.
fn check_line(text: &str, major: Major) -> Result<Option<String>, HbaProblem> {
    let fields = split_fields(text)?;
    let Some((kind, rest)) = fields.split_first() else { return Ok(None) };
    let kind = kind.join(",");
    if is_include(&kind) {
        return Err(HbaProblem::Include);
    }
    let place = match kind.as_str() {
        "local" => Place::Local,
        "host" | "hostssl" | "hostnogssenc" => Place::Network,
        "hostnossl" | "hostgssenc" => return Err(HbaProblem::WithoutTls { found: kind }),
        _ => return Err(HbaProblem::ConnectionType { found: kind }),
    };
    let missing = |missing| HbaProblem::Missing { missing };
    let (_database, rest) = rest.split_first().ok_or(missing("database"))?;
    let (_user, rest) = rest.split_first().ok_or(missing("user"))?;
    let rest = match place {
        Place::Local => rest,
        Place::Network => check_address(rest)?,
    };
    let (method, options) = rest.split_first().ok_or(missing("method"))?;
    check_method(&method.join(","), place, major)?;
    for option in options {
        let option = option.join(",");
        let known = option.split_once('=').is_some_and(|(name, _)| OPTIONS.contains(&name));
        if !known {
            return Err(HbaProblem::Option { found: option });
        }
    }
    let by_scram = (method.as_slice() == ["md5"])
        .then(|| by_scram(text, &fields, fields.len() - options.len() - 1));
    let line = match &by_scram {
        Some(Some(line)) => line.trim(),
        Some(None) => return Err(HbaProblem::WeakPassword { found: method.join(",") }),
        None => text.trim(),
    };
    // The type is plain: a quoted one is as good to PostgreSQL, but is not found here.
    let rewritten = ["hostnogssenc", "host"]
        .iter()
        .find(|word| **word == kind)
        .and_then(|word| line.strip_prefix(word));
    match rewritten {
        Some(rest) => Ok(Some(format!("hostssl{rest}"))),
        None if kind == "hostssl" || kind == "local" => Ok(Some(line.to_owned())),
        None => Err(HbaProblem::ConnectionType { found: line.to_owned() }),
    }
}

/// The line with the method, which is the field `at`, changed from `md5` to `scram-sha-256`. The
/// server takes `md5` for SCRAM itself wherever it holds a SCRAM verifier, and it makes no others
/// here (`password_encryption`): what is lost is the way in with an MD5 hash that was brought along.
fn by_scram(text: &str, fields: &[Vec<String>], at: usize) -> Option<String> {
    const METHOD: &str = "scram-sha-256";
    let mut wanted = fields.to_vec();
    *wanted.get_mut(at)? = vec![METHOD.to_owned()];
    // A database may be called md5 as well: the right place is where nothing else changes.
    text.match_indices("md5")
        .map(|(from, word)| {
            let (before, rest) = text.split_at(from);
            format!("{before}{METHOD}{}", &rest[word.len()..])
        })
        .find(|line| split_fields(line).as_ref() == Ok(&wanted))
}

/// Takes the address, and the mask if there is one, from the front of the fields.
fn check_address(fields: &[Vec<String>]) -> Result<&[Vec<String>], HbaProblem> {
    let (address, rest) = fields.split_first().ok_or(HbaProblem::Missing { missing: "address" })?;
    let wrong = || HbaProblem::Address { found: address.join(",") };
    let [text] = address.as_slice() else { return Err(wrong()) };
    if let Some((host, length)) = text.split_once('/') {
        let host: std::net::IpAddr = host.parse().map_err(|_| wrong())?;
        let longest = if host.is_ipv4() { 32 } else { 128 };
        let fits = length.parse::<u8>().is_ok_and(|length| length <= longest);
        return if fits { Ok(rest) } else { Err(wrong()) };
    }
    if let Ok(host) = text.parse::<std::net::IpAddr>() {
        let (mask, rest) =
            rest.split_first().ok_or(HbaProblem::Missing { missing: "address mask" })?;
        let mask: std::net::IpAddr = mask.join(",").parse().map_err(|_| wrong())?;
        return if mask.is_ipv4() == host.is_ipv4() { Ok(rest) } else { Err(wrong()) };
    }
    let name = text.strip_prefix('.').unwrap_or(text);
    let fits = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        // Digits and dots alone are an address that went wrong.
        && !name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if fits { Ok(rest) } else { Err(wrong()) }
}

fn check_method(method: &str, place: Place, major: Major) -> Result<(), HbaProblem> {
    let found = || method.to_owned();
    let only = |method, works_in| Err(HbaProblem::MethodPlace { method, works_in });
    match (method, place) {
        ("trust", _) | ("ident", Place::Network) => {
            Err(HbaProblem::ProvesNothing { found: found() })
        }
        ("password", _) => Err(HbaProblem::WeakPassword { found: found() }),
        ("peer", Place::Network) => only("peer", "local"),
        ("cert", Place::Local) => only("cert", "hostssl"),
        ("gss", Place::Local) => only("gss", "hostssl"),
        ("oauth", _) if major >= Major::V18 => Ok(()),
        ("scram-sha-256" | "md5" | "reject" | "peer" | "ident" | "cert" | "gss", _) => Ok(()),
        ("ldap" | "pam" | "radius", _) => Ok(()),
        _ => Err(HbaProblem::Method { found: found(), major }),
    }
}

/// Checks the user's lines and renders the whole file.
///
/// With LDAP nobody comes to the last line: PostgreSQL takes the first line that fits, as it does
/// with CloudNativePG's file. All wrong lines are reported at once.
pub fn render(
    user_lines: &[String],
    ldap: Option<&Ldap>,
    major: Major,
) -> Result<String, Vec<HbaError>> {
    let mut file = format!(
        "local all all peer map={LOCAL_MAP}\n\
         hostssl postgres {REPLICATION_ROLE} all cert\n\
         hostssl replication {REPLICATION_ROLE} all cert\n"
    );
    let mut errors = Vec::new();
    for (index, text) in user_lines.iter().enumerate() {
        match check_line(text, major) {
            Ok(Some(line)) => {
                file.push_str(&line);
                file.push('\n');
            }
            Ok(None) => {}
            Err(problem) => {
                errors.push(HbaError { line: index + 1, text: text.clone(), problem });
            }
        }
    }
    if let Some(ldap) = ldap {
        file.push_str(&ldap.line());
        file.push('\n');
    }
    file.push_str("hostssl all all all scram-sha-256\n");
    if errors.is_empty() { Ok(file) } else { Err(errors) }
}

#[cfg(test)]
mod tests;
