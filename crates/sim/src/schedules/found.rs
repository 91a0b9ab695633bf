//! The second list of docs/ha-protocol.md: schedules that broke an earlier wording of a rule.

use std::collections::BTreeSet;

use matriarch_plan::protocol::{ApiRefusal, LeaseRecord};

use super::Named;
use crate::{SECOND, api::Ambiguity, settings::Mode, story, world::World};

pub(super) const SCRIPTS: &[Named] = &[
    ("P crashes and takes L again", primary_takes_again),
    ("P shifts to a standby that lags, P lost", shift_to_lagging),
    ("write of L.quorum times out and is applied late", quorum_write_late),
    ("new primary dies, one of the old set elected", new_primary_dies),
    ("P's machine thaws after an election", thaws_after_election),
    ("two promote to the same timeline number", same_number),
    ("a member of M with a new volume answers an election", new_volume_answers),
    ("straggler let back, answer lost, P cut off", straggler_let_back),
    ("release applied late, P has resumed", release_late),
    ("L deleted while P is cut off", lease_deleted_while_cut),
    ("L made anew, its holder lost", lease_anew_holder_lost),
    ("P's container restarts during the operator's proof", restart_during_proof),
    ("promisers too few to elect, P returns", too_few_promisers),
    ("P destroyed, the former P left", primary_destroyed),
    ("P is to stop, its successor's machine is gone", successor_gone_at_stop),
    ("Cluster deleted, its service account first", service_account_gone),
    ("each PostgreSQL restarted in place", restarted_in_place),
    ("P is to stop and cannot start", terminated_while_down),
    ("P's first restart fails", restart_fails_once),
    ("L restored, whom it names is dead", restored_names_dead),
    ("L restored, an instance removed meanwhile", restored_and_removed),
    ("L restored, the best instance was away", restored_best_was_away),
    ("a human gives the quorum up", quorum_given_up),
    ("a standby returns before its walsender is given up", returns_early),
    ("a standby thaws with the former P and follows the new one", thaws_with_former),
];

fn primary_takes_again(world: &mut World) {
    for _ in 0..3 {
        let primary = world.primary();
        // Nobody acknowledges: what P commits now must not be answered under a promise.
        for standby in world.standbys() {
            let node = world.node_of(standby);
            let own = world.node_of(primary);
            world.network.cut(own, node);
        }
        world.hurry(12);
        world.pass_between(200, 2_500);
        match world.random.below(3) {
            0 => world.kill_container(primary),
            1 => world.kill_server(primary),
            _ => world.kill_postmaster(primary),
        }
        world.pass_between(1_000, 12_000);
        world.heal_network();
        world.seconds(15);
    }
}

fn shift_to_lagging(world: &mut World) {
    let standby = world.a_standby();
    let node = world.node_of(standby);
    // It lags by network while clients write, and then nobody writes any more.
    world.hurry(4);
    world.network.slow(node, 900_000);
    world.seconds(4);
    world.clients.stopped = true;
    let wider = if world.settings.instances > 2 { 2 } else { 1 };
    let mode = match world.settings.mode {
        Mode::Asynchronous => Mode::Asynchronous,
        Mode::Preferred(_) => Mode::Preferred(wider),
        Mode::Required(_) => Mode::Required(wider),
    };
    world.set_mode(mode);
    world.pass_between(500, 6_000);
    let primary = world.primary();
    world.lose_volume(primary);
    world.seconds(5);
    world.heal_network();
    world.resume_clients();
    world.seconds(40);
}

fn quorum_write_late(world: &mut World) {
    let primary = world.primary();
    let standby = world.a_standby();
    world.hurry(30);
    let machine = world.machine_of(standby);
    for round in 0..4 {
        let later = world.random.millis(900, 9_000);
        let fate = if world.random.chance(500) {
            Ambiguity::AppliedLate(later)
        } else {
            Ambiguity::AppliedUnanswered
        };
        if round % 2 == 0 {
            world.power_off(machine);
        } else {
            world.power_on(machine);
        }
        for _ in 0..6 {
            world.pass_between(300, 2_500);
            world.api.scripted.insert(primary, fate);
        }
    }
    world.api.scripted.clear();
    let primary = world.primary();
    let machine = world.machine_of(primary);
    world.power_off(machine);
    world.seconds(25);
    world.power_on(machine);
    world.seconds(10);
}

