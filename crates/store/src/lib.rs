//! The semantics of Kubernetes objects in memory. PURE.
