//! A model of everything around the planner: the API applies actions, agents obey directives and
//! elect. It is kind on purpose where the laws are about the planner, and quick.

use std::collections::{BTreeMap, BTreeSet};

use matriarch_plan::action::VolumeRole;
use matriarch_plan::spec::{Fenced, SecretSource, UpdateMethod, UpdateStrategy};
use matriarch_plan::world::{
    Certificate, DirectiveFacts, Identity, Instance, Lease, ManagedService, Object, ObjectFacts,
    Outcome, Pod, Report, Role, SecretRole, ServicePart, State, TablespaceFacts, Volume,
};
use matriarch_plan::{
    Action, AgentBinary, InstanceName, Memory, Plan, PodStamp, Seen, Spec, Wanted, World,
};

const DAY_MS: i64 = 86_400_000;
/// Size of a volume that is made.
pub const GIGABYTE: u64 = 1_000_000_000;

/// A world that answers.
#[derive(Clone)]
pub struct Model {
    pub world: World,
    next: u64,
    /// Hashes of the binaries that agents run from.
    runs: BTreeMap<InstanceName, String>,
}

pub fn binary(sha256: &str) -> AgentBinary {
    AgentBinary { sha256: sha256.to_owned(), version: sha256.to_owned(), ..AgentBinary::default() }
}

/// A pod that the user has wished to be like this.
pub fn stamp(wish: &str) -> PodStamp {
    PodStamp { pod: wish.to_owned(), fields: [("image".to_owned(), wish.to_owned())].into() }
}

pub fn spec(instances: u32) -> Spec {
    let managed = [
        SecretRole::Authority,
        SecretRole::Server,
        SecretRole::Replication,
        SecretRole::Application,
    ];
    Spec {
        keeps_pods: false,
        replaces_stranded: false,
        cluster: "c".to_owned(),
        instances,
        wal_volume: false,
        tablespaces: BTreeSet::new(),
        grown_to: BTreeMap::new(),
        retain_volumes: false,
        fenced: Fenced::None,
        hibernated: false,
        paused: false,
        pod_stamp: stamp("stamp"),
        configuration_hash: "hash".to_owned(),
        restarted_at: None,
        update_strategy: UpdateStrategy::Unsupervised,
        update_method: UpdateMethod::Switchover,
        agent: Some(binary("first")),
        agents_wait: false,
        switchover_ms: 60_000,
        secrets: managed.into_iter().map(|role| (role, SecretSource::Managed)).collect(),
        objects: [
            Object::ServiceAccount,
            Object::Role,
            Object::ServiceReadWrite,
            Object::EndpointsReadWrite,
            Object::DisruptionBudget,
        ]
        .into(),
        services: BTreeMap::new(),
        image_problem: None,
    }
}

impl Model {
    pub fn new(spec: Spec) -> Self {
        let world = World {
            now_ms: 1_000_000_000_000,
            deleting: false,
            wanted: Wanted::Valid(Box::new(spec)),
            memory: Memory::default(),
            requested_primary: None,
            lease: Seen::Absent,
            ended: BTreeSet::new(),
            node: None,
            blind: BTreeMap::new(),
            instances: BTreeMap::new(),
            objects: BTreeMap::new(),
            services: BTreeMap::new(),
            secrets: BTreeMap::new(),
        };
        Self { world, next: 0, runs: BTreeMap::new() }
    }

    pub fn spec(&mut self) -> &mut Spec {
        match &mut self.world.wanted {
            Wanted::Valid(spec) => spec,
            Wanted::Invalid { .. } => panic!("the model's spec is valid"),
        }
    }

    pub fn service(&mut self, name: &str, part: ServicePart) -> &mut Seen<ObjectFacts> {
        let nothing = ManagedService { service: Seen::Absent, endpoints: Seen::Absent };
        let seen = self.world.services.entry(name.to_owned()).or_insert(nothing);
        match part {
            ServicePart::Service => &mut seen.service,
            ServicePart::Endpoints => &mut seen.endpoints,
        }
    }

    pub fn instance(&mut self, name: &InstanceName) -> &mut Instance {
        let serial = name.serial("c").unwrap();
        self.world.instances.entry(name.clone()).or_insert_with(|| Instance::nothing(serial))
    }

    fn identity(&mut self) -> Identity {
        self.next += 1;
        Identity { uid: format!("u{}", self.next), resource_version: self.next.to_string() }
    }

