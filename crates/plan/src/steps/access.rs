//! Secrets: passwords and certificates. A key changes in three steps, so that no handshake fails
//! (traps K11, I13): everybody trusts the new authority, then the leaves are signed by it, then
//! the old one is no longer trusted.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::action::Action;
use crate::report::{Activity, Block, Did, Step, StepReport, Wait};
use crate::seen::Seen;
use crate::spec::SecretSource;
use crate::steps::{Draft, StageOrder, View};
use crate::world::{Certificate, SecretFacts, SecretRole};

/// Makes, repairs and renews Secrets. `Break`: nothing may be made, because the user names a
/// Secret that cannot be used and there is no data yet that would need care.
pub fn step(view: &View<'_>, draft: &mut Draft) -> ControlFlow<()> {
    let mut report = StepReport::new(Step::Access);
    for (role, source) in &view.spec.secrets {
        let seen = view.world.secrets.get(role).unwrap_or(&Seen::Absent);
        match source {
            SecretSource::Given { name } => check_given(*role, name, seen, &mut report),
            SecretSource::Managed => {}
        }
    }
    if !report.blocked.is_empty() && !view.world.memory.initialized {
        draft.activity(Activity::UnableToCreate);
        draft.report(report);
        return ControlFlow::Break(());
    }
    for (role, source) in &view.spec.secrets {
        if *source != SecretSource::Managed {
            continue;
        }
        match view.world.secrets.get(role).unwrap_or(&Seen::Absent) {
            Seen::Absent if !can_sign(view, *role) => report.waits.push(Wait::Secret(*role)),
            Seen::Absent => {
                report.did.push(Did::CreateSecret(*role));
                draft.act(order(*role), Action::CreateSecret { role: *role });
            }
            Seen::Known(facts) if !facts.deleting => {
                keep(view, draft, *role, facts, &mut report);
            }
            Seen::Unknown { why } => {
                report.waits.push(Wait::Sight { what: format!("{role:?} Secret: {why}") });
            }
            Seen::Known(_) | Seen::Stale(_) => draft.wake(1_000, "a Secret is on its way out"),
        }
    }
    draft.report(report);
    ControlFlow::Continue(())
}

/// The authority that signs this leaf is there, or made in an earlier stage.
fn can_sign(view: &View<'_>, leaf: SecretRole) -> bool {
    let Some(signer) = view.spec.signer(leaf) else { return true };
    let managed = view.spec.secrets.get(&signer) == Some(&SecretSource::Managed);
    match view.world.secrets.get(&signer).unwrap_or(&Seen::Absent) {
        Seen::Known(facts) => facts.invalid.is_none() && !facts.deleting,
        Seen::Absent => managed,
        Seen::Stale(_) | Seen::Unknown { .. } => false,
    }
}

fn order(role: SecretRole) -> StageOrder {
    match role {
        SecretRole::Authority => StageOrder::Foundation,
        SecretRole::ServerAuthority
        | SecretRole::ClientAuthority
        | SecretRole::Server
        | SecretRole::Replication
        | SecretRole::Application
        | SecretRole::Superuser => StageOrder::Objects,
    }
}

fn check_given(role: SecretRole, name: &str, seen: &Seen<SecretFacts>, report: &mut StepReport) {
    let why = match seen {
        Seen::Absent => "it does not exist".to_owned(),
        Seen::Known(SecretFacts { invalid: Some(why), .. }) => why.clone(),
        Seen::Unknown { why } => {
            report.waits.push(Wait::Sight { what: format!("Secret {name}: {why}") });
            return;
        }
        Seen::Known(_) | Seen::Stale(_) => return,
    };
    report.blocked.push(Block::Secret { role, name: name.to_owned(), why });
}

fn keep(
    view: &View<'_>,
    draft: &mut Draft,
    role: SecretRole,
    facts: &SecretFacts,
    report: &mut StepReport,
) {
    match role {
        SecretRole::Authority => keep_authority(view, draft, facts, report),
        SecretRole::Server | SecretRole::Replication => {
            keep_leaf(view, draft, role, facts, report);
        }
        SecretRole::Application | SecretRole::Superuser => {
            if facts.invalid.is_some() {
                renew(draft, role, facts, Vec::new(), report);
            } else if !facts.conforms {
                repair(draft, role, facts, Vec::new());
            }
        }
        SecretRole::ServerAuthority | SecretRole::ClientAuthority => {}
    }
}

fn renew(
    draft: &mut Draft,
    role: SecretRole,
    facts: &SecretFacts,
    trusted: Vec<String>,
    report: &mut StepReport,
) {
    report.did.push(Did::RenewSecret(role));
    let guard = facts.identity.clone();
    draft.act(StageOrder::Objects, Action::RenewSecret { role, guard, trusted });
}

