//! Schedules that need one clause of rules 3 to 12 each, and would go wrong without it.

use matriarch_plan::protocol::{LeaseRecord, Ledger, Span};

use super::Named;
use crate::{
    Micros, SECOND,
    network::Node,
    postgres::{Directory, Server},
    settings::Mode,
    story,
    world::World,
};

pub(super) const SCRIPTS: &[Named] = &[
    ("a straggler returns where the API is, P goes on elsewhere", straggler_returns_with_api),
    ("straggler let back, P no longer hears the API", let_back_unheard),
    ("P keeps one member, the other keeps the API", member_alone_with_api),
    ("a member restarts right after its vouch, L is free", restarts_after_vouch),
    ("older state of the term restored, P goes on without a straggler", older_state_restored),
    ("L deleted, P goes on without a straggler", deleted_beside_straggler),
    ("L made anew, its holder lost before standbys count", anew_and_lost),
    ("P returns to promises as the API goes", returns_to_promises),
    ("a released L restored, one never saw its end", released_restored),
    ("the best promiser is excluded", best_excluded),
    ("the new holder dies before it has promoted", holder_dies_unpromoted),
    ("promotion does not end", promotion_does_not_end),
    ("P's volume goes back to a snapshot", volume_goes_back),
    ("P's volume is attached to another machine by force", volume_attached_twice),
    ("P alone, its volume goes back to a snapshot", |world| goes_back(world, true)),
    ("P's volume is attached twice, members vouch for P", attached_twice_vouched),
    ("P is cut off, its address goes with the swap", address_goes_with_the_swap),
    ("P is cut off, its address goes before a long promotion", address_goes_before_the_promotion),
    ("P is cut off, what it wrote of its address comes late", address_written_late),
];

impl World {
    /// One pod has the API, all others have each other.
    fn alone_with_api(&mut self, pod: usize) {
        for other in 0..self.pods.len() {
            if other != pod {
                self.cut_from_api(other);
                self.cut_pods(pod, other);
            }
        }
    }

    /// Nobody hears a pod but the API.
    fn cut_from_peers(&mut self, pod: usize) {
        for other in 0..self.pods.len() {
            if other != pod {
                self.cut_pods(pod, other);
            }
        }
    }

    /// Promotion of a standby that is not over by itself: it replays for ever.
    fn set_replay_lag(&mut self, pod: usize, lag: Micros) {
        if let Some(server) = self.pods.get_mut(pod).and_then(|body| body.server.as_mut()) {
            server.replay_lag = lag;
        }
    }

    /// A stopped pod's volume goes back to a snapshot.
    fn put_back(&mut self, pod: usize, mut snapshot: Directory, ledger: Option<Ledger>) {
        let volume = self.pods[pod].volume;
        if let Some(place) = self.directory(pod).map(Directory::flushed_place) {
            self.judge.destroyed.push((self.now, place));
        }
        story!(self, "{}: its volume goes back to a snapshot", self.pod_name(pod));
        // What it writes from here on is other content under the same timeline number.
        let timeline = self.wal.timeline(snapshot.branch);
        let place = snapshot.flushed_place();
        snapshot.branch = self.wal.fork(Some(place), timeline, snapshot.incarnation);
        snapshot.written = snapshot.flushed;
        self.volumes[volume].directory = Some(snapshot);
        self.volumes[volume].ledger = ledger;
    }

    /// What it lacks keeps nobody from running.
    fn without_lag_bound(&mut self) {
        self.settings.maximum_lag = None;
        self.api.directives += 1;
        self.seconds(4);
    }

    fn serves(&self, pod: usize) -> bool {
        self.server(pod).is_some_and(Server::takes_writes)
    }
}

/// Rules 3c and 9d: F bounds P, and F + D keeps the straggler.
fn straggler_returns_with_api(world: &mut World) {
    world.without_lag_bound();
    let straggler = world.a_standby();
    world.make_straggler(straggler);
    world.quick_failsafe_max();
    world.hurry(80);
    world.alone_with_api(straggler);
    let machine = world.machine_of(straggler);
    world.power_on(machine);
    world.seconds(75);
    world.heal_network();
    world.seconds(20);
}

/// Rule 3: by the L that P last had an answer for, nobody need be asked who may run by the one that
/// stands there.
fn let_back_unheard(world: &mut World) {
    let straggler = world.a_standby();
    world.make_straggler(straggler);
    let primary = world.primary();
    let machine = world.machine_of(straggler);
    world.power_on(machine);
    world.hurry(60);
    world.pass_until(SECOND / 100, 20 * SECOND, |world| {
        world.connections.values().any(|link| link.standby == straggler && link.acknowledged > 0)
    });
    // P's next write takes it back into the cohort and arrives.
    let node = world.node_of(primary);
    world.network.cut(Node::Api, node);
    story!(world, "{} no longer hears the API", world.pod_name(primary));
    world.pass_until(SECOND / 100, 4 * SECOND, |world| {
        world.lease().is_some_and(|lease| lease.stragglers.is_empty())
    });
    world.alone_with_api(straggler);
    world.seconds(25);
    world.heal_network();
    world.seconds(15);
}

