//! What the user writes: the kinds, their rules and documentation, all names. PURE.

mod record;

pub mod annotations;
pub mod causes;
pub mod cluster;
pub mod conditions;
pub mod crd;
pub mod docs;
pub mod identity;
pub mod image_catalog;
pub mod instance;
pub mod labels;
pub mod metrics;
pub mod names;
pub mod object;
pub mod phases;
pub mod quantity;
pub mod reasons;
pub mod secret;
pub mod slot_patterns;
pub mod statistics;
pub mod support;
pub mod validate;

/// The version that was built: `MATRIARCH_VERSION` as it was at build time, else the source's own.
pub const VERSION: &str = match option_env!("MATRIARCH_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

pub use identity::{Identity, Kind};
pub use object::{Cluster, ClusterImageCatalog, ImageCatalog, Instance};
