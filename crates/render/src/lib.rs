//! Objects to World, the user's spec to the planner's Spec, actions to objects. PURE.
//!
//! [`resolve`] turns a Cluster into what the planner and the agents read; [`observe`] turns the
//! objects of the API into a `World`; [`objects`] turns an action into the object to write;
//! [`status`] turns a plan's report into what people see.

pub mod conform;
pub mod objects;
pub mod observe;
pub mod references;
pub mod resolve;
pub mod setup;
pub mod stamp;
pub mod status;
pub mod story;

pub use observe::{Objects, ended, lease_record, node_in_question, observe};
pub use references::References;
pub use resolve::{Resolved, resolve};
pub use setup::Setup;
