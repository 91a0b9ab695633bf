//! Objects of the API to the planner's World. Nothing is guessed: what could not be read is unknown.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use k8s_openapi::api::core::v1::{
    ContainerStatus, Node as NodeObject, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeClaimStatus, Pod as PodObject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use matriarch_api::annotations::{Annotation, RESTARTED_AT, UNRECOVERABLE};
use matriarch_api::instance::{AgentReport, InstanceRole, InstanceState, TablespaceReport};
use matriarch_api::labels::{self, Label};
use matriarch_api::{Instance as InstanceObject, names, phases};
use matriarch_plan::action::VolumeRole;
use matriarch_plan::protocol::{self, ContainerId, LeaseRecord, PodUid};
use matriarch_plan::world::{
    DirectiveFacts, EndedContainer, Identity, Instance, Kind, Lease, ManagedService, Node,
    NodeFacts, Object, ObjectFacts, Outcome, Pod, PodRole, Report, Role, SecretFacts, SecretRole,
    ServicePart, Stall, State, TablespaceFacts, Volume,
};
use matriarch_plan::{AgentFacts, BinaryFailure, InstanceName, Memory, Seen, World};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::conform::conforms;
use crate::objects;
use crate::references::References;
use crate::resolve::Resolved;
use crate::setup::{Owner, member_names};

/// Under which name the planner's memory is kept in `status.memory.facts`.
pub const MEMORY_FACT: &str = "plan";

/// Everything that was read in one pass.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Objects {
    /// When, milliseconds since 1970.
    pub now_ms: i64,
    /// Instances with the cluster's label, or why they could not be listed.
    pub instances: Result<Vec<InstanceObject>, String>,
    /// Pods with the cluster's label.
    pub pods: Result<Vec<PodObject>, String>,
    /// Claims with the cluster's label.
    pub claims: Result<Vec<PersistentVolumeClaim>, String>,
    /// The Lease.
    pub lease: Seen<LeaseObject>,
    /// For how long this process has seen this very version of it, in milliseconds.
    #[serde(default)]
    pub lease_unchanged_ms: u64,
    /// Containers of pods that are gone, whose end kubelet had reported.
    pub ended: BTreeSet<EndedContainer>,
    /// The Node that [`node_in_question`] named.
    #[serde(default)]
    pub node: Option<(String, Seen<NodeObject>)>,
    /// Objects without state, as JSON.
    pub stateless: BTreeMap<Object, Seen<Value>>,
    /// Services of the user's by name, as JSON: those that the spec asks for, and those that were
    /// made.
    #[serde(default)]
    pub services: BTreeMap<String, ServiceObjects>,
    /// Secrets, judged by who may read keys.
    pub secrets: BTreeMap<SecretRole, Seen<SecretFacts>>,
    /// What the objects say that the spec names.
    #[serde(default)]
    pub references: References,
}

/// A Service of the user's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceObjects {
    /// The Service.
    pub service: Seen<Value>,
    /// The EndpointSlice of the same name.
    pub endpoints: Seen<Value>,
}

/// Builds the World.
pub fn observe(owner: &Owner<'_>, resolved: &Resolved, objects: &Objects) -> World {
    let memory = memory(owner);
    let mut blind = BTreeMap::new();
    let mut note = |kind: Kind, error: Option<&String>| {
        if let Some(error) = error {
            blind.insert(kind, error.clone());
        }
    };
    note(Kind::Instance, objects.instances.as_ref().err());
    note(Kind::Pod, objects.pods.as_ref().err());
    note(Kind::PersistentVolumeClaim, objects.claims.as_ref().err());
    World {
        now_ms: objects.now_ms,
        deleting: owner.cluster.metadata.deletion_timestamp.is_some(),
        wanted: resolved.wanted.clone(),
        requested_primary: requested_primary(owner),
        lease: lease(owner, &objects.lease, objects.lease_unchanged_ms),
        ended: objects.pods.iter().flatten().flat_map(ended).chain(objects.ended.clone()).collect(),
        node: objects.node.as_ref().map(|(name, seen)| node(name, seen)),
        blind,
        instances: instances(owner, resolved, objects, &memory),
        objects: stateless(owner, resolved, objects, &memory),
        services: services(owner, objects),
        secrets: objects.secrets.clone(),
        memory,
    }
}

