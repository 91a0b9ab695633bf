//! The mutation check: each clause of the protocol is switched off, and rules of the model of
//! PostgreSQL; the simulator must notice.

use std::{
    ops::RangeInclusive,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use matriarch_plan::protocol::Mutation;

use crate::{
    run::{Outcome, Variation, run},
    schedules,
    settings::ModelMutant,
};

/// Rules of the model of PostgreSQL without which it would be too kind.
const MODEL: [ModelMutant; 3] = [
    ModelMutant::AcknowledgesBeforeFlush,
    ModelMutant::StreamsWithoutSlot,
    ModelMutant::PointsWithoutVersion,
];

/// With which seeds of its times each named schedule is played against each mutation: all of them
/// three times, and where that shows nothing nine times more. Some clauses matter in a third of the
/// times only, and a change of the model shifts which (JoinersAreWrittenAtOnce, after rule 12a).
const ROUNDS: [RangeInclusive<u64>; 2] = [1..=3, 4..=12];

/// What is switched off.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mutant {
    /// A clause of the protocol.
    Clause(Mutation),
    /// A rule of the model.
    Model(ModelMutant),
}

/// Where it was noticed.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) mutant: Mutant,
    /// Schedule or seed, and the invariant.
    pub(crate) found: Option<(String, &'static str)>,
}

/// All mutants.
pub(crate) fn mutants() -> Vec<Mutant> {
    let mut mutants: Vec<Mutant> = Mutation::ALL.iter().copied().map(Mutant::Clause).collect();
    mutants.extend(MODEL.map(Mutant::Model));
    mutants
}

fn variation(mutant: Mutant) -> Variation {
    match mutant {
        Mutant::Clause(mutation) => Variation { mutation: Some(mutation), ..Variation::default() },
        Mutant::Model(mutant) => Variation { model_mutant: Some(mutant), ..Variation::default() },
    }
}

/// Looks for a finding in the named schedules, then in seeds `1..=limit`.
pub(crate) fn hunt(mutant: Mutant, limit: u64) -> Verdict {
    let variation = variation(mutant);
    let invariant = |outcome: &Outcome| outcome.finding.as_ref().map(|finding| finding.invariant);
    let all = schedules::all();
    for round in ROUNDS {
        let plays =
            all.iter().flat_map(|schedule| round.clone().map(move |times| (schedule, times)));
        for (schedule, times) in plays {
            if let Some(invariant) = invariant(&schedules::play(schedule, times, variation)) {
                let place = format!("schedule {} ({times})", schedule.name);
                return Verdict { mutant, found: Some((place, invariant)) };
            }
        }
    }
    for seed in 1..=limit {
        if let Some(invariant) = invariant(&run(seed, variation)) {
            return Verdict { mutant, found: Some((format!("seed {seed}"), invariant)) };
        }
    }
    Verdict { mutant, found: None }
}

fn name(mutant: Mutant) -> String {
    match mutant {
        Mutant::Clause(mutation) => format!("{mutation:?}"),
        Mutant::Model(mutant) => format!("model: {mutant:?}"),
    }
}

/// `told` without the clause or rule of the model that is named so.
///
/// # Errors
/// The names, if there is no such mutant.
pub(crate) fn without(wanted: &str, told: Variation) -> Result<Variation, String> {
    let all = mutants();
    let found = all.iter().find(|mutant| name(**mutant) == wanted);
    found.map(|mutant| Variation { told: told.told, ..variation(*mutant) }).ok_or_else(|| {
        let names: Vec<String> = all.iter().map(|mutant| name(*mutant)).collect();
        format!("no clause {wanted}; there are: {}", names.join(", "))
    })
}

/// Hunts all mutants whose name contains `only` and prints what was found, each as soon as it is
/// known; true if all were found.
pub(crate) fn table(only: &str, limit: u64, threads: u64, print: &(dyn Fn(String) + Sync)) -> bool {
    let all: Vec<Mutant> =
        mutants().into_iter().filter(|mutant| name(*mutant).contains(only)).collect();
    let (next, found) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(&mutant) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdict = hunt(mutant, limit);
            let name = name(verdict.mutant);
            match &verdict.found {
                Some((place, invariant)) => {
                    found.fetch_add(1, Ordering::Relaxed);
                    print(format!("{name:<34} {invariant:<9} {place}"));
                }
                None => print(format!("{name:<34} NOT FOUND in the schedules and {limit} seeds")),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let found = found.into_inner();
    print(format!("{found} of {} mutants found", all.len()));
    // A name that no clause has checks nothing.
    found == all.len() && !all.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_mutants_and_the_model_has_one() {
        assert!(Mutation::ALL.len() >= 25);
        assert_eq!(mutants().len(), Mutation::ALL.len() + MODEL.len());
    }
}