/// Rule 3b: one yes says nothing about the member that is not heard.
fn member_alone_with_api(world: &mut World) {
    if world.settings.instances < 3 {
        return;
    }
    let member = world.a_standby();
    world.hurry(30);
    world.alone_with_api(member);
    world.seconds(25);
    world.heal_network();
    world.seconds(15);
}

/// Rule 3a: only what stands in the ledger holds a member back from an L that is free. The operator
/// frees one that has expired when the node's object is gone, and P goes on by failsafe.
fn restarts_after_vouch(world: &mut World) {
    let primary = world.primary();
    let machine = world.machine_of(primary);
    world.hurry(60);
    world.cut_from_api(primary);
    world.machines[machine].node_gone = true;
    story!(world, "the Node of machine {machine} is deleted");
    world.pass_until(SECOND / 100, 25 * SECOND, |world| {
        world.lease().is_some_and(|lease| lease.holder.is_none())
    });
    let rounds = |world: &World| {
        let agent = world.pods[primary].agent();
        agent.map_or(0, |agent| agent.protocol.view().counts.failsafe_rounds)
    };
    let before = rounds(world);
    world.pass_until(SECOND / 100, 5 * SECOND, |world| rounds(world) > before);
    world.cut_off(primary);
    for member in world.standbys() {
        world.kill_agent(member);
    }
    world.seconds(25);
    world.machines[machine].node_gone = false;
    world.heal_network();
    world.seconds(15);
}

/// A member becomes a straggler and reads so; then it alone has the API, and P goes on with the
/// others. Returns L as it was before.
fn straggler_with_api(world: &mut World) -> Option<LeaseRecord> {
    world.without_lag_bound();
    let old = world.api.past.last().cloned();
    let straggler = world.a_standby();
    world.cut_from_peers(straggler);
    world.seconds(20);
    world.hurry(40);
    world.alone_with_api(straggler);
    old
}

/// Rule 7b: by that state it is still a member.
fn older_state_restored(world: &mut World) {
    let Some(old) = straggler_with_api(world) else { return };
    story!(world, "L is restored as it was before");
    world.put_lease(old, None);
    world.seconds(25);
    world.heal_network();
    world.seconds(20);
}

/// Rule 7e: who does not answer may be P.
fn deleted_beside_straggler(world: &mut World) {
    straggler_with_api(world);
    world.delete_lease();
    world.seconds(25);
    world.heal_network();
    world.seconds(20);
}

/// Rule 7e: an L made anew promises that its holder has everything; until it names standbys too,
/// nobody may run without it.
fn anew_and_lost(world: &mut World) {
    if world.settings.instances < 3 || !world.is_required() {
        return;
    }
    world.quick_failsafe_max();
    world.operator.down = true;
    let primary = world.primary();
    world.delete_lease();
    world.kill_container(primary);
    world.pass_until(SECOND / 100, 60 * SECOND, |world| world.lease().is_some());
    let holder = world.primary();
    let (Some(one), Some(other)) =
        (world.standbys().first().copied(), world.standbys().last().copied())
    else {
        return;
    };
    // No standby streams while it still can write L.
    world.cut_from_peers(holder);
    world.hurry(60);
    world.pass_until(SECOND / 100, 10 * SECOND, |world| {
        let published = world.lease().is_some_and(|lease| lease.history_published);
        published && world.serves(holder) && world.clients.route == Some(holder)
    });
    world.cut_from_api(holder);
    let (from, to) = (world.node_of(holder), world.node_of(one));
    world.heal_link(from, to);
    world.pass_between(2_500, 4_000);
    for pod in [holder, one] {
        let machine = world.machine_of(pod);
        world.power_off(machine);
    }
    world.heal_network();
    // Beyond F + D.
    world.seconds(50);
    world.expect(world.holder_pod() != Some(other), "it waits for the one that has everything");
    world.power_on_all();
    world.operator.down = false;
    world.seconds(30);
}