/// What was decided before. Memory that cannot be read is as good as lost, and the planner takes
/// up what it sees.
pub fn memory(owner: &Owner<'_>) -> Memory {
    owner
        .cluster
        .status
        .as_ref()
        .and_then(|status| status.memory.as_ref())
        .and_then(|memory| memory.facts.get(MEMORY_FACT))
        .and_then(|fact| serde_json::from_value(fact.clone()).ok())
        .unwrap_or_default()
}

fn requested_primary(owner: &Owner<'_>) -> Option<InstanceName> {
    let status = owner.cluster.status.as_ref()?;
    let current = status.current_primary.as_ref()?;
    let target = status.target_primary.as_ref()?;
    let wish = target != current && target != phases::TARGET_PRIMARY_PENDING && !target.is_empty();
    wish.then(|| InstanceName(target.clone()))
}

fn identity(metadata: &ObjectMeta) -> Identity {
    Identity {
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// The object is on its way out: being deleted, or owned by a Cluster of the same name that is no
/// more (names are never identity, I20).
pub fn is_going(owner: &Owner<'_>, metadata: &ObjectMeta) -> bool {
    let ours = owner.cluster.metadata.uid.as_deref();
    let foreign = metadata.owner_references.iter().flatten().any(|reference| {
        reference.kind == "Cluster"
            && reference.api_version == owner.setup.identity.api_version()
            && Some(reference.uid.as_str()) != ours
    });
    metadata.deletion_timestamp.is_some() || foreign
}

/// True if the metadata that is wanted is there. An owner that is not wanted must not be there
/// either: a volume that is to be kept would be deleted with it.
fn metadata_conforms(wanted: &Value, metadata: &ObjectMeta) -> bool {
    let Ok(live) = serde_json::to_value(metadata) else { return false };
    let owned = wanted.get("ownerReferences").is_some();
    let has_owner = metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    conforms(wanted, &live) && (owned || !has_owner)
}

/// What a Lease says to the protocol.
pub fn lease_record(
    object: &LeaseObject,
    identity: matriarch_api::identity::Identity,
) -> LeaseRecord {
    let spec = object.spec.as_ref();
    LeaseRecord::of_object(
        spec.and_then(|spec| spec.holder_identity.as_deref()),
        spec.and_then(|spec| spec.lease_transitions),
        spec.and_then(|spec| spec.lease_duration_seconds),
        object.metadata.annotations.iter().flatten(),
        &identity.key(""),
    )
}

/// Which Node has to be looked at: that of the pod that the Lease names, where the pod is not ready
/// or its object gone (rule 20).
pub fn node_in_question(owner: &Owner<'_>, objects: &Objects) -> Option<String> {
    let record = lease_record(objects.lease.known()?, owner.setup.identity);
    let named = record.decode().ok()??.holder?.pod_uid;
    let pods = objects.pods.as_ref().ok()?;
    match pods.iter().find(|pod| pod.metadata.uid.as_deref() == Some(named.0.as_str())) {
        Some(pod) => {
            let well = is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
            pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|_| !well)
        }
        None => memory(owner).holder_node.filter(|it| it.pod == named).map(|it| it.name),
    }
}

fn node(name: &str, seen: &Seen<NodeObject>) -> Node {
    let facts = match seen {
        Seen::Known(node) => Seen::Known(NodeFacts { out_of_service: out_of_service(node) }),
        Seen::Stale(_) => Seen::Unknown { why: "it was not read anew".to_owned() },
        Seen::Absent => Seen::Absent,
        Seen::Unknown { why } => Seen::Unknown { why: why.clone() },
    };
    Node { name: name.to_owned(), facts }
}

/// <https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#non-graceful-node-shutdown>
fn out_of_service(node: &NodeObject) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    taints.into_iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service")
        && !ready.any(|condition| condition.status == "True")
}

fn is_ready(pod: &PodObject) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}

