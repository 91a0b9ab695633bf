//! The first list of docs/ha-protocol.md: what every implementation must survive.

use super::Named;
use crate::{
    SECOND,
    api::Ambiguity,
    faults::Fault,
    settings::Mode,
    story,
    world::{Event, World},
};

pub(super) const SCRIPTS: &[Named] = &[
    ("P cut from the API", primary_cut_from_the_api),
    ("P cut from the API and one member", primary_cut_from_api_and_one_member),
    ("API down for all, one straggler", api_down_one_straggler),
    ("API down, a member added or removed", api_down_membership_changes),
    ("member restarts after a failsafe yes", member_restarts_after_yes),
    ("agent frozen for D/2", |world| agent_frozen(world, 5)),
    ("agent frozen for 2 D", |world| agent_frozen(world, 20)),
    ("postmaster frozen for 2 D", postmaster_frozen),
    ("all frozen", all_frozen),
    ("keeper alone left", keeper_alone),
    ("handover, X dies before the release", successor_dies_before),
    ("handover, X dies after the release", successor_dies_after),
    ("handover refused, P resumes", handover_refused),
    ("widening and shrinking S with a kill", set_changes_with_kills),
    ("old P returns with a new volume", old_primary_new_volume),
    ("L deleted by hand", lease_deleted),
    ("two candidates equal", equal_candidates),
    ("candidate's swap succeeds, the answer is lost", swap_answer_lost),
    ("swap of the EndpointSlice fails", endpoint_swap_fails),
    ("P's renewal applied but answered with a timeout", renewal_unanswered),
    ("quick failover while P is only slow", primary_slow),
    ("promisers left alone, P re-asserts", promisers_left_alone),
    ("whole site stopped and started", whole_site),
    ("whole site stopped and started without one volume", whole_site_without_volume),
    ("only the API is away", only_api_away),
    ("only the operator is away", only_operator_away),
    ("cluster deleted under load", cluster_deleted),
];

fn primary_cut_from_the_api(world: &mut World) {
    let primary = world.primary();
    world.hurry(2);
    world.cut_from_api(primary);
    world.seconds(55);
    // Traps H4: members read the API, so it does not go on for ever.
    world.expect(world.primary() != primary, "another holds the Lease after 55 s");
    if !(world.is_required() && world.settings.instances == 2) {
        // Of two, the one that cannot read L follows nobody, and `required` waits for it.
        world.expect_writes_within(15, "writes go on through -rw within 40 s");
    }
    world.heal_network();
    world.seconds(20);
}

fn primary_cut_from_api_and_one_member(world: &mut World) {
    let (primary, member) = (world.primary(), world.a_standby());
    world.hurry(20);
    world.cut_from_api(primary);
    world.cut_pods(primary, member);
    world.pass_between(15_000, 60_000);
    world.heal_network();
    world.seconds(20);
}

fn api_down_one_straggler(world: &mut World) {
    let straggler = world.a_standby();
    world.make_straggler(straggler);
    let term = world.term();
    world.api.down = true;
    story!(world, "the API is down");
    world.seconds(60);
    if !(world.is_required() && world.settings.instances == 2) {
        world.expect_writes_within(3, "the primary goes on until F");
    }
    world.expect(world.term() == term, "the term stays");
    world.api.down = false;
    world.seconds(10);
    // The same with a short F, which ends while the API is still away.
    world.quick_failsafe_max();
    world.api.down = true;
    world.seconds(60);
    world.api.down = false;
    world.seconds(5);
}

