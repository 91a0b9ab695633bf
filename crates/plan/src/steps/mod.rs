//! The steps of the planner: one file, one rule set, one report each.

use std::collections::BTreeMap;

use crate::action::{Action, Directive, Plan, Wake};
use crate::binary::AgentBinary;
use crate::memory::Memory;
use crate::report::{Activity, Report, StepReport};
use crate::spec::Spec;
use crate::world::{Instance, InstanceName, World};

pub mod access;
pub mod agents;
pub mod bootstrap;
pub mod directives;
pub mod failover;
pub mod hibernation;
pub mod labels;
pub mod managed_services;
pub mod members;
pub mod pods;
pub mod replacement;
pub mod rollout;
pub mod services;
pub mod storage;
pub mod switchover;

/// What a step looks at.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What is seen.
    pub world: &'a World,
    /// What is wanted.
    pub spec: &'a Spec,
}

impl<'a> View<'a> {
    /// The holder of the Lease, if that is known.
    pub fn holder(&self) -> Option<&'a InstanceName> {
        self.world.holder()
    }

    /// What is seen of an instance.
    pub fn instance(&self, name: &InstanceName) -> Option<&'a Instance> {
        self.world.instances.get(name)
    }

    /// It serves.
    pub fn is_ready(&self, name: &InstanceName) -> bool {
        self.instance(name).is_some_and(Instance::is_ready)
    }
}

/// Order of the stages; a later one starts only if the earlier ones succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StageOrder {
    /// What everything else rests on: authority, permissions, the empty Lease.
    Foundation,
    /// What is signed by the authority, and all other objects without state.
    Objects,
    /// What agents are told, and volumes.
    Directives,
    /// Pods.
    Pods,
    /// Labels, which nothing waits for.
    Labels,
    /// What stops or removes something.
    Disruption,
    /// Would the API take what is to be made in the place of what is there.
    Trial,
    /// What is made anew as the spec says, once it is known that it can be.
    Replacement,
    /// Larger volumes: what a storage class refuses holds up nothing else.
    Growth,
}

/// What a pass comes to, while it is being worked out.
pub struct Draft {
    /// What will be remembered.
    pub memory: Memory,
    /// What each member will be told.
    pub directives: BTreeMap<InstanceName, Directive>,
    /// The binary that agents are told to run from.
    pub agents: BTreeMap<InstanceName, AgentBinary>,
    /// An instance is to be stopped, restarted or removed in this pass, or one that was has not
    /// come back: nothing else may be disrupted.
    pub disrupted: bool,
    /// The cluster is on its way into hibernation, or there.
    pub hibernation: Option<hibernation::Hibernation>,
    stages: BTreeMap<StageOrder, Vec<Action>>,
    steps: Vec<StepReport>,
    activity: Activity,
    wake: Option<Wake>,
}

impl Draft {
    /// Nothing decided yet.
    pub fn new(world: &World) -> Self {
        Self {
            memory: world.memory.clone(),
            directives: BTreeMap::new(),
            agents: BTreeMap::new(),
            disrupted: false,
            hibernation: None,
            stages: BTreeMap::new(),
            steps: Vec::new(),
            activity: Activity::Healthy,
            wake: None,
        }
    }

    /// Adds an action.
    pub fn act(&mut self, order: StageOrder, action: Action) {
        self.stages.entry(order).or_default().push(action);
    }

    /// Adds a step's report.
    pub fn report(&mut self, report: StepReport) {
        if !report.is_empty() {
            self.steps.push(report);
        }
    }

    /// The cluster is doing this, unless something more telling is the case.
    pub fn activity(&mut self, activity: Activity) {
        self.activity = self.activity.max(activity);
    }

    /// Look again after so many milliseconds at the latest.
    pub fn wake(&mut self, after_ms: u64, why: &str) {
        if self.wake.as_ref().is_none_or(|wake| wake.after_ms > after_ms) {
            self.wake = Some(Wake { after_ms, why: why.to_owned() });
        }
    }

    /// The plan.
    pub fn finish(self, world: &World) -> Plan {
        let primary = world.holder().cloned();
        let target = self.memory.switchover.as_ref().and_then(|switchover| switchover.to.clone());
        let ready = world
            .instances
            .iter()
            .filter(|(name, instance)| {
                self.memory.members.contains_key(*name) && instance.is_ready()
            })
            .map(|(name, _)| name.clone())
            .collect();
        let report = Report {
            steps: self.steps,
            target_primary: target.or_else(|| primary.clone()),
            primary,
            ready,
            members: self.memory.members.keys().cloned().collect(),
            activity: self.activity,
        };
        let stages = self.stages.into_values().filter(|stage| !stage.is_empty()).collect();
        Plan { memory: self.memory, stages, report, wake: self.wake }
    }
}
