//! `spec.podSelectorRefs`: lines of pg_hba that name pods, to lines that name their addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use matriarch_api::cluster::{ClusterSpec, PodSelectorRefStatus};
use matriarch_plan::Seen;

use crate::references::References;
use crate::setup::Owner;

/// What stands for the addresses of pods: `${podselector:NAME}`.
const BEGIN: &str = "${podselector:";
const END: char = '}';

/// Addresses of the pods of each entry, by its name. Where they cannot be read now, those that were
/// read last: nobody is shut out because the API does not answer.
pub(super) fn addresses(
    owner: &Owner<'_>,
    references: &References,
) -> BTreeMap<String, Vec<IpAddr>> {
    let status = owner.cluster.status.as_ref();
    let last = |name: &str| {
        let entries = status.map(|status| status.pod_selector_refs.as_slice()).unwrap_or_default();
        let entry = entries.iter().find(|entry| entry.name.as_deref() == Some(name));
        let ips = entry.map(|entry| entry.ips.as_slice()).unwrap_or_default();
        ips.iter().filter_map(|ip| ip.parse().ok()).collect()
    };
    let names = owner.cluster.spec.pod_selector_refs.iter().filter_map(|it| it.name.clone());
    names
        .map(|name| {
            let mut found = match references.pods.get(&name) {
                Some(Seen::Known(found)) => found.clone(),
                Some(Seen::Stale(_) | Seen::Absent | Seen::Unknown { .. }) | None => last(&name),
            };
            found.sort();
            found.dedup();
            (name, found)
        })
        .collect()
}

/// For `status.podSelectorRefs`.
pub(super) fn shown(addresses: &BTreeMap<String, Vec<IpAddr>>) -> Vec<PodSelectorRefStatus> {
    let entry = |(name, found): (&String, &Vec<IpAddr>)| PodSelectorRefStatus {
        name: Some(name.clone()),
        ips: found.iter().map(ToString::to_string).collect(),
    };
    addresses.iter().map(entry).collect()
}

/// The user's lines of pg_hba: one that names pods becomes one for each address, and none where
/// there is no such pod.
pub(super) fn expand(user: &ClusterSpec, addresses: &BTreeMap<String, Vec<IpAddr>>) -> Vec<String> {
    let lines = user.postgresql.iter().flat_map(|postgresql| &postgresql.pg_hba);
    lines
        .flat_map(|line| {
            let Some((before, name, after)) = split(line) else { return vec![line.clone()] };
            let found = addresses.get(name).map(Vec::as_slice).unwrap_or_default();
            let with = |ip: &IpAddr| {
                let length = if ip.is_ipv4() { 32 } else { 128 };
                format!("{before}{ip}/{length}{after}")
            };
            found.iter().map(with).collect()
        })
        .collect()
}

/// What stands before the name of an entry, the name, and what stands after it.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = line.split_once(BEGIN)?;
    let (name, after) = rest.split_once(END)?;
    Some((before, name, after))
}