fn api_down_membership_changes(world: &mut World) {
    let member = world.a_standby();
    let machine = world.machine_of(member);
    world.power_off(machine);
    // Rule 4's write falls into the beginning of the outage.
    world.pass_between(13_000, 17_000);
    let primary = world.primary();
    let fate = if world.random.chance(500) {
        Ambiguity::AppliedUnanswered
    } else {
        Ambiguity::AppliedLate(3 * SECOND)
    };
    world.api.scripted.insert(primary, fate);
    world.pass_between(500, 2500);
    world.api.down = true;
    world.power_on(machine);
    world.hurry(5);
    world.pass_between(5_000, 30_000);
    if world.random.chance(500) {
        world.cut_off(primary);
        world.pass_between(5_000, 20_000);
    }
    world.api.down = false;
    world.pass_between(1_000, 20_000);
    world.heal_network();
    world.add_instance();
    world.pass_between(2_000, 15_000);
    world.api.down = true;
    world.seconds(20);
    world.api.down = false;
    world.seconds(10);
}

fn member_restarts_after_yes(world: &mut World) {
    let primary = world.primary();
    world.api.down = true;
    // Past 0.6 D: failsafe rounds have begun.
    world.pass_between(7_000, 9_500);
    for member in world.standbys() {
        world.kill_agent(member);
    }
    world.pass_between(100, 2_000);
    // The members reach the API again, the primary reaches nobody.
    world.hurry(15);
    world.cut_off(primary);
    world.api.down = false;
    world.seconds(25);
    world.heal_network();
    world.seconds(10);
}

fn agent_frozen(world: &mut World, seconds: u64) {
    let primary = world.primary();
    world.hurry(25);
    world.freeze_agent(primary, seconds * SECOND);
    world.seconds(seconds + 5);
    let machine = world.machine_of(primary);
    world.seconds(20);
    world.hurry(25);
    let clock_runs = world.random.chance(500);
    world.freeze_machine(machine, clock_runs);
    world.seconds(seconds);
    world.thaw_machine(machine);
    world.seconds(20);
}

fn postmaster_frozen(world: &mut World) {
    let primary = world.primary();
    world.hurry(10);
    world.freeze_postmaster(primary, 20 * SECOND);
    world.pass_between(2_000, 19_000);
    if world.random.chance(500) {
        world.freeze_agent(primary, 20 * SECOND);
    }
    world.seconds(30);
}

fn all_frozen(world: &mut World) {
    let clock_runs = world.random.chance(500);
    world.hurry(5);
    for machine in 0..world.machines.len() {
        world.freeze_machine(machine, clock_runs);
    }
    world.pass_between(4_000, 40_000);
    for machine in 0..world.machines.len() {
        world.thaw_machine(machine);
        if world.random.chance(300) {
            world.pass_between(10, 3_000);
        }
    }
    world.hurry(5);
    world.seconds(15);
}

fn keeper_alone(world: &mut World) {
    let primary = world.primary();
    world.hurry(30);
    for step in 0..60 {
        world.after(step * SECOND / 2, Event::Fault(Fault::KillAgent(primary)));
    }
    world.seconds(40);
}

fn successor_dies_before(world: &mut World) {
    let successor = world.a_standby();
    let serial = world.pods[successor].serial;
    world.hurry(5);
    world.wish_switchover(Some(serial));
    world.pass_between(500, 4_000);
    match world.random.below(3) {
        0 => world.kill_container(successor),
        1 => {
            let machine = world.machine_of(successor);
            world.power_off(machine);
        }
        _ => world.kill_server(successor),
    }
    world.seconds(40);
}

fn successor_dies_after(world: &mut World) {
    let successor = world.a_standby();
    let serial = world.pods[successor].serial;
    world.hurry(10);
    world.wish_switchover(Some(serial));
    for _ in 0..600 {
        world.pass(SECOND / 50);
        let released = world
            .api
            .lease
            .as_ref()
            .and_then(|object| object.lease.as_ref())
            .is_some_and(|lease| lease.holder.is_none());
        if released {
            break;
        }
    }
    let machine = world.machine_of(successor);
    world.power_off(machine);
    world.seconds(30);
    world.power_on(machine);
    world.seconds(10);
}

