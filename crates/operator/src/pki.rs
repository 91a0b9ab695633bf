//! Certificates and passwords: made here, because making them needs chance and time; when they are
//! made is the planner's decision.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::Secret;
use matriarch_api::names;
use matriarch_api::secret::{CA_CERTIFICATE, CA_KEY, TLS_CERTIFICATE, TLS_KEY, connection};
use matriarch_plan::Seen;
use matriarch_plan::world::{Certificate, Identity, SecretFacts, SecretRole};
use matriarch_render::conform::conforms;
use matriarch_render::observe::is_going;
use matriarch_render::setup::Owner;
use matriarch_render::{Resolved, objects};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{GeneralName, X509Certificate};

/// How long certificates last. They are renewed when a third of that is left (I13).
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of the authority.
    pub authority: Duration,
    /// Of what it signs.
    pub leaf: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self { authority: Duration::from_secs(3_650 * DAY), leaf: Duration::from_secs(90 * DAY) }
    }
}

/// A key and certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key pair.
    #[error("cannot make a key pair")]
    Generate(#[source] rcgen::Error),
    /// The certificate cannot be signed.
    #[error("cannot sign a certificate")]
    Sign(#[source] rcgen::Error),
    /// The authority cannot sign.
    #[error("cannot use the authority")]
    Authority(#[source] rcgen::Error),
    /// A name that no certificate can carry.
    #[error("{name:?} is no name for a certificate")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

fn validity(params: &mut CertificateParams, now_ms: i64, life: Duration) {
    let now = Duration::from_millis(u64::try_from(now_ms).unwrap_or_default());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // Clocks of nodes differ: a certificate that is made now is valid for a peer that is behind.
    let slack = Duration::from_secs(300).min(life / 10);
    params.not_before = epoch + now.saturating_sub(slack);
    params.not_after = epoch + now + life;
}

/// Makes an authority.
///
/// # Errors
/// If there is no randomness.
pub fn make_authority(cluster: &str, now_ms: i64, life: Duration) -> Result<Pair, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::Generate)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("{cluster} CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, now_ms, life);
    let certificate = params.self_signed(&key).map_err(Error::Sign)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Signs a certificate for a new key.
///
/// # Errors
/// If the authority cannot be used, or a name cannot stand in a certificate.
pub fn sign(
    authority: &Pair,
    role: SecretRole,
    names: &[String],
    now_ms: i64,
    life: Duration,
) -> Result<Pair, Error> {
    let signer = KeyPair::from_pem(&authority.key).map_err(Error::Authority)?;
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate, signer).map_err(Error::Authority)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::Generate)?;
    let mut params = CertificateParams::default();
    let (common_name, usages) = match role {
        SecretRole::Replication => {
            (names::REPLICATION_USER.to_owned(), vec![ExtendedKeyUsagePurpose::ClientAuth])
        }
        SecretRole::Server
        | SecretRole::Authority
        | SecretRole::ServerAuthority
        | SecretRole::ClientAuthority
        | SecretRole::Application
        | SecretRole::Superuser => {
            (names.first().cloned().unwrap_or_default(), vec![ExtendedKeyUsagePurpose::ServerAuth])
        }
    };
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    params.use_authority_key_identifier_extension = true;
    for name in names {
        params.subject_alt_names.push(alternative(name)?);
    }
    validity(&mut params, now_ms, life);
    let certificate = params.signed_by(&key, &issuer).map_err(Error::Sign)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Makes a certificate that nobody signed, for a server whose clients know it by its hash. It does
/// not end within the life of the installation, because nobody looks at its end.
///
/// # Errors
/// If there is no randomness, or the name cannot stand in a certificate.
pub fn make_server(name: &str, now_ms: i64) -> Result<Pair, Error> {
    const LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::Generate)?;
    let mut params = CertificateParams::default();
    // A common name has 64 letters at most; the whole name stands among the alternative ones.
    params.distinguished_name.push(DnType::CommonName, "matriarch-agent-server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names.push(alternative(name)?);
    validity(&mut params, now_ms, LIFE);
    let certificate = params.self_signed(&key).map_err(Error::Sign)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn alternative(name: &str) -> Result<SanType, Error> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let dns = name
        .to_owned()
        .try_into()
        .map_err(|source| Error::Name { name: name.to_owned(), source })?;
    Ok(SanType::DnsName(dns))
}

/// All names that the server's certificate must have: the Services', every instance's, this host.
pub fn server_names(owner: &Owner<'_>, resolved: &Resolved) -> Vec<String> {
    let domain = &owner.setup.cluster_domain;
    let namespace = owner.cluster.namespace();
    let mut names: Vec<String> = names::Service::ALL
        .iter()
        .flat_map(|service| names::service_dns_names(&service.of(owner.name()), namespace, domain))
        .collect();
    // Agents verify a peer by its instance's name, never by its address.
    let most = u32::try_from(owner.cluster.spec.instances.unwrap_or(1)).unwrap_or(1);
    let members = matriarch_render::observe::memory(owner);
    let highest = members.members.values().map(|member| member.serial).max().unwrap_or(0);
    names.extend((1..=most.max(highest)).map(|serial| names::instance(owner.name(), serial)));
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    names.extend(resolved.alternative_names.iter().cloned());
    names
}

/// A password of 256 bits.
pub fn make_password() -> String {
    let bytes: [u8; 32] = rand::random();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Fingerprint of a certificate: SHA-256 of its DER form, hexadecimal.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    hexadecimal(digest::digest(&digest::SHA256, der).as_ref())
}

/// Hexadecimal, lower case.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A certificate out of a bundle.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its fingerprint.
    pub fingerprint: String,
    /// PEM.
    pub pem: String,
    der: Vec<u8>,
}

/// All certificates of a PEM bundle; what is none is left out.
pub fn bundle(text: &str) -> Vec<Entry> {
    Pem::iter_from_buffer(text.as_bytes())
        .filter_map(Result::ok)
        .filter(|pem| pem.label == "CERTIFICATE")
        .map(|pem| Entry {
            fingerprint: fingerprint(&pem.contents),
            pem: encode(&pem.contents),
            der: pem.contents,
        })
        .collect()
}

fn encode(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The text of a key of a Secret.
pub fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok().filter(|text| !text.is_empty())
}

/// Judges Secrets: what the planner may know of them, which is never a key.
pub struct Judge<'a> {
    /// Whose they are.
    pub owner: &'a Owner<'a>,
    /// What they are to be.
    pub resolved: &'a Resolved,
    /// As they were read.
    pub secrets: &'a BTreeMap<SecretRole, Seen<Secret>>,
    /// Now.
    pub now_ms: i64,
}

