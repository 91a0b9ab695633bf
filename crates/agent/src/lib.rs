//! The database pod: the keeper and the agent.
