//! Carries actions out. There is no choice in here: what to do, to whom and as it was seen stands in
//! the action; what fails is tried again by the next pass, if it is still wanted then.

use std::collections::BTreeSet;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use matriarch_api::labels::{self, Label};
use matriarch_api::names;
use matriarch_api::secret::{CA_CERTIFICATE, CA_KEY, TLS_CERTIFICATE, TLS_KEY, connection};
use matriarch_plan::action::VolumeRole;
use matriarch_plan::protocol::LeaseRecord;
use matriarch_plan::world::{Identity, PodRole, SecretRole, ServicePart};
use matriarch_plan::{Action, Directive, InstanceName, Plan};
use matriarch_render::setup::{Owner, member_names, object_name};
use matriarch_render::{Resolved, objects};
use serde_json::{Value, json};

use crate::kinds;
use crate::pki::{self, Entry, Lifetimes, Pair};

/// An action failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused a request.
    #[error("{what}")]
    Api {
        /// The action.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object of ours is none of Kubernetes'.
    #[error("{what}: the object cannot be written")]
    Object {
        /// The action.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A certificate could not be made.
    #[error("{what}")]
    Pki {
        /// The action.
        what: String,
        /// Why.
        #[source]
        source: pki::Error,
    },
    /// A Secret that is signed or derived from is not as it was.
    #[error("{what}: {missing} is not there any more")]
    Missing {
        /// The action.
        what: String,
        /// What is not there.
        missing: &'static str,
    },
}

impl Error {
    /// True if somebody else was faster: nothing is wrong, the next pass sees it.
    pub fn is_race(&self) -> bool {
        match self {
            Self::Api { source, .. } => {
                matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409)
            }
            Self::Missing { .. } => true,
            Self::Object { .. } | Self::Pki { .. } => false,
        }
    }
}

/// Executes plans of one cluster.
pub struct Executor<'a> {
    /// The API.
    pub client: &'a Client,
    /// Whose objects.
    pub owner: &'a Owner<'a>,
    /// What they are made from.
    pub resolved: &'a Resolved,
    /// How long certificates last.
    pub lifetimes: Lifetimes,
    /// Now, milliseconds since 1970.
    pub now_ms: i64,
}

