//! The sections of `status` as text.

use jiff::Timestamp;
use matriarch_api::annotations::{Annotation, Fenced, parse_fenced};
use matriarch_api::cluster::{ClusterStatus, TablespaceState};
use matriarch_api::conditions::ConditionType;
use matriarch_api::instance::{InstanceRole, InstanceState, InstanceStatus};
use matriarch_api::phases::Phase;
use matriarch_api::{Identity, Instance};

use crate::observed::{Observed, Part};
use crate::text::{bytes, section, table, time_and_age};

/// Everything, as a person reads it.
pub fn render(observed: &Observed, verbose: u8, identity: Identity) -> String {
    let view = Sections {
        observed,
        status: observed.cluster.status.clone().unwrap_or_default(),
        identity,
    };
    let mut parts = vec![section("Cluster Summary", &view.summary())];
    if let Some(trouble) = view.trouble() {
        parts.push(trouble);
    }
    if verbose >= 2 {
        parts.push(section("PostgreSQL Configuration", &view.configuration()));
        parts.push(section("PostgreSQL HBA Rules", &view.hba()));
        parts.push(section("Certificates Status", &view.certificates()));
    }
    parts.push(section("Continuous Backup status", &view.backup()));
    parts.push(section("Streaming Replication status", &view.replication(verbose >= 1)));
    if verbose >= 1 {
        parts.push(section("Unmanaged Replication Slot Status", &view.unmanaged_slots()));
        parts.push(section("Managed roles status", &view.roles()));
        parts.push(section("Tablespaces status", &view.tablespaces()));
        parts.push(section("Pod Disruption Budgets status", &view.budgets()));
    }
    parts.push(section("Instances status", &view.instances()));
    if !observed.errors.is_empty() {
        parts.push(section("Error(s) extracting status", &observed.errors.join("\n")));
    }
    parts.join("\n")
}

pub(super) struct Sections<'a> {
    pub(super) observed: &'a Observed,
    status: ClusterStatus,
    identity: Identity,
}

pub(super) fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