    /// Records memory and applies the first `limit` actions.
    pub fn execute(&mut self, plan: &Plan, limit: usize) {
        self.world.memory = plan.memory.clone();
        // Status says who is to be primary: the one that is, but for a switchover under way.
        self.world.requested_primary =
            plan.memory.switchover.as_ref().and_then(|wish| wish.to.clone());
        for action in plan.stages.iter().flatten().take(limit) {
            self.apply(action);
        }
    }

    fn apply(&mut self, action: &Action) {
        let identity = self.identity();
        match action {
            Action::Apply { object } => {
                let facts = ObjectFacts { identity, deleting: false, conforms: true };
                self.world.objects.insert(*object, Seen::Known(facts));
            }
            Action::Remove { object, .. } => {
                self.world.objects.insert(*object, Seen::Absent);
            }
            Action::ApplyService { name, part } => {
                let facts = ObjectFacts { identity, deleting: false, conforms: true };
                *self.service(name, *part) = Seen::Known(facts);
            }
            Action::RemoveService { name, part, .. } => {
                *self.service(name, *part) = Seen::Absent;
                let gone = |it: &ManagedService| it.service.is_absent() && it.endpoints.is_absent();
                self.world.services.retain(|_, it| !gone(it));
            }
            Action::TryPod { .. } => {}
            Action::CreateLease => {
                self.world.lease = Seen::Known(Lease { identity, ..Lease::default() });
            }
            Action::CreateSecret { role } => self.write_secret(*role, identity, Vec::new(), true),
            Action::RepairSecret { role, trusted, .. } => {
                self.write_secret(*role, identity, trusted.clone(), false);
            }
            Action::RenewSecret { role, trusted, .. } => {
                self.write_secret(*role, identity, trusted.clone(), true);
            }
            Action::Direct { instance, directive } => {
                let facts = DirectiveFacts {
                    identity,
                    deleting: false,
                    directive: directive.clone(),
                    conforms: true,
                };
                self.instance(instance).directive = Seen::Known(facts);
            }
            Action::CreateVolume { instance, volume }
            | Action::AdoptVolume { instance, volume, .. } => {
                let made = a_volume(identity);
                *volume_of(self.instance(instance), volume) = Seen::Known(made);
            }
            Action::GrowVolume { instance, volume, to, .. } => {
                self.grow(instance, volume, *to, identity);
            }
            Action::CreatePod { instance, tablespaces, .. } => {
                let offered = self.spec().agent.clone().unwrap_or_default();
                self.runs.insert(instance.clone(), offered.sha256);
                let pod = Pod { tablespaces: tablespaces.clone(), ..self.made(identity) };
                self.instance(instance).pod = Seen::Known(pod);
            }
            Action::AdoptPod { instance, .. } => self.pod(instance, |pod| pod.conforms = true),
            Action::LabelPod { instance, role, .. } => {
                self.pod(instance, |pod| pod.role = Some(*role));
            }
            Action::SetBootstrapImage { instance, .. } => {
                self.pod(instance, |pod| pod.brings_own_binary = true);
            }
            Action::DeletePod { instance, .. } => self.lose_pod(instance),
            Action::DeleteVolume { instance, volume, .. } => {
                *volume_of(self.instance(instance), volume) = Seen::Absent;
            }
            Action::DeleteInstance { instance, .. } => {
                let instance = self.instance(instance);
                instance.directive = Seen::Absent;
                instance.report = Seen::Absent;
            }
            Action::FreeLease { .. } => self.lease(|lease| lease.holder = None),
        }
    }

    fn made(&mut self, identity: Identity) -> Pod {
        let (stamp, at) = (self.spec().pod_stamp.clone(), self.spec().restarted_at.clone());
        Pod {
            identity,
            running: true,
            conforms: true,
            stamp,
            restarted_at: at,
            brings_own_binary: true,
            ..Pod::default()
        }
    }

    fn grow(&mut self, name: &InstanceName, volume: &VolumeRole, to: u64, identity: Identity) {
        if let Seen::Known(found) = volume_of(self.instance(name), volume) {
            found.identity = identity;
            found.requested = Some(to);
        }
    }

    pub fn lose_pod(&mut self, name: &InstanceName) {
        let instance = self.instance(name);
        instance.pod = Seen::Absent;
        if let Seen::Known(report) = instance.report.clone() {
            instance.report = Seen::Stale(report);
        }
        // A claim that was being deleted goes with the pod that used it.
        let own = [&mut instance.data, &mut instance.wal].into_iter();
        for volume in own.chain(instance.tablespaces.values_mut()) {
            if volume.known().is_some_and(|volume| volume.deleting) {
                *volume = Seen::Absent;
            }
        }
    }

