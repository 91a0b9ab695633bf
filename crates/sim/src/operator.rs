//! The operator as far as the protocol meets it: it makes instances, replaces what is lost, gives
//! proof of death (rule 20), and passes the user's wishes on. It is never needed for a failover.

use matriarch_plan::protocol::{
    Base, ContainerId, LeaseMark, LeaseRecord, Span, Term,
    directive::Switchover,
    proof::{ContainerEvidence, Evidence, NodeEvidence, free, is_damaged},
};

use crate::{
    Micros, SECOND,
    api::{ApiRequest, InstanceObject},
    driver::{instance_name, number_of},
    machine::{Pod, Volume},
    network::Node,
    story,
    world::{Event, Requester, World},
};

/// The operator process.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    pub(crate) down: bool,
    next_serial: u32,
    /// The Lease's version as it was at the last pass, and since when.
    seen: Option<(u64, Micros)>,
    /// The latest state of the Lease that it has read and that was not damaged.
    last: Option<LeaseMark>,
    pub(crate) switchovers: u64,
}

impl World {
    /// The cluster is created: the empty Lease, all instances, volumes and pods in one pass.
    pub(crate) fn create_cluster(&mut self) {
        let machines = self.settings.instances + 1;
        for _ in 0..machines {
            let reading = self.random.between(1_000_000, 900_000_000_000);
            let rate = self.random.between(999_700, 1_000_300);
            self.machines.push(crate::machine::Machine::new(reading, rate));
        }
        self.api.synchronous = self.settings.mode.synchronous();
        self.note_mode(self.settings.mode, true);
        self.put_lease(LeaseRecord::empty(Span::seconds(10)), None);
        for _ in 0..self.settings.instances {
            self.add_instance();
        }
        self.after(SECOND, Event::OperatorPass);
    }

    pub(crate) fn add_instance(&mut self) {
        self.operator.next_serial += 1;
        let serial = self.operator.next_serial;
        let machine = (usize::try_from(serial).unwrap_or(1) - 1) % self.machines.len();
        let instance =
            InstanceObject { serial, bootstrap_primary: serial == 1, ..InstanceObject::default() };
        self.api.instances.insert(serial, instance);
        self.api.directives += 1;
        self.volumes.push(Volume::default());
        self.add_pod(serial, machine, self.volumes.len() - 1);
    }

    pub(crate) fn add_pod(&mut self, serial: u32, machine: usize, volume: usize) {
        let uid = self.fresh();
        let pod = self.pods.len();
        self.pods.push(Pod {
            name: instance_name(serial),
            serial,
            uid: format!("u{uid}"),
            machine,
            volume,
            alive: true,
            object: true,
            terminating: None,
            ends: false,
            start_fails: false,
            container: None,
            terminated: None,
            restarts: 0,
            server: None,
        });
        story!(self, "pod {} (u{uid}) is made on machine {machine}", instance_name(serial));
        let takes = self.random.millis(200, 1500);
        self.after(takes, Event::ContainerStarts { pod });
    }

    pub(crate) fn operator_pass(&mut self) {
        let again = self.random.millis(500, 1500);
        self.after(again, Event::OperatorPass);
        if self.operator.down
            || self.api.down
            || !self.network.open(Node::Operator, Node::Api)
            || !self.network.open(Node::Api, Node::Operator)
        {
            return;
        }
        let serials: Vec<u32> = self.api.instances.keys().copied().collect();
        for serial in serials {
            self.keep_instance(serial);
        }
        self.prove_death();
    }

    /// One instance's pod and volume.
    fn keep_instance(&mut self, serial: u32) {
        let leaving = self.api.instances.get(&serial).is_some_and(|instance| instance.leaving);
        let Some(last) = self.pods.iter().rposition(|pod| pod.serial == serial) else { return };
        // What the Lease may still count on is kept as if it stayed.
        if leaving && self.remove_instance(serial, last) {
            return;
        }
        if self.api.cluster_gone || self.pods[last].object {
            return;
        }
        // No second pod for a volume while the first is not proved gone (traps H5).
        let machine = self.pods[last].machine;
        if self.pods[last].alive || !self.machines[machine].on {
            return;
        }
        let mut volume = self.pods[last].volume;
        if self.volumes[volume].lost {
            self.volumes.push(Volume::default());
            volume = self.volumes.len() - 1;
            if let Some(instance) = self.api.instances.get_mut(&serial) {
                // A replaced volume is filled by cloning, whoever made the cluster.
                instance.bootstrap_primary = false;
                instance.incarnation = None;
            }
            self.api.directives += 1;
        }
        self.add_pod(serial, machine, volume);
    }

