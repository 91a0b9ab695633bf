//! All that is wrong with a spec: what `api` finds by itself, fields without effect that decide
//! about data, and what depends on the operator's own choices.

use matriarch_api::cluster::{ClusterSpec, PrimaryUpdateStrategy};
use matriarch_api::support::{self, Support};
use matriarch_api::validate;
use matriarch_pg::version::Major;

use super::{Findings, services};
use crate::setup::Owner;

/// Checks a Cluster. Returns its fields without effect, those that block among them: path and
/// sentence.
pub(super) fn check(
    owner: &Owner<'_>,
    major: Option<Major>,
    findings: &mut Findings,
) -> Vec<(String, String)> {
    let user = &owner.cluster.spec;
    for finding in validate::cluster(owner.name(), user, major, owner.setup.identity) {
        findings.add(&finding.path, finding.sentence);
    }
    if user.instances.unwrap_or(1) == 1
        && user.primary_update_strategy == Some(PrimaryUpdateStrategy::Supervised)
    {
        findings.add(
            "spec.primaryUpdateStrategy",
            "supervised waits for a switchover, and one instance has nobody to switch to; write unsupervised, or more instances",
        );
    }
    services::check(owner, findings);
    check_certificates(user, findings);
    check_parameters(user, major, findings);
    unsupported(user, findings)
}

/// What has no effect yet is listed; what of it decides about data blocks as well (traps K7).
fn unsupported(user: &ClusterSpec, findings: &mut Findings) -> Vec<(String, String)> {
    let Ok(written) = serde_json::to_value(user) else { return Vec::new() };
    let mut listed = Vec::new();
    for finding in support::unsupported(&written) {
        match finding.kind {
            Support::Effective => continue,
            Support::Listed => {}
            Support::Blocking => findings.block(&finding.path, finding.sentence),
        }
        listed.push((finding.path, finding.sentence.to_owned()));
    }
    listed
}

fn check_certificates(user: &ClusterSpec, findings: &mut Findings) {
    let given = user.certificates.clone().unwrap_or_default();
    if given.server_tls_secret.is_some() && given.server_ca_secret.is_none() {
        findings.add(
            "spec.certificates.serverCASecret",
            "with serverTLSSecret the authority that verifies it is needed as well",
        );
    }
    if given.server_tls_secret.is_some() && !given.server_alt_dns_names.is_empty() {
        findings.add(
            "spec.certificates.serverAltDNSNames",
            "the names stand in the certificate of serverTLSSecret; leave one of the two out",
        );
    }
    if given.replication_tls_secret.is_some() && given.client_ca_secret.is_none() {
        findings.add(
            "spec.certificates.clientCASecret",
            "with replicationTLSSecret the authority that verifies it is needed as well",
        );
    }
}

/// Names of parameters, and those that the operator sets: refused here with the reason, so that no
/// agent ever sees them.
fn check_parameters(user: &ClusterSpec, major: Option<Major>, findings: &mut Findings) {
    let (Some(postgresql), Some(major)) = (&user.postgresql, major) else { return };
    for refusal in matriarch_pg::parameters::check(&postgresql.parameters, major) {
        let path = format!("spec.postgresql.parameters[{:?}]", refusal.name());
        findings.add(&path, refusal.to_string());
    }
}
