//! Schedules that need one clause of rules 5 and 9 to 22 each, and would go wrong without it.

use matriarch_plan::protocol::view::Role;

use super::Named;
use crate::{
    Micros, SECOND,
    api::Ambiguity,
    faults::Fault,
    machine::Expected,
    postgres::{Files, Phase},
    settings::Mode,
    world::{Event, World},
};

pub(super) const SCRIPTS: &[Named] = &[
    ("P hands over to one that lags", hands_over_to_lagging),
    ("P crashes while all lag", crashes_while_all_lag),
    ("P crashes, of its standbys it hears the one that lags", crashes_beside_lagging),
    ("a backend outlives its postmaster and commits", backend_outlives_postmaster),
    ("P fenced, then all", fenced),
    ("one of two members still hears P", one_still_hears),
    ("a promiser restarts before the swap is applied", promiser_restarts),
    ("the former P has more WAL of an older term", more_of_an_older_term),
    ("the former P has left L's history and is alone", left_history_and_alone),
    ("a timeline heard of and never followed", timeline_heard_of),
    ("a standby thaws with WAL of the former P in its buffers", thaws_with_buffers),
    ("the last standby goes while P cannot write L", last_standby_goes),
    ("release unanswered, P cut from the API", release_unanswered),
    ("the holder dies while the former P is rewound onto it", dies_under_a_rewind),
    ("the holder dies before the former P has all that its rewind needs", dies_after_a_rewind),
];

impl World {
    /// These standbys stream no more, although their agents answer: the connections have ended,
    /// and a postmaster that is stopped starts no walreceiver.
    fn hold_back(&mut self, standbys: &[usize]) {
        let primary = self.primary();
        for &standby in standbys {
            self.freeze_postmaster(standby, 120 * SECOND);
            self.cut_pods(primary, standby);
        }
        // Both ends give a connection up after five seconds of silence.
        self.seconds(7);
        self.heal_network();
        // The agents have heard each other again.
        self.pass_between(700, 1_000);
    }

    fn cut_from_each(&mut self, pod: usize, others: &[usize]) {
        for &other in others {
            self.cut_pods(pod, other);
        }
    }

    fn let_go(&mut self, standbys: &[usize]) {
        for &standby in standbys {
            self.strike(Fault::ThawPostmaster(standby));
        }
    }

    /// Until just after a renewal: what is left of the right is known then.
    fn until_renewed(&mut self) {
        let version = self.api.version;
        self.pass_until(SECOND / 100, 3 * SECOND, |world| world.api.version != version);
    }

    /// Another instance than `former` holds the Lease, and its PostgreSQL accepts writes.
    fn taken_over(&self, former: usize) -> bool {
        self.holder_pod().is_some_and(|holder| {
            holder != former && self.server(holder).is_some_and(|server| server.takes_writes())
        })
    }

    /// What clients were told since then is there, whatever the mode promises.
    pub(super) fn expect_kept(&mut self, since: Micros, what: &str) {
        let writer = self.judge.writer.and_then(|(writer, _)| self.directory(writer));
        let Some(place) = writer.map(crate::postgres::Directory::written_place) else { return };
        let kept = self
            .clients
            .acknowledged
            .iter()
            .all(|done| done.at < since || self.wal.holds(place, done.place));
        self.expect(kept, what);
    }

    /// A commit whose flush takes so long: a disk that stalls.
    fn commit_slowly(&mut self, pod: usize, flush: Micros) {
        self.commits += 1;
        let commit = self.commits;
        if let Some((run, lsn)) = self.insert_commit(pod, 0, commit, 1_000) {
            self.after(flush, Event::CommitFlushed { pod, run, lsn });
        }
    }
}

fn hands_over_to_lagging(world: &mut World) {
    let (primary, standbys) = (world.primary(), world.standbys());
    let serial = standbys.first().map(|&pod| world.pods[pod].serial);
    world.wish_switchover(serial);
    let chosen = |world: &World| {
        let view = world.pods[primary].agent().map(|agent| agent.protocol.view());
        view.is_some_and(|view| view.role == Role::HandingOver)
    };
    world.pass_until(SECOND / 1_000, 5 * SECOND, chosen);
    // It has chosen. What it commits during the checkpoint, less than maximumLag, nobody gets, and
    // nobody whom it has chosen can ask for it.
    world.hurry(2);
    world.cut_from_each(primary, &standbys);
    // Five seconds until PostgreSQL gives the connections up, three for each successor.
    world.pass_between(15_000, 20_000);
    world.heal_network();
    world.seconds(25);
    world.expect_kept(0, "a handover loses nothing");
    world.seconds(10);
}