fn lease(owner: &Owner<'_>, seen: &Seen<LeaseObject>, unchanged_ms: u64) -> Seen<Lease> {
    let object = match seen {
        Seen::Known(object) => object,
        Seen::Stale(_) => return Seen::Unknown { why: "it was not read anew".to_owned() },
        Seen::Absent => return Seen::Absent,
        Seen::Unknown { why } => return Seen::Unknown { why: why.clone() },
    };
    if is_going(owner, &object.metadata) {
        return Seen::Unknown { why: "it is being deleted, or of an earlier cluster".to_owned() };
    }
    let record = lease_record(object, owner.setup.identity);
    let state = match record.decode() {
        Ok(state) => state,
        Err(error) => return Seen::Unknown { why: error.to_string() },
    };
    let name = |name: &protocol::InstanceName| InstanceName(name.0.clone());
    let quorum = state.iter().filter_map(|lease| lease.quorum.as_ref());
    Seen::Known(Lease {
        identity: identity(&object.metadata),
        holder: state.as_ref().and_then(|lease| lease.holder.as_ref()).map(|it| name(&it.name)),
        unchanged_ms,
        term: record.transitions,
        filled: state.is_some(),
        cohort: state.iter().flat_map(|lease| lease.everyone()).map(|it| name(&it.name)).collect(),
        quorum: quorum.flat_map(|quorum| &quorum.of).map(|it| it.0.clone()).collect(),
        state,
    })
}

fn instances(
    owner: &Owner<'_>,
    resolved: &Resolved,
    objects: &Objects,
    memory: &Memory,
) -> BTreeMap<InstanceName, Instance> {
    let mut found: BTreeMap<InstanceName, Instance> = BTreeMap::new();
    let blank = |serial: u32| {
        let mut instance = Instance::nothing(serial);
        if let Err(why) = &objects.instances {
            instance.directive = Seen::Unknown { why: why.clone() };
            instance.report = Seen::Unknown { why: why.clone() };
        }
        if let Err(why) = &objects.pods {
            instance.pod = Seen::Unknown { why: why.clone() };
        }
        if let Err(why) = &objects.claims {
            instance.data = Seen::Unknown { why: why.clone() };
            instance.wal = Seen::Unknown { why: why.clone() };
            instance.tablespaces = unknown_volumes(&resolved.tablespaces, why);
        }
        instance
    };
    for (name, member) in &memory.members {
        found.insert(name.clone(), blank(member.serial));
    }
    let mut entry = |name: &str, set: &mut dyn FnMut(&mut Instance)| {
        if let Some(serial) = names::serial_of(owner.name(), name) {
            set(found.entry(InstanceName(name.to_owned())).or_insert_with(|| blank(serial)));
        }
    };
    let account = service_account(objects);
    for object in objects.pods.iter().flatten() {
        let name = object.metadata.name.clone().unwrap_or_default();
        let pod = pod(owner, resolved, object, account.as_ref());
        entry(&name, &mut |instance| instance.pod = Seen::Known(pod.clone()));
    }
    for object in objects.instances.iter().flatten() {
        entry(object.name(), &mut |instance| {
            instance.directive = Seen::Known(directive(owner, resolved, object));
            instance.report = report(object, &instance.pod);
        });
    }
    for object in objects.claims.iter().flatten() {
        let Some(labels) = &object.metadata.labels else { continue };
        let Some(name) = labels.get(&owner.label(Label::InstanceName)) else { continue };
        let role = match labels.get(&owner.label(Label::PvcRole)).map(String::as_str) {
            Some(labels::PVC_ROLE_DATA) => VolumeRole::Data,
            Some(labels::PVC_ROLE_WAL) => VolumeRole::Wal,
            Some(labels::PVC_ROLE_TABLESPACE) => {
                let Some(name) = labels.get(&owner.label(Label::TablespaceName)) else { continue };
                VolumeRole::Tablespace(name.clone())
            }
            Some(_) | None => continue,
        };
        let wanted = objects::claim::metadata(owner, resolved, name, &role);
        let volume = Volume {
            identity: identity(&object.metadata),
            deleting: is_going(owner, &object.metadata),
            conforms: metadata_conforms(&wanted, &object.metadata),
            requested: object.spec.as_ref().and_then(requested),
            capacity: object.status.as_ref().and_then(capacity),
            trouble: object.status.as_ref().and_then(resize_trouble),
        };
        entry(name, &mut |instance| match &role {
            VolumeRole::Data => instance.data = Seen::Known(volume.clone()),
            VolumeRole::Wal => instance.wal = Seen::Known(volume.clone()),
            VolumeRole::Tablespace(name) => {
                instance.tablespaces.insert(name.clone(), Seen::Known(volume.clone()));
            }
        });
    }
    found
}

