//! Versions of Kubernetes, each with what is built beside it.

use std::path::PathBuf;

use crate::paths;

/// A version of Kubernetes, and the versions of other modules that were released for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// Major and minor number: what a user asks for.
    pub minor: &'static str,
    /// The full version.
    pub version: &'static str,
    /// Modules that are no part of Kubernetes. They are compiled with the client libraries of this
    /// Kubernetes, so that these are compiled once.
    pub modules: &'static [(&'static str, &'static str)],
    /// What provisions volumes of a cluster; none where no cluster is made of this version.
    pub provisioner: Option<Provisioner>,
}

/// The provisioner of volumes, in a module beside the others': what it wants of some modules
/// differs from what this Kubernetes wants.
#[derive(Debug, PartialEq, Eq)]
pub struct Provisioner {
    /// Its module and version.
    pub module: (&'static str, &'static str),
    /// The modules of which it wants another version.
    pub wants: &'static [(&'static str, &'static str)],
}

/// The oldest that we say we run on (README, chart): in tests its API server takes the definitions,
/// the Roles and the operator's requests.
pub const OLDEST: Release =
    Release { minor: "1.30", version: "1.30.14", modules: &[], provisioner: None };

/// All that a cluster can be made of, the one that is used unless another is asked for first.
pub const RELEASES: [Release; 1] = [Release {
    minor: "1.34",
    version: "1.34.4",
    modules: &[
        ("github.com/coredns/coredns", "v1.12.4"),
        ("github.com/kubernetes-csi/external-resizer", "v1.14.0"),
        // The checksum of 8.4 is not in Go's public database.
        ("github.com/kubernetes-csi/external-snapshotter/v8", "v8.3.0"),
        ("github.com/kubernetes-csi/external-snapshotter/client/v8", "v8.2.0"),
    ],
    // 5.2, and a library that 5.3 wants, have no checksum in Go's public database; 6 is for the
    // client libraries of 1.36.
    provisioner: Some(Provisioner {
        module: ("github.com/kubernetes-csi/external-provisioner/v5", "v5.1.0"),
        wants: &[("k8s.io/csi-translation-lib", "v0.31.0"), ("sigs.k8s.io/gateway-api", "v1.4.0")],
    }),
}];

impl Release {
    /// Where its programs are kept.
    pub fn programs(&self) -> PathBuf {
        self.tools().join("bin")
    }

    /// The Go module that they are built in.
    pub fn source(&self) -> PathBuf {
        self.tools().join("src")
    }

    /// The version of one of its other modules.
    pub fn module(&self, name: &str) -> Option<&'static str> {
        self.modules.iter().find(|(module, _)| *module == name).map(|(_, version)| *version)
    }

    fn tools(&self) -> PathBuf {
        paths::cache().join("tools").join(format!("kubernetes-{}", self.minor))
    }
}
