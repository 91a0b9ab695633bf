//! Schedules that only many seeds found: more than one misfortune each.

use crate::Micros;
use matriarch_plan::protocol::view::ShiftStep;

use super::Named;
use crate::{
    SECOND,
    api::Ambiguity,
    network::Node,
    postgres::{Phase, Role},
    settings::Mode,
    world::World,
};

pub(super) const SCRIPTS: &[Named] = &[
    ("the best instance leaves, L is deleted", best_leaves),
    ("L deleted before its new holder has confirmed it", deleted_unconfirmed),
    ("P proved dead returns and is needed", proved_dead_returns),
    ("a promotion is cut off and made again", promoted_twice),
    ("P thaws with a clock that stood, L was taken back", thaws_to_an_old_lease),
    ("L says none, one that lags is left", laggard_left),
    ("P restarts in place while its quorum is written", restarts_while_published),
    ("P is restarted by wish before its quorum is written", restarted_before_published),
    ("P restarts before it knows what is asked for", restarts_unasked),
    ("P is to stop, its standbys do not stream yet", stops_unheard),
    ("P is to stop, whoever has its WAL is not in the cohort yet", joins_at_stop),
    ("P is to stop, it has not heard of whoever has its WAL", stranger_at_stop),
    ("P stops, both successors lack its last WAL", lacking_at_stop),
    ("the API is away, PostgreSQL of P is killed", killed_without_api),
    ("P gives L away and gets it back, a standby's agent stands still", goes_on_unheard),
];

/// Seeds 5356 and 9323.
fn best_leaves(world: &mut World) {
    let primary = world.primary();
    let serial = world.pods[primary].serial;
    for standby in world.standbys() {
        world.cut_pods(primary, standby);
    }
    // What it commits now nobody else has.
    world.hurry(12);
    world.pass_between(500, 8_000);
    world.operator.down = true;
    if let Some(instance) = world.api.instances.get_mut(&serial) {
        instance.leaving = true;
    }
    world.api.directives += 1;
    world.pass_between(100, 2_000);
    world.kill_container(primary);
    world.delete_lease();
    world.pass_between(100, 20_000);
    world.heal_network();
    world.seconds(60);
    world.expect_writes_within(10, "the one that leaves makes the Lease anew and hands over");
    let leaves = world.holder_pod() != Some(primary);
    world.expect(leaves, "it is primary no more");
    world.operator.down = false;
    if let Some(instance) = world.api.instances.get_mut(&serial) {
        instance.leaving = false;
    }
    world.api.directives += 1;
}

/// Seed 5801.
fn deleted_unconfirmed(world: &mut World) {
    let primary = world.primary();
    for standby in world.standbys() {
        world.api.scripted.insert(standby, Ambiguity::AppliedUnanswered);
    }
    let machine = world.machine_of(primary);
    world.power_off(machine);
    let taken = |world: &World| world.holder_pod().is_some_and(|holder| holder != primary);
    if !world.pass_until(SECOND / 50, 60 * SECOND, taken) {
        return;
    }
    world.api.scripted.clear();
    // A second until it gives the answer up, and the read that shows it itself as holder.
    world.pass_between(900, 1_500);
    world.delete_lease();
    world.pass_between(5_000, 20_000);
    world.power_on(machine);
    world.seconds(60);
    world.expect_writes_within(10, "the Lease is made anew");
}

/// Seed 5519.
fn proved_dead_returns(world: &mut World) {
    // Of two with the same WAL the one with the smaller name is the better.
    let last = u32::try_from(world.settings.instances).unwrap_or(1);
    world.wish_switchover(Some(last));
    world.seconds(15);
    let primary = world.primary();
    let second = world.standbys().into_iter().find(|&pod| world.pods[pod].serial == 2);
    let (Some(second), true) = (second, world.pods[primary].serial == 3) else { return };
    world.clients.stopped = true;
    world.pass_between(500, 1_500);
    let machine = world.machine_of(second);
    world.power_off(machine);
    world.pass_between(0, 1_000);
    world.kill_container(primary);
    world.seconds(30);
    world.resume_clients();
    world.seconds(20);
    world.expect_writes_within(10, "the two that are there have enough promises");
    world.power_on(machine);
    world.seconds(30);
}