    /// Scale down: the pod goes once the Lease counts on it no more; false until then.
    fn remove_instance(&mut self, serial: u32, pod: usize) -> bool {
        let incarnation = self.api.instances.get(&serial).and_then(|own| own.incarnation.clone());
        let Some(lease) = self.lease() else { return false };
        let counted = lease.everyone().any(|member| member.name.0 == instance_name(serial))
            || incarnation.as_ref().is_some_and(|own| {
                lease.held_by(own)
                    || lease.quorum.as_ref().is_some_and(|quorum| quorum.of.contains(own))
            });
        if counted || lease.holder.is_none() {
            return false;
        }
        if self.pods[pod].alive {
            if self.pods[pod].terminating.is_none() && self.machines[self.pods[pod].machine].on {
                self.terminate(pod, 10 * SECOND);
            }
            return true;
        }
        self.check_removal(pod);
        if let Some(place) = self.directory(pod).map(crate::postgres::Directory::flushed_place) {
            self.judge.removed.push((self.now, place));
        }
        let volume = self.pods[pod].volume;
        self.volumes[volume].lost = true;
        self.volumes[volume].directory = None;
        self.api.instances.remove(&serial);
        self.api.directives += 1;
        story!(self, "{} is removed", instance_name(serial));
        true
    }

    /// Rule 20.
    fn prove_death(&mut self) {
        let Some(object) = self.api.lease.clone() else { return };
        if self.operator.seen.is_none_or(|(version, _)| version != object.version) {
            self.operator.seen = Some((object.version, self.now));
            // A pass works on what the last one has read: its cache is that old.
            return;
        }
        let unchanged = self.operator.seen.map_or(0, |(_, since)| self.now - since);
        let Some(lease) = object.lease.as_ref() else { return };
        let obeyed = self.api.instances.values().map(|instance| instance.term).max();
        let obeyed = obeyed.unwrap_or(Term::ZERO);
        let damaged = is_damaged(&lease.mark(), self.operator.last.as_ref(), obeyed);
        if !damaged {
            self.operator.last = Some(lease.mark());
        }
        let Some(holder) = lease.holder.as_ref() else { return };
        let Some(pod) = self.pods.iter().position(|pod| pod.uid == holder.pod_uid.0) else {
            return;
        };
        let body = &self.pods[pod];
        let machine = &self.machines[body.machine];
        let reported = machine.on
            && machine.frozen.is_none()
            && body.object
            && self.network.open(Node::Machine(body.machine), Node::Api);
        let container = match body.terminated {
            Some(number) if reported => ContainerEvidence::Terminated {
                pod_uid: holder.pod_uid.clone(),
                container_id: ContainerId(format!("k{number}")),
            },
            _ => ContainerEvidence::NotTerminated,
        };
        let node = if machine.out_of_service {
            NodeEvidence::OutOfService
        } else if machine.node_gone {
            NodeEvidence::Gone
        } else {
            NodeEvidence::NotProved
        };
        let evidence = Evidence { container, node, unchanged: Span(unchanged / 1000), damaged };
        let version = matriarch_plan::protocol::Version(object.version);
        if let Ok((version, record)) = free(version, lease, &evidence) {
            story!(self, "operator: {} is proved dead", holder.name);
            let request =
                ApiRequest::WriteLease { request: None, base: Base::Version(version), record };
            self.send_to_api(Requester::Operator, request);
        }
    }

    /// The user asks for a switchover, to somebody or to the best.
    pub(crate) fn wish_switchover(&mut self, to: Option<u32>) {
        self.operator.switchovers += 1;
        let id = format!("s{}", self.operator.switchovers);
        story!(
            self,
            "user: switchover {id} to {}",
            to.map_or("the best".to_owned(), instance_name)
        );
        self.api.switchover =
            Some(Switchover { id, to: to.map(|serial| instance_name(serial).as_str().into()) });
        self.api.directives += 1;
    }

    /// The pod that holds the Lease, if there is one.
    pub(crate) fn holder_pod(&self) -> Option<usize> {
        let holder = self.lease()?.holder.as_ref()?;
        let incarnation = number_of(&holder.incarnation);
        (0..self.pods.len()).rev().find(|&pod| {
            self.pods[pod].alive
                && self.directory(pod).is_some_and(|own| own.incarnation == incarnation)
        })
    }
}
