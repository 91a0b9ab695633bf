//! What a real etcd and kube-apiserver say.

#![recursion_limit = "512"]
#![expect(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

mod chart;
mod conformance;
mod crd;
mod endpoint;
mod generated;
mod installing;
mod kubectl;
mod kustomization;
mod operator;
mod pods;
mod rollout;
mod samples;