/// Seed 6292.
fn promoted_twice(world: &mut World) {
    let former = world.primary();
    world.clients.stopped = true;
    exclude_others(world, former, true);
    world.seconds(6);
    for standby in world.standbys() {
        world.cut_pods(former, standby);
    }
    // It starts again where it is: a record more than anybody else has.
    let runs = |world: &World| {
        world.server(former).is_some_and(|server| matches!(server.phase, Phase::Running))
    };
    world.kill_server(former);
    world.pass_until(SECOND / 100, 9 * SECOND, runs);
    world.cut_off(former);
    exclude_others(world, former, false);
    let promoted = |world: &World| {
        let holder = world.holder_pod().filter(|&holder| holder != former);
        let server = holder.and_then(|holder| world.server(holder));
        server.is_some_and(|server| server.role == Role::Primary)
    };
    if world.pass_until(SECOND / 500, 60 * SECOND, promoted) {
        let successor = world.primary();
        world.kill_server(successor);
        world.seconds(15);
    }
    world.heal_network();
    world.resume_clients();
    world.seconds(60);
    world.expect(world.whole(), "the former primary is rewound and follows");
}

/// Seeds 1134 and 2672: what was acknowledged by two is not lost because L then said none.
fn laggard_left(world: &mut World) {
    let standbys = world.standbys();
    let (&[one, other], Mode::Preferred(_)) = (standbys.as_slice(), world.settings.mode) else {
        return;
    };
    let primary = world.primary();
    let machines = [primary, one, other].map(|pod| world.machine_of(pod));
    world.clients.stopped = true;
    world.power_off(machines[2]);
    world.seconds(20);
    // Less than the bound on lag, acknowledged by two.
    world.resume_clients();
    world.pass_between(500, 2_000);
    world.clients.stopped = true;
    world.power_off(machines[1]);
    let none = |world: &World| world.lease().is_some_and(|lease| lease.quorum.is_none());
    world.pass_until(SECOND / 10, 30 * SECOND, none);
    world.cut_pods(primary, other);
    world.power_on(machines[2]);
    world.seconds(20);
    world.kill_container(primary);
    world.heal_network();
    // Whoever answers an election is in the cohort, however much it lacks.
    let term = world.term();
    let elected = |world: &World| {
        world.holder_pod() == Some(primary)
            && world.term() > term
            && world.server(primary).is_some()
    };
    world.pass_until(SECOND / 100, 30 * SECOND, elected);
    world.power_off(machines[0]);
    world.seconds(40);
    world.power_on_all();
    world.resume_clients();
    world.seconds(40);
    world.expect_writes_within(10, "whoever has everything goes on");
}

/// Seed 2257.
fn restarts_while_published(world: &mut World) {
    let standby = world.a_standby();
    world.make_straggler(standby);
    let primary = world.primary();
    exclude_others(world, primary, true);
    world.hurry(60);
    let machine = world.machine_of(standby);
    world.power_on(machine);
    let publishes = |world: &World| {
        let view = world.pods[primary].agent().map(|agent| agent.protocol.view());
        view.and_then(|view| view.shift).is_some_and(|step| matches!(step, ShiftStep::CatchUp(_)))
    };
    if !world.pass_until(SECOND / 500, 60 * SECOND, publishes) {
        return;
    }
    let later = world.random.millis(300, 900);
    world.api.scripted.insert(primary, Ambiguity::AppliedLate(later));
    world.pass_between(50, 250);
    world.kill_server(primary);
    world.seconds(20);
    exclude_others(world, primary, false);
    world.seconds(20);
}

/// Seed 3218: the shift went on after the start, whose names knew nothing of it.
fn restarted_before_published(world: &mut World) {
    let former = world.primary();
    world.hurry(90);
    let machine = world.machine_of(former);
    world.power_off(machine);
    let none = |world: &World| {
        let lease = world.lease();
        let taken = lease.and_then(|lease| lease.holder.as_ref().map(|_| lease.quorum.is_none()));
        taken == Some(true) && world.holder_pod() != Some(former)
    };
    if !world.pass_until(SECOND / 1_000, 60 * SECOND, none) {
        return;
    }
    let primary = world.primary();
    let serial = world.pods[primary].serial;
    // The write that follows at once; the next one has to wait for a second.
    world.api.scripted.insert(primary, Ambiguity::AppliedUnanswered);
    world.pass_between(0, 300);
    world.restart(serial);
    world.seconds(20);
    world.power_on(machine);
    world.seconds(20);
}