impl Sections<'_> {
    fn fence(&self) -> Result<Fenced, String> {
        let key = Annotation::FencedInstances.key(self.identity);
        let annotations = self.observed.cluster.metadata.annotations.as_ref();
        let text = annotations.and_then(|all| all.get(&key)).map_or("", String::as_str);
        parse_fenced(text).map_err(|error| error.to_string())
    }

    fn summary(&self) -> String {
        let (cluster, status, now) = (&self.observed.cluster, &self.status, self.observed.now);
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let number = |value: Option<i32>| value.map_or("-".to_owned(), |n| n.to_string());
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut add = |name: &str, value: String| rows.push(vec![format!("{name}:"), value]);
        add("Name", format!("{}/{}", cluster.namespace(), cluster.name()));
        add("System ID", text(&status.system_id));
        add("PostgreSQL Image", text(&status.image));
        add("Primary instance", text(&status.current_primary));
        let since = status.current_primary_timestamp.as_deref();
        add("Primary promotion time", since.map_or("-".to_owned(), |at| time_and_age(at, now)));
        let phase = text(&status.phase);
        let reason = status.phase_reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
        add("Status", format!("{phase}{reason}"));
        add("Instances", cluster.spec.instances.unwrap_or(1).to_string());
        add("Ready instances", number(status.ready_instances));
        match self.fence() {
            Ok(Fenced::None) => {}
            Ok(Fenced::All) => add("Fenced instances", "all".to_owned()),
            Ok(Fenced::Some(names)) => {
                let names: Vec<String> = names.into_iter().collect();
                add("Fenced instances", names.join(", "));
            }
            Err(why) => add("Fenced instances", format!("unknown: {why}")),
        }
        if let Some(statistics) = self.of_primary() {
            let (data, wal) = (bytes(statistics.database_bytes), bytes(statistics.wal_bytes));
            add("Size", format!("{data}, and {wal} of WAL"));
            let (lsn, file) = (text(&statistics.lsn), text(&statistics.wal_file));
            add("Current Write LSN", format!("{lsn} (WAL File: {file})"));
        }
        if let Some(lease) = &self.observed.lease {
            let timeline =
                lease.history.last().map_or("-".to_owned(), |branch| branch.timeline.to_string());
            // The position of the last renewal: seconds old, and what an election would judge by.
            add("Published Write LSN", format!("{} (Timeline: {timeline})", lease.position.lsn));
            add("Term of the Lease", lease.term.0.to_string());
        }
        table(&[], &rows)
    }

    /// Red lines of CloudNativePG's plugin: what is not as it should be, with the way to the reason.
    fn trouble(&self) -> Option<String> {
        let phase = self.status.phase.as_deref().and_then(Phase::from_text);
        if phase == Some(Phase::Healthy) {
            return None;
        }
        let name = self.observed.cluster.name();
        let (current, target) = (&self.status.current_primary, &self.status.target_primary);
        let moving = match (current, target) {
            (Some(current), Some(target)) if current != target => {
                format!("The primary role goes from {current} to {target}. ")
            }
            (None, _) => "The cluster has had no primary yet. ".to_owned(),
            (Some(_), _) => String::new(),
        };
        Some(format!("{moving}Why it is so: kubectl matriarch explain {name}\n"))
    }

    fn configuration(&self) -> String {
        let effective = self.status.effective.clone().unwrap_or_default();
        let lines = effective.parameters.iter().map(|(name, value)| format!("{name} = '{value}'"));
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() { "no parameters of the user's".to_owned() } else { lines.join("\n") }
    }

    fn hba(&self) -> String {
        let rules = self.observed.instances.first().map(|first| &first.spec.configuration.pg_hba);
        match rules {
            Some(rules) if !rules.is_empty() => rules.join("\n"),
            Some(_) | None => "no rules of the user's between the fixed ones".to_owned(),
        }
    }

    fn certificates(&self) -> String {
        let certificates = self.status.certificates.clone().unwrap_or_default();
        let now = self.observed.now;
        let rows: Vec<Vec<String>> = certificates
            .expirations
            .iter()
            .map(|(name, end)| {
                let days = end.parse::<Timestamp>().map_or("unknown".to_owned(), |end| {
                    (end.as_second() - now.as_second()).div_euclid(86_400).to_string()
                });
                vec![name.clone(), end.clone(), days]
            })
            .collect();
        table(&["Certificate Name", "Expiration Date", "Days Left Until Expiration"], &rows)
    }

    fn backup(&self) -> String {
        let kind = ConditionType::ContinuousArchiving.name();
        let condition = self.status.conditions.iter().find(|found| found.type_ == kind);
        let Some(condition) = condition else { return "Not configured".to_owned() };
        let working = if condition.status == "True" { "OK" } else { "Failing" };
        format!("Working WAL archiving: {working} {}", condition.message).trim_end().to_owned()
    }

    /// What to say where there is none: only if it could be read.
    pub(super) fn none(&self, part: Part, text: &str) -> String {
        let unread = self.observed.unread.contains(&part);
        if unread { "unknown: it could not be read, see below".to_owned() } else { text.to_owned() }
    }

    pub(super) fn holder(&self) -> Option<String> {
        let lease = self.observed.lease.as_ref()?;
        lease.holder.as_ref().map(|holder| holder.name.as_str().to_owned())
    }

    pub(super) fn synchrony(&self, report: &InstanceStatus) -> &'static str {
        let Some(lease) = &self.observed.lease else { return "unknown" };
        let counts = lease.quorum.as_ref().is_some_and(|quorum| {
            quorum.of.iter().any(|one| Some(one.as_str()) == report.incarnation.as_deref())
        });
        if counts { "quorum" } else { "async" }
    }

    pub(super) fn membership(&self, name: &str, report: &InstanceStatus) -> &'static str {
        let Some(lease) = &self.observed.lease else { return "unknown" };
        if !self.fence().is_ok_and(|fence| !fence.contains(name)) {
            return "fenced";
        }
        let is = |members: &[matriarch_plan::protocol::Member]| {
            members
                .iter()
                .any(|one| Some(one.incarnation.as_str()) == report.incarnation.as_deref())
        };
        if is(&lease.cohort) {
            "may take over"
        } else if is(&lease.stragglers) {
            "lags: not at once"
        } else {
            "no member"
        }
    }

    fn roles(&self) -> String {
        let Some(roles) = &self.status.managed_roles_status else {
            return "No roles managed".to_owned();
        };
        let rows: Vec<Vec<String>> = roles
            .by_status
            .iter()
            .map(|(state, names)| vec![state.clone(), names.join(", ")])
            .collect();
        let mut text = table(&["Status", "Roles"], &rows);
        for (role, why) in &roles.cannot_reconcile {
            text.push_str(&format!("{role} cannot be kept: {}\n", why.join("; ")));
        }
        text
    }

    fn tablespaces(&self) -> String {
        if self.status.tablespaces_status.is_empty() {
            return "No managed tablespaces".to_owned();
        }
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let wished = &self.observed.cluster.spec.tablespaces;
        let temporary = |name: &Option<String>| {
            let one = wished.iter().find(|it| it.name == *name);
            let temporary = one.is_some_and(|it| it.temporary == Some(true));
            if temporary { "true" } else { "false" }.to_owned()
        };
        let row = |one: &TablespaceState| {
            let (name, owner, state) = (text(&one.name), text(&one.owner), text(&one.state));
            vec![name, owner, state, temporary(&one.name), text(&one.error)]
        };
        let rows: Vec<Vec<String>> = self.status.tablespaces_status.iter().map(row).collect();
        table(&["Tablespace", "Owner", "Status", "Temporary", "Error"], &rows)
    }

    fn budgets(&self) -> String {
        if self.observed.budgets.is_empty() {
            return self.none(Part::Budgets, "No PodDisruptionBudgets");
        }
        let rows: Vec<Vec<String>> = self
            .observed
            .budgets
            .iter()
            .map(|budget| {
                let name = budget.metadata.name.clone().unwrap_or_default();
                let Some(status) = &budget.status else { return vec![name] };
                let counts = [
                    status.expected_pods,
                    status.current_healthy,
                    status.desired_healthy,
                    status.disruptions_allowed,
                ];
                std::iter::once(name).chain(counts.map(|count| count.to_string())).collect()
            })
            .collect();
        let heading = [
            "Name",
            "Expected Pods",
            "Current Healthy",
            "Minimum Desired Healthy",
            "Disruptions Allowed",
        ];
        table(&heading, &rows)
    }

    fn instances(&self) -> String {
        if self.observed.instances.is_empty() {
            return self.none(Part::Instances, "There is no instance yet");
        }
        let rows: Vec<Vec<String>> =
            self.observed.instances.iter().map(|instance| self.instance(instance)).collect();
        let heading = [
            "Name",
            "Current LSN",
            "Timeline",
            "Replication role",
            "Status",
            "PostgreSQL",
            "QoS",
            "Manager Version",
            "Node",
        ];
        table(&heading, &rows)
    }

    fn instance(&self, instance: &Instance) -> Vec<String> {
        let report = instance.status.clone().unwrap_or_default();
        let pod = self.observed.pods.get(instance.name());
        let node = pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
        let qos = pod.and_then(|pod| pod.status.as_ref()?.qos_class.clone());
        let timeline = report.timeline.map_or("-".to_owned(), |line| line.to_string());
        let measured = self.observed.statistics.get(instance.name());
        let lsn = measured.and_then(|it| it.lsn.clone()).unwrap_or_default();
        row(&[
            instance.name(),
            or_dash(&lsn),
            &timeline,
            &self.role(instance, &report),
            &self.condition(instance, &report),
            or_dash(report.postgres_version.as_deref().unwrap_or_default()),
            or_dash(&qos.unwrap_or_default()),
            or_dash(&report.agent_version),
            or_dash(&node.unwrap_or_default()),
        ])
    }

    fn role(&self, instance: &Instance, report: &InstanceStatus) -> String {
        if report.state == InstanceState::Fenced {
            return "Fenced".to_owned();
        }
        if self.observed.unread.contains(&Part::Lease) {
            return format!("{:?} (Lease unknown)", report.role);
        }
        let holds = self.holder().as_deref() == Some(instance.name());
        match (report.role, holds) {
            (InstanceRole::Primary, true) => "Primary".to_owned(),
            (InstanceRole::Primary, false) => "Primary without the Lease".to_owned(),
            (InstanceRole::Standby, true) => "Standby (promoting)".to_owned(),
            (InstanceRole::Standby, false) => match (report.streaming, self.synchrony(report)) {
                (true, "quorum") => "Standby (sync)".to_owned(),
                (true, _) => "Standby (async)".to_owned(),
                (false, _) => "Standby (not streaming)".to_owned(),
            },
            (InstanceRole::Unknown, _) => "Unknown".to_owned(),
        }
    }

    fn condition(&self, instance: &Instance, report: &InstanceStatus) -> String {
        if let Some(failure) = &report.failure {
            return format!("{}: {}", failure.reason, failure.message);
        }
        let Some(pod) = self.observed.pods.get(instance.name()) else {
            return self.none(Part::Pods, "no pod");
        };
        if report.pod_uid.is_some() && report.pod_uid != pod.metadata.uid {
            return "the report is of an earlier pod".to_owned();
        }
        if !report.pending_restart.is_empty() {
            return format!("waits for a restart: {}", report.pending_restart.join(", "));
        }
        match report.state {
            InstanceState::Running => "OK".to_owned(),
            state => state_word(state).to_owned(),
        }
    }
}

pub(super) fn state_word(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Unknown => "unknown",
        InstanceState::Waiting => "waiting",
        InstanceState::Initializing => "initdb",
        InstanceState::Cloning => "cloning",
        InstanceState::Rewinding => "pg_rewind",
        InstanceState::Starting => "starting up",
        InstanceState::Running => "running",
        InstanceState::Promoting => "promoting",
        InstanceState::Stopping => "stopping",
        InstanceState::Stopped => "stopped",
        InstanceState::Fenced => "fenced",
        InstanceState::Failed => "failed",
    }
}
