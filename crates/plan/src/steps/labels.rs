//! Role labels of pods follow the Lease. They are for people and for `-ro` and `-primary`; no
//! failover waits for them (traps H1).

use crate::action::Action;
use crate::steps::{Draft, StageOrder};
use crate::world::{PodRole, World};

/// Sets the role label of every pod whose label does not say what the Lease says.
pub fn step(world: &World, draft: &mut Draft) {
    let Some(holder) = world.holder() else {
        // Nobody holds it, or it cannot be read: the labels stay, except that a label `primary`
        // beside an unread Lease proves nothing and is left too (I5 is kept by the EndpointSlice).
        return;
    };
    // A change of labels changes endpoints of `-ro` and `-primary`, and kube-proxy takes nothing for a
    // second after a change: `-rw` comes first (traps H1; 0.9 s of a failover were this).
    let lease = world.lease.known().and_then(|lease| lease.state.as_ref());
    if lease.is_some_and(|lease| !lease.history_published) {
        return;
    }
    for (name, instance) in &world.instances {
        let Some(pod) = instance.pod.known() else { continue };
        let role = if name == holder { PodRole::Primary } else { PodRole::Replica };
        if pod.role != Some(role) && !pod.deleting {
            let action =
                Action::LabelPod { instance: name.clone(), guard: pod.identity.clone(), role };
            draft.act(StageOrder::Labels, action);
        }
    }
}