fn requested(spec: &PersistentVolumeClaimSpec) -> Option<u64> {
    let requests = spec.resources.as_ref()?.requests.as_ref()?;
    objects::claim::bytes(&requests.get("storage")?.0)
}

fn capacity(status: &PersistentVolumeClaimStatus) -> Option<u64> {
    objects::claim::bytes(&status.capacity.as_ref()?.get("storage")?.0)
}

/// What the claim's conditions say against its growth
/// (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#recovering-from-failure-when-expanding-volumes>).
fn resize_trouble(status: &PersistentVolumeClaimStatus) -> Option<String> {
    let failed = |kind: &str| matches!(kind, "ControllerResizeError" | "NodeResizeError");
    let condition = status.conditions.iter().flatten().find(|it| failed(&it.type_))?;
    condition.message.clone().or_else(|| Some(condition.type_.clone()))
}

fn directive(owner: &Owner<'_>, resolved: &Resolved, object: &InstanceObject) -> DirectiveFacts {
    let directive = objects::instance::directive(&object.spec);
    let name = object.name();
    let spec = objects::instance::spec(owner, resolved, name, &directive);
    let wanted = objects::instance::object(owner, resolved, name, &directive);
    DirectiveFacts {
        identity: identity(&object.metadata),
        deleting: is_going(owner, &object.metadata),
        conforms: spec == object.spec && metadata_conforms(&wanted["metadata"], &object.metadata),
        directive,
    }
}

/// The agent's report; of the past if its pod is another one, or gone.
fn report(object: &InstanceObject, pod: &Seen<Pod>) -> Seen<Report> {
    let Some(status) = &object.status else { return Seen::Absent };
    let outcome = |outcome: &matriarch_api::instance::RequestOutcome| Outcome {
        id: outcome.id.clone(),
        done: outcome.done,
        message: outcome.message.clone(),
    };
    let report = Report {
        role: match status.role {
            InstanceRole::Unknown => Role::Unknown,
            InstanceRole::Primary => Role::Primary,
            InstanceRole::Standby => Role::Standby,
        },
        state: match status.state {
            InstanceState::Unknown => State::Unknown,
            InstanceState::Waiting
            | InstanceState::Initializing
            | InstanceState::Cloning
            | InstanceState::Rewinding
            | InstanceState::Starting
            | InstanceState::Promoting => State::Preparing,
            InstanceState::Running => State::Running,
            InstanceState::Stopping | InstanceState::Stopped => State::Stopped,
            InstanceState::Fenced => State::Fenced,
            InstanceState::Failed => State::Failed,
        },
        heeds: object.metadata.generation == Some(status.observed_generation),
        streaming: status.streaming,
        configuration_hash: status.loaded_configuration_hash.clone(),
        pending_restart: status.pending_restart.clone(),
        pending_decrease: status.pending_restart_decrease,
        configuration_error: status.configuration_error.clone(),
        switchover: status.switchover.as_ref().map(outcome),
        restart: status.restart.as_ref().map(outcome),
        failure: status
            .failure
            .as_ref()
            .map(|failure| (failure.reason.clone(), failure.message.clone())),
        waiting: status.waiting.as_ref().map(|waiting| Stall {
            reason: waiting.reason.clone(),
            message: waiting.message.clone(),
            options: waiting
                .human_options
                .iter()
                .map(|option| {
                    let text = |it: &Option<String>| it.clone().unwrap_or_default();
                    (text(&option.action), text(&option.consequence))
                })
                .collect(),
        }),
        incarnation: status.incarnation.clone(),
        system_id: status.system_id.clone(),
        timeline: status.timeline,
        term: status.term.unwrap_or_default(),
        secret_versions: status.secret_versions.clone(),
        agent: agent(&status.agent),
        tablespaces: status.tablespaces.iter().map(tablespace).collect(),
    };
    match pod {
        Seen::Known(pod) if status.pod_uid.as_deref() == Some(pod.identity.uid.as_str()) => {
            Seen::Known(report)
        }
        Seen::Known(_) | Seen::Stale(_) | Seen::Absent | Seen::Unknown { .. } => {
            Seen::Stale(report)
        }
    }
}

