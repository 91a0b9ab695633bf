//! The files that are generated from the types and checked in: CRDs, the other manifests that install
//! the operator, and the API reference.
//!
//! With `MATRIARCH_GENERATE` set, as `cargo xtask gen` sets it, they are written; else a file that
//! would change fails the test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use matriarch_api::identity::{Identity, Kind};

use crate::{chart, kustomization};

/// Plain `kubectl apply` keeps the whole object in an annotation, of 262,144 bytes at most.
const CRD_BYTES_MAX: usize = 200_000;

#[test]
fn generated_files_are_as_the_types_say() -> Result<()> {
    let writes = std::env::var_os("MATRIARCH_GENERATE").is_some();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut stale = Vec::new();
    for (file, text) in files()? {
        let path = workspace.join(&file);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if !writes {
            stale.push(file.display().to_string());
            continue;
        }
        let directory = path.parent().context("a file is in a directory")?;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", file.display());
    }
    ensure!(stale.is_empty(), "run `cargo xtask gen`: these would change: {}", stale.join(", "));
    Ok(())
}

/// Paths below the workspace and the text that belongs there.
fn files() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let mut resources = String::new();
    for kind in Kind::ALL {
        let crd = matriarch_api::crd::json(kind, Identity::Matriarch)
            .with_context(|| format!("no CRD for {}", kind.name()))?;
        let bytes = crd.to_string().len();
        ensure!(bytes <= CRD_BYTES_MAX, "the CRD of {} has {bytes} bytes", kind.name());
        let yaml = serde_saphyr::to_string(&crd).context("a CRD does not become YAML")?;
        let file = format!("{}.yaml", kind.crd_name(Identity::Matriarch));
        resources.push_str(&format!("- {file}\n"));
        files.insert(PathBuf::from("config/crd").join(file), yaml);
    }
    files.insert(
        PathBuf::from("config/crd/kustomization.yaml"),
        format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{resources}"
        ),
    );
    files.extend(kustomization::files()?);
    files.extend(chart::files()?);
    files.insert(
        PathBuf::from("docs/reference.md"),
        matriarch_api::docs::reference().context("the API reference cannot be written")?,
    );
    Ok(files)
}