fn handover_refused(world: &mut World) {
    let (primary, successor) = (world.primary(), world.a_standby());
    let serial = world.pods[successor].serial;
    world.hurry(5);
    world.wish_switchover(Some(serial));
    world.pass_between(600, 3_000);
    world.cut_pods(primary, successor);
    world.pass_between(10_000, 40_000);
    world.heal_network();
    world.seconds(20);
}

fn set_changes_with_kills(world: &mut World) {
    for round in 0..3 {
        world.hurry(3);
        let wider = if world.settings.instances > 2 { 2 } else { 1 };
        let mode = match (world.settings.mode, round % 2) {
            (Mode::Asynchronous, _) => Mode::Asynchronous,
            (Mode::Preferred(_), 0) => Mode::Preferred(wider),
            (Mode::Preferred(_), _) => Mode::Preferred(1),
            (Mode::Required(_), 0) => Mode::Required(wider),
            (Mode::Required(_), _) => Mode::Required(1),
        };
        world.set_mode(mode);
        world.pass_between(0, 3_500);
        let (primary, standby) = (world.primary(), world.a_standby());
        match world.random.below(4) {
            0 => world.kill_container(primary),
            1 => world.kill_server(primary),
            2 => world.kill_container(standby),
            _ => world.kill_agent(primary),
        }
        world.pass_between(0, 2_500);
        let machine = world.machine_of(standby);
        if world.random.chance(400) {
            world.power_off(machine);
            world.pass_between(500, 14_000);
            world.power_on(machine);
        }
        world.seconds(15);
    }
}

fn old_primary_new_volume(world: &mut World) {
    let primary = world.primary();
    world.hurry(3);
    world.pass_between(500, 2_000);
    world.lose_volume(primary);
    world.seconds(60);
    let primary = world.primary();
    world.kill_container(primary);
    world.seconds(20);
}

fn lease_deleted(world: &mut World) {
    world.hurry(10);
    world.delete_lease();
    world.seconds(20);
    world.expect_writes_within(5, "the primary goes on and makes the Lease anew");
    world.delete_lease();
    world.pass_between(0, 400);
    let primary = world.primary();
    world.kill_container(primary);
    world.seconds(30);
}

fn equal_candidates(world: &mut World) {
    // No write in flight, so all standbys are equal.
    world.clients.stopped = true;
    world.seconds(3);
    world.clients.stopped = false;
    let count = world.clients.all.len();
    let primary = world.primary();
    let machine = world.machine_of(primary);
    world.power_off(machine);
    world.start_clients(count);
    world.seconds(40);
    world.power_on(machine);
    world.seconds(20);
}

fn swap_answer_lost(world: &mut World) {
    let primary = world.primary();
    let fate = match world.random.below(3) {
        0 => Ambiguity::AppliedUnanswered,
        1 => Ambiguity::AppliedLate(2 * SECOND),
        _ => Ambiguity::NotApplied,
    };
    for pod in world.standbys() {
        world.api.scripted.insert(pod, fate);
    }
    world.hurry(20);
    let machine = world.machine_of(primary);
    world.power_off(machine);
    world.seconds(30);
    world.power_on(machine);
    world.seconds(10);
}

fn endpoint_swap_fails(world: &mut World) {
    world.api.endpoint_failures = 3;
    let primary = world.primary();
    world.hurry(10);
    world.kill_container(primary);
    world.seconds(30);
    world.api.endpoint_failures = 0;
    world.set_endpoint(None, None);
    world.seconds(20);
    world.expect_writes_within(5, "the holder makes the EndpointSlice again");
}

fn renewal_unanswered(world: &mut World) {
    for _ in 0..6 {
        let primary = world.primary();
        let fate = match world.random.below(3) {
            0 => Ambiguity::AppliedUnanswered,
            1 => Ambiguity::AppliedLate(world.random.millis(900, 6_000)),
            _ => Ambiguity::NotApplied,
        };
        world.api.scripted.insert(primary, fate);
        world.pass_between(1_000, 6_000);
    }
    world.expect_writes_within(5, "one unanswered renewal ends nothing");
    world.seconds(10);
}

