//! The present world, as far as the user may see it. Of Secrets only metadata are read: whether
//! their content is in order is taken from what the operator last said.

use std::collections::BTreeMap;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::PartialObjectMeta;
use matriarch_api::{Cluster, Instance, names};
use matriarch_plan::world::{Certificate, Identity, SecretFacts, SecretRole};
use matriarch_plan::{AgentBinary, Seen};
use matriarch_render::objects::instance::directive;
use matriarch_render::observe::{is_going, memory};
use matriarch_render::setup::{Owner, Setup};
use matriarch_render::{Objects, References, Resolved, resolve};

use crate::session::Session;

/// What was read.
pub struct Gathered {
    /// What the operator was started with, as far as its objects show.
    pub setup: Setup,
    /// The objects.
    pub objects: Objects,
    /// What was taken for true without having been seen.
    pub assumed: Vec<String>,
}

/// Reads it all.
pub async fn read(
    session: &Session,
    changed: &Cluster,
    present: Option<&Cluster>,
    now_ms: i64,
) -> Gathered {
    // Only the identity matters to what is read.
    let bare = Setup { identity: session.identity, ..Setup::default() };
    let owner = Owner { setup: &bare, cluster: changed };
    let objects =
        matriarch_operator::gather::read_without_secrets(&session.client, &owner, now_ms).await;
    let mut assumed = Vec::new();
    let setup = setup(session, objects.pods.as_deref().unwrap_or_default(), &mut assumed);
    let agent = offer(objects.instances.as_deref().unwrap_or_default());
    let setup = Setup { agent, ..setup };
    let owner = Owner { setup: &setup, cluster: changed };
    let references = matriarch_operator::gather::read_references(&session.client, &owner).await;
    let resolved = resolve(&owner, &references);
    let judge = Judge {
        owner,
        resolved: &resolved,
        present,
        instances: objects.instances.as_deref().unwrap_or_default(),
        now_ms,
    };
    let secrets = judge.read(session, &mut assumed).await;
    Gathered { setup, objects: Objects { secrets, references, ..objects }, assumed }
}

/// The operator's image is that of the pods' init container.
fn setup(session: &Session, pods: &[Pod], assumed: &mut Vec<String>) -> Setup {
    let setup = Setup { identity: session.identity, ..Setup::default() };
    let images = pods.iter().filter_map(|pod| {
        let containers = pod.spec.as_ref()?.init_containers.as_ref()?;
        let ours = containers.iter().find(|one| one.name == names::BOOTSTRAP_CONTAINER)?;
        ours.image.clone()
    });
    let images: std::collections::BTreeSet<String> = images.collect();
    if images.len() > 1 {
        assumed.push("the pods' init containers have different images: agents are being upgraded, and the last image is taken for the operator's".to_owned());
    }
    match images.into_iter().next_back() {
        Some(operator_image) => Setup { operator_image, ..setup },
        None => setup,
    }
}

/// What the operator offers to agents: what it has told some of them.
fn offer(instances: &[Instance]) -> Option<AgentBinary> {
    instances.iter().find_map(|instance| directive(&instance.spec).agent)
}

/// What is known of Secrets without reading them.
struct Judge<'a> {
    owner: Owner<'a>,
    resolved: &'a Resolved,
    present: Option<&'a Cluster>,
    instances: &'a [Instance],
    now_ms: i64,
}

impl Judge<'_> {
    async fn read(
        &self,
        session: &Session,
        assumed: &mut Vec<String>,
    ) -> BTreeMap<SecretRole, Seen<SecretFacts>> {
        let api: Api<Secret> = Api::namespaced(session.client.clone(), &session.namespace);
        let api = &api;
        let reads = self
            .resolved
            .secret_names
            .iter()
            .map(|(role, name)| async move { (*role, name, api.get_metadata_opt(name).await) });
        let mut secrets = BTreeMap::new();
        let (mut hidden, mut seen) = (Vec::new(), false);
        for (role, name, read) in join_all(reads).await {
            let facts = match read {
                Ok(Some(metadata)) => {
                    seen = true;
                    Seen::Known(self.facts(role, name, Some(&metadata)))
                }
                Ok(None) => Seen::Absent,
                Err(kube::Error::Api(answer)) if answer.code == 403 => {
                    hidden.push(name.as_str());
                    Seen::Known(self.facts(role, name, None))
                }
                Err(error) => Seen::Unknown { why: error.to_string() },
            };
            secrets.insert(role, facts);
        }
        if seen {
            assumed.push("the content of Secrets is not read and taken to be in order".to_owned());
        }
        if !hidden.is_empty() {
            let names = hidden.join(", ");
            assumed
                .push(format!("you may not get these Secrets, they are taken to exist: {names}"));
        }
        secrets
    }

    fn facts(
        &self,
        role: SecretRole,
        name: &str,
        read: Option<&PartialObjectMeta<Secret>>,
    ) -> SecretFacts {
        let identity = read.map(|read| Identity {
            uid: read.metadata.uid.clone().unwrap_or_default(),
            resource_version: read.metadata.resource_version.clone().unwrap_or_default(),
        });
        let told = || {
            let mut versions = self
                .instances
                .iter()
                .filter_map(|instance| instance.spec.access.secret_versions.get(name).cloned());
            versions.next().unwrap_or_default()
        };
        let version = identity.as_ref().map_or_else(told, |seen| seen.resource_version.clone());
        // One authority under an invented fingerprint that everybody trusts: nothing is due for
        // repair on account of what was not read.
        let authority = "not read".to_owned();
        SecretFacts {
            identity: identity.unwrap_or_default(),
            name: name.to_owned(),
            deleting: read.is_some_and(|read| is_going(&self.owner, &read.metadata)),
            version,
            invalid: None,
            conforms: true,
            certificate: self.certificate(role, name, &authority),
            trusted: vec![authority],
        }
    }

    fn certificate(&self, role: SecretRole, name: &str, authority: &str) -> Option<Certificate> {
        match role {
            SecretRole::Application | SecretRole::Superuser => return None,
            SecretRole::Authority
            | SecretRole::ServerAuthority
            | SecretRole::ClientAuthority
            | SecretRole::Server
            | SecretRole::Replication => {}
        }
        let status = self.present.and_then(|cluster| cluster.status.as_ref());
        let certificates = status.and_then(|status| status.certificates.as_ref());
        let end = certificates.and_then(|known| known.expirations.get(name));
        let end = end.and_then(|end| end.parse::<Timestamp>().ok());
        let names_suffice = role != SecretRole::Server || self.names_suffice();
        Some(Certificate {
            // Its beginning is not known: it counts as fresh until it ends.
            not_before_ms: self.now_ms,
            not_after_ms: end.map_or(i64::MAX, Timestamp::as_millisecond),
            issuer: Some(authority.to_owned()),
            names_suffice,
        })
    }

    /// The server's certificate names the instances that were wanted when it was made, and the
    /// user's own names.
    fn names_suffice(&self) -> bool {
        let Some(present) = self.present else { return true };
        let before = Owner { setup: self.owner.setup, cluster: present };
        let highest = memory(&before).members.values().map(|member| member.serial).max();
        let named = present
            .spec
            .instances
            .unwrap_or(1)
            .max(i32::try_from(highest.unwrap_or_default()).unwrap_or(i32::MAX));
        let alternatives = resolve(&before, &References::default()).alternative_names;
        self.owner.cluster.spec.instances.unwrap_or(1) <= named
            && self.resolved.alternative_names.iter().all(|name| alternatives.contains(name))
    }
}