/// Rule 8: members that promised against the term would not vouch for it.
fn returns_to_promises(world: &mut World) {
    let standbys = world.standbys();
    let (&[one, other], true) = (standbys.as_slice(), world.is_required()) else { return };
    let primary = world.primary();
    let machine = world.machine_of(primary);
    world.operator.down = true;
    // Each promises, and neither hears enough to run. The service leads to P all the while.
    world.cut_pods(one, other);
    world.api.endpoint_failures = u32::MAX;
    world.power_off(machine);
    world.pass_between(5_000, 8_000);
    let version = world.api.lease.as_ref().map_or(0, |object| object.version);
    world.power_on(machine);
    world.pass_until(SECOND / 100, 20 * SECOND, |world| {
        world.api.lease.as_ref().is_some_and(|object| object.version > version)
    });
    // The members read it, and no further write comes through.
    world.pass(SECOND / 20);
    world.hurry(30);
    world.api.down = true;
    story!(world, "the API is down");
    world.seconds(30);
    world.expect(world.serves(primary), "an API outage stops no database");
    world.expect_writes_within(5, "writes go on without the API");
    world.api.down = false;
    world.api.endpoint_failures = 0;
    world.operator.down = false;
    world.heal_network();
    world.seconds(20);
}

/// Rule 9e: L's version is the present one, its content is not.
fn released_restored(world: &mut World) {
    let standbys = world.standbys();
    let &[away, heir] = standbys.as_slice() else { return };
    let former = world.primary();
    world.cut_from_api(away);
    world.pass_between(500, 1_500);
    let serial = world.pods[heir].serial;
    world.wish_switchover(Some(serial));
    world.seconds(12);
    let released = world
        .api
        .past
        .iter()
        .rfind(|record| record.transitions > 0 && record.holder_identity.is_empty())
        .cloned();
    let (Some(released), true) = (released, world.primary() == heir) else { return };
    world.hurry(20);
    let version = world.api.version;
    world.pass_until(SECOND / 100, 5 * SECOND, |world| world.api.version > version);
    world.pass(SECOND / 100);
    // Whoever knows better does not see what was restored, and the holder is not heard.
    world.cut_from_api(heir);
    world.cut_from_api(former);
    world.cut_pods(heir, away);
    let node = world.node_of(away);
    world.heal_link(node, Node::Api);
    story!(world, "L is restored as it was when it was released");
    world.put_lease(released, None);
    world.seconds(15);
    world.heal_network();
    world.seconds(20);
}

/// Three instances with a promise in L: one standby has all that P acknowledges from now on, the
/// other lags.
fn one_lags(world: &mut World) -> Option<(usize, usize)> {
    let standbys = world.standbys();
    let (&[has_all, lags], false) =
        (standbys.as_slice(), world.settings.mode == Mode::Asynchronous)
    else {
        return None;
    };
    let primary = world.primary();
    world.operator.down = true;
    world.hurry(60);
    world.cut_pods(primary, lags);
    world.pass_between(1_000, 4_000);
    Some((has_all, lags))
}

/// Rule 9f: who may not run itself has to be heeded all the same.
fn best_excluded(world: &mut World) {
    for pod in world.standbys().into_iter().take(1) {
        let serial = world.pods[pod].serial;
        world.exclude(serial, true);
    }
    world.seconds(4);
    let primary = world.primary();
    let machine = world.machine_of(primary);
    if one_lags(world).is_none() {
        return;
    }
    world.power_off(machine);
    world.seconds(20);
    world.heal_network();
    world.power_on(machine);
    world.operator.down = false;
    world.seconds(20);
}

/// Rule 11: until the new holder has its own, the quorum of the past holds.
fn holder_dies_unpromoted(world: &mut World) {
    world.without_lag_bound();
    let primary = world.primary();
    let first = world.machine_of(primary);
    let Some((has_all, _)) = one_lags(world) else { return };
    world.power_off(first);
    world.pass_until(SECOND / 100, 30 * SECOND, |world| world.holder_pod() == Some(has_all));
    let second = world.machine_of(has_all);
    world.power_off(second);
    world.seconds(25);
    world.heal_network();
    world.power_on(first);
    world.power_on(second);
    world.operator.down = false;
    world.seconds(30);
}

/// Somebody is elected and replays for ever; its pod, and that of the former holder, which is away.
fn elected_in_vain(world: &mut World) -> (usize, usize) {
    world.settings.promotion = Span::seconds(5);
    world.api.directives += 1;
    world.seconds(4);
    let former = world.primary();
    let machine = world.machine_of(former);
    for standby in world.standbys() {
        world.set_replay_lag(standby, 3_600 * SECOND);
    }
    world.power_off(machine);
    world.pass_until(SECOND / 100, 30 * SECOND, |world| {
        world.holder_pod().is_some_and(|holder| holder != former)
    });
    (world.primary(), former)
}