fn crashes_while_all_lag(world: &mut World) {
    let (primary, standbys) = (world.primary(), world.standbys());
    // Less than maximumLag.
    world.hurry(2);
    world.hold_back(&standbys);
    world.kill_server(primary);
    world.cut_from_each(primary, &standbys);
    world.let_go(&standbys);
    world.pass_between(4_000, 6_000);
    world.heal_network();
    world.seconds(15);
    world.expect_kept(0, "PostgreSQL is restarted in place, where everything is");
    world.expect_writes_within(5, "writes go on");
}

fn crashes_beside_lagging(world: &mut World) {
    let (primary, standbys) = (world.primary(), world.standbys());
    let &[near, lagging] = standbys.as_slice() else { return };
    world.hurry(20);
    world.hold_back(&[lagging]);
    world.cut_pods(primary, near);
    // What P knows of a member is fresh for a second and a half.
    world.pass_between(1_700, 2_400);
    world.kill_server(primary);
    world.let_go(&[lagging]);
    world.seconds(4);
    world.heal_network();
    world.seconds(20);
}

fn backend_outlives_postmaster(world: &mut World) {
    let primary = world.primary();
    let count = world.clients.all.len();
    world.clients.stopped = true;
    // The standbys have everything, and P knows it.
    world.seconds(3);
    let flush = world.random.millis(8, 30);
    world.commit_slowly(primary, flush);
    world.kill_postmaster(primary);
    world.seconds(3);
    world.clients.stopped = false;
    world.start_clients(count);
    world.seconds(12);
    world.expect_kept(0, "nobody takes over before the last backend is gone");
}

fn fenced(world: &mut World) {
    let primary = world.primary();
    let serial = world.pods[primary].serial;
    world.fence(serial, true);
    world.seconds(12);
    world.expect(world.server(primary).is_none(), "PostgreSQL of a fenced instance is down");
    world.expect(world.holder_pod() != Some(primary), "a fenced instance holds no Lease");
    let serials: Vec<u32> = world.api.instances.keys().copied().collect();
    for &serial in &serials {
        world.fence(serial, true);
    }
    world.seconds(25);
    let up = (0..world.pods.len()).any(|pod| world.server(pod).is_some());
    world.expect(!up, "all are fenced and down");
    for &serial in &serials {
        world.fence(serial, false);
    }
    world.seconds(30);
}

fn one_still_hears(world: &mut World) {
    let (primary, standbys) = (world.primary(), world.standbys());
    let (&[cut, _], true) = (standbys.as_slice(), world.is_required()) else { return };
    // No write in flight, so that the one that is cut lacks nothing.
    let count = world.clients.all.len();
    world.clients.stopped = true;
    world.seconds(2);
    world.until_renewed();
    world.cut_from_api(primary);
    world.cut_pods(primary, cut);
    // Longer than two renewals, shorter than the right.
    world.pass_between(5_000, 5_300);
    world.heal_network();
    world.clients.stopped = false;
    world.start_clients(count);
    world.seconds(20);
    world.expect(world.primary() == primary, "a P that one of two members hears stays");
}

fn promiser_restarts(world: &mut World) {
    let (primary, standbys) = (world.primary(), world.standbys());
    let (&[one, other], true) = (standbys.as_slice(), world.is_required()) else { return };
    world.hurry(30);
    world.until_renewed();
    world.cut_from_api(primary);
    world.cut_from_each(primary, &standbys);
    for pod in [one, other] {
        world.api.scripted.insert(pod, Ambiguity::AppliedLate(5 * SECOND / 2));
    }
    let swapped = |world: &World| world.api.scripted.len() < 2;
    if !world.pass_until(SECOND / 200, 9 * SECOND, swapped) {
        return;
    }
    let promiser = if world.api.scripted.contains_key(&one) { one } else { other };
    world.kill_agent(promiser);
    // P is there for it again, and its right lasts.
    let (first, second) = (world.node_of(primary), world.node_of(promiser));
    world.heal_link(first, second);
    world.seconds(15);
    world.api.scripted.clear();
    world.heal_network();
    world.seconds(15);
}