fn new_primary_dies(world: &mut World) {
    world.hurry(40);
    let first = world.primary();
    let machine = world.machine_of(first);
    world.power_off(machine);
    for _ in 0..300 {
        world.pass(SECOND / 10);
        if world.primary() != first {
            break;
        }
    }
    world.pass_between(50, 6_000);
    let second = world.primary();
    if second != first {
        let machine = world.machine_of(second);
        world.power_off(machine);
        world.pass_between(500, 8_000);
    }
    world.power_on(machine);
    world.seconds(30);
    world.power_on_all();
    world.seconds(20);
}

fn thaws_after_election(world: &mut World) {
    let primary = world.primary();
    let machine = world.machine_of(primary);
    world.hurry(40);
    world.pass_between(100, 1_500);
    let clock_runs = world.random.chance(500);
    world.freeze_machine(machine, clock_runs);
    // A member's walreceiver hangs on it all the while.
    for _ in 0..400 {
        world.pass(SECOND / 20);
        if world.holder_pod().is_some_and(|holder| holder != primary) {
            break;
        }
    }
    world.pass_between(0, 1_500);
    world.thaw_machine(machine);
    world.seconds(25);
}

fn same_number(world: &mut World) {
    let first = world.primary();
    world.hurry(60);
    world.cut_off(first);
    world.seconds(16);
    // Whoever was promoted is lost before the others have seen its history.
    let second = world.primary();
    if second != first {
        let machine = world.machine_of(second);
        world.power_off(machine);
        world.heal_network();
        world.seconds(40);
        world.power_on(machine);
    } else {
        world.heal_network();
    }
    world.seconds(25);
}

fn new_volume_answers(world: &mut World) {
    let standby = world.a_standby();
    world.hurry(5);
    world.lose_volume(standby);
    world.pass_between(1_000, 25_000);
    let primary = world.primary();
    let machine = world.machine_of(primary);
    world.power_off(machine);
    world.seconds(30);
    world.power_on(machine);
    world.seconds(20);
}

fn straggler_let_back(world: &mut World) {
    let straggler = world.a_standby();
    world.make_straggler(straggler);
    let primary = world.primary();
    let machine = world.machine_of(straggler);
    world.power_on(machine);
    world.hurry(30);
    for _ in 0..200 {
        world.pass(SECOND / 20);
        if world.connections.values().any(|link| link.standby == straggler) {
            break;
        }
    }
    world.api.scripted.insert(primary, Ambiguity::AppliedUnanswered);
    world.pass_between(100, 2_500);
    world.cut_from_api(primary);
    let member = world.a_standby();
    if world.random.chance(600) {
        world.cut_pods(primary, straggler);
    } else {
        world.cut_pods(primary, member);
    }
    world.seconds(25);
    world.heal_network();
    world.seconds(15);
}

fn release_late(world: &mut World) {
    let successor = world.a_standby();
    let serial = world.pods[successor].serial;
    world.hurry(20);
    world.wish_switchover(Some(serial));
    // The release is the first write after PostgreSQL has stopped.
    let primary = world.primary();
    for _ in 0..800 {
        world.pass(SECOND / 100);
        if world.server(primary).is_none() {
            break;
        }
    }
    let later = world.random.millis(1_000, 12_000);
    world.api.scripted.insert(primary, Ambiguity::AppliedLate(later));
    world.pass_between(300, 1_200);
    if world.random.chance(500) {
        world.kill_agent(primary);
    }
    world.seconds(30);
}

fn lease_deleted_while_cut(world: &mut World) {
    let primary = world.primary();
    world.hurry(40);
    world.cut_from_api(primary);
    if world.random.chance(500) {
        world.cut_off(primary);
    }
    world.pass_between(100, 9_000);
    world.delete_lease();
    world.seconds(40);
    world.heal_network();
    world.seconds(20);
}

fn lease_anew_holder_lost(world: &mut World) {
    let primary = world.primary();
    world.hurry(60);
    world.delete_lease();
    world.kill_container(primary);
    for _ in 0..600 {
        world.pass(SECOND / 10);
        if world.api.lease.is_some() {
            break;
        }
    }
    world.pass_between(20, 2_500);
    let holder = world.primary();
    let machine = world.machine_of(holder);
    world.power_off(machine);
    world.seconds(30);
    world.power_on(machine);
    world.seconds(20);
}

fn restart_during_proof(world: &mut World) {
    world.hurry(40);
    for _ in 0..5 {
        let primary = world.primary();
        world.kill_container(primary);
        world.pass_between(300, 5_000);
    }
    world.seconds(20);
}