fn repair(draft: &mut Draft, role: SecretRole, facts: &SecretFacts, trusted: Vec<String>) {
    let guard = facts.identity.clone();
    draft.act(StageOrder::Objects, Action::RepairSecret { role, guard, trusted });
}

/// Less than a third of its life is left (I13).
fn is_old(certificate: &Certificate, now_ms: i64) -> bool {
    let life = certificate.not_after_ms.saturating_sub(certificate.not_before_ms);
    certificate.not_after_ms.saturating_sub(now_ms) < life / 3
}

fn keep_authority(
    view: &View<'_>,
    draft: &mut Draft,
    facts: &SecretFacts,
    report: &mut StepReport,
) {
    let now_ms = view.world.now_ms;
    let old = facts.certificate.as_ref().is_none_or(|certificate| is_old(certificate, now_ms));
    if facts.invalid.is_some() || old {
        renew(draft, SecretRole::Authority, facts, facts.trusted.clone(), report);
    } else if facts.trusted.len() > 1 && all_use(view) && leaves_follow(view) {
        let own = facts.trusted.iter().take(1).cloned().collect();
        repair(draft, SecretRole::Authority, facts, own);
    } else if !facts.conforms {
        repair(draft, SecretRole::Authority, facts, facts.trusted.clone());
    }
}

fn keep_leaf(
    view: &View<'_>,
    draft: &mut Draft,
    role: SecretRole,
    facts: &SecretFacts,
    report: &mut StepReport,
) {
    let signer = view.spec.signer(role).and_then(|signer| view.world.secrets.get(&signer));
    let Some(signer) = signer.and_then(Seen::known).filter(|signer| signer.invalid.is_none())
    else {
        return;
    };
    let Some(own) = signer.trusted.first() else { return };
    // An authority that is about to be replaced signs nothing any more: what its successor signs
    // must first be trusted by everybody.
    let ending = signer.certificate.as_ref().is_some_and(|found| is_old(found, view.world.now_ms));
    let successor = view.spec.signer(role).and_then(|signer| view.spec.secrets.get(&signer));
    if ending && successor == Some(&SecretSource::Managed) {
        return;
    }
    let certificate = facts.certificate.as_ref().filter(|_| facts.invalid.is_none());
    let Some(certificate) = certificate else {
        renew(draft, role, facts, signer.trusted.clone(), report);
        return;
    };
    // While leaves of an older authority are about it stays trusted.
    let mut trusted = signer.trusted.clone();
    if let Some(issuer) = &certificate.issuer
        && !trusted.contains(issuer)
    {
        trusted.push(issuer.clone());
    }
    let has_all = trusted.iter().all(|wanted| facts.trusted.contains(wanted));
    let foreign = certificate.issuer.as_ref() != Some(own);
    if !has_all {
        repair(draft, role, facts, trusted);
    } else if foreign {
        if certificate.issuer.is_none() || all_use(view) {
            renew(draft, role, facts, trusted, report);
        } else {
            report.waits.push(Wait::Secret(role));
        }
    } else if is_old(certificate, view.world.now_ms) || !certificate.names_suffice {
        renew(draft, role, facts, facts.trusted.clone(), report);
    } else if facts.trusted.len() > trusted.len() && all_use(view) && leaves_follow(view) {
        repair(draft, role, facts, trusted);
    } else if !facts.conforms {
        repair(draft, role, facts, facts.trusted.clone());
    }
}

/// Every agent that runs uses the present version of both leaves.
fn all_use(view: &View<'_>) -> bool {
    let leaves: Vec<&SecretFacts> = [SecretRole::Server, SecretRole::Replication]
        .iter()
        .filter_map(|role| view.world.secrets.get(role).and_then(Seen::known))
        .collect();
    view.world.blind.is_empty()
        && view.world.instances.values().all(|instance| {
            let silent = instance.pod.is_absent();
            silent
                || instance.report.known().is_some_and(|said| {
                    leaves
                        .iter()
                        .all(|leaf| said.secret_versions.get(&leaf.name) == Some(&leaf.version))
                })
        })
}

/// Every managed leaf is signed by its present authority.
fn leaves_follow(view: &View<'_>) -> bool {
    let leaves: BTreeSet<SecretRole> = [SecretRole::Server, SecretRole::Replication].into();
    leaves.iter().filter(|role| view.spec.secrets.get(role) == Some(&SecretSource::Managed)).all(
        |role| {
            let own = view
                .spec
                .signer(*role)
                .and_then(|signer| view.world.secrets.get(&signer))
                .and_then(Seen::known)
                .and_then(|signer| signer.trusted.first());
            let issuer = view
                .world
                .secrets
                .get(role)
                .and_then(Seen::known)
                .and_then(|leaf| leaf.certificate.as_ref())
                .and_then(|certificate| certificate.issuer.as_ref());
            own.is_some() && own == issuer
        },
    )
}