    pub fn pod(&mut self, name: &InstanceName, change: impl FnOnce(&mut Pod)) {
        if let Seen::Known(pod) = &mut self.instance(name).pod {
            change(pod);
        }
    }

    fn lease(&mut self, change: impl FnOnce(&mut Lease)) {
        let identity = self.identity();
        if let Seen::Known(lease) = &mut self.world.lease {
            change(lease);
            lease.identity = identity;
            lease.unchanged_ms = 0;
        }
    }

    fn write_secret(
        &mut self,
        role: SecretRole,
        identity: Identity,
        trusted: Vec<String>,
        new_key: bool,
    ) {
        let before = self.world.secrets.get(&role).and_then(Seen::known).cloned();
        let signer = self.world.secrets.get(&SecretRole::Authority).and_then(Seen::known).cloned();
        let mut facts = before.unwrap_or_default();
        facts.name = format!("{role:?}");
        facts.version.clone_from(&identity.resource_version);
        facts.conforms = true;
        facts.invalid = None;
        let mut certificate = Certificate {
            not_before_ms: self.world.now_ms,
            not_after_ms: self.world.now_ms + 90 * DAY_MS,
            issuer: None,
            names_suffice: true,
        };
        match role {
            SecretRole::Authority => {
                facts.trusted = trusted;
                if new_key {
                    facts.trusted.insert(0, format!("ca-{}", identity.uid));
                    facts.certificate = Some(certificate);
                }
            }
            SecretRole::Server | SecretRole::Replication => {
                let signer = signer.expect("the authority is made in an earlier stage");
                if new_key {
                    certificate.issuer = signer.trusted.first().cloned();
                    facts.certificate = Some(certificate);
                }
                facts.trusted = if trusted.is_empty() { signer.trusted } else { trusted };
            }
            SecretRole::ServerAuthority
            | SecretRole::ClientAuthority
            | SecretRole::Application
            | SecretRole::Superuser => {}
        }
        facts.identity = identity;
        self.world.secrets.insert(role, Seen::Known(facts));
    }

    /// Agents obey, the Lease changes hands, time goes on.
    pub fn live(&mut self) {
        self.world.now_ms += 10_000;
        let running: BTreeSet<InstanceName> = self
            .world
            .instances
            .iter()
            .filter(|(_, instance)| {
                let told = instance.directive.known().is_some_and(|facts| !facts.directive.fenced);
                let up = instance.pod.known().is_some_and(|pod| !pod.ended);
                up && instance.data.known().is_some() && told
            })
            .map(|(name, _)| name.clone())
            .collect();
        // As the operator finds a Lease between two renewals.
        if let Seen::Known(lease) = &mut self.world.lease {
            lease.unchanged_ms = 1_500;
        }
        self.elect(&running);
        let names: Vec<InstanceName> = self.world.instances.keys().cloned().collect();
        for name in names {
            self.report(&name, running.contains(&name));
        }
        let members = self.world.memory.members.clone();
        let gone = |name: &InstanceName, instance: &Instance| {
            instance.is_gone() && !members.contains_key(name)
        };
        self.world.instances.retain(|name, instance| !gone(name, instance));
        let holder = self.world.holder().cloned();
        if holder == self.world.requested_primary {
            self.world.requested_primary = None;
        }
    }

    fn told(&self, name: &InstanceName) -> Option<&DirectiveFacts> {
        self.world.instances.get(name)?.directive.known()
    }

    fn elect(&mut self, running: &BTreeSet<InstanceName>) {
        let Seen::Known(lease) = self.world.lease.clone() else { return };
        let leaving =
            |name: &InstanceName| self.told(name).is_some_and(|facts| facts.directive.leaving);
        let excluded =
            |name: &InstanceName| self.told(name).is_some_and(|facts| facts.directive.excluded);
        let fit: Vec<InstanceName> =
            running.iter().filter(|name| !leaving(name) && !excluded(name)).cloned().collect();
        let mut holder = lease.holder.clone();
        if !lease.filled {
            let first = |name: &&InstanceName| {
                self.told(name).is_some_and(|facts| facts.directive.bootstrap_primary)
            };
            holder = running.iter().find(first).cloned();
        } else if let Some(present) = &holder {
            let wish = self.told(present).and_then(|facts| facts.directive.switchover.clone());
            if !running.contains(present) {
                holder = None;
            } else if leaving(present) && !fit.is_empty() {
                // A holder that is to leave hands over of itself.
                holder = fit.first().cloned();
            } else if let Some((_, to)) = wish {
                let next = to.or_else(|| fit.iter().find(|name| *name != present).cloned());
                holder = next.filter(|name| fit.contains(name)).or(holder);
            }
        } else {
            holder = fit.first().cloned();
        }
        let filled = lease.filled || holder.is_some();
        let cohort: BTreeSet<InstanceName> = fit.into_iter().collect();
        self.lease(|lease| {
            lease.holder = holder;
            lease.filled = filled;
            lease.cohort = if filled { cohort } else { BTreeSet::new() };
        });
    }