fn too_few_promisers(world: &mut World) {
    let primary = world.primary();
    let standbys = world.standbys();
    // All but one standby are away; the one that is left promises and cannot elect.
    world.hurry(30);
    for &standby in standbys.iter().skip(1) {
        let machine = world.machine_of(standby);
        world.power_off(machine);
    }
    let machine = world.machine_of(primary);
    world.pass_between(200, 3_000);
    world.power_off(machine);
    world.pass_between(4_000, 14_000);
    world.power_on(machine);
    world.seconds(30);
    story!(world, "the primary is back");
    let bound = if world.settings.instances == 2 { 20 } else { 30 };
    world.expect_writes_within(bound, "the returned primary or its standby writes again");
}

fn primary_destroyed(world: &mut World) {
    let first = world.primary();
    let standby = world.a_standby();
    let serial = world.pods[standby].serial;
    world.wish_switchover(Some(serial));
    world.seconds(15);
    world.hurry(10);
    world.pass_between(0, 1_000);
    let second = world.primary();
    // Only the former primary is left of those that may be asked.
    for pod in world.standbys() {
        if pod != first {
            let machine = world.machine_of(pod);
            world.power_off(machine);
        }
    }
    world.pass_between(200, 8_000);
    if second != first {
        world.lose_volume(second);
    }
    world.seconds(40);
    world.power_on_all();
    world.seconds(20);
}

fn successor_gone_at_stop(world: &mut World) {
    let (primary, standby) = (world.primary(), world.a_standby());
    let machine = world.machine_of(standby);
    world.power_off(machine);
    // Heard of lately enough to be chosen.
    world.pass_between(0, 1_200);
    world.delete_pod(primary, 1_800 * SECOND, false);
    // Five seconds until PostgreSQL gives the connection up, three until the agent does.
    world.seconds(13);
    let holds = world.holder_pod() == Some(primary);
    world.expect(!holds, "the primary has given the Lease away long before switchoverDelay");
    world.power_on(machine);
    world.seconds(20);
}

/// The garbage collector takes the objects of a deleted Cluster in any order.
fn service_account_gone(world: &mut World) {
    let primary = world.primary();
    for pod in 0..world.pods.len() {
        world.api.refusals.insert(pod, ApiRefusal::Unauthorized);
    }
    for pod in 0..world.pods.len() {
        let grace = if pod == primary { 1_800 } else { 30 };
        world.delete_pod(pod, grace * SECOND, false);
    }
    world.seconds(30);
    world.expect(!world.pods[primary].alive, "the last pod leaves long before its grace ends");
    world.ended = true;
}

fn restarted_in_place(world: &mut World) {
    let term = world.term();
    let primary = world.primary();
    for pod in world.standbys().into_iter().chain([primary]) {
        let serial = world.pods[pod].serial;
        world.restart(serial);
        world.seconds(12);
        let wished = world.api.instances[&serial].restart.clone();
        let view = world.pods[pod].agent().map(|agent| agent.protocol.view());
        let done = view.and_then(|view| view.restart).map(|outcome| outcome.id);
        world.expect(done.is_some() && done == wished, "the restart was done");
        world.expect_writes_within(5, "writes go on after a restart");
    }
    world.expect(world.term() == term && world.primary() == primary, "nobody else was elected");
}

fn restored_names_dead(world: &mut World) {
    let first = world.primary();
    let old = world.api.past.last().cloned();
    let machine = world.machine_of(first);
    world.power_off(machine);
    world.seconds(30);
    world.power_on(machine);
    world.seconds(20);
    let second = world.primary();
    world.expect(second != first, "another took over");
    // What it would do itself against a Lease that lost its past, it cannot.
    let machine = world.machine_of(second);
    world.freeze_machine(machine, true);
    world.pass_between(100, 2_000);
    let Some(old) = old else { return };
    world.put_lease(old, None);
    world.seconds(8);
    let freed = world.lease().is_some_and(|lease| lease.release.is_some());
    world.expect(!freed, "the operator leaves a Lease alone that was restored");
    world.thaw_machine(machine);
    world.seconds(60);
    world.expect_writes_within(10, "writes go on");
}

fn restored_and_removed(world: &mut World) {
    let primary = world.primary();
    let old = world.api.past.last().cloned();
    let before: Vec<u32> = world.api.instances.keys().copied().collect();
    world.add_instance();
    world.seconds(40);
    let (Some(old), true) = (old, world.primary() == primary) else { return };
    let machine = world.machine_of(primary);
    world.power_off(machine);
    world.put_lease(old, None);
    // By the Lease as it stands nobody counts on the new instance.
    for (serial, instance) in &mut world.api.instances {
        instance.leaving = !before.contains(serial);
    }
    world.api.directives += 1;
    world.seconds(30);
    world.power_on(machine);
    world.seconds(60);
    world.expect_writes_within(10, "writes go on without the removed instance");
}

