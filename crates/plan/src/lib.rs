//! What to do next: the planner of the cluster and the protocol of the agents as state machines. PURE.
