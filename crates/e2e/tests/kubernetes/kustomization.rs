//! The text of `config/`: what `kubectl apply -k` takes, from the objects of `operator::install`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use matriarch_api::{Identity, Kind};
use matriarch_e2e::apiserver;
use matriarch_operator::install::{self, Options, Scope};
use serde_json::{Value, json};

use crate::chart::{by_name, documents, same};
use crate::installing::{generated, workspace};

/// Which kind of kustomization.
enum Form {
    Base,
    Component,
}

/// A directory with a kustomization and the objects that it lists.
struct Directory {
    path: &'static str,
    form: Form,
    /// Other directories, from this one.
    bases: &'static [&'static str],
    /// Files and their objects.
    files: Vec<(&'static str, Vec<Value>)>,
    patches: Option<Value>,
}

impl Directory {
    fn base(path: &'static str, bases: &'static [&'static str]) -> Self {
        Self { path, form: Form::Base, bases, files: Vec::new(), patches: None }
    }

    fn component(path: &'static str, file: &'static str, objects: Vec<Value>) -> Self {
        let files = vec![(file, objects)];
        Self { path, form: Form::Component, bases: &[], files, patches: None }
    }

    fn with(mut self, file: &'static str, objects: impl Into<Vec<Value>>) -> Self {
        self.files.push((file, objects.into()));
        self
    }

    fn texts(self) -> Result<Vec<(PathBuf, String)>> {
        let (version, kind) = match self.form {
            Form::Base => ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
            Form::Component => ("kustomize.config.k8s.io/v1alpha1", "Component"),
        };
        let files = self.files.iter().map(|(file, _)| *file);
        let resources: Vec<&str> = self.bases.iter().copied().chain(files).collect();
        let mut kustomization =
            json!({ "apiVersion": version, "kind": kind, "resources": resources });
        if let Some(patches) = self.patches {
            kustomization["patches"] = patches;
        }
        let directory = PathBuf::from("config").join(self.path);
        let mut texts = vec![(directory.join("kustomization.yaml"), yaml(&[kustomization])?)];
        for (file, objects) in self.files {
            texts.push((directory.join(file), yaml(&objects)?));
        }
        Ok(texts)
    }
}

/// Objects as documents of one file.
pub fn yaml(objects: &[Value]) -> Result<String> {
    let texts: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    Ok(texts.context("an object does not become YAML")?.join("---\n"))
}

/// Paths below the workspace, and what belongs there; the definitions are not among them.
pub fn files() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for directory in directories() {
        files.extend(directory.texts()?);
    }
    Ok(files)
}

fn directories() -> Vec<Directory> {
    let options = &Options::default();
    let own = options.namespace.as_str();
    let operator = Directory::base("operator", &[])
        .with("service_account.yaml", [install::service_account(options)])
        .with(
            "leader_election.yaml",
            [install::leader_role(options), install::leader_role_binding(options)],
        )
        .with("user_roles.yaml", install::user_roles(options))
        .with("flow_schema.yaml", [install::flow_schema(options)])
        .with("network_policy.yaml", [install::operator_policy(options)])
        .with("pod_disruption_budget.yaml", [install::disruption_budget(options)])
        .with("service.yaml", [install::service(options)])
        .with("deployment.yaml", [install::deployment(options)]);
    let cluster_wide = Directory::base("cluster-wide", &["../operator"]).with(
        "role.yaml",
        [install::operator_cluster_role(options), install::operator_cluster_role_binding(options)],
    );
    let mut namespaced = Directory::base("namespaced", &["../crd", "../operator"]).with(
        "role.yaml",
        [install::operator_role(options, own), install::operator_role_binding(options, own)],
    );
    namespaced.patches = Some(watch_patch());
    let mut cluster_policy = install::cluster_policy(options, own);
    if let Some(metadata) = cluster_policy["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    vec![
        Directory::base("default", &["../crd", "../cluster-wide"])
            .with("namespace.yaml", [install::namespace(options)]),
        operator,
        cluster_wide,
        namespaced,
        Directory::component(
            "components/service-monitor",
            "service_monitor.yaml",
            vec![install::service_monitor(options)],
        ),
        Directory::component(
            "components/admission-policy",
            "admission_policy.yaml",
            install::own_instance_policy(options).into(),
        ),
        Directory::base("cluster-network-policy", &[])
            .with("network_policy.yaml", [cluster_policy]),
    ]
}

