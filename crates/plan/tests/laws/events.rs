//! What chance does to a cluster.

use matriarch_plan::spec::Fenced;
use matriarch_plan::world::{Object, Pod, SecretRole};
use matriarch_plan::{InstanceName, Seen};
use proptest::prelude::*;

use crate::model::Model;
use crate::name;

/// One thing that may happen.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Instances(u32),
    Stamp(u8),
    Restart(u8),
    Fence(u32),
    Unfence,
    LosePod(u32),
    EndPod(u32),
    LoseObject(usize),
    LoseSecret(usize),
    DeleteVolume(u32),
    LoseInstance(u32),
    Promote(u32),
    Pending(bool),
    LoseMemory,
    Age(i64),
    Offer(u8),
    Unrecoverable(u32),
    Tablespace(u8),
    DeleteTablespace(u32),
}

pub fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1_u32..6).prop_map(Event::Instances),
        (0_u8..4).prop_map(Event::Stamp),
        (0_u8..4).prop_map(Event::Restart),
        (1_u32..6).prop_map(Event::Fence),
        Just(Event::Unfence),
        (1_u32..6).prop_map(Event::LosePod),
        (1_u32..6).prop_map(Event::EndPod),
        (0_usize..5).prop_map(Event::LoseObject),
        (0_usize..4).prop_map(Event::LoseSecret),
        (1_u32..6).prop_map(Event::DeleteVolume),
        (1_u32..6).prop_map(Event::LoseInstance),
        (1_u32..6).prop_map(Event::Promote),
        any::<bool>().prop_map(Event::Pending),
        Just(Event::LoseMemory),
        (1_i64..80).prop_map(Event::Age),
        (0_u8..3).prop_map(Event::Offer),
        (1_u32..6).prop_map(Event::Unrecoverable),
        (0_u8..2).prop_map(Event::Tablespace),
        (1_u32..6).prop_map(Event::DeleteTablespace),
    ]
}

fn end(pod: &mut Pod) {
    pod.ended = true;
    pod.running = false;
    pod.ready = false;
}

fn give_up(pod: &mut Pod) {
    pod.unrecoverable = true;
}

pub fn happen(model: &mut Model, event: Event) {
    let there = |model: &Model, serial: u32| model.world.instances.contains_key(&name(serial));
    match event {
        Event::Instances(count) => model.spec().instances = count,
        Event::Stamp(stamp) => model.wish_for_pods(&format!("stamp-{stamp}")),
        Event::Restart(at) => model.spec().restarted_at = Some(at.to_string()),
        Event::Fence(serial) => model.spec().fenced = Fenced::Named([name(serial)].into()),
        Event::Unfence => model.spec().fenced = Fenced::None,
        Event::LosePod(serial) if there(model, serial) => model.lose_pod(&name(serial)),
        Event::EndPod(serial) if there(model, serial) => model.pod(&name(serial), end),
        Event::LoseObject(index) => {
            let object = [
                Object::ServiceAccount,
                Object::Role,
                Object::ServiceReadWrite,
                Object::EndpointsReadWrite,
                Object::DisruptionBudget,
            ][index];
            model.world.objects.insert(object, Seen::Absent);
        }
        Event::LoseSecret(index) => {
            let role = [
                SecretRole::Authority,
                SecretRole::Server,
                SecretRole::Replication,
                SecretRole::Application,
            ][index];
            model.world.secrets.insert(role, Seen::Absent);
        }
        Event::DeleteVolume(serial) if there(model, serial) => delete_data(model, &name(serial)),
        Event::LoseInstance(serial) if there(model, serial) => {
            model.instance(&name(serial)).directive = Seen::Absent;
            model.instance(&name(serial)).report = Seen::Absent;
        }
        Event::Promote(serial) if model.world.holder() != Some(&name(serial)) => {
            model.world.requested_primary = Some(name(serial));
        }
        Event::Pending(decrease) => {
            let names: Vec<InstanceName> = model.world.instances.keys().cloned().collect();
            for name in names {
                model.report_of(&name, |said| {
                    said.pending_restart = vec!["max_connections".to_owned()];
                    said.pending_decrease = decrease;
                    said.restart = None;
                });
            }
        }
        Event::LoseMemory => model.world.memory = matriarch_plan::Memory::default(),
        Event::Age(days) => model.world.now_ms += days * 86_400_000,
        Event::Offer(number) => model.offer(&format!("offer-{number}")),
        Event::Unrecoverable(serial) if there(model, serial) => model.pod(&name(serial), give_up),
        Event::Tablespace(number) => model.wish_for_tablespace(&format!("t{number}")),
        Event::DeleteTablespace(serial) if there(model, serial) => {
            delete_tablespaces(model, &name(serial));
        }
        Event::Unrecoverable(_)
        | Event::LosePod(_)
        | Event::EndPod(_)
        | Event::DeleteVolume(_)
        | Event::DeleteTablespace(_)
        | Event::LoseInstance(_)
        | Event::Promote(_) => {}
    }
}

fn delete_data(model: &mut Model, name: &InstanceName) {
    let others = model.world.holder().is_some_and(|holder| holder != name);
    let instance = model.instance(name);
    // A claim that no pod uses is gone at once; the only copy is not what this is about.
    if instance.pod.is_absent() && others {
        instance.data = Seen::Absent;
    } else if let (Seen::Known(volume), false) = (&mut instance.data, instance.pod.is_absent()) {
        volume.deleting = true;
    }
}

fn delete_tablespaces(model: &mut Model, name: &InstanceName) {
    let instance = model.instance(name);
    let mounted = instance.pod.known().map(|pod| pod.tablespaces.clone()).unwrap_or_default();
    for (tablespace, volume) in &mut instance.tablespaces {
        match volume {
            Seen::Known(volume) if mounted.contains(tablespace) => volume.deleting = true,
            _ => *volume = Seen::Absent,
        }
    }
}