fn primary_slow(world: &mut World) {
    let primary = world.primary();
    let node = world.node_of(primary);
    world.hurry(20);
    for _ in 0..4 {
        let by = world.random.millis(150, 1_500);
        world.network.slow(node, by);
        world.pass_between(2_000, 9_000);
        world.network.slow(node, 0);
        world.pass_between(1_000, 6_000);
    }
    world.seconds(10);
}

fn promisers_left_alone(world: &mut World) {
    let (primary, member) = (world.primary(), world.a_standby());
    world.hurry(5);
    world.cut_pods(primary, member);
    if world.settings.instances == 2 {
        // The only standby is enough to elect: it must not reach the API either.
        world.cut_from_api(member);
    }
    world.pass_between(4_000, 20_000);
    world.heal_network();
    world.seconds(25);
    world.expect_writes_within(5, "the primary goes on, or another does");
}

fn stop_site(world: &mut World) -> Vec<usize> {
    let mut machines: Vec<usize> = (0..world.settings.instances).collect();
    for last in (1..machines.len()).rev() {
        let other = world.random.index(last + 1);
        machines.swap(last, other);
    }
    world.hurry(20);
    for &machine in &machines {
        world.power_off(machine);
        if world.random.chance(700) {
            world.pass_between(0, 16_000);
        }
    }
    world.pass_between(1_000, 30_000);
    machines
}

fn start_site(world: &mut World, mut machines: Vec<usize>) {
    for last in (1..machines.len()).rev() {
        let other = world.random.index(last + 1);
        machines.swap(last, other);
    }
    for machine in machines {
        world.power_on(machine);
        if world.random.chance(700) {
            world.pass_between(0, 25_000);
        }
    }
    world.seconds(30);
}

fn whole_site(world: &mut World) {
    let machines = stop_site(world);
    start_site(world, machines);
}

fn whole_site_without_volume(world: &mut World) {
    let machines = stop_site(world);
    let missing = world.random.index(world.pods.len());
    world.lose_volume(missing);
    start_site(world, machines);
}

fn only_api_away(world: &mut World) {
    let term = world.term();
    let primary = world.primary();
    world.api.down = true;
    story!(world, "the API is down for two minutes");
    for _ in 0..120 {
        world.seconds(1);
        world.expect_writes_within(3, "an API outage stops no database");
    }
    world.api.down = false;
    world.seconds(15);
    world.expect(world.term() == term && world.primary() == primary, "nothing has happened");
}

fn only_operator_away(world: &mut World) {
    let term = world.term();
    world.operator.down = true;
    world.seconds(60);
    world.expect(world.term() == term, "nothing happens without the operator");
    let primary = world.primary();
    world.hurry(5);
    let machine = world.machine_of(primary);
    world.power_off(machine);
    world.seconds(40);
    world.expect(world.primary() != primary, "failover needs no operator");
    let standbys = world.settings.instances - 1;
    if standbys > 1 || !world.is_required() {
        world.expect_writes_within(5, "writes go on without the operator");
    }
    world.power_on(machine);
    world.seconds(10);
}

fn cluster_deleted(world: &mut World) {
    let term = world.term();
    world.hurry(10);
    world.api.cluster_gone = true;
    world.api.directives += 1;
    // The agents read their directives within three seconds.
    world.seconds(3);
    world.delete_lease();
    let pods: Vec<usize> = (0..world.pods.len()).collect();
    for pod in pods {
        world.pass_between(0, 1_500);
        world.delete_pod(pod, 30 * SECOND, false);
    }
    let promotions = world.counts.promotions;
    world.seconds(60);
    world.expect(world.counts.promotions == promotions, "nobody is promoted any more");
    world.expect(world.api.lease.is_none() || world.term() == term, "no Lease is made again");
    world.expect((0..world.pods.len()).all(|pod| !world.pods[pod].alive), "nothing is left");
    world.ended = true;
}
