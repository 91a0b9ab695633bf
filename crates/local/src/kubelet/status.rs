//! A pod's status, made of its containers'.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition,
    PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::container::Restart;

/// What a pod's status is made of.
pub(super) struct PodReport<'a> {
    pub(super) pod: &'a Pod,
    pub(super) address: std::net::Ipv4Addr,
    pub(super) node_address: std::net::Ipv4Addr,
    pub(super) init: &'a [ContainerStatus],
    pub(super) main: &'a [ContainerStatus],
    pub(super) restart: Restart,
    pub(super) previous: Option<&'a PodStatus>,
}

/// A container's status before its first start; counts of an earlier run are kept.
pub(super) fn initial(
    container: &Container,
    previous: Option<&[ContainerStatus]>,
) -> ContainerStatus {
    let old = previous.into_iter().flatten().find(|status| status.name == container.name);
    let waiting = ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some("ContainerCreating".to_owned()),
            message: None,
        }),
        ..ContainerState::default()
    };
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: container.image.clone().unwrap_or_default(),
        container_id: old.and_then(|old| old.container_id.clone()),
        restart_count: old.map_or(0, |old| old.restart_count),
        last_state: old
            .and_then(|old| old.state.clone())
            .filter(|state| state.terminated.is_some()),
        state: Some(waiting),
        started: Some(false),
        ready: false,
        ..ContainerStatus::default()
    }
}

/// Says why a container that has not started yet waits.
pub(super) fn note_waiting(status: &mut ContainerStatus, message: &str) {
    if let Some(waiting) = status.state.as_mut().and_then(|state| state.waiting.as_mut()) {
        waiting.message = Some(message.to_owned());
    }
}

impl PodReport<'_> {
    /// The whole status.
    pub(super) fn status(&self) -> PodStatus {
        let initialized = self.init.iter().all(succeeded);
        let containers_ready = initialized && self.main.iter().all(|status| status.ready);
        let condition = |name: &str, value: bool| self.condition(name, value);
        let address = self.address.to_string();
        let node = self.node_address.to_string();
        PodStatus {
            phase: Some(self.phase(initialized).to_owned()),
            conditions: Some(vec![
                condition("PodScheduled", true),
                condition("Initialized", initialized),
                condition("ContainersReady", containers_ready),
                condition("Ready", containers_ready),
            ]),
            host_ip: Some(node.clone()),
            host_ips: Some(vec![HostIP { ip: node }]),
            pod_ip: Some(address.clone()),
            pod_ips: Some(vec![PodIP { ip: address }]),
            start_time: self
                .previous
                .and_then(|status| status.start_time.clone())
                .or_else(|| Some(Time(Timestamp::now()))),
            init_container_statuses: (!self.init.is_empty()).then(|| self.init.to_vec()),
            container_statuses: Some(self.main.to_vec()),
            qos_class: Some("BestEffort".to_owned()),
            observed_generation: self.pod.metadata.generation,
            ..PodStatus::default()
        }
    }

    fn phase(&self, initialized: bool) -> &'static str {
        let ended = |status: &ContainerStatus| terminated(status).is_some();
        let any_started = self.main.iter().any(|status| status.container_id.is_some());
        if self.restart != Restart::Always && !self.main.is_empty() && self.main.iter().all(ended) {
            let all_well = self.main.iter().all(succeeded);
            if all_well {
                return "Succeeded";
            }
            if self.restart == Restart::Never {
                return "Failed";
            }
        }
        if initialized && any_started { "Running" } else { "Pending" }
    }

    fn condition(&self, name: &str, value: bool) -> PodCondition {
        let status = if value { "True" } else { "False" };
        let since = self
            .previous
            .and_then(|status| status.conditions.as_ref())
            .and_then(|conditions| conditions.iter().find(|c| c.type_ == name))
            .filter(|condition| condition.status == status)
            .and_then(|condition| condition.last_transition_time.clone())
            .unwrap_or_else(|| Time(Timestamp::now()));
        let not_ready = !value && matches!(name, "Ready" | "ContainersReady");
        PodCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since),
            reason: not_ready.then(|| "ContainersNotReady".to_owned()),
            ..PodCondition::default()
        }
    }
}

fn terminated(
    status: &ContainerStatus,
) -> Option<&k8s_openapi::api::core::v1::ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

/// True if the container has ended and did what it should.
pub(super) fn succeeded(status: &ContainerStatus) -> bool {
    terminated(status).is_some_and(|terminated| terminated.exit_code == 0)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use k8s_openapi::api::core::v1::{ContainerStateRunning, ContainerStateTerminated};

    use super::*;

    fn report(main: &[ContainerStatus], restart: Restart) -> PodStatus {
        let pod = Pod::default();
        PodReport {
            pod: &pod,
            address: Ipv4Addr::new(127, 9, 1, 1),
            node_address: Ipv4Addr::new(127, 9, 0, 2),
            init: &[],
            main,
            restart,
            previous: None,
        }
        .status()
    }

    fn ready(status: &PodStatus) -> String {
        let conditions = status.conditions.as_ref().unwrap();
        conditions.iter().find(|c| c.type_ == "Ready").unwrap().status.clone()
    }

    #[test]
    fn a_pod_is_ready_when_all_its_containers_are() {
        let mut status = initial(&Container::default(), None);
        assert_eq!(report(&[status.clone()], Restart::Always).phase.unwrap(), "Pending");
        status.container_id = Some("process://1".to_owned());
        status.state = Some(ContainerState {
            running: Some(ContainerStateRunning::default()),
            ..ContainerState::default()
        });
        let running = report(&[status.clone()], Restart::Always);
        assert_eq!(running.phase.as_deref(), Some("Running"));
        assert_eq!(ready(&running), "False");
        status.ready = true;
        assert_eq!(ready(&report(&[status], Restart::Always)), "True");
    }

    #[test]
    fn what_is_restarted_is_not_over() {
        let mut status = initial(&Container::default(), None);
        status.container_id = Some("process://1".to_owned());
        status.state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated { exit_code: 1, ..Default::default() }),
            ..ContainerState::default()
        });
        let phase = |restart| report(&[status.clone()], restart).phase.unwrap();
        assert_eq!(phase(Restart::Always), "Running");
        assert_eq!(phase(Restart::OnFailure), "Running");
        assert_eq!(phase(Restart::Never), "Failed");
    }
}