fn tablespace(said: &TablespaceReport) -> (String, TablespaceFacts) {
    let facts = TablespaceFacts {
        ready: said.ready,
        reconciled: said.reconciled,
        owner: said.owner.clone(),
        error: said.error.clone(),
    };
    (said.name.clone(), facts)
}

/// Tablespaces whose volumes a pod has.
fn tablespaces(pod: &PodObject) -> BTreeSet<String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mounts = containers
        .filter(|container| container.name == names::POSTGRES_CONTAINER)
        .flat_map(|container| container.volume_mounts.iter().flatten());
    let name =
        |path: &str| Some(path.strip_prefix(names::TABLESPACES)?.strip_prefix('/')?.to_owned());
    mounts.filter_map(|mount| name(&mount.mount_path)).collect()
}

fn agent(said: &AgentReport) -> AgentFacts {
    AgentFacts {
        sha256: said.sha256.clone(),
        trial: said.trial,
        failure: said.failure.as_ref().map(|failure| BinaryFailure {
            sha256: failure.sha256.clone(),
            reason: failure.reason.clone(),
            message: failure.message.clone(),
        }),
    }
}

fn unknown_volumes(names: &BTreeSet<String>, why: &str) -> BTreeMap<String, Seen<Volume>> {
    let unknown = || Seen::Unknown { why: why.to_owned() };
    names.iter().map(|name| (name.clone(), unknown())).collect()
}

fn service_account(objects: &Objects) -> Option<ObjectMeta> {
    let live = objects.stateless.get(&Object::ServiceAccount)?.known()?;
    serde_json::from_value(live["metadata"].clone()).ok()
}

/// An object that was made before the other one. Kubernetes notes whole seconds.
fn is_older(metadata: &ObjectMeta, than: Option<&ObjectMeta>) -> bool {
    let made = |metadata: &ObjectMeta| metadata.creation_timestamp.clone();
    let pair = made(metadata).zip(than.and_then(made));
    pair.is_some_and(|(made, than)| made < than)
}

fn pod(
    owner: &Owner<'_>,
    resolved: &Resolved,
    object: &PodObject,
    account: Option<&ObjectMeta>,
) -> Pod {
    let metadata = &object.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).cloned();
    let label = |key: &str| metadata.labels.as_ref()?.get(key).map(String::as_str);
    let container = status
        .container_statuses
        .iter()
        .flatten()
        .find(|container| container.name == names::POSTGRES_CONTAINER);
    let condition =
        |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let wanted = objects::pod::metadata(owner, resolved, &name);
    Pod {
        identity: identity(metadata),
        deleting: is_going(owner, metadata),
        ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        ready: is_ready(object),
        running: container
            .and_then(|container| container.state.as_ref())
            .is_some_and(|state| state.running.is_some()),
        stamp: annotation(&owner.annotation(Annotation::Hash))
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default(),
        restarted_at: annotation(RESTARTED_AT),
        role: match label(&owner.label(Label::InstanceRole)) {
            Some(labels::ROLE_PRIMARY) => Some(PodRole::Primary),
            Some(labels::ROLE_REPLICA) => Some(PodRole::Replica),
            Some(_) | None => None,
        },
        conforms: metadata_conforms(&wanted, metadata),
        brings_own_binary: brings(owner, object),
        locked_out: is_older(metadata, account),
        unrecoverable: annotation(&owner.annotation(Annotation::Unrecoverable))
            .is_some_and(|value| value == UNRECOVERABLE),
        node: object.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        trouble: container.and_then(waiting).or_else(|| {
            let scheduled = condition("PodScheduled").filter(|found| found.status == "False")?;
            scheduled.message.clone().or_else(|| scheduled.reason.clone())
        }),
        address: status.pod_ip.filter(|address| !address.is_empty()),
        tablespaces: tablespaces(object),
    }
}

/// Its init container has the operator's own image.
fn brings(owner: &Owner<'_>, object: &PodObject) -> bool {
    let containers = object.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let mut own = containers.filter(|container| container.name == names::BOOTSTRAP_CONTAINER);
    own.any(|container| container.image.as_ref() == Some(&owner.setup.operator_image))
}

