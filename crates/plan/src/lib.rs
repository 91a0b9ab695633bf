//! What to do next: the planner of the cluster and the protocol of the agents as state machines. PURE.
//!
//! [`plan`] looks at a [`World`] and answers with a [`Plan`]: what to remember, what to do, why
//! nothing else is done, and when to look again. [`lint`] is a second opinion, written from the
//! invariants and not from the planner; a plan with a finding is not executed.

pub mod action;
pub mod binary;
pub mod cluster;
pub mod lint;
pub mod memory;
pub mod protocol;
pub mod report;
pub mod seen;
pub mod slots;
pub mod spec;
pub mod stamp;
pub mod steps;
pub mod world;

pub use action::{Action, Directive, Plan, Stage, Wake};
pub use binary::{AgentBinary, AgentFacts, BinaryFailure};
pub use cluster::plan;
pub use lint::{Finding, lint};
pub use memory::Memory;
pub use report::Report;
pub use seen::Seen;
pub use spec::{Spec, Wanted};
pub use stamp::PodStamp;
pub use world::{InstanceName, World};