/// Seed 4901.
fn restarts_unasked(world: &mut World) {
    world.hurry(60);
    world.delete_lease();
    for pod in 0..world.pods.len() {
        world.kill_container(pod);
    }
    let made = |world: &World| world.lease().is_some_and(|lease| lease.holder.is_some());
    if !world.pass_until(SECOND / 50, 60 * SECOND, made) {
        return;
    }
    let holder = world.primary();
    world.power_off_standbys();
    world.cut_from_api(holder);
    world.kill_agent(holder);
    world.kill_server(holder);
    let up = |world: &World| world.pods[holder].agent().is_some();
    world.pass_until(SECOND / 100, 20 * SECOND, up);
    world.pass_between(50, 900);
    let node = world.node_of(holder);
    world.heal_link(node, Node::Api);
    world.seconds(20);
    world.power_on_all();
    world.seconds(20);
}

/// A pod was deleted while the only fit standby had just been started again: PostgreSQL stopped, and
/// what it had written since could be sent to nobody any more.
fn stops_unheard(world: &mut World) {
    let primary = world.primary();
    world.hurry(20);
    for standby in world.standbys() {
        world.kill_server(standby);
    }
    world.pass_between(100, 900);
    world.delete_pod(primary, 1_800 * SECOND, false);
    world.seconds(12);
    world.expect(world.holder_pod() != Some(primary), "the primary has given the Lease away");
    world.expect_kept(0, "nothing that was acknowledged is lost");
    world.seconds(20);
}

/// A standby that had just caught up was to enter the cohort with the next renewal, two seconds
/// later. P stopped before, released L to nobody, and the one that was in the cohort was elected
/// without what only the other had.
fn joins_at_stop(world: &mut World) {
    let primary = world.primary();
    let [joins, lags] = world.standbys()[..] else { return };
    world.hurry(60);
    let machine = world.machine_of(joins);
    world.power_off(machine);
    world.seconds(16);
    world.power_on(machine);
    let serial = world.pods[lags].serial;
    world.fence(serial, true);
    let streams = |world: &World| {
        world.connections.values().any(|l| l.standby == joins && l.acknowledged > 0)
    };
    if !world.pass_until(SECOND / 500, 60 * SECOND, streams) {
        return;
    }
    world.pass_between(0, 300);
    world.fence(serial, false);
    world.delete_pod(primary, 1_800 * SECOND, false);
    world.seconds(15);
    world.expect(world.holder_pod() != Some(primary), "the primary has given the Lease away");
    world.expect_kept(0, "nothing that was acknowledged is lost");
    world.seconds(20);
}

/// A local test lost rows by it: an instance that was made a moment ago streamed, and the API had
/// not told P of it.
fn stranger_at_stop(world: &mut World) {
    let primary = world.primary();
    let [joins, lags] = world.standbys()[..] else { return };
    world.hurry(60);
    let anew = world.pods[joins].serial;
    world.lose_volume(joins);
    let streams = move |world: &World| {
        let mut streams = world.connections.values().filter(|l| l.acknowledged > 0);
        streams.any(|l| l.standby != joins && world.pods[l.standby].serial == anew)
    };
    // What the API tells of instances is late at P.
    let unaware = |world: &mut World, longest: Micros, done: &dyn Fn(&World) -> bool| {
        let end = world.now + longest;
        while world.now < end && !done(world) {
            let latest = world.api.directives;
            if let Some(agent) = world.pods[primary].agent_mut() {
                agent.directive_seen = Some(latest);
            }
            world.pass(SECOND / 500);
        }
    };
    unaware(world, 120 * SECOND, &streams);
    let serial = world.pods[lags].serial;
    world.fence(serial, true);
    unaware(world, SECOND / 2, &|_| false);
    world.fence(serial, false);
    world.delete_pod(primary, 1_800 * SECOND, false);
    unaware(world, SECOND, &|_| false);
    world.api.directives += 1;
    world.seconds(20);
    world.expect(world.holder_pod() != Some(primary), "the primary has given the Lease away");
    world.expect_kept(0, "nothing that was acknowledged is lost");
    world.seconds(20);
}