/// Rule 12: a holder that cannot promote gives L to the next best.
fn promotion_does_not_end(world: &mut World) {
    if world.settings.instances < 3 {
        return;
    }
    let (holder, former) = elected_in_vain(world);
    for pod in world.standbys().into_iter().filter(|&pod| pod != holder) {
        world.set_replay_lag(pod, 0);
    }
    world.seconds(25);
    world.expect_writes_within(5, "another takes over");
    let machine = world.machine_of(former);
    world.power_on(machine);
    world.seconds(20);
}

/// Rule 8: a volume that was put back to a snapshot lacks what L says was flushed on it.
fn volume_goes_back(world: &mut World) {
    goes_back(world, false);
}

fn goes_back(world: &mut World, alone: bool) {
    let primary = world.primary();
    let ledger = world.volumes[world.pods[primary].volume].ledger.clone();
    let Some(snapshot) = world.directory(primary).cloned() else { return };
    world.hurry(60);
    world.pass_between(4_000, 8_000);
    // Nobody frees L: it is the same pod that comes back.
    world.operator.down = true;
    let standbys = world.standbys();
    world.kill_container(primary);
    world.put_back(primary, snapshot, ledger);
    if alone {
        for pod in standbys {
            let machine = world.machine_of(pod);
            world.power_off(machine);
        }
        world.seconds(40);
        world.power_on_all();
    }
    world.seconds(30);
    world.operator.down = false;
    world.seconds(30);
}

/// Another pod is made on P's volume, on another machine, where the lock does not reach it.
fn attach_again(world: &mut World, former: usize) -> usize {
    let (serial, volume) = (world.pods[former].serial, world.pods[former].volume);
    world.pods[former].object = false;
    world.volumes[volume].unlocked = true;
    story!(
        world,
        "{}: its pod is deleted and its volume detached by force",
        world.pod_name(former)
    );
    let another = world.machines.len() - 1;
    world.add_pod(serial, another, volume);
    world.pods.len() - 1
}

/// Rule 8: only D lies between two pods on one volume.
fn volume_attached_twice(world: &mut World) {
    // Promises elect the other pod before D is over.
    if !world.is_required() {
        attached_twice(world);
    }
}

fn attached_twice(world: &mut World) {
    let former = world.primary();
    let machine = world.machine_of(former);
    world.hurry(30);
    world.cut_off(former);
    attach_again(world, former);
    // Its right has ended by now, and D is not over for the other pod.
    world.seconds(9);
    world.power_off(machine);
    world.pods[former].alive = false;
    world.heal_network();
    world.seconds(30);
    world.power_on(machine);
    world.seconds(20);
}

/// Rules 3 and 8: an L that has expired is no proof against a holder in failsafe.
fn attached_twice_vouched(world: &mut World) {
    // Promises replace P long before D, and then nothing but the lock keeps the directory from a
    // second postmaster.
    if world.is_required() {
        return;
    }
    let former = world.primary();
    let machine = world.machine_of(former);
    world.hurry(30);
    world.cut_from_api(former);
    let other = attach_again(world, former);
    world.cut_pods(former, other);
    world.seconds(25);
    world.power_off(machine);
    world.pods[former].alive = false;
    world.heal_network();
    world.seconds(30);
}

fn address_goes_with_the_swap(world: &mut World) {
    // Elsewhere an election waits a second for the answers of the dead.
    if !world.is_required() {
        return;
    }
    let primary = world.primary();
    world.cut_off(primary);
    let gone = |world: &World| world.api.endpoint.pod != Some(primary);
    let swapped = world.pass_until(SECOND / 200, 60 * SECOND, gone);
    let direct = swapped && world.api.endpoint.pod.is_some();
    world.expect(direct, "-rw leads from the old primary to the new one in one step");
    world.hurry(20);
    world.heal_network();
}

fn address_goes_before_the_promotion(world: &mut World) {
    let primary = world.primary();
    for standby in world.standbys() {
        world.set_replay_lag(standby, 5 * SECOND);
    }
    world.cut_off(primary);
    let gone = |world: &World| world.api.endpoint.pod != Some(primary);
    let left = world.pass_until(SECOND / 200, 60 * SECOND, gone);
    let nowhere = left && world.api.endpoint.pod.is_none();
    world.expect(nowhere, "-rw does not lead to a lost primary for as long as a promotion takes");
    world.hurry(20);
    world.heal_network();
}

/// The bench of a cut node: 172 rows seemed lost, because the client's last reading went to the
/// former primary.
fn address_written_late(world: &mut World) {
    world.swarm.kept = 1000;
    let primary = world.primary();
    world.cut_off(primary);
    let elsewhere = |world: &World| world.api.endpoint.pod.is_some_and(|pod| pod != primary);
    let swapped = world.pass_until(SECOND / 10, 90 * SECOND, elsewhere);
    world.expect(swapped, "another takes over");
    world.pass_between(0, 20_000);
    world.hurry(60);
    world.heal_network();
    world.seconds(70);
}
