//! The Helm chart. Templates without a choice in them are generated from the objects of
//! `operator::install`; the others are written by hand. All are rendered by the real Helm and
//! compared with those objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use matriarch_api::Identity;
use matriarch_operator::install::{self, Options, Scope};
use serde_json::{Value, json};

use crate::installing::workspace;
use crate::kustomization::yaml;

/// Where the chart is, below the workspace.
const CHART: &str = "charts/matriarch";
/// Stands for the release's namespace where templates are generated.
const RELEASE: &str = "release-namespace";
/// Stands for one of the namespaces that are served.
const SERVED: &str = "served-namespace";
/// Stands for the operators' Lease, whose name the identity decides.
const LEASE: &str = "leader-lease";
/// Stands for the Secret with the certificate that agents know, likewise.
const AGENT_SECRET: &str = "agent-secret";

/// Paths below the workspace, and what belongs there.
pub fn files() -> Result<BTreeMap<PathBuf, String>> {
    let version = env!("CARGO_PKG_VERSION");
    let chart = json!({
        "apiVersion": "v2",
        "name": "matriarch",
        "description": "PostgreSQL on Kubernetes: the operator, its definitions and its roles",
        "type": "application",
        "version": version,
        "appVersion": version,
        "kubeVersion": ">=1.30.0-0",
    });
    let mut files = BTreeMap::from([(PathBuf::from("Chart.yaml"), yaml(&[chart])?)]);
    for (name, text) in templates()? {
        files.insert(Path::new("templates").join(name), text);
    }
    Ok(files.into_iter().map(|(path, text)| (Path::new(CHART).join(path), text)).collect())
}

fn templates() -> Result<Vec<(String, String)>> {
    let options = &Options { namespace: RELEASE.to_owned(), ..Options::default() };
    let mut leader = install::leader_role(options);
    leader["rules"][0]["resourceNames"] = json!([LEASE]);
    leader["rules"][3]["resourceNames"] = json!([AGENT_SECRET]);
    let cluster_wide =
        [install::operator_cluster_role(options), install::operator_cluster_role_binding(options)];
    let namespaced =
        [install::operator_role(options, SERVED), install::operator_role_binding(options, SERVED)];
    let mut templates = vec![
        template("service-account", &[install::service_account(options)], None)?,
        template("leader-election", &[leader, install::leader_role_binding(options)], None)?,
        template("cluster-role", &cluster_wide, Some("if not $.Values.watchNamespaces"))?,
        template("roles", &namespaced, Some("range $.Values.watchNamespaces"))?,
        template(
            "user-roles",
            &install::user_roles(options),
            Some("if $.Values.userRoles.create"),
        )?,
        template(
            "flow-schema",
            &[install::flow_schema(options)],
            Some("if $.Values.flowSchema.create"),
        )?,
        template(
            "admission-policy",
            &install::own_instance_policy(options),
            Some("if $.Values.admissionPolicy.create"),
        )?,
        template("service", &[install::service(options)], None)?,
    ];
    templates.extend(definitions()?);
    Ok(templates)
}

/// Made from those of CloudNativePG's identity, whose names are like no other words in them.
fn definitions() -> Result<Vec<(String, String)>> {
    let ours = install::definitions(Identity::Matriarch)?;
    let mut templates = Vec::new();
    for (mut definition, ours) in install::definitions(Identity::Cnpg)?.into_iter().zip(ours) {
        // Whoever removes the release keeps the Clusters.
        definition["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
        let names = &ours["spec"]["names"];
        let short = &names["shortNames"];
        if !short.is_null() {
            definition["spec"]["names"]["shortNames"] = short.clone();
        }
        let name = names["plural"].as_str().unwrap_or_default();
        let condition = Some("if $.Values.crds.create");
        let (file, mut text) = template(&format!("crd-{name}"), &[definition], condition)?;
        let cnpg = Identity::Cnpg;
        text = text.replace(cnpg.group(), "{{ include \"matriarch.group\" $ }}");
        text = text
            .replace(cnpg.environment_prefix(), "{{ include \"matriarch.environmentPrefix\" $ }}");
        if let Some(word) = short[0].as_str() {
            let list = format!("    shortNames:\n    - {word}\n");
            ensure!(text.contains(&list), "{name}: the short name is not where it was");
            let guarded = format!(
                "    {{{{- if eq $.Values.apiIdentity \"matriarch\" }}}}\n{list}    {{{{- end }}}}\n"
            );
            text = text.replace(&list, &guarded);
        }
        templates.push((file, text));
    }
    Ok(templates)
}

fn template(name: &str, objects: &[Value], block: Option<&str>) -> Result<(String, String)> {
    let mut text = yaml(objects)?;
    ensure!(!text.contains("{{"), "{name}: the text would be taken for a template");
    let names = [
        ("matriarch-operator", "include \"matriarch.name\" $"),
        ("matriarch.dev", "include \"matriarch.group\" $"),
        (LEASE, "include \"matriarch.leaderLease\" $"),
        (AGENT_SECRET, "include \"matriarch.agentSecret\" $"),
        (RELEASE, "$.Release.Namespace"),
        (SERVED, "."),
    ];
    for (stand_in, expression) in names {
        text = text.replace(stand_in, &format!("{{{{ {expression} }}}}"));
    }
    let head = "{{- /* Generated: cargo xtask gen. */ -}}\n";
    let text = match block {
        Some(block) => format!("{head}{{{{- {block} }}}}\n---\n{text}{{{{- end }}}}\n"),
        None => format!("{head}{text}"),
    };
    Ok((format!("{name}.yaml"), text))
}

/// A rendering, and the options that mean the same.
struct Case {
    name: &'static str,
    arguments: &'static [&'static str],
    options: Options,
}

