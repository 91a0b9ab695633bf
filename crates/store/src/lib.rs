//! The semantics of Kubernetes objects in memory. PURE.
//!
//! [`Store`] holds objects as JSON values and answers as kube-apiserver would: create, read,
//! update, patch, apply, delete, watch. Time and chance come in through [`Moment`]; what must be
//! kept over a restart goes out through [`Store::changes_since`] and comes back through
//! [`Store::restore`]. Where `store` and kube-apiserver differ, `store` is wrong
//! (the conformance test in `e2e` compares them).

pub mod builtin;
mod conform;
mod defaults;
mod definition;
pub mod discovery;
mod event;
pub mod fields;
pub mod identity;
mod jsonpath;
mod managers;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod rbac;
pub mod registry;
mod rules;
pub mod schema;
pub mod selector;
pub mod status;
pub mod store;
pub mod table;
mod typed;

pub use registry::{Registry, ResourceId, ResourceType};
pub use status::{Cause, Refusal};
pub use store::{
    Change, DeleteOptions, FieldValidation, ListOptions, Moment, ObjectKey, Options, Page,
    Propagation, Selectors, Store, Subresource, Target, WatchCursor, WatchEvent, WatchStart,
    WriteOptions, Written,
};
