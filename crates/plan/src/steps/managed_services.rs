//! Services of the user's (`managed.services`): made, put right or made anew, and removed when the
//! spec no longer asks for them. One that leads to the holder has an EndpointSlice, as `-rw` has.

use crate::action::Action;
use crate::report::{Block, Step, StepReport};
use crate::seen::Seen;
use crate::spec::ServiceUpdate;
use crate::steps::{Draft, StageOrder, View};
use crate::world::{ManagedService, ObjectFacts, ServicePart};

/// Makes every Service of the user's as it should be.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Services);
    for (name, seen) in &view.world.services {
        let wish = view.spec.services.get(name);
        if wish.is_none() {
            remove(draft, name, ServicePart::Service, &seen.service);
        }
        if wish.is_none_or(|wish| !wish.read_write) {
            remove(draft, name, ServicePart::Endpoints, &seen.endpoints);
        }
    }
    let nothing = ManagedService { service: Seen::Absent, endpoints: Seen::Absent };
    for (name, wish) in &view.spec.services {
        let seen = view.world.services.get(name).unwrap_or(&nothing);
        let mut parts = vec![(ServicePart::Service, &seen.service, wish.update)];
        if wish.read_write {
            parts.push((ServicePart::Endpoints, &seen.endpoints, ServiceUpdate::Patch));
        }
        for (part, seen, update) in parts {
            if let Seen::Unknown { why } = seen {
                report.blocked.push(Block::Service { name: name.clone(), why: why.clone() });
            }
            keep(draft, name, part, seen, update);
        }
    }
    draft.report(report);
}

fn keep(
    draft: &mut Draft,
    name: &str,
    part: ServicePart,
    seen: &Seen<ObjectFacts>,
    update: ServiceUpdate,
) {
    match (seen, update) {
        (Seen::Known(facts), _) if facts.deleting || facts.conforms => {}
        (Seen::Known(_), ServiceUpdate::Replace) => remove(draft, name, part, seen),
        (Seen::Absent, _) | (Seen::Known(_), ServiceUpdate::Patch) => {
            draft.act(StageOrder::Objects, Action::ApplyService { name: name.to_owned(), part });
        }
        (Seen::Stale(_) | Seen::Unknown { .. }, _) => {}
    }
}

fn remove(draft: &mut Draft, name: &str, part: ServicePart, seen: &Seen<ObjectFacts>) {
    if let Seen::Known(facts) = seen
        && !facts.deleting
    {
        let guard = facts.identity.clone();
        let action = Action::RemoveService { name: name.to_owned(), part, guard };
        draft.act(StageOrder::Objects, action);
    }
}