/// Containers of a pod whose end kubelet reports: by the keeper's own id, which kubelet reads from
/// the file of exactly that container.
pub fn ended(pod: &PodObject) -> Vec<EndedContainer> {
    let uid = PodUid(pod.metadata.uid.clone().unwrap_or_default());
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .filter(|status| status.name == names::POSTGRES_CONTAINER)
        .flat_map(|status| [status.state.as_ref(), status.last_state.as_ref()])
        .flatten()
        .filter_map(|state| state.terminated.as_ref()?.message.as_deref())
        .filter_map(ContainerId::from_last_words)
        .map(|container| EndedContainer { pod: uid.clone(), container })
        .collect()
}

/// Why the container does not start, if it is more than a matter of seconds.
fn waiting(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let transient = matches!(reason, "" | "ContainerCreating" | "PodInitializing");
    let message = waiting.message.as_deref().unwrap_or_default();
    (!transient).then(|| format!("{reason}: {message}").trim_end_matches(": ").to_owned())
}

fn stateless(
    owner: &Owner<'_>,
    resolved: &Resolved,
    read: &Objects,
    memory: &Memory,
) -> BTreeMap<Object, Seen<ObjectFacts>> {
    let members = member_names(memory);
    let wants = |object| resolved.spec().is_none_or(|spec| spec.objects.contains(&object));
    read.stateless
        .iter()
        .map(|(object, seen)| {
            let facts = match seen {
                Seen::Known(live) => {
                    let wanted = objects::stateless(owner, resolved, *object, &members);
                    let metadata: ObjectMeta =
                        serde_json::from_value(live["metadata"].clone()).unwrap_or_default();
                    // A ServiceAccount or a budget that the user made under this name, and said so
                    // in the spec, is not ours to remove.
                    if !wants(*object) && !is_ours(owner, &metadata) {
                        return (*object, Seen::Absent);
                    }
                    Seen::Known(ObjectFacts {
                        identity: identity(&metadata),
                        deleting: is_going(owner, &metadata),
                        conforms: conforms(&without_type(wanted), live),
                    })
                }
                Seen::Stale(_) => Seen::Unknown { why: "it was not read anew".to_owned() },
                Seen::Absent => Seen::Absent,
                Seen::Unknown { why } => Seen::Unknown { why: why.clone() },
            };
            (*object, facts)
        })
        .collect()
}

fn services(owner: &Owner<'_>, read: &Objects) -> BTreeMap<String, ManagedService> {
    let facts = |name: &str, part: ServicePart, seen: &Seen<Value>| {
        let live = match seen {
            Seen::Known(live) => live,
            Seen::Stale(_) => return Seen::Unknown { why: "it was not read anew".to_owned() },
            Seen::Absent => return Seen::Absent,
            Seen::Unknown { why } => return Seen::Unknown { why: why.clone() },
        };
        let metadata: ObjectMeta =
            serde_json::from_value(live["metadata"].clone()).unwrap_or_default();
        let label = metadata.labels.as_ref().and_then(|it| it.get(&owner.label(Label::Cluster)));
        if label.map(String::as_str) != Some(owner.name()) {
            let why = "there is one of this name that is not of this cluster".to_owned();
            return Seen::Unknown { why };
        }
        let wanted = objects::managed_service(owner, name, part);
        Seen::Known(ObjectFacts {
            identity: identity(&metadata),
            deleting: is_going(owner, &metadata),
            conforms: wanted.is_some_and(|wanted| match part {
                ServicePart::Service => objects::service::managed_conforms(&wanted, live),
                ServicePart::Endpoints => conforms(&without_type(wanted), live),
            }),
        })
    };
    let both = |(name, read): (&String, &ServiceObjects)| {
        let service = facts(name, ServicePart::Service, &read.service);
        let endpoints = facts(name, ServicePart::Endpoints, &read.endpoints);
        (name.clone(), ManagedService { service, endpoints })
    };
    read.services.iter().map(both).collect()
}

/// True if the object has this Cluster for an owner.
fn is_ours(owner: &Owner<'_>, metadata: &ObjectMeta) -> bool {
    let uid = owner.cluster.metadata.uid.as_deref();
    metadata.owner_references.iter().flatten().any(|owner| Some(owner.uid.as_str()) == uid)
}

/// Items of lists come without kind and version.
fn without_type(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    object
}
