//! A tiny Kubernetes on one machine.
//!
//! An API server over `store`, pods as processes, Services as proxies: it looks like Kubernetes to
//! the operator, the agents and kubectl, and to nobody else.

pub mod children;
pub mod controllers;
pub mod kubelet;
pub mod layout;
pub mod mirror;
pub mod network;
pub mod postgres;
pub mod processes;
pub mod proxy;
pub mod up;
pub mod user;

pub mod apiserver;
