//! Watches objects, runs render and plan, records and applies.