/// The argument that a namespaced operator has and another has not.
fn watch_patch() -> Value {
    let options = Options::default();
    let scope = Scope::Namespaces(vec![options.namespace.clone()]);
    let arguments = |options: &Options| {
        install::deployment(options)["spec"]["template"]["spec"]["containers"][0]["args"].take()
    };
    let without = arguments(&options);
    let with = arguments(&Options { scope, ..options });
    let more: Vec<Value> = with
        .as_array()
        .into_iter()
        .flatten()
        .filter(|argument| !without.as_array().is_some_and(|known| known.contains(argument)))
        .map(|argument| {
            json!({
                "op": "add",
                "path": "/spec/template/spec/containers/0/args/-",
                "value": argument,
            })
        })
        .collect();
    json!([{ "target": { "kind": "Deployment" }, "patch": json!(more).to_string() }])
}

fn kustomize(directory: &Path) -> Result<Option<BTreeMap<String, Value>>> {
    let Some(tools) = apiserver::tools() else { return Ok(None) };
    let output = Command::new(tools.join("kubectl")).arg("kustomize").arg(directory).output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "kubectl kustomize {}: {told}", directory.display());
    ensure!(told.is_empty(), "kubectl kustomize {} warns: {told}", directory.display());
    let mut objects = documents(&String::from_utf8(output.stdout)?)?;
    for object in &mut objects {
        // Kustomize does not know that these have no namespace; kubectl asks the API server.
        let unknown =
            ["FlowSchema", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
        if unknown.iter().any(|kind| object["kind"] == *kind)
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            metadata.remove("namespace");
        }
    }
    Ok(Some(by_name(objects)?))
}

fn printed(arguments: &[&str]) -> Result<BTreeMap<String, Value>> {
    by_name(documents(&generated(arguments)?)?)
}

#[test]
fn install_generate_prints_what_kustomize_builds() -> Result<()> {
    for (directory, arguments) in [
        ("default", [].as_slice()),
        ("default", &["--cluster-wide", "--version", env!("CARGO_PKG_VERSION")]),
        ("namespaced", &["--watch-namespace", install::NAMESPACE]),
    ] {
        let Some(built) = kustomize(&workspace().join("config").join(directory))? else {
            return Ok(());
        };
        same(directory, &built, &printed(arguments)?)?;
    }
    Ok(())
}

/// A user's own overlay: another namespace, another image, more operators and what is optional.
#[test]
fn an_overlay_changes_namespace_image_and_replicas() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("matriarch-overlay-{}", std::process::id()));
    copy(&workspace().join("config"), &directory)?;
    let overlay = directory.join("overlay");
    std::fs::create_dir_all(&overlay)?;
    let kustomization = json!({
        "namespace": "team",
        "resources": ["../namespaced", "../cluster-network-policy"],
        "components": ["../components/service-monitor", "../components/admission-policy"],
        "images": [{ "name": "ghcr.io/matriarch/matriarch", "newName": "localhost/o", "newTag": "7" }],
        "replicas": [{ "name": "matriarch-operator", "count": 3 }],
    });
    std::fs::write(overlay.join("kustomization.yaml"), yaml(&[kustomization])?)?;
    let built = kustomize(&overlay);
    std::fs::remove_dir_all(&directory)?;
    let Some(built) = built? else { return Ok(()) };
    let arguments = [
        "--namespace=team",
        "--watch-namespace=team",
        "--image=localhost/o:7",
        "--replicas=3",
        "--service-monitor",
        "--admission-policy",
        "--cluster-network-policy=team",
    ];
    same("overlay", &built, &printed(&arguments)?)
}

#[test]
fn install_generate_prints_the_definitions_of_the_identity() -> Result<()> {
    for identity in Identity::ALL {
        let objects = printed(&["--api-identity", identity.name()])?;
        for kind in Kind::ALL {
            let name = kind.crd_name(identity);
            let definition = &objects[&format!("CustomResourceDefinition /{name}")];
            ensure!(definition["spec"]["group"] == identity.group(), "{name}");
        }
    }
    Ok(())
}

#[test]
fn install_generate_refuses_what_cannot_be() -> Result<()> {
    for (arguments, words) in [
        (["--watch-namespace", "A_b"].as_slice(), "\"A_b\" cannot be a namespace"),
        (&["--cluster-wide", "--watch-namespace", "a"], "cannot be used with"),
        (&["--image", "a", "--version", "1"], "cannot be used with"),
        (&["--api-identity", "other"], "matriarch, cnpg, edb"),
    ] {
        let Err(error) = generated(arguments) else { bail!("{arguments:?} is not refused") };
        ensure!(error.to_string().contains(words), "{arguments:?}: {error:#}");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
