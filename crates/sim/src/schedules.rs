//! The named schedules of docs/ha-protocol.md as fixed cases. Each runs for two and for three
//! instances and for each mode of replication; times are jittered by a seed.

mod election;
mod found;
mod promised;
mod rare;
mod replication;

use matriarch_plan::protocol::Span;

use crate::{
    Micros, SECOND,
    network::Node,
    random::Random,
    run::{Outcome, Variation},
    settings::{Mode, Settings, Swarm},
    story,
    world::World,
};

/// What a schedule does to a world that is up and well.
type Script = fn(&mut World);

/// A named schedule in one of its variants.
#[derive(Clone)]
pub(crate) struct Schedule {
    pub(crate) name: String,
    instances: usize,
    mode: Mode,
    script: Script,
}

/// A name and its script.
pub(crate) type Named = (&'static str, Script);

const VARIANTS: [(usize, Mode, &str); 6] = [
    (3, Mode::Asynchronous, "3 asynchronous"),
    (3, Mode::Required(1), "3 required"),
    (3, Mode::Preferred(1), "3 preferred"),
    (2, Mode::Asynchronous, "2 asynchronous"),
    (2, Mode::Required(1), "2 required"),
    (2, Mode::Preferred(1), "2 preferred"),
];

/// Every variant of one script.
pub(crate) fn variants(&(name, script): &Named) -> Vec<Schedule> {
    VARIANTS
        .iter()
        .map(|&(instances, mode, variant)| Schedule {
            name: format!("{name}, {variant}"),
            instances,
            mode,
            script,
        })
        .collect()
}

/// All variants of all schedules.
pub(crate) fn all() -> Vec<Schedule> {
    [promised::SCRIPTS, found::SCRIPTS, rare::SCRIPTS, election::SCRIPTS, replication::SCRIPTS]
        .into_iter()
        .flatten()
        .flat_map(variants)
        .collect()
}

/// The first variant whose name begins so.
pub(crate) fn find(name: &str) -> Option<Schedule> {
    all().into_iter().find(|schedule| schedule.name.starts_with(name))
}

/// Plays one with the times that `seed` draws.
pub(crate) fn play(schedule: &Schedule, seed: u64, variation: Variation) -> Outcome {
    let mut settings = Settings::new(schedule.instances, schedule.mode);
    settings.model_mutant = variation.model_mutant;
    #[cfg(feature = "mutation")]
    {
        settings.mutation = variation.mutation;
    }
    let random = Random::from_seed(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
    let mut world = World::new(settings, Swarm::quiet(), random, variation.told);
    story!(world, "schedule: {} (seed {seed})", schedule.name);
    world.create_cluster();
    world.start_clients(2);
    world.wait_until_whole();
    let lead = world.random.millis(1000, 4000);
    world.pass(lead);
    (schedule.script)(&mut world);
    world.settle(false);
    world.conclude()
}

impl World {
    /// Lets time pass.
    fn pass(&mut self, time: Micros) {
        let end = self.now + time;
        self.run_until(end);
    }

    /// Lets time pass in steps until something holds; false if it does not within so long, or after
    /// a finding.
    fn pass_until(&mut self, step: Micros, longest: Micros, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + longest;
        while !holds(self) {
            if self.now >= end || self.judge.finding.is_some() {
                return false;
            }
            self.pass(step);
        }
        true
    }

    fn seconds(&mut self, seconds: u64) {
        self.pass(seconds * SECOND);
    }

    /// Some time between two limits in milliseconds.
    fn pass_between(&mut self, low: u64, high: u64) {
        let time = self.random.millis(low, high);
        self.pass(time);
    }

    /// Until every instance follows and clients write; a finding if that takes two minutes.
    fn wait_until_whole(&mut self) {
        let end = self.now + 120 * SECOND;
        while self.judge.finding.is_none() {
            let well = self.whole() && self.covered() && self.writes_flow();
            if well {
                return;
            }
            if self.now >= end {
                self.find("I4", format!("not whole at the start: {}", self.states()));
                return;
            }
            self.pass(SECOND / 4);
        }
    }

    /// The Lease's quorum names what the mode asks for.
    fn covered(&self) -> bool {
        let Some(lease) = self.lease() else { return false };
        let members = self.api.instances.values().filter(|own| !own.leaving).count();
        let quorum = match self.settings.mode {
            Mode::Asynchronous => lease.quorum.is_none(),
            Mode::Preferred(_) | Mode::Required(_) => {
                lease.quorum.as_ref().is_some_and(|quorum| quorum.of.len() == members)
            }
        };
        quorum && lease.stragglers.is_empty() && lease.cohort.len() == members
    }

    fn writes_flow(&self) -> bool {
        self.clients.last_answer > 0
            && self.now.saturating_sub(self.clients.last_answer) < 3 * SECOND
    }

    /// The holder's pod; pod 0 if there is none, which then finds nothing to do.
    fn primary(&self) -> usize {
        self.holder_pod().unwrap_or(0)
    }

    /// Live pods of the other instances.
    fn standbys(&self) -> Vec<usize> {
        let primary = self.primary();
        (0..self.pods.len()).filter(|&pod| pod != primary && self.pods[pod].alive).collect()
    }

    /// Some standby.
    fn a_standby(&mut self) -> usize {
        let standbys = self.standbys();
        self.random.pick(&standbys).unwrap_or(0)
    }

    /// Clients write quickly for so many seconds.
    fn hurry(&mut self, seconds: u64) {
        self.clients.busy_until = self.now + seconds * SECOND;
    }

    /// Those that were stopped write again.
    fn resume_clients(&mut self) {
        self.clients.stopped = false;
        let count = self.clients.all.len();
        self.start_clients(count);
    }

    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            let states = self.states();
            self.find("schedule", format!("expected that {what}; {states}"));
        }
    }

    /// Some client was answered within the last so many seconds.
    fn expect_writes_within(&mut self, seconds: u64, what: &str) {
        let recent = self.now.saturating_sub(self.clients.last_answer) <= seconds * SECOND;
        self.expect(recent, what);
    }

    fn cut_from_api(&mut self, pod: usize) {
        let node = self.node_of(pod);
        self.network.cut_both(node, Node::Api);
        story!(self, "{} is cut from the API", self.pod_name(pod));
    }

    fn cut_pods(&mut self, a: usize, b: usize) {
        let (first, second) = (self.node_of(a), self.node_of(b));
        self.network.cut_both(first, second);
        story!(self, "{} and {} are cut from each other", self.pod_name(a), self.pod_name(b));
    }

    fn power_off_standbys(&mut self) {
        for pod in self.standbys() {
            let machine = self.machine_of(pod);
            self.power_off(machine);
        }
    }

    fn power_on_all(&mut self) {
        for machine in 0..self.machines.len() {
            self.power_on(machine);
        }
    }

    fn heal_link(&mut self, a: Node, b: Node) {
        self.network.heal(a, b);
        self.network.heal(b, a);
    }

    fn heal_network(&mut self) {
        self.network.heal_all();
        story!(self, "the network heals");
    }

    /// Cut from all but its clients.
    fn cut_off(&mut self, pod: usize) {
        self.cut_from_api(pod);
        for other in 0..self.pods.len() {
            if self.pods[other].machine != self.pods[pod].machine {
                self.cut_pods(pod, other);
            }
        }
    }

    fn machine_of(&self, pod: usize) -> usize {
        self.pods[pod].machine
    }

    /// Makes a standby a straggler: its machine is off for longer than rule 4's ten seconds.
    fn make_straggler(&mut self, pod: usize) {
        let machine = self.machine_of(pod);
        self.power_off(machine);
        // Five seconds until its walsender is given up, ten of rule 4, and a renewal.
        self.seconds(20);
    }

    fn quick_failsafe_max(&mut self) {
        self.settings.failsafe_max = Span::seconds(30);
        self.api.directives += 1;
        self.seconds(4);
    }

    fn is_required(&self) -> bool {
        matches!(self.settings.mode, Mode::Required(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jittered times of each variant.
    const SEEDS: u64 = 4;

    fn passes(name: &str) {
        let found: Vec<Schedule> = all()
            .into_iter()
            .filter(|schedule| schedule.name.starts_with(&format!("{name}, ")))
            .collect();
        assert_eq!(found.len(), VARIANTS.len(), "no schedule of that name");
        for schedule in found {
            for seed in 1..=SEEDS {
                let outcome = play(&schedule, seed, Variation::default());
                assert_eq!(outcome.finding, None, "{} (seed {seed})", schedule.name);
            }
        }
    }

    macro_rules! cases {
        ($($test:ident: $name:literal,)*) => {
            $(#[test]
            fn $test() {
                passes($name);
            })*

            #[test]
            fn every_schedule_has_its_test() {
                let tested = [$($name),*];
                let scripts = [
                    promised::SCRIPTS,
                    found::SCRIPTS,
                    rare::SCRIPTS,
                    election::SCRIPTS,
                    replication::SCRIPTS,
                ];
                for (name, _) in scripts.into_iter().flatten() {
                    assert!(tested.contains(name), "{name}");
                }
            }
        };
    }

    cases! {
        address_goes_with_the_swap: "P is cut off, its address goes with the swap",
        address_goes_before: "P is cut off, its address goes before a long promotion",
        address_written_late: "P is cut off, what it wrote of its address comes late",
        lacking_at_stop: "P stops, both successors lack its last WAL",
        killed_without_api: "the API is away, PostgreSQL of P is killed",
        restarted_before_published: "P is restarted by wish before its quorum is written",
        primary_cut_from_the_api: "P cut from the API",
        primary_cut_from_api_and_one_member: "P cut from the API and one member",
        api_down_with_a_straggler: "API down for all, one straggler",
        api_down_while_membership_changes: "API down, a member added or removed",
        member_restarts_after_a_failsafe_yes: "member restarts after a failsafe yes",
        agent_frozen_half_the_duration: "agent frozen for D/2",
        agent_frozen_twice_the_duration: "agent frozen for 2 D",
        postmaster_frozen: "postmaster frozen for 2 D",
        all_frozen: "all frozen",
        keeper_alone_left: "keeper alone left",
        successor_dies_before_the_release: "handover, X dies before the release",
        successor_dies_after_the_release: "handover, X dies after the release",
        handover_refused: "handover refused, P resumes",
        set_of_standbys_changes_with_kills: "widening and shrinking S with a kill",
        old_primary_with_a_new_volume: "old P returns with a new volume",
        lease_deleted: "L deleted by hand",
        first_restart_fails: "P's first restart fails",
        equal_candidates: "two candidates equal",
        swap_whose_answer_is_lost: "candidate's swap succeeds, the answer is lost",
        endpoint_swap_fails: "swap of the EndpointSlice fails",
        renewal_applied_but_timed_out: "P's renewal applied but answered with a timeout",
        primary_only_slow: "quick failover while P is only slow",
        promisers_left_alone: "promisers left alone, P re-asserts",
        whole_site_restarts: "whole site stopped and started",
        whole_site_restarts_without_a_volume: "whole site stopped and started without one volume",
        only_the_api_is_away: "only the API is away",
        only_the_operator_is_away: "only the operator is away",
        cluster_deleted_under_load: "cluster deleted under load",
        primary_takes_the_lease_again: "P crashes and takes L again",
        shift_to_a_lagging_standby: "P shifts to a standby that lags, P lost",
        quorum_write_applied_late: "write of L.quorum times out and is applied late",
        new_primary_dies_too: "new primary dies, one of the old set elected",
        primary_thaws_after_an_election: "P's machine thaws after an election",
        same_timeline_number_twice: "two promote to the same timeline number",
        new_volume_answers_an_election: "a member of M with a new volume answers an election",
        straggler_let_back_unanswered: "straggler let back, answer lost, P cut off",
        release_applied_late: "release applied late, P has resumed",
        lease_deleted_while_cut_off: "L deleted while P is cut off",
        lease_made_anew_holder_lost: "L made anew, its holder lost",
        container_restarts_during_the_proof: "P's container restarts during the operator's proof",
        too_few_promisers: "promisers too few to elect, P returns",
        primary_destroyed_former_left: "P destroyed, the former P left",
        successor_gone_at_stop: "P is to stop, its successor's machine is gone",
        service_account_gone: "Cluster deleted, its service account first",
        restarted_in_place: "each PostgreSQL restarted in place",
        terminated_while_down: "P is to stop and cannot start",
        restored_lease_names_the_dead: "L restored, whom it names is dead",
        lease_restored_and_instance_removed: "L restored, an instance removed meanwhile",
        lease_restored_the_best_was_away: "L restored, the best instance was away",
        human_gives_the_quorum_up: "a human gives the quorum up",
        best_instance_leaves: "the best instance leaves, L is deleted",
        lease_deleted_unconfirmed: "L deleted before its new holder has confirmed it",
        proved_dead_returns: "P proved dead returns and is needed",
        promotion_cut_off: "a promotion is cut off and made again",
        primary_thaws_to_an_old_lease: "P thaws with a clock that stood, L was taken back",
        one_that_lags_is_left: "L says none, one that lags is left",
        restarts_while_published: "P restarts in place while its quorum is written",
        restarts_unasked: "P restarts before it knows what is asked for",
        stops_unheard: "P is to stop, its standbys do not stream yet",
        joins_at_stop: "P is to stop, whoever has its WAL is not in the cohort yet",
        stranger_at_stop: "P is to stop, it has not heard of whoever has its WAL",
        goes_on_unheard: "P gives L away and gets it back, a standby's agent stands still",
        standby_returns_early: "a standby returns before its walsender is given up",
        standby_thaws_with_the_former: "a standby thaws with the former P and follows the new one",
        straggler_returns_with_the_api:
            "a straggler returns where the API is, P goes on elsewhere",
        straggler_let_back_unheard: "straggler let back, P no longer hears the API",
        member_alone_with_the_api: "P keeps one member, the other keeps the API",
        member_restarts_after_its_vouch: "a member restarts right after its vouch, L is free",
        older_state_of_the_term_restored:
            "older state of the term restored, P goes on without a straggler",
        lease_deleted_beside_a_straggler: "L deleted, P goes on without a straggler",
        lease_made_anew_before_standbys_count: "L made anew, its holder lost before standbys count",
        primary_returns_to_promises: "P returns to promises as the API goes",
        released_lease_restored: "a released L restored, one never saw its end",
        best_promiser_excluded: "the best promiser is excluded",
        holder_dies_unpromoted: "the new holder dies before it has promoted",
        promotion_does_not_end: "promotion does not end",
        volume_goes_back: "P's volume goes back to a snapshot",
        volume_goes_back_alone: "P alone, its volume goes back to a snapshot",
        volume_attached_twice_vouched: "P's volume is attached twice, members vouch for P",
        volume_attached_twice: "P's volume is attached to another machine by force",
        handover_to_lagging: "P hands over to one that lags",
        crash_while_all_lag: "P crashes while all lag",
        crash_beside_lagging: "P crashes, of its standbys it hears the one that lags",
        backend_outlives_postmaster: "a backend outlives its postmaster and commits",
        all_fenced: "P fenced, then all",
        one_member_still_hears: "one of two members still hears P",
        promiser_restarts: "a promiser restarts before the swap is applied",
        more_wal_of_an_older_term: "the former P has more WAL of an older term",
        left_history_and_alone: "the former P has left L's history and is alone",
        timeline_heard_of: "a timeline heard of and never followed",
        thaws_with_wal_in_buffers: "a standby thaws with WAL of the former P in its buffers",
        last_standby_goes: "the last standby goes while P cannot write L",
        release_unanswered: "release unanswered, P cut from the API",
        holder_dies_after_a_rewind:
            "the holder dies before the former P has all that its rewind needs",
        holder_dies_under_a_rewind: "the holder dies while the former P is rewound onto it",
    }
}