fn cases() -> Vec<Case> {
    let default = Options::default;
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    vec![
        Case { name: "default", arguments: &[], options: default() },
        Case {
            name: "another namespace",
            arguments: &["--namespace", "elsewhere"],
            options: Options { namespace: "elsewhere".to_owned(), ..default() },
        },
        Case {
            name: "two namespaces served",
            arguments: &["--set", "watchNamespaces={a,b}"],
            options: Options { scope: Scope::Namespaces(strings(&["a", "b"])), ..default() },
        },
        Case {
            name: "its own namespace served",
            arguments: &["--set", "watchNamespaces={matriarch-system}"],
            options: Options {
                scope: Scope::Namespaces(strings(&[install::NAMESPACE])),
                ..default()
            },
        },
        Case {
            name: "CloudNativePG's names",
            arguments: &["--set", "apiIdentity=cnpg", "--set", "admissionPolicy.create=true"],
            options: Options { identity: Identity::Cnpg, admission_policy: true, ..default() },
        },
        Case {
            name: "EDB's names",
            arguments: &[
                "--set",
                "apiIdentity=edb",
                "--set",
                "networkPolicy.clusterNamespaces={a}",
            ],
            options: Options {
                identity: Identity::Edb,
                cluster_policies: strings(&["a"]),
                ..default()
            },
        },
        Case {
            name: "every choice",
            arguments: &[
                "--set",
                "replicas=3,image.repository=localhost/o,image.tag=v7,postgresImage=localhost/p:1",
                "--set",
                "clusterDomain=k.local,priorityClassName=high,serviceMonitor.create=true",
                "--set",
                "admissionPolicy.create=true,networkPolicy.clusterNamespaces={a,b}",
            ],
            options: Options {
                replicas: 3,
                image: "localhost/o:v7".to_owned(),
                postgres_image: Some("localhost/p:1".to_owned()),
                cluster_domain: Some("k.local".to_owned()),
                priority_class: Some("high".to_owned()),
                service_monitor: true,
                admission_policy: true,
                cluster_policies: strings(&["a", "b"]),
                ..default()
            },
        },
    ]
}

/// Objects by kind, namespace and name.
pub fn by_name(objects: impl IntoIterator<Item = Value>) -> Result<BTreeMap<String, Value>> {
    let mut named = BTreeMap::new();
    for object in objects {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let name = format!(
            "{} {}/{}",
            text(&object["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"])
        );
        ensure!(named.insert(name.clone(), object).is_none(), "{name} is there twice");
    }
    Ok(named)
}

/// The documents of a stream of YAML.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("no YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Fails with the first difference.
pub fn same(
    what: &str,
    found: &BTreeMap<String, Value>,
    wanted: &BTreeMap<String, Value>,
) -> Result<()> {
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    ensure!(
        names(found) == names(wanted),
        "{what}: {:#?} instead of {:#?}",
        names(found),
        names(wanted)
    );
    for (name, object) in found {
        let wanted = &wanted[name];
        ensure!(object == wanted, "{what}: {name} is {object:#} instead of {wanted:#}");
    }
    Ok(())
}

fn helm(arguments: &[&str]) -> Result<Option<String>> {
    let Some(program) = matriarch_e2e::apiserver::helm() else { return Ok(None) };
    let home = std::env::temp_dir().join(format!("matriarch-helm-{}", std::process::id()));
    let output = Command::new(program)
        .args(arguments)
        .current_dir(workspace())
        .env("HOME", &home)
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .output()?;
    let (said, told) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "helm {arguments:?}: {said}\n{told}");
    Ok(Some(said.into_owned()))
}

#[test]
fn the_chart_has_no_lint() -> Result<()> {
    let Some(said) = helm(&["lint", "--strict", CHART])? else { return Ok(()) };
    ensure!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
    Ok(())
}

#[test]
fn the_chart_renders_what_install_generate_prints() -> Result<()> {
    for case in cases() {
        let arguments =
            [&["template", "release", CHART, "--namespace", install::NAMESPACE], case.arguments]
                .concat();
        let Some(rendered) = helm(&arguments)? else { return Ok(()) };
        let mut found = by_name(documents(&rendered)?)?;
        for object in found.values_mut() {
            let Some(metadata) = object["metadata"].as_object_mut() else { continue };
            let kept = metadata.remove("annotations");
            let is_definition = object["kind"] == "CustomResourceDefinition";
            let keep = json!({ "helm.sh/resource-policy": "keep" });
            ensure!(kept.is_some_and(|it| it == keep) == is_definition, "{object:#} stays");
        }
        let wanted = install::objects(&case.options)?;
        // Helm makes the namespace of a release by itself.
        let wanted = wanted.into_iter().filter(|object| object["kind"] != "Namespace");
        same(case.name, &found, &by_name(wanted)?)?;
    }
    Ok(())
}

#[test]
fn the_chart_refuses_values_that_there_are_not() -> Result<()> {
    for (value, words) in [
        ("apiIdentity=other", "'/apiIdentity': value must be one of 'matriarch', 'cnpg', 'edb'"),
        ("watchNamespace={a}", "additional properties 'watchNamespace' not allowed"),
        ("watchNamespaces={A}", "'/watchNamespaces/0'"),
    ] {
        match helm(&["template", "release", CHART, "--set", value]) {
            Ok(None) => return Ok(()),
            Ok(Some(rendered)) => bail!("{value} is rendered: {rendered}"),
            Err(error) => ensure!(error.to_string().contains(words), "{value}: {error:#}"),
        }
    }
    Ok(())
}
