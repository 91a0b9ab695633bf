//! The entry of `cargo xtask sim`: arguments, many seeds on two threads, the closing line.

use std::{process::ExitCode, thread, time::Duration};

use crate::{
    run::{Outcome, Variation, run},
    schedules,
    world::Counts,
};

/// From so many seeds on a count of zero is a failure: a quiet simulator finds nothing (traps W2).
const COUNTS_MATTER_FROM: u64 = 200;

/// How often each named schedule is played, with other times.
const SCHEDULE_SEEDS: u64 = 4;

const USAGE: &str = "usage: sim [--seed N | --seeds N [--start N] | --schedule NAME [--times N] | --schedules | --mutations [--only NAME] [--limit N]] [--without CLAUSE] [--threads 1|2]";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// The story of one seed.
    Seed(u64),
    /// So many seeds from a first one, on so many threads.
    Seeds {
        /// The first.
        start: u64,
        /// How many.
        count: u64,
        /// 1 or 2.
        threads: u64,
    },
    /// The story of one named schedule, with the times of a seed.
    Schedule(String, u64),
    /// All named schedules.
    Schedules,
    /// The mutation check, with at most so many seeds for each.
    Mutations {
        /// Only those whose name contains this.
        only: String,
        /// Seeds tried.
        limit: u64,
        /// 1 or 2.
        threads: u64,
    },
}

/// What follows `name` on the command line, if that stands there.
fn value<'a>(arguments: &'a [String], name: &str) -> Result<Option<&'a str>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else {
        return Ok(None);
    };
    let text = arguments.get(at + 1).ok_or(format!("{name} needs a value\n{USAGE}"))?;
    Ok(Some(text))
}

impl Arguments {
    /// Reads the command line behind `sim`.
    ///
    /// # Errors
    /// What is wrong with it, with the usage.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let number = |name: &str| -> Result<Option<u64>, String> {
            let Some(text) = value(arguments, name)? else { return Ok(None) };
            text.parse().map(Some).map_err(|_| format!("{name} {text}: not a number\n{USAGE}"))
        };
        let has = |name: &str| arguments.iter().any(|argument| argument == name);
        let threads = number("--threads")?.unwrap_or(2).clamp(1, 2);
        if let Some(seed) = number("--seed")? {
            Ok(Self::Seed(seed))
        } else if let Some(count) = number("--seeds")? {
            Ok(Self::Seeds { start: number("--start")?.unwrap_or(1), count, threads })
        } else if let Some(name) = value(arguments, "--schedule")? {
            Ok(Self::Schedule(name.to_owned(), number("--times")?.unwrap_or(1)))
        } else if has("--schedules") {
            Ok(Self::Schedules)
        } else if has("--mutations") {
            let only = value(arguments, "--only")?.unwrap_or_default().to_owned();
            Ok(Self::Mutations { only, limit: number("--limit")?.unwrap_or(2000), threads })
        } else {
            Err(USAGE.to_owned())
        }
    }
}

