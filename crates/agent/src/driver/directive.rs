//! The directive: the own Instance by a watch, the others by name, and what the protocol is told.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::runtime::watcher;
use matriarch_api::identity::Identity;
use matriarch_api::instance::{Bootstrap, DataDurability, InstanceSpec};
use matriarch_api::object::Instance;
use matriarch_plan::protocol as plan;
use matriarch_plan::protocol::Span;
use tokio::sync::watch;

use crate::options::AgentOptions;
use crate::settings::{Known, KnownPeer};

/// How often the other instances are looked at.
const PEERS_PERIOD: Duration = Duration::from_secs(5);
/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Keeps what the API says, for as long as the agent lives.
pub async fn follow(
    options: AgentOptions,
    identity: Identity,
    client: kube::Client,
    sender: watch::Sender<Option<Arc<Known>>>,
) {
    let api: Api<Instance> = Api::namespaced_with(client, &options.namespace, &identity);
    let field = format!("metadata.name={}", options.instance);
    let config = watcher::Config::default().fields(&field);
    let mut stream = watcher::watcher(api.clone(), config).boxed();
    let mut period = tokio::time::interval(PEERS_PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = sender.borrow().as_deref().cloned();
    let mut listed = false;
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(watcher::Event::Apply(it) | watcher::Event::InitApply(it))) => {
                    listed = true;
                    let known = known.get_or_insert_default();
                    known.generation = it.metadata.generation.unwrap_or(0);
                    known.deleting = it.metadata.deletion_timestamp.is_some();
                    known.cluster_gone = known.deleting;
                    known.spec = it.spec;
                    let status = it.status.unwrap_or_default();
                    known.switchover = status.switchover.or(known.switchover.take());
                    known.restart = status.restart.or(known.restart.take());
                    peers(&api, &options.instance, known).await;
                }
                Some(Ok(watcher::Event::Delete(_))) => gone(known.as_mut()),
                Some(Ok(watcher::Event::Init)) => listed = false,
                Some(Ok(watcher::Event::InitDone)) => {
                    if !listed {
                        gone(known.as_mut());
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "watch of the own Instance");
                    // The watcher begins anew by itself, but not more gently.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                None => return,
            },
            _ = period.tick() => {
                if let Some(known) = &mut known {
                    peers(&api, &options.instance, known).await;
                }
            }
        }
        if let Some(known) = &known
            && sender.borrow().as_deref() != Some(known)
        {
            known.save(&options.root);
            sender.send_replace(Some(Arc::new(known.clone())));
        }
    }
}

/// The own Instance is certainly gone: the directive stays, but nobody makes a Lease any more.
fn gone(known: Option<&mut Known>) {
    if let Some(known) = known {
        known.cluster_gone = true;
    }
}

async fn peers(api: &Api<Instance>, own: &str, known: &mut Known) {
    let mut found = Vec::new();
    for name in known.spec.members.iter().filter(|name| *name != own) {
        let before = known.peers.iter().find(|peer| peer.name == *name).cloned();
        let peer = match tokio::time::timeout(LIMIT, api.get_opt(name)).await {
            Ok(Ok(Some(instance))) => KnownPeer {
                name: name.clone(),
                leaving: instance.metadata.deletion_timestamp.is_some() || instance.spec.leaving,
                status: instance.status.unwrap_or_default(),
            },
            // Not made yet: it is to be there, and that is all.
            Ok(Ok(None)) => KnownPeer { name: name.clone(), ..KnownPeer::default() },
            // Unknown is not absent.
            Ok(Err(_)) | Err(_) => {
                before.unwrap_or_else(|| KnownPeer { name: name.clone(), ..Default::default() })
            }
        };
        found.push(peer);
    }
    known.peers = found;
}

/// What the protocol is told.
#[must_use]
pub fn directive(known: &Known, own: &str) -> plan::Directive {
    let spec = &known.spec;
    let mut members: Vec<plan::Peer> = known
        .peers
        .iter()
        .map(|peer| plan::Peer {
            name: plan::InstanceName(peer.name.clone()),
            incarnation: peer.status.incarnation.clone().map(plan::Incarnation),
            address: peer.status.address.as_ref().map(address),
            leaving: peer.leaving,
        })
        .collect();
    members.push(plan::Peer {
        name: plan::InstanceName(own.to_owned()),
        incarnation: None,
        address: None,
        leaving: spec.leaving || known.deleting,
    });
    plan::Directive {
        members,
        bootstrap: match &spec.bootstrap {
            Bootstrap::Clone => plan::Bootstrap::Clone,
            Bootstrap::Initdb(_) => plan::Bootstrap::Initdb,
        },
        bootstrap_primary: spec.bootstrap_primary,
        fenced: spec.fenced,
        leaving: spec.leaving || known.deleting,
        cluster_gone: known.cluster_gone,
        excluded: spec.excluded,
        delayed: false,
        // A new agent is not to carry out again what one before it reported as done.
        switchover: spec
            .switchover
            .as_ref()
            .filter(|it| known.switchover.as_ref().is_none_or(|told| told.id != it.id))
            .map(|it| plan::directive::Switchover {
                id: it.id.clone(),
                to: it.to.clone().map(plan::InstanceName),
            }),
        restart: spec
            .restart
            .as_ref()
            .filter(|it| known.restart.as_ref().is_none_or(|told| told.id != it.id))
            .map(|it| it.id.clone()),
        synchronous: synchronous(spec),
        timing: plan::Timing {
            duration: Span::millis(spec.lease.duration_ms),
            renew: Span::millis(spec.lease.renew_ms),
        },
        limits: plan::Limits {
            maximum_lag: spec.failover.maximum_lag_bytes,
            failsafe_max: Span::seconds(spec.failover.failsafe_max_seconds),
            failover_delay: Span::seconds(spec.failover.delay_seconds),
            priority: spec.failover.priority,
        },
        delays: plan::Delays {
            stop: Span::seconds(spec.delays.stop_seconds),
            smart: spec.delays.smart_shutdown_seconds.map(Span::seconds),
            switchover: Span::seconds(spec.delays.switchover_seconds),
            promotion: Span::seconds(spec.delays.promotion_seconds),
        },
    }
}

fn address(from: &matriarch_api::instance::Address) -> plan::Address {
    plan::Address {
        host: from.host.clone(),
        postgres_port: from.postgres_port,
        agent_port: from.agent_port,
    }
}

fn synchronous(spec: &InstanceSpec) -> Option<plan::Synchronous> {
    let wish = spec.configuration.synchronous.as_ref()?;
    Some(plan::Synchronous {
        number: wish.number,
        required: match wish.durability {
            DataDurability::Required => true,
            DataDurability::Preferred => false,
        },
        outside: wish.standby_names_pre.iter().chain(&wish.standby_names_post).cloned().collect(),
        max_from_cluster: wish.max_standby_names_from_cluster,
    })
}