fn more_of_an_older_term(world: &mut World) {
    let (former, standbys) = (world.primary(), world.standbys());
    let (&[next, promiser], true) = (standbys.as_slice(), world.is_required()) else { return };
    world.exclude(world.pods[promiser].serial, true);
    world.operator.down = true;
    world.start_clients(12);
    world.seconds(4);
    world.cut_from_each(former, &standbys);
    // Commits that nobody acknowledges, and WAL all the same.
    world.hurry(8);
    world.seconds(8);
    let machine = world.machine_of(former);
    world.power_off(machine);
    world.heal_network();
    if !world.pass_until(SECOND / 200, 20 * SECOND, |world| world.taken_over(former)) {
        return;
    }
    // A client that was quicker than the proxies. L still counts on the former P, which does not
    // acknowledge this commit.
    let since = world.now;
    world.commit_slowly(next, SECOND / 1_000);
    world.pass_until(SECOND / 500, 10 * SECOND, |world| world.clients.last_answer > since);
    let last = world.machine_of(next);
    world.power_off(last);
    world.power_on(machine);
    world.seconds(25);
    world.power_on(last);
    world.operator.down = false;
    world.seconds(30);
}

fn left_history_and_alone(world: &mut World) {
    if world.settings.mode != Mode::Asynchronous {
        return;
    }
    let (former, standbys) = (world.primary(), world.standbys());
    world.quick_failsafe_max();
    world.operator.down = true;
    // WAL that only P has.
    world.cut_from_each(former, &standbys);
    world.hurry(1);
    world.pass_between(300, 800);
    let machine = world.machine_of(former);
    world.power_off(machine);
    if !world.pass_until(SECOND / 10, 30 * SECOND, |world| world.taken_over(former)) {
        return;
    }
    world.heal_network();
    world.seconds(5);
    let since = world.now;
    world.hurry(1);
    world.seconds(3);
    for &standby in &standbys {
        let machine = world.machine_of(standby);
        world.power_off(machine);
    }
    world.power_on(machine);
    // It is a straggler and waits for F and D.
    world.seconds(65);
    for &standby in &standbys {
        let machine = world.machine_of(standby);
        world.power_on(machine);
    }
    world.operator.down = false;
    world.seconds(30);
    world.expect_kept(since, "what the last holder acknowledged came back with it");
}

fn timeline_heard_of(world: &mut World) {
    let asynchronous = world.settings.mode == Mode::Asynchronous;
    if world.settings.instances < 3 || !asynchronous {
        return;
    }
    let first = world.primary();
    let machine = world.machine_of(first);
    world.power_off(machine);
    let promotes = |world: &World| {
        (0..world.pods.len())
            .any(|pod| world.server(pod).is_some_and(|own| own.phase == Phase::Promoting))
    };
    if !world.pass_until(SECOND / 200, 30 * SECOND, promotes) {
        return;
    }
    // It cannot publish its history: who hears of the number has it from the agent alone.
    let second = world.primary();
    world.cut_from_api(second);
    world.pass_between(2_000, 3_000);
    let machine = world.machine_of(second);
    world.power_off(machine);
    world.heal_network();
    world.pass_until(SECOND / 10, 30 * SECOND, |world| world.taken_over(second));
    let third = world.primary();
    let number = |world: &World, pod: usize| {
        world.directory(pod).map(|own| world.wal.timeline(own.branch)).unwrap_or_default()
    };
    let fresh = number(world, third) > number(world, second);
    world.expect(third == second || fresh, "the number of a timeline is not given twice");
    world.power_on_all();
    world.seconds(30);
}

fn thaws_with_buffers(world: &mut World) {
    let (former, standbys) = (world.primary(), world.standbys());
    let asynchronous = world.settings.mode == Mode::Asynchronous;
    let (&[next, frozen], true) = (standbys.as_slice(), asynchronous) else { return };
    world.cut_pods(former, next);
    // Nor is the frozen one to be asked for its position, or to find L free.
    world.cut_pods(frozen, next);
    world.operator.down = true;
    let own = world.machine_of(frozen);
    world.freeze_machine(own, true);
    // What P sends meanwhile waits in the frozen machine.
    world.hurry(1);
    world.pass_between(300, 700);
    let machine = world.machine_of(former);
    world.power_off(machine);
    world.pass_until(SECOND / 10, 30 * SECOND, |world| world.taken_over(former));
    world.pass_between(500, 2_500);
    world.heal_network();
    world.thaw_machine(own);
    world.seconds(10);
    world.operator.down = false;
    world.power_on(machine);
    world.seconds(40);
    world.expect(world.whole(), "both follow");
}