impl Judge<'_> {
    /// The facts about one Secret.
    pub fn facts(&self, role: SecretRole) -> Seen<SecretFacts> {
        let secret = match self.secrets.get(&role) {
            Some(Seen::Known(secret)) => secret,
            Some(Seen::Absent) | None => return Seen::Absent,
            Some(Seen::Stale(_)) => return Seen::Unknown { why: "not read anew".to_owned() },
            Some(Seen::Unknown { why }) => return Seen::Unknown { why: why.clone() },
        };
        let metadata = &secret.metadata;
        let version = metadata.resource_version.clone().unwrap_or_default();
        let mut facts = SecretFacts {
            identity: Identity {
                uid: metadata.uid.clone().unwrap_or_default(),
                resource_version: version.clone(),
            },
            name: metadata.name.clone().unwrap_or_default(),
            deleting: is_going(self.owner, metadata),
            version,
            invalid: None,
            conforms: true,
            certificate: None,
            trusted: Vec::new(),
        };
        match role {
            SecretRole::Authority | SecretRole::ServerAuthority | SecretRole::ClientAuthority => {
                self.judge_authority(role, secret, &mut facts);
            }
            SecretRole::Server | SecretRole::Replication => {
                self.judge_leaf(role, secret, &mut facts);
            }
            SecretRole::Application | SecretRole::Superuser => {
                self.judge_login(role, secret, &mut facts);
            }
        }
        Seen::Known(facts)
    }

    fn judge_authority(&self, role: SecretRole, secret: &Secret, facts: &mut SecretFacts) {
        let certificates = bundle(&text(secret, CA_CERTIFICATE).unwrap_or_default());
        facts.trusted = certificates.iter().map(|entry| entry.fingerprint.clone()).collect();
        let Some(own) = certificates.first() else {
            facts.invalid = Some(format!("{CA_CERTIFICATE} holds no certificate"));
            return;
        };
        facts.certificate = parse(&own.der).map(|parsed| certificate(&parsed, None, true));
        // Without a key it verifies what the user gave, but signs nothing.
        let signs = match role {
            SecretRole::ServerAuthority => self.signs(SecretRole::Server),
            SecretRole::ClientAuthority => self.signs(SecretRole::Replication),
            SecretRole::Authority
            | SecretRole::Server
            | SecretRole::Replication
            | SecretRole::Application
            | SecretRole::Superuser => true,
        };
        if signs {
            let key = text(secret, CA_KEY).map(|key| KeyPair::from_pem(&key));
            match key {
                None => facts.invalid = Some(format!("{CA_KEY} is missing")),
                Some(Err(_)) => facts.invalid = Some(format!("{CA_KEY} is no private key")),
                Some(Ok(_)) => {}
            }
        }
        if role == SecretRole::Authority {
            facts.conforms =
                self.metadata_conforms(secret, &objects::secret::authority(self.owner, "", ""));
        }
    }

    /// The authority that the user gave has to sign this leaf, because the user gave none.
    fn signs(&self, leaf: SecretRole) -> bool {
        let name = self.resolved.secret_names.get(&leaf);
        let own = match leaf {
            SecretRole::Replication => names::secret_replication(self.owner.name()),
            SecretRole::Server
            | SecretRole::Authority
            | SecretRole::ServerAuthority
            | SecretRole::ClientAuthority
            | SecretRole::Application
            | SecretRole::Superuser => names::secret_server(self.owner.name()),
        };
        name == Some(&own)
    }

    fn judge_leaf(&self, role: SecretRole, secret: &Secret, facts: &mut SecretFacts) {
        let chain = bundle(&text(secret, TLS_CERTIFICATE).unwrap_or_default());
        let verifiers = bundle(&text(secret, CA_CERTIFICATE).unwrap_or_default());
        facts.trusted = verifiers.iter().map(|entry| entry.fingerprint.clone()).collect();
        let Some(leaf) = chain.first() else {
            facts.invalid = Some(format!("{TLS_CERTIFICATE} holds no certificate"));
            return;
        };
        match text(secret, TLS_KEY).map(|key| KeyPair::from_pem(&key)) {
            None => facts.invalid = Some(format!("{TLS_KEY} is missing")),
            Some(Err(_)) => facts.invalid = Some(format!("{TLS_KEY} is no private key")),
            Some(Ok(_)) => {}
        }
        let mut candidates = verifiers;
        for authority in
            [SecretRole::Authority, SecretRole::ServerAuthority, SecretRole::ClientAuthority]
        {
            if let Some(Seen::Known(secret)) = self.secrets.get(&authority) {
                candidates.extend(bundle(&text(secret, CA_CERTIFICATE).unwrap_or_default()));
            }
        }
        let Some(parsed) = parse(&leaf.der) else {
            facts.invalid = Some(format!("{TLS_CERTIFICATE} cannot be read"));
            return;
        };
        let issuer = candidates.iter().find(|candidate| {
            parse(&candidate.der)
                .is_some_and(|ca| parsed.verify_signature(Some(ca.public_key())).is_ok())
        });
        let suffices = match role {
            SecretRole::Server => {
                let carried = alternatives(&parsed);
                server_names(self.owner, self.resolved).iter().all(|name| carried.contains(name))
            }
            SecretRole::Replication
            | SecretRole::Authority
            | SecretRole::ServerAuthority
            | SecretRole::ClientAuthority
            | SecretRole::Application
            | SecretRole::Superuser => true,
        };
        let found = certificate(&parsed, issuer.map(|entry| entry.fingerprint.clone()), suffices);
        if found.not_after_ms <= self.now_ms && facts.invalid.is_none() {
            facts.invalid = Some("its certificate has expired".to_owned());
        }
        facts.certificate = Some(found);
        if self.signs(role) {
            let wanted = objects::secret::leaf(self.owner, role, "", "", "");
            facts.conforms = self.metadata_conforms(secret, &wanted);
        }
    }

    fn judge_login(&self, role: SecretRole, secret: &Secret, facts: &mut SecretFacts) {
        let Some(password) = text(secret, connection::PASSWORD) else {
            facts.invalid = Some("password is missing".to_owned());
            return;
        };
        let own = match role {
            SecretRole::Superuser => names::secret_superuser(self.owner.name()),
            SecretRole::Application
            | SecretRole::Authority
            | SecretRole::ServerAuthority
            | SecretRole::ClientAuthority
            | SecretRole::Server
            | SecretRole::Replication => names::secret_app(self.owner.name()),
        };
        if facts.name != own {
            let (user, _) = objects::secret::account(self.resolved, role);
            match text(secret, connection::USERNAME) {
                None => facts.invalid = Some("username is missing".to_owned()),
                Some(given) if given != user => {
                    facts.invalid = Some(format!("username is {given:?}, not {user:?}"));
                }
                Some(_) => {}
            }
            return;
        }
        let verifier = self.server_verifier();
        let wanted = objects::secret::login(self.owner, self.resolved, role, &password, &verifier);
        let live = serde_json::to_value(secret).unwrap_or_default();
        facts.conforms = conforms(&wanted["data"], &live["data"])
            && conforms(&wanted["metadata"], &live["metadata"]);
    }

    /// What applications verify the server with.
    pub fn server_verifier(&self) -> String {
        let of = |role: SecretRole| {
            self.secrets
                .get(&role)
                .and_then(Seen::known)
                .and_then(|secret| text(secret, CA_CERTIFICATE))
        };
        of(SecretRole::Server)
            .or_else(|| of(SecretRole::ServerAuthority))
            .or_else(|| of(SecretRole::Authority))
            .unwrap_or_default()
    }

    fn metadata_conforms(&self, secret: &Secret, wanted: &serde_json::Value) -> bool {
        let live = serde_json::to_value(&secret.metadata).unwrap_or_default();
        conforms(&wanted["metadata"], &live)
    }
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    use x509_parser::prelude::FromDer;
    X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed)
}

fn certificate(
    parsed: &X509Certificate<'_>,
    issuer: Option<String>,
    names_suffice: bool,
) -> Certificate {
    let validity = parsed.validity();
    Certificate {
        not_before_ms: validity.not_before.timestamp().saturating_mul(1_000),
        not_after_ms: validity.not_after.timestamp().saturating_mul(1_000),
        issuer,
        names_suffice,
    }
}

fn alternatives(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = parsed.subject_alternative_name() else { return Vec::new() };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                Ok(four) => Some(std::net::Ipv4Addr::from(four).to_string()),
                Err(_) => <[u8; 16]>::try_from(*bytes)
                    .ok()
                    .map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string()),
            },
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
