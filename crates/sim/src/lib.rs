//! A whole world in one thread from one seed; depends on PURE crates alone.