    fn report(&mut self, name: &InstanceName, running: bool) {
        let holder = self.world.holder() == Some(name);
        let primary_there = self.world.holder().is_some();
        let versions: BTreeMap<String, String> = self
            .world
            .secrets
            .values()
            .filter_map(Seen::known)
            .map(|facts| (facts.name.clone(), facts.version.clone()))
            .collect();
        let hash = self.spec().configuration_hash.clone();
        let filled = self.world.lease.known().is_some_and(|lease| lease.filled);
        let told = self.told(name).and_then(|facts| facts.directive.agent.as_ref());
        if let Some(sha256) = told.map(|it| it.sha256.clone()) {
            self.runs.insert(name.clone(), sha256);
        }
        let runs = self.runs.get(name).cloned();
        let instance = self.instance(name);
        let Seen::Known(pod) = &mut instance.pod else { return };
        let Some(facts) = instance.directive.known() else { return };
        let mut report = instance.report.last().cloned().unwrap_or_default();
        report.secret_versions = versions;
        report.heeds = true;
        report.agent.sha256 = runs;
        let ready = || TablespaceFacts { ready: true, ..TablespaceFacts::default() };
        report.tablespaces = pod.tablespaces.iter().map(|name| (name.clone(), ready())).collect();
        let serves = running && filled && primary_there;
        pod.ready = serves;
        if facts.directive.fenced {
            report.state = State::Fenced;
            report.role = Role::Unknown;
        } else if serves {
            report.state = State::Running;
            report.role = if holder { Role::Primary } else { Role::Standby };
            report.streaming = !holder;
            report.incarnation = Some(name.to_string());
            report.configuration_hash = Some(hash);
            if let Some(id) = &facts.directive.restart
                && report.restart.as_ref().is_none_or(|done| done.id != *id)
            {
                let done = true;
                report.restart = Some(Outcome { id: id.clone(), done, message: String::new() });
                report.pending_restart.clear();
                report.pending_decrease = false;
            }
        } else {
            report.state = State::Preparing;
            report.streaming = false;
        }
        instance.report = Seen::Known(report);
    }

    /// The user wishes for one more tablespace: pods of before are not as they should be.
    pub fn wish_for_tablespace(&mut self, name: &str) {
        self.spec().tablespaces.insert(name.to_owned());
        let wish = self.spec().pod_stamp.pod.clone();
        let wish = wish.split(" with ").next().unwrap_or_default().to_owned();
        self.wish_for_pods(&wish);
    }

    /// The user wishes for pods like this.
    pub fn wish_for_pods(&mut self, wish: &str) {
        let tablespaces = self.spec().tablespaces.iter().cloned().collect::<Vec<_>>().join(",");
        self.spec().pod_stamp = stamp(&format!("{wish} with {tablespaces}"));
    }

    /// An operator with another binary begins: the pods that live on would still bring the old one.
    pub fn offer(&mut self, sha256: &str) {
        let before = self.spec().agent.replace(binary(sha256));
        if before.is_some_and(|before| before.sha256 == sha256) {
            return;
        }
        let names: Vec<InstanceName> = self.world.instances.keys().cloned().collect();
        for name in names {
            self.pod(&name, |pod| pod.brings_own_binary = false);
        }
    }

    pub fn report_of(&mut self, name: &InstanceName, change: impl FnOnce(&mut Report)) {
        if let Seen::Known(report) = &mut self.instance(name).report {
            change(report);
        }
    }
}

pub fn volume_of<'a>(instance: &'a mut Instance, volume: &VolumeRole) -> &'a mut Seen<Volume> {
    match volume {
        VolumeRole::Data => &mut instance.data,
        VolumeRole::Wal => &mut instance.wal,
        VolumeRole::Tablespace(name) => {
            instance.tablespaces.entry(name.clone()).or_insert(Seen::Absent)
        }
    }
}

fn a_volume(identity: Identity) -> Volume {
    let size = Some(GIGABYTE);
    Volume { identity, conforms: true, requested: size, capacity: size, ..Volume::default() }
}
