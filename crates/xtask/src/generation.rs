//! Files that are generated and checked in: CRDs and the API reference.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use matriarch_api::identity::{Identity, Kind};

use crate::paths;

/// Writes the generated files, or with `check` fails if one of them differs.
pub fn run(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (path, text) in files()? {
        let path = paths::workspace().join(path);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if check {
            stale.push(path.display().to_string());
            continue;
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    if !stale.is_empty() {
        bail!("run `cargo xtask gen`: these would change:\n  {}", stale.join("\n  "));
    }
    Ok(())
}

/// Paths below the workspace and the text that belongs there.
fn files() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let mut resources = String::new();
    for kind in Kind::ALL {
        let crd = matriarch_api::crd::json(kind, Identity::Matriarch)
            .with_context(|| format!("no CRD for {}", kind.name()))?;
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
    files.insert(
        PathBuf::from("docs/reference.md"),
        matriarch_api::docs::reference().context("the API reference cannot be written")?,
    );
    Ok(files)
}