/// Many seeds together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) seeds: u64,
    pub(crate) counts: Counts,
    pub(crate) human: u64,
    pub(crate) seconds: u64,
    pub(crate) findings: Vec<(u64, String)>,
    /// Runs that were too short or too quiet to count.
    pub(crate) quiet: Vec<u64>,
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        self.seconds += outcome.length / crate::SECOND;
        self.human += u64::from(outcome.waits_for_human);
        self.counts.add(&outcome.counts);
        match &outcome.finding {
            Some(finding) => {
                self.findings.push((seed, format!("{} {}", finding.invariant, finding.what)));
            }
            None if outcome.length < 600 * crate::SECOND || outcome.counts.faults < 5 => {
                self.quiet.push(seed);
            }
            None => {}
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.seconds += other.seconds;
        self.human += other.human;
        self.counts.add(&other.counts);
        self.findings.extend(other.findings);
        self.quiet.extend(other.quiet);
    }

    fn counted(&self) -> [(&'static str, u64); 9] {
        let counts = &self.counts;
        [
            ("elections", counts.elections),
            ("failsafe rounds", counts.failsafe_rounds),
            ("quick failovers", counts.quick),
            ("handovers", counts.handovers),
            ("rewinds", counts.rewinds),
            ("new clones", counts.clones),
            ("damaged Leases", counts.damaged),
            ("absent Leases", counts.absent),
            ("refused candidates", counts.refused),
        ]
    }

    /// What makes the run a failure, if anything does.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if !self.findings.is_empty() {
            failures.push(format!("{} findings", self.findings.len()));
        }
        if !self.quiet.is_empty() {
            failures.push(format!(
                "{} runs too quiet, first seed {}",
                self.quiet.len(),
                self.quiet[0]
            ));
        }
        if self.seeds >= COUNTS_MATTER_FROM {
            for (name, count) in self.counted() {
                if count == 0 {
                    failures.push(format!("no {name} in {} seeds", self.seeds));
                }
            }
        }
        failures
    }

    /// The closing line.
    pub(crate) fn line(&self, took: Duration) -> String {
        let counts: Vec<String> =
            self.counted().iter().map(|(name, count)| format!("{count} {name}")).collect();
        let rate = self.seeds as f64 / took.as_secs_f64().max(0.001);
        format!(
            "{} seeds, {:.1} simulated hours, {} commits acknowledged, {} faults, {} left to a human, {}, {rate:.1} seeds/s, {} findings",
            self.seeds,
            self.seconds as f64 / 3600.0,
            self.counts.acknowledged,
            self.counts.faults,
            self.human,
            counts.join(", "),
            self.findings.len()
        )
    }
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.elections += other.elections;
        self.failsafe_rounds += other.failsafe_rounds;
        self.quick += other.quick;
        self.handovers += other.handovers;
        self.rewinds += other.rewinds;
        self.clones += other.clones;
        self.damaged += other.damaged;
        self.absent += other.absent;
        self.refused += other.refused;
        self.promotions += other.promotions;
        self.faults += other.faults;
        self.acknowledged += other.acknowledged;
        self.lost_asynchronous += other.lost_asynchronous;
        self.events += other.events;
    }
}

/// Runs seeds on one or two threads; each seed is a world of its own, so the result does not
/// depend on how they are shared out.
pub(crate) fn run_seeds(start: u64, count: u64, threads: u64) -> Summary {
    let share = |offset: u64| {
        let mut summary = Summary::default();
        let mut seed = start + offset;
        while seed < start + count {
            summary.add(seed, &run(seed, Variation::default()));
            seed += threads;
        }
        summary
    };
    let mut summary = Summary::default();
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|offset| scope.spawn(move || share(offset))).collect();
        for worker in workers {
            match worker.join() {
                Ok(part) => summary.merge(part),
                Err(cause) => std::panic::resume_unwind(cause),
            }
        }
    });
    summary.findings.sort();
    summary
}

