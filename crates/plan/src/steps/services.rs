//! Objects without state: made, put right, removed when the spec no longer asks for them.

use crate::action::Action;
use crate::seen::Seen;
use crate::steps::{Draft, StageOrder, View};
use crate::world::Object;

/// Makes every object that the spec asks for as it should be.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let new_members = draft.memory.members.keys().ne(view.world.memory.members.keys());
    for (object, seen) in &view.world.objects {
        if !view.spec.objects.contains(object)
            && let Seen::Known(facts) = seen
            && !facts.deleting
        {
            let guard = facts.identity.clone();
            draft.act(StageOrder::Objects, Action::Remove { object: *object, guard });
        }
    }
    for object in &view.spec.objects {
        let due = match view.world.objects.get(object) {
            None | Some(Seen::Absent) => true,
            Some(Seen::Known(facts)) => !facts.deleting && !facts.conforms,
            Some(Seen::Stale(_) | Seen::Unknown { .. }) => false,
        };
        // The Role names the instances one by one; a pod must not start before it may read (K5).
        let due = due || (*object == Object::Role && new_members);
        if due {
            draft.act(order(*object), Action::Apply { object: *object });
        }
    }
}

fn order(object: Object) -> StageOrder {
    match object {
        Object::ServiceAccount | Object::Role | Object::RoleBinding | Object::Passwd => {
            StageOrder::Foundation
        }
        Object::ServiceReadWrite
        | Object::ServiceReadOnly
        | Object::ServiceRead
        | Object::ServicePrimary
        | Object::EndpointsReadWrite
        | Object::DisruptionBudget => StageOrder::Objects,
    }
}
