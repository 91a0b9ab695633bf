use std::time::Duration;

use k8s_openapi::ByteString;
use matriarch_api::Cluster;
use matriarch_render::{References, Setup, resolve};
use serde_json::json;

use super::*;

const NOW_MS: i64 = 1_790_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);

fn cluster() -> Cluster {
    serde_json::from_value(json!({
        "metadata": {"name": "c", "namespace": "ns", "uid": "u"},
        "spec": {"instances": 2, "imageName": "x/postgresql:17", "storage": {"size": "1Gi"}},
    }))
    .unwrap()
}

fn secret(name: &str, data: &[(&str, &str)]) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.to_owned());
    secret.metadata.resource_version = Some("1".to_owned());
    let data =
        data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
    secret.data = Some(data.collect());
    secret
}

struct Fixture {
    setup: Setup,
    cluster: Cluster,
    secrets: BTreeMap<SecretRole, Seen<Secret>>,
}

impl Fixture {
    fn new() -> Self {
        Self { setup: Setup::default(), cluster: cluster(), secrets: BTreeMap::new() }
    }

    fn put(&mut self, role: SecretRole, secret: Secret) {
        self.secrets.insert(role, Seen::Known(secret));
    }

    fn facts(&self, role: SecretRole, now_ms: i64) -> SecretFacts {
        let owner = Owner { setup: &self.setup, cluster: &self.cluster };
        let resolved = resolve(&owner, &References::default());
        let judge = Judge { owner: &owner, resolved: &resolved, secrets: &self.secrets, now_ms };
        judge.facts(role).known().cloned().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let owner = Owner { setup: &self.setup, cluster: &self.cluster };
        server_names(&owner, &resolve(&owner, &References::default()))
    }
}

#[test]
fn a_leaf_is_judged_by_who_signed_it_and_for_which_names() {
    let mut fixture = Fixture::new();
    let old = make_authority("c", NOW_MS, DAY * 100).unwrap();
    let new = make_authority("c", NOW_MS, DAY * 100).unwrap();
    let leaf = sign(&old, SecretRole::Server, &fixture.names(), NOW_MS, DAY * 9).unwrap();
    let both = format!("{}{}", new.certificate, old.certificate);
    let authority = secret("c-ca", &[(CA_CERTIFICATE, &both), (CA_KEY, &new.key)]);
    fixture.put(SecretRole::Authority, authority);
    let data =
        [(TLS_CERTIFICATE, &*leaf.certificate), (TLS_KEY, &*leaf.key), (CA_CERTIFICATE, &*both)];
    fixture.put(SecretRole::Server, secret("c-server", &data));
    let signer = fixture.facts(SecretRole::Authority, NOW_MS);
    let facts = fixture.facts(SecretRole::Server, NOW_MS);
    assert_eq!(signer.invalid, None);
    assert_eq!(facts.invalid, None);
    let certificate = facts.certificate.unwrap();
    assert_eq!(certificate.issuer.as_ref(), Some(&signer.trusted[1]), "signed by the older one");
    assert!(certificate.names_suffice);
    assert_eq!(certificate.not_after_ms, NOW_MS + 9 * 86_400_000);
    let later = fixture.facts(SecretRole::Server, NOW_MS + 10 * 86_400_000);
    assert!(later.invalid.unwrap().contains("expired"));
    fixture.cluster.spec.instances = Some(5);
    let grown = fixture.facts(SecretRole::Server, NOW_MS).certificate.unwrap();
    assert!(!grown.names_suffice, "c-5 is not among the names");
}

#[test]
fn what_cannot_be_used_says_why() {
    let mut fixture = Fixture::new();
    fixture.put(SecretRole::Authority, secret("c-ca", &[(CA_CERTIFICATE, "nonsense")]));
    let why = fixture.facts(SecretRole::Authority, NOW_MS).invalid.unwrap();
    assert!(why.contains("ca.crt"), "{why}");
    let authority = make_authority("c", NOW_MS, DAY).unwrap();
    let data = [(CA_CERTIFICATE, &*authority.certificate)];
    fixture.put(SecretRole::Authority, secret("c-ca", &data));
    let why = fixture.facts(SecretRole::Authority, NOW_MS).invalid.unwrap();
    assert!(why.contains("ca.key"), "{why}");
    fixture.put(SecretRole::Application, secret("c-app", &[("username", "app")]));
    let why = fixture.facts(SecretRole::Application, NOW_MS).invalid.unwrap();
    assert!(why.contains("password"), "{why}");
}

#[test]
fn the_names_of_the_server_cover_services_instances_and_this_host() {
    let names = Fixture::new().names();
    for name in ["c-rw", "c-ro.ns.svc", "c-r.ns.svc.cluster.local", "c-2", "localhost", "127.0.0.1"]
    {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
}

#[test]
fn passwords_differ_and_need_no_quoting() {
    let (one, other) = (make_password(), make_password());
    assert_ne!(one, other);
    assert!(one.len() >= 43);
    assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
}