/// `cargo xtask sim`: `raw` is what follows `sim` on the command line. Prints to standard
/// output.
#[expect(
    clippy::disallowed_types,
    reason = "the rate of the closing line is real time; no world asks for it"
)]
pub fn main_with(raw: &[String]) -> ExitCode {
    let read = Arguments::parse(raw).and_then(|arguments| Ok((arguments, told(raw)?)));
    let (arguments, told) = match read {
        Ok(read) => read,
        Err(message) => {
            println!("{message}");
            return ExitCode::from(2);
        }
    };
    let began = std::time::Instant::now();
    let good = match arguments {
        Arguments::Seed(seed) => tell(&run(seed, told)),
        Arguments::Schedule(name, seed) => match schedules::find(&name) {
            Some(schedule) => tell(&schedules::play(&schedule, seed, told)),
            None => {
                println!("no schedule {name}; there are:");
                for schedule in schedules::all() {
                    println!("  {}", schedule.name);
                }
                false
            }
        },
        Arguments::Schedules => all_schedules(),
        Arguments::Seeds { start, count, threads } => {
            let summary = run_seeds(start, count, threads);
            for (seed, finding) in &summary.findings {
                println!("seed {seed}: {finding}");
            }
            for failure in summary.failures() {
                println!("failure: {failure}");
            }
            println!("{}", summary.line(began.elapsed()));
            summary.failures().is_empty()
        }
        Arguments::Mutations { only, limit, threads } => mutations(&only, limit, threads),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A run whose story is told, with a clause switched off if the command line says so.
fn told(raw: &[String]) -> Result<Variation, String> {
    let told = Variation { told: true, ..Variation::default() };
    value(raw, "--without")?.map_or(Ok(told), |name| without(name, told))
}

#[cfg(feature = "mutation")]
fn without(name: &str, told: Variation) -> Result<Variation, String> {
    crate::mutation::without(name, told)
}

#[cfg(not(feature = "mutation"))]
fn without(name: &str, _told: Variation) -> Result<Variation, String> {
    Err(format!("--without {name}: built without the feature `mutation`"))
}

fn tell(outcome: &Outcome) -> bool {
    for line in &outcome.story {
        println!("{line}");
    }
    let counts = &outcome.counts;
    println!(
        "{} commits acknowledged, {} of them lost without a promise, {} elections, {} faults, {} events in {} s",
        counts.acknowledged,
        counts.lost_asynchronous,
        counts.elections,
        counts.faults,
        counts.events,
        outcome.length / crate::SECOND
    );
    match &outcome.finding {
        Some(finding) => println!("finding {}: {}", finding.invariant, finding.what),
        None => println!("no finding"),
    }
    outcome.finding.is_none()
}

fn all_schedules() -> bool {
    let mut good = true;
    for schedule in schedules::all() {
        for seed in 1..=SCHEDULE_SEEDS {
            let outcome = schedules::play(&schedule, seed, Variation::default());
            if let Some(finding) = &outcome.finding {
                good = false;
                println!("{} ({seed}): {} {}", schedule.name, finding.invariant, finding.what);
            }
        }
    }
    println!("{} schedules, {SCHEDULE_SEEDS} times each", schedules::all().len());
    good
}

#[cfg(feature = "mutation")]
fn mutations(only: &str, limit: u64, threads: u64) -> bool {
    crate::mutation::table(only, limit, threads, &|line| println!("{line}"))
}

#[cfg(not(feature = "mutation"))]
fn mutations(_only: &str, _limit: u64, _threads: u64) -> bool {
    println!("built without the feature `mutation`");
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_is_read() {
        assert_eq!(parse("--seed 7"), Ok(Arguments::Seed(7)));
        assert_eq!(
            parse("--seeds 20 --start 5 --threads 1"),
            Ok(Arguments::Seeds { start: 5, count: 20, threads: 1 })
        );
        assert!(parse("--schedule").unwrap_err().contains("needs a value"));
        assert!(parse("--mutations --only").unwrap_err().contains("needs a value"));
        assert!(parse("--seed x").unwrap_err().contains("not a number"));
        assert!(parse("").unwrap_err().contains("usage"));
    }

    #[test]
    fn two_hundred_quiet_seeds_are_a_failure() {
        let summary = Summary { seeds: 200, ..Summary::default() };
        assert_eq!(summary.failures().len(), 9, "every count is zero");
        let few = Summary { seeds: 199, ..Summary::default() };
        assert_eq!(few.failures(), Vec::<String>::new());
    }

    #[test]
    fn a_finding_is_a_failure() {
        let summary =
            Summary { seeds: 1, findings: vec![(3, "I1 …".to_owned())], ..Summary::default() };
        assert_eq!(summary.failures(), ["1 findings"]);
    }

    #[test]
    fn one_seed_twice_tells_the_same_story_to_the_byte() {
        for seed in [3, 17] {
            let told = || {
                let outcome = run(seed, Variation { told: true, ..Variation::default() });
                (outcome.story.join("\n"), outcome.counts)
            };
            let first = told();
            assert!(first.0.lines().count() > 100, "a story worth comparing");
            assert_eq!(first, told());
        }
    }

    #[test]
    fn kept_seeds_stay_mended() {
        for line in include_str!("../seeds.txt").lines() {
            let Some(seed) = line.split('#').next().and_then(|text| text.trim().parse().ok())
            else {
                continue;
            };
            let outcome = run(seed, Variation::default());
            assert_eq!(outcome.finding, None, "seed {seed}");
        }
    }

    #[test]
    fn two_hundred_seeds_find_nothing_and_nothing_is_quiet() {
        let summary = run_seeds(1, 200, 2);
        assert_eq!(summary.findings, []);
        assert_eq!(summary.failures(), Vec::<String>::new());
    }
}