fn restored_best_was_away(world: &mut World) {
    // Of two with the same WAL the one with the smaller name is the better.
    world.wish_switchover(Some(2));
    world.seconds(15);
    let primary = world.primary();
    let serial = world.pods[primary].serial;
    let best = world.standbys().into_iter().find(|&pod| world.pods[pod].serial == 1);
    let (Some(best), 2) = (best, serial) else { return };
    let others: Vec<usize> = world.standbys().into_iter().filter(|&pod| pod != best).collect();
    for &pod in &others {
        let machine = world.machine_of(pod);
        world.power_off(machine);
    }
    world.seconds(20);
    let old = world.api.past.last().cloned();
    // It gets all the WAL and never reads that the Lease was given away.
    world.cut_from_api(best);
    world.pass_between(500, 2_000);
    world.fence(serial, true);
    world.seconds(8);
    let Some(old) = old else { return };
    world.put_lease(old, None);
    world.heal_network();
    world.fence(serial, false);
    for &pod in &others {
        let machine = world.machine_of(pod);
        world.power_on(machine);
    }
    world.seconds(60);
    world.expect_writes_within(10, "the best instance makes the Lease anew");
}

fn quorum_given_up(world: &mut World) {
    let standbys = world.standbys();
    let (&[one, other], true) = (standbys.as_slice(), world.is_required()) else { return };
    let primary = world.primary();
    world.lose_volume(other);
    world.lose_volume(primary);
    world.operator.down = true;
    world.seconds(60);
    let waits = world.holder_pod().is_none_or(|holder| holder != one);
    world.expect(waits, "one of three does not run of itself");
    // `kubectl annotate lease c matriarch.dev/quorum-`
    let Some(mut lease) = world.lease().cloned() else { return };
    lease.quorum = None;
    world.put_lease(LeaseRecord::encode(&lease), None);
    world.seconds(40);
    world.expect(world.primary() == one, "the instance that is left takes over");
    world.operator.down = false;
    world.seconds(60);
}

fn returns_early(world: &mut World) {
    let standbys = world.standbys();
    let (&[one, other], true) = (standbys.as_slice(), world.is_required()) else { return };
    world.set_mode(Mode::Required(2));
    world.seconds(10);
    let away = world.machine_of(other);
    world.power_off(away);
    world.pass_between(100, 8_000);
    // Two walsenders would be its own, the old one and the new one.
    let machine = world.machine_of(one);
    world.power_off(machine);
    world.pass_between(10, 300);
    world.power_on(machine);
    world.seconds(20);
    world.power_on(away);
    world.seconds(40);
    world.expect_writes_within(10, "both are back");
}

fn thaws_with_former(world: &mut World) {
    let former = world.primary();
    let standby = world.a_standby();
    world.hurry(60);
    for pod in [former, standby] {
        let machine = world.machine_of(pod);
        world.freeze_machine(machine, true);
    }
    world.seconds(25);
    for pod in [former, standby] {
        let machine = world.machine_of(pod);
        world.thaw_machine(machine);
    }
    world.seconds(60);
    world.expect(world.whole(), "both follow");
}

fn restart_fails_once(world: &mut World) {
    // Nobody else can take over, so that it tries again where it is.
    let primary = world.primary();
    world.power_off_standbys();
    world.seconds(1);
    world.pods[primary].start_fails = true;
    world.kill_server(primary);
    world.pass_between(1_000, 4_000);
    world.pods[primary].start_fails = false;
    let mut runs = BTreeSet::new();
    for _ in 0..400 {
        world.pass(SECOND / 50);
        runs.extend(world.server(primary).map(|server| server.run));
    }
    world.expect(runs.len() == 1, "the start that succeeds is left alone");
    world.power_on_all();
    world.seconds(30);
}

fn terminated_while_down(world: &mut World) {
    // Nobody else can take over, so that it tries to start where it is.
    let primary = world.primary();
    world.power_off_standbys();
    world.seconds(1);
    world.pods[primary].start_fails = true;
    world.kill_postmaster(primary);
    world.seconds(8);
    world.delete_pod(primary, 1_800 * SECOND, false);
    world.seconds(20);
    world.expect(!world.pods[primary].alive, "the pod leaves long before its grace ends");
    world.power_on_all();
    world.seconds(30);
}
