//! A tiny Kubernetes on one machine.
