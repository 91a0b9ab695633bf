//! Who receives WAL, how far each is, and the slots that keep it.

use std::collections::BTreeSet;

use matriarch_api::Instance;
use matriarch_api::statistics::{Sender, Slot, Statistics};

use super::sections::{Sections, or_dash, row, state_word};
use crate::observed::Part;
use crate::text::{bytes, table};

impl Sections<'_> {
    /// What the agent of the primary measured.
    pub(super) fn of_primary(&self) -> Option<&Statistics> {
        self.observed.statistics.get(&self.holder()?)
    }

    pub(super) fn replication(&self, verbose: bool) -> String {
        let holder = self.holder();
        let standbys: Vec<&Instance> = self
            .observed
            .instances
            .iter()
            .filter(|instance| Some(instance.name()) != holder.as_deref())
            .collect();
        if standbys.is_empty() {
            return self.none(Part::Instances, "Not configured: there is no standby");
        }
        let rows: Vec<Vec<String>> = standbys
            .iter()
            .map(|instance| {
                let report = instance.status.clone().unwrap_or_default();
                let state = if report.streaming { "streaming" } else { state_word(report.state) };
                let following = report.following.clone().unwrap_or_default();
                row(&[
                    instance.name(),
                    or_dash(&following),
                    state,
                    self.synchrony(&report),
                    self.membership(instance.name(), &report),
                ])
            })
            .collect();
        let heading = ["Name", "Following", "State", "Sync State", "Failover"];
        let promise = match self.observed.lease.as_ref().map(|lease| lease.quorum.as_ref()) {
            None => "Whether commits wait for standbys is not known".to_owned(),
            Some(None) => "Commits wait for no standby".to_owned(),
            Some(Some(quorum)) => format!(
                "Every acknowledged commit is flushed on at least {} of {} instances",
                quorum.need,
                quorum.of.len()
            ),
        };
        let mut text = format!("{promise}\n{}", table(&heading, &rows));
        if let Some(statistics) = self.of_primary() {
            text.push_str(&self.senders(statistics, verbose));
        }
        text
    }

    fn senders(&self, statistics: &Statistics, verbose: bool) -> String {
        if statistics.senders.is_empty() {
            return "\nNobody receives WAL from the primary\n".to_owned();
        }
        let mut heading = vec![
            "Name",
            "Sent LSN",
            "Write LSN",
            "Flush LSN",
            "Replay LSN",
            "Write Lag",
            "Flush Lag",
            "Replay Lag",
            "State",
            "Sync State",
            "Sync Priority",
            "Replication Slot",
        ];
        if verbose {
            heading.extend(["Slot Restart LSN", "Slot WAL Status", "Slot Safe WAL Size"]);
        }
        let rows: Vec<Vec<String>> = statistics
            .senders
            .iter()
            .map(|sender| self.sender(statistics, sender, verbose))
            .collect();
        format!("\n{}", table(&heading, &rows))
    }

    fn sender(&self, statistics: &Statistics, sender: &Sender, verbose: bool) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let slot = statistics.slots.iter().find(|slot| Some(&slot.name) == sender.slot.as_ref());
        let mut cells = vec![
            self.name_of(&sender.application_name),
            text(&sender.sent_lsn),
            text(&sender.write_lsn),
            text(&sender.flush_lsn),
            text(&sender.replay_lsn),
            text(&sender.write_lag),
            text(&sender.flush_lag),
            text(&sender.replay_lag),
            text(&sender.state),
            text(&sender.sync_state),
            sender.sync_priority.map_or("-".to_owned(), |it| it.to_string()),
            text(&sender.slot),
        ];
        if verbose {
            cells.push(slot.map_or("-".to_owned(), |slot| text(&slot.restart_lsn)));
            cells.push(slot.map_or("-".to_owned(), |slot| text(&slot.wal_status)));
            cells.push(slot.map_or("-".to_owned(), safe_size));
        }
        cells
    }

    /// Standbys call themselves by the id of their data directory.
    fn name_of(&self, application: &str) -> String {
        let own = |instance: &&Instance| {
            let report = instance.status.as_ref();
            report.and_then(|report| report.incarnation.as_deref()) == Some(application)
        };
        let instance = self.observed.instances.iter().find(own);
        instance.map_or_else(|| application.to_owned(), |instance| instance.name().to_owned())
    }

    /// Slots of the primary that no member of the cluster uses.
    pub(super) fn unmanaged_slots(&self) -> String {
        let Some(statistics) = self.of_primary() else {
            return "unknown: the primary's agent told no figures".to_owned();
        };
        let managed: BTreeSet<String> = self
            .observed
            .instances
            .iter()
            .map(|it| it.spec.configuration.high_availability_slots.slot_name(it.name()))
            .collect();
        let others: Vec<&Slot> =
            statistics.slots.iter().filter(|slot| !managed.contains(&slot.name)).collect();
        if others.is_empty() {
            return "No unmanaged replication slots".to_owned();
        }
        let rows: Vec<Vec<String>> = others
            .iter()
            .map(|slot| {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                let restart = text(&slot.restart_lsn);
                let status = text(&slot.wal_status);
                row(&[
                    &slot.name,
                    &slot.kind,
                    if slot.active { "yes" } else { "no" },
                    or_dash(&restart),
                    or_dash(&status),
                    &safe_size(slot),
                ])
            })
            .collect();
        table(&["Name", "Type", "Active", "Restart LSN", "WAL Status", "Safe WAL Size"], &rows)
    }
}

fn safe_size(slot: &Slot) -> String {
    match slot.safe_wal_bytes.map(u64::try_from) {
        Some(Ok(size)) => bytes(size),
        Some(Err(_)) => "none left".to_owned(),
        None => "no limit".to_owned(),
    }
}