/// Each successor was given up for the other one, for as long as `switchoverDelay`.
fn lacking_at_stop(world: &mut World) {
    let primary = world.primary();
    world.hurry(20);
    world.delete_pod(primary, 1_800 * SECOND, false);
    let stops = |world: &World| world.server(primary).is_none_or(|server| !server.takes_writes());
    if !world.pass_until(SECOND / 1_000, 15 * SECOND, stops) {
        return;
    }
    for standby in world.standbys() {
        world.kill_server(standby);
    }
    world.seconds(12);
    world.expect(world.holder_pod() != Some(primary), "the primary has given the Lease away");
    world.seconds(20);
}

/// What fails beside PostgreSQL, the way to the Service above all, does not delay its start.
fn killed_without_api(world: &mut World) {
    let primary = world.primary();
    world.hurry(60);
    for _ in 0..2 {
        world.api.down = true;
        world.pass_between(15_000, 25_000);
        world.kill_server(primary);
        world.seconds(5);
        world.api.down = false;
        world.seconds(5);
        world.expect_writes_within(5, "somebody is primary again within seconds");
        world.seconds(20);
        if world.holder_pod() != Some(primary) {
            return;
        }
    }
}

/// Seed 13898: the walreceiver goes on by itself, and what it has is on timelines that its agent has
/// not heard of.
fn goes_on_unheard(world: &mut World) {
    let standbys = world.standbys();
    let &[other, unheard] = standbys.as_slice() else { return };
    let primary = world.primary();
    world.freeze_agent(unheard, 300 * SECOND);
    for pod in [other, primary] {
        let serial = world.pods[pod].serial;
        world.wish_switchover(Some(serial));
        let serves = |world: &World| {
            let server = world.server(pod).is_some_and(|server| server.role == Role::Primary);
            server && world.holder_pod() == Some(pod)
        };
        world.pass_until(SECOND / 50, 20 * SECOND, serves);
        world.seconds(1);
    }
    let streams = |world: &World| {
        world.connections.values().any(|it| it.standby == unheard && it.primary == primary)
    };
    world.pass_until(SECOND / 50, 15 * SECOND, streams);
    // Only that one gets what is acknowledged now.
    world.cut_pods(primary, other);
    world.hurry(20);
    world.pass_between(500, 4_000);
    let machine = world.machine_of(primary);
    world.power_off(machine);
    world.thaw_agent(unheard);
    world.seconds(40);
    world.heal_network();
    world.power_on(machine);
    world.seconds(30);
}

/// Nobody but this one may be primary, or anybody again.
fn exclude_others(world: &mut World, but: usize, excluded: bool) {
    let own = world.pods[but].serial;
    let others: Vec<u32> = world.api.instances.keys().copied().filter(|it| *it != own).collect();
    for serial in others {
        world.exclude(serial, excluded);
    }
}

/// Seeds 6568 and 8169.
fn thaws_to_an_old_lease(world: &mut World) {
    let former = world.primary();
    let machine = world.machine_of(former);
    let exact = world.random.below(3);
    let old = world.api.lease.as_ref().map(|object| object.record.clone());
    world.hurry(120);
    if exact == 1 {
        // A later edition than the one that is restored.
        let standby = world.a_standby();
        world.make_straggler(standby);
        world.power_on_all();
        world.seconds(10);
    }
    let (Some(old), true) = (old, world.primary() == former) else { return };
    // What it asked before it stood still tells it nothing.
    world.cut_off(former);
    world.pass_between(500, 1_500);
    world.freeze_machine(machine, false);
    let taken = |world: &World| world.holder_pod().is_some_and(|holder| holder != former);
    if !world.pass_until(SECOND / 20, 60 * SECOND, taken) {
        return;
    }
    world.pass_between(1_000, 10_000);
    let successor = world.primary();
    if world.random.chance(700) {
        world.cut_from_api(successor);
    }
    if exact == 0 {
        world.delete_lease();
    } else {
        world.put_lease(old, None);
    }
    world.thaw_machine(machine);
    let node = world.node_of(former);
    world.heal_link(node, Node::Api);
    world.pass_between(1_000, 20_000);
    world.heal_network();
    world.seconds(60);
}
