//! What the user writes: the kinds, their rules and documentation, all names. PURE.

pub mod instance;