impl Executor<'_> {
    /// Runs stage after stage; a stage in which something failed is the last. Returns what
    /// succeeded and what failed.
    pub async fn run(&self, plan: &Plan) -> (usize, Vec<Error>) {
        let mut done = 0;
        for stage in &plan.stages {
            let outcomes = join_all(stage.iter().map(|action| self.act(plan, action))).await;
            let mut failed = Vec::new();
            for (action, outcome) in stage.iter().zip(outcomes) {
                match outcome {
                    Ok(()) => {
                        tracing::info!(cluster = self.owner.name(), %action, "action done");
                        done += 1;
                    }
                    Err(error) => failed.push(error),
                }
            }
            if !failed.is_empty() {
                return (done, failed);
            }
        }
        (done, Vec::new())
    }

    async fn act(&self, plan: &Plan, action: &Action) -> Result<(), Error> {
        let what = &action.to_string();
        let (owner, resolved) = (self.owner, self.resolved);
        match action {
            Action::Apply { object } => {
                let members = member_names(&plan.memory);
                let wanted = objects::stateless(owner, resolved, *object, &members);
                self.apply(what, &self.api(&kinds::resource(*object)), &wanted).await
            }
            Action::Remove { object, guard } => {
                let api = self.api(&kinds::resource(*object));
                self.delete(what, &api, &object_name(owner.name(), *object), guard).await
            }
            Action::ApplyService { name, part } => self.apply_service(what, name, *part).await,
            Action::RemoveService { name, part, guard } => {
                self.delete(what, &self.api(&kinds::service_part(*part)), name, guard).await
            }
            Action::CreateLease => {
                self.create(what, &self.leases(), objects::lease::empty(owner, resolved)).await
            }
            Action::CreateSecret { role } => self.create_secret(what, *role).await,
            Action::RepairSecret { role, guard, trusted } => {
                self.repair_secret(what, *role, guard, trusted).await
            }
            Action::RenewSecret { role, guard, trusted } => {
                self.renew_secret(what, *role, guard, trusted).await
            }
            Action::CreateVolume { instance, volume } => {
                let wanted = objects::claim::new(owner, resolved, instance.as_str(), volume);
                self.create(what, &self.claims(), wanted).await
            }
            Action::AdoptVolume { instance, volume, guard } => {
                let wanted = objects::claim::adoption(owner, resolved, instance.as_str(), volume);
                self.apply(what, &self.claims(), &guarded(wanted, guard)).await
            }
            Action::GrowVolume { instance, volume, to, guard } => {
                let patch = guarded(objects::claim::growth(*to), guard);
                self.merge(what, &self.claims(), &claim(instance, volume), &patch).await
            }
            Action::DeleteVolume { instance, volume, guard } => {
                self.delete(what, &self.claims(), &claim(instance, volume), guard).await
            }
            Action::Direct { instance, directive } => self.direct(what, instance, directive).await,
            Action::DeleteInstance { instance, guard } => {
                self.delete(what, &self.instances(), instance.as_str(), guard).await
            }
            Action::CreatePod { instance, wal_volume, tablespaces } => {
                let wanted = self.pod(instance, *wal_volume, tablespaces);
                self.create(what, &self.pods(), wanted).await
            }
            Action::TryPod { instance, wal_volume, tablespaces } => {
                self.try_pod(what, self.pod(instance, *wal_volume, tablespaces)).await
            }
            Action::AdoptPod { instance, guard } => {
                let wanted = objects::pod::adoption(owner, resolved, instance.as_str());
                self.apply(what, &self.pods(), &guarded(wanted, guard)).await
            }
            Action::LabelPod { instance, guard, role } => {
                self.label(what, instance, guard, *role).await
            }
            Action::SetBootstrapImage { instance, guard } => {
                self.set_bootstrap_image(what, instance, guard).await
            }
            Action::DeletePod { instance, guard } => {
                self.delete(what, &self.pods(), instance.as_str(), guard).await
            }
            Action::FreeLease { guard, record, .. } => self.free_lease(what, guard, record).await,
        }
    }

    fn pod(
        &self,
        instance: &InstanceName,
        wal_volume: bool,
        tablespaces: &BTreeSet<String>,
    ) -> Value {
        let (owner, resolved) = (self.owner, self.resolved);
        objects::pod::new(owner, resolved, instance.as_str(), wal_volume, tablespaces)
    }

    async fn set_bootstrap_image(
        &self,
        what: &str,
        instance: &InstanceName,
        guard: &Identity,
    ) -> Result<(), Error> {
        let patch = objects::pod::bootstrap_image(self.owner, guard);
        self.patch(what, &self.pods(), instance.as_str(), &Patch::Strategic(&patch)).await
    }

    async fn free_lease(
        &self,
        what: &str,
        guard: &Identity,
        record: &LeaseRecord,
    ) -> Result<(), Error> {
        let patch = objects::lease::free(self.owner, guard, record);
        self.merge(what, &self.leases(), &names::lease(self.owner.name()), &patch).await
    }

    async fn direct(
        &self,
        what: &str,
        instance: &InstanceName,
        directive: &Directive,
    ) -> Result<(), Error> {
        let (owner, resolved) = (self.owner, self.resolved);
        let wanted = objects::instance::object(owner, resolved, instance.as_str(), directive);
        self.apply(what, &self.instances(), &wanted).await
    }

    fn api(&self, resource: &kube::api::ApiResource) -> Api<DynamicObject> {
        kinds::api(self.client, self.owner.cluster.namespace(), resource)
    }

    fn pods(&self) -> Api<DynamicObject> {
        self.api(&kinds::builtin("", "v1", "Pod", "pods"))
    }

    fn claims(&self) -> Api<DynamicObject> {
        self.api(&kinds::builtin("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"))
    }

    fn leases(&self) -> Api<DynamicObject> {
        self.api(&kinds::builtin("coordination.k8s.io", "v1", "Lease", "leases"))
    }

    fn instances(&self) -> Api<DynamicObject> {
        let identity = self.owner.setup.identity;
        self.api(&kinds::builtin(identity.group(), identity.version(), "Instance", "instances"))
    }

    fn secrets(&self) -> Api<DynamicObject> {
        self.api(&kinds::builtin("", "v1", "Secret", "secrets"))
    }

    fn manager(&self) -> &'static str {
        self.owner.setup.identity.operator_name()
    }

    async fn apply(
        &self,
        what: &str,
        api: &Api<DynamicObject>,
        wanted: &Value,
    ) -> Result<(), Error> {
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
        let params = PatchParams::apply(self.manager()).force();
        match api.patch(name, &params, &Patch::Apply(wanted)).await {
            Ok(_) => Ok(()),
            Err(source) => Err(refused(what, source)),
        }
    }

    async fn apply_service(&self, what: &str, name: &str, part: ServicePart) -> Result<(), Error> {
        match objects::managed_service(self.owner, name, part) {
            Some(wanted) => self.apply(what, &self.api(&kinds::service_part(part)), &wanted).await,
            // It was planned because the same spec asks for it.
            None => Ok(()),
        }
    }

    async fn merge(
        &self,
        what: &str,
        api: &Api<DynamicObject>,
        name: &str,
        patch: &Value,
    ) -> Result<(), Error> {
        self.patch(what, api, name, &Patch::Merge(patch)).await
    }

    async fn patch(
        &self,
        what: &str,
        api: &Api<DynamicObject>,
        name: &str,
        patch: &Patch<&Value>,
    ) -> Result<(), Error> {
        let params =
            PatchParams { field_manager: Some(self.manager().to_owned()), ..Default::default() };
        match api.patch(name, &params, patch).await {
            Ok(_) => Ok(()),
            Err(source) => Err(refused(what, source)),
        }
    }

    /// Makes an object; one that is there already is as good.
    async fn create(
        &self,
        what: &str,
        api: &Api<DynamicObject>,
        wanted: Value,
    ) -> Result<(), Error> {
        let object: DynamicObject = serde_json::from_value(wanted)
            .map_err(|source| Error::Object { what: what.to_owned(), source })?;
        let params =
            PostParams { field_manager: Some(self.manager().to_owned()), ..PostParams::default() };
        match api.create(&params, &object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            Err(source) => Err(refused(what, source)),
        }
    }

    /// Has the API check a pod as if it were made. That there is one of its name is the last
    /// thing that the API finds. A quota counts the present object as well, which makes room; and a
    /// webhook that takes no trials has said nothing against it.
    async fn try_pod(&self, what: &str, wanted: Value) -> Result<(), Error> {
        let object: DynamicObject = serde_json::from_value(wanted)
            .map_err(|source| Error::Object { what: what.to_owned(), source })?;
        let field_manager = Some(self.manager().to_owned());
        match self.pods().create(&PostParams { dry_run: true, field_manager }, &object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status))
                if status.reason == "AlreadyExists"
                    || status.message.contains("exceeded quota")
                    || status.message.contains("does not support dry run") =>
            {
                Ok(())
            }
            Err(source) => Err(refused(what, source)),
        }
    }

    async fn delete(
        &self,
        what: &str,
        api: &Api<DynamicObject>,
        name: &str,
        guard: &Identity,
    ) -> Result<(), Error> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(guard.uid.clone()),
                resource_version: Some(guard.resource_version.clone()),
            }),
            ..DeleteParams::background()
        };
        match api.delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(refused(what, source)),
        }
    }

    async fn label(
        &self,
        what: &str,
        instance: &InstanceName,
        guard: &Identity,
        role: PodRole,
    ) -> Result<(), Error> {
        let role = match role {
            PodRole::Primary => labels::ROLE_PRIMARY,
            PodRole::Replica => labels::ROLE_REPLICA,
        };
        let patch = json!({ "metadata": {
            "uid": guard.uid,
            "resourceVersion": guard.resource_version,
            "labels": {
                self.owner.label(Label::InstanceRole): role,
                self.owner.label(Label::Role): role,
            },
        }});
        self.merge(what, &self.pods(), instance.as_str(), &patch).await
    }

    async fn read(&self, what: &str, role: SecretRole) -> Result<Option<Secret>, Error> {
        let Some(name) = self.resolved.secret_names.get(&role) else { return Ok(None) };
        let api = Api::<Secret>::namespaced(self.client.clone(), self.owner.cluster.namespace());
        api.get_opt(name).await.map_err(|source| refused(what, source))
    }

    /// The authority that signs this leaf, with its key.
    async fn signer(&self, what: &str, role: SecretRole) -> Result<Pair, Error> {
        let missing = || Error::Missing { what: what.to_owned(), missing: "the authority" };
        let authority = self.resolved.spec().and_then(|spec| spec.signer(role));
        let secret = self.read(what, authority.ok_or_else(missing)?).await?.ok_or_else(missing)?;
        let certificate = pki::text(&secret, CA_CERTIFICATE).ok_or_else(missing)?;
        let key = pki::text(&secret, CA_KEY).ok_or_else(missing)?;
        Ok(Pair { certificate, key })
    }

    fn sign(&self, what: &str, role: SecretRole, authority: &Pair) -> Result<Pair, Error> {
        let names = match role {
            SecretRole::Server => pki::server_names(self.owner, self.resolved),
            SecretRole::Replication
            | SecretRole::Authority
            | SecretRole::ServerAuthority
            | SecretRole::ClientAuthority
            | SecretRole::Application
            | SecretRole::Superuser => Vec::new(),
        };
        // The first certificate of the bundle is the authority itself; the others are of its past.
        let own = pki::bundle(&authority.certificate).into_iter().next();
        let own = own.map_or_else(|| authority.certificate.clone(), |entry| entry.pem);
        let authority = Pair { certificate: own, key: authority.key.clone() };
        pki::sign(&authority, role, &names, self.now_ms, self.lifetimes.leaf)
            .map_err(|source| Error::Pki { what: what.to_owned(), source })
    }

    fn make_authority(&self, what: &str) -> Result<Pair, Error> {
        pki::make_authority(self.owner.name(), self.now_ms, self.lifetimes.authority)
            .map_err(|source| Error::Pki { what: what.to_owned(), source })
    }

    /// What applications verify the server with.
    async fn server_verifier(&self, what: &str) -> Result<String, Error> {
        for role in [SecretRole::Server, SecretRole::ServerAuthority, SecretRole::Authority] {
            let secret = self.read(what, role).await?;
            if let Some(found) = secret.and_then(|secret| pki::text(&secret, CA_CERTIFICATE)) {
                return Ok(found);
            }
        }
        Ok(String::new())
    }

    async fn create_secret(&self, what: &str, role: SecretRole) -> Result<(), Error> {
        let object = match role {
            SecretRole::Authority | SecretRole::ServerAuthority | SecretRole::ClientAuthority => {
                let pair = self.make_authority(what)?;
                objects::secret::authority(self.owner, &pair.certificate, &pair.key)
            }
            SecretRole::Server | SecretRole::Replication => {
                let authority = self.signer(what, role).await?;
                let pair = self.sign(what, role, &authority)?;
                objects::secret::leaf(
                    self.owner,
                    role,
                    &pair.certificate,
                    &pair.key,
                    &authority.certificate,
                )
            }
            SecretRole::Application | SecretRole::Superuser => {
                let ca = self.server_verifier(what).await?;
                let password = pki::make_password();
                objects::secret::login(self.owner, self.resolved, role, &password, &ca)
            }
        };
        self.create(what, &self.secrets(), object).await
    }

    /// The certificates with these fingerprints, out of the Secrets that may hold them.
    async fn verifiers(
        &self,
        what: &str,
        of: &Secret,
        trusted: &[String],
    ) -> Result<String, Error> {
        let mut known: Vec<Entry> = pki::bundle(&pki::text(of, CA_CERTIFICATE).unwrap_or_default());
        for role in
            [SecretRole::Authority, SecretRole::ServerAuthority, SecretRole::ClientAuthority]
        {
            if let Some(secret) = self.read(what, role).await? {
                known.extend(pki::bundle(&pki::text(&secret, CA_CERTIFICATE).unwrap_or_default()));
            }
        }
        let mut text = String::new();
        for fingerprint in trusted {
            match known.iter().find(|entry| entry.fingerprint == *fingerprint) {
                Some(entry) => text.push_str(&entry.pem),
                None => {
                    let missing = "a certificate of an authority";
                    return Err(Error::Missing { what: what.to_owned(), missing });
                }
            }
        }
        Ok(text)
    }

    async fn present(
        &self,
        what: &str,
        role: SecretRole,
        guard: &Identity,
    ) -> Result<Secret, Error> {
        let missing = || Error::Missing { what: what.to_owned(), missing: "the Secret as seen" };
        let secret = self.read(what, role).await?.ok_or_else(missing)?;
        let same = secret.metadata.uid.as_deref() == Some(guard.uid.as_str());
        if same { Ok(secret) } else { Err(missing()) }
    }

    async fn repair_secret(
        &self,
        what: &str,
        role: SecretRole,
        guard: &Identity,
        trusted: &[String],
    ) -> Result<(), Error> {
        let secret = self.present(what, role, guard).await?;
        let value = |key: &str| pki::text(&secret, key).unwrap_or_default();
        let object = match role {
            SecretRole::Authority | SecretRole::ServerAuthority | SecretRole::ClientAuthority => {
                let certificates = self.verifiers(what, &secret, trusted).await?;
                objects::secret::authority(self.owner, &certificates, &value(CA_KEY))
            }
            SecretRole::Server | SecretRole::Replication => {
                let ca = self.verifiers(what, &secret, trusted).await?;
                let (certificate, key) = (value(TLS_CERTIFICATE), value(TLS_KEY));
                objects::secret::leaf(self.owner, role, &certificate, &key, &ca)
            }
            SecretRole::Application | SecretRole::Superuser => {
                let ca = self.server_verifier(what).await?;
                let password = value(connection::PASSWORD);
                objects::secret::login(self.owner, self.resolved, role, &password, &ca)
            }
        };
        self.apply(what, &self.secrets(), &guarded(object, guard)).await
    }

    async fn renew_secret(
        &self,
        what: &str,
        role: SecretRole,
        guard: &Identity,
        trusted: &[String],
    ) -> Result<(), Error> {
        let secret = self.present(what, role, guard).await?;
        let object = match role {
            SecretRole::Authority | SecretRole::ServerAuthority | SecretRole::ClientAuthority => {
                let past = self.verifiers(what, &secret, trusted).await?;
                let pair = self.make_authority(what)?;
                let certificates = format!("{}{past}", pair.certificate);
                objects::secret::authority(self.owner, &certificates, &pair.key)
            }
            SecretRole::Server | SecretRole::Replication => {
                let authority = self.signer(what, role).await?;
                let pair = self.sign(what, role, &authority)?;
                let ca = self.verifiers(what, &secret, trusted).await?;
                objects::secret::leaf(self.owner, role, &pair.certificate, &pair.key, &ca)
            }
            SecretRole::Application | SecretRole::Superuser => {
                let ca = self.server_verifier(what).await?;
                let password = pki::make_password();
                objects::secret::login(self.owner, self.resolved, role, &password, &ca)
            }
        };
        self.apply(what, &self.secrets(), &guarded(object, guard)).await
    }
}

fn claim(instance: &InstanceName, volume: &VolumeRole) -> String {
    objects::claim::name(instance.as_str(), volume)
}

fn refused(what: &str, source: kube::Error) -> Error {
    Error::Api { what: what.to_owned(), source: Box::new(source) }
}

/// The write holds only for the object as it was seen.
fn guarded(mut object: Value, guard: &Identity) -> Value {
    object["metadata"]["uid"] = json!(guard.uid);
    object["metadata"]["resourceVersion"] = json!(guard.resource_version);
    object
}