fn last_standby_goes(world: &mut World) {
    if !matches!(world.settings.mode, Mode::Preferred(_)) {
        return;
    }
    let primary = world.primary();
    world.hurry(20);
    world.until_renewed();
    world.cut_from_api(primary);
    world.power_off_standbys();
    // Longer than it takes to give the walsenders up, shorter than the right.
    world.pass_between(6_500, 7_000);
    world.heal_network();
    world.seconds(10);
    world.power_on_all();
    world.seconds(20);
}

fn release_unanswered(world: &mut World) {
    let primary = world.primary();
    let successor = world.a_standby();
    let serial = world.pods[successor].serial;
    world.hurry(20);
    world.wish_switchover(Some(serial));
    // The release is the first write after PostgreSQL has stopped.
    if !world.pass_until(SECOND / 5_000, 10 * SECOND, |world| world.server(primary).is_none()) {
        return;
    }
    let sends = |world: &World| {
        let agent = world.pods[primary].agent();
        agent.is_some_and(|agent| agent.requests.values().any(|it| *it == Expected::Writing))
    };
    world.pass_until(SECOND / 10_000, 3 * SECOND, sends);
    // What it has sent arrives. Nothing and nobody tells it so, and its right would last.
    world.cut_off(primary);
    world.pass(SECOND / 100);
    if world.lease().is_none_or(|lease| lease.release.is_none()) {
        // A renewal that came before the release.
        return;
    }
    world.seconds(12);
    world.expect(world.taken_over(primary), "the successor has taken the Lease");
    world.heal_network();
    world.seconds(20);
}

fn dies_under_a_rewind(world: &mut World) {
    let (former, standbys) = (world.primary(), world.standbys());
    let (&[next, behind], true) = (standbys.as_slice(), world.is_required()) else { return };
    world.operator.down = true;
    world.hurry(3);
    // Two have acknowledged the last commits, the third has not.
    world.cut_pods(former, behind);
    world.pass_between(500, 1_000);
    // And what only P has.
    world.cut_pods(former, next);
    world.pass_between(300, 800);
    let machine = world.machine_of(former);
    world.power_off(machine);
    let promotes =
        |world: &World| world.server(next).is_some_and(|server| server.phase == Phase::Promoting);
    if !world.pass_until(SECOND / 200, 20 * SECOND, promotes) {
        return;
    }
    world.heal_network();
    world.cut_pods(next, behind);
    world.power_on(machine);
    let rewinds =
        |world: &World| world.directory(former).is_some_and(|own| own.files == Files::Rewinding);
    if !world.pass_until(SECOND / 100, 30 * SECOND, rewinds) {
        return;
    }
    let last = world.machine_of(next);
    world.power_off(last);
    // Long enough for two that have lost P to elect one of them.
    world.seconds(20);
    world.power_on(last);
    world.operator.down = false;
    world.heal_network();
    world.seconds(30);
}

/// On a real Kubernetes a former primary that had nobody to follow, and whose PostgreSQL lacked WAL
/// that only a walreceiver brings, was never told of the new one.
fn dies_after_a_rewind(world: &mut World) {
    let (former, standbys) = (world.primary(), world.standbys());
    let &[_, _] = standbys.as_slice() else { return };
    for &standby in &standbys {
        world.cut_pods(former, standby);
    }
    // What only P has.
    world.commit_slowly(former, SECOND / 1_000);
    world.pass_between(20, 200);
    let machine = world.machine_of(former);
    world.power_off(machine);
    if !world.pass_until(SECOND / 50, 40 * SECOND, |world| world.taken_over(former)) {
        return;
    }
    world.heal_network();
    let next = world.primary();
    world.power_on(machine);
    let lacks = |world: &World| {
        world.directory(former).is_some_and(|own| own.files == Files::Whole && own.lacks_wal())
    };
    if !world.pass_until(SECOND / 500, 40 * SECOND, lacks) {
        return;
    }
    // The last one that is left has it all, and nobody else.
    let last = world.machine_of(next);
    world.power_off(last);
    world.expect_writes_within(60, "the last standby is elected");
    world.seconds(15);
    let stuck = world.server(former).is_some_and(|server| server.phase == Phase::Starting);
    world.expect(!stuck, "the former P follows it");
    world.power_on(last);
    world.seconds(20);
}
