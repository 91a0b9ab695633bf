//! What the compiler and clippy do not check: borders between crates, sizes, names, licences.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{command, paths};

/// Crates that decide and do not act.
const PURE: [&str; 6] = ["pg", "api", "plan", "render", "store", "sim"];
/// What no PURE crate may depend on, at any distance.
const IMPURE: [&str; 9] = [
    "tokio",
    "hyper",
    "kube-client",
    "kube-runtime",
    "reqwest",
    "rand",
    "rustls",
    "mio",
    "async-std",
];
/// Names that say nothing about what is in a module.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "helpers", "helper", "manager", "common"];
const LINES_MAX: usize = 800;
const DEPTH_MAX: usize = 2;

/// Runs every check and reports all findings at once.
pub fn run() -> Result<()> {
    let root = paths::workspace();
    let graph = Graph::read(&metadata()?)?;
    let mut findings = Vec::new();
    findings.extend(borders(&graph));
    let rules = Rules::read(&root)?;
    findings.extend(bans(&rules)?);
    findings.extend(licences(&graph, &rules));
    findings.extend(compiled_twice()?);
    findings.extend(pure_lints(&root)?);
    findings.extend(sources(&root)?);
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} findings:\n  {}", findings.len(), findings.join("\n  "))
}

/// What deny.toml says.
struct Rules {
    licences: Vec<String>,
    banned: Vec<String>,
}

impl Rules {
    fn read(root: &Path) -> Result<Self> {
        let text = fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
        let table: toml::Table = text.parse().context("deny.toml is not TOML")?;
        let texts = |value: Option<&toml::Value>| -> Vec<String> {
            let list = value.and_then(toml::Value::as_array).into_iter().flatten();
            list.filter_map(|it| it.get("name").unwrap_or(it).as_str().map(str::to_owned)).collect()
        };
        let rules = Self {
            licences: texts(table.get("licenses").and_then(|it| it.get("allow"))),
            banned: texts(table.get("bans").and_then(|it| it.get("deny"))),
        };
        if rules.licences.is_empty() || rules.banned.is_empty() {
            bail!("deny.toml names no licences or no banned crates");
        }
        Ok(rules)
    }
}

/// `cargo metadata` of the workspace.
pub fn metadata() -> Result<Value> {
    let mut cargo = command::cargo(&paths::workspace());
    cargo.args(["metadata", "--format-version", "1", "--locked"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let text = command::run_quietly(&mut cargo)?;
    serde_json::from_str(&text).context("`cargo metadata` answered no JSON")
}

/// The packages, and which normal dependencies each really uses.
struct Graph {
    names: BTreeMap<String, String>,
    licences: BTreeMap<String, Option<String>>,
    normal: BTreeMap<String, Vec<String>>,
    members: BTreeSet<String>,
}

impl Graph {
    fn read(metadata: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_default();
        let mut graph = Self {
            names: BTreeMap::new(),
            licences: BTreeMap::new(),
            normal: BTreeMap::new(),
            members: BTreeSet::new(),
        };
        for package in metadata["packages"].as_array().context("metadata has no packages")? {
            let id = text(&package["id"]);
            graph.names.insert(id.clone(), text(&package["name"]));
            let licence = package["license"].as_str().map(str::to_owned);
            graph.licences.insert(id, licence);
        }
        for node in metadata["resolve"]["nodes"].as_array().context("metadata has no graph")? {
            let normal = node["deps"].as_array().into_iter().flatten().filter(|dependency| {
                let kinds = dependency["dep_kinds"].as_array();
                kinds.into_iter().flatten().any(|kind| kind["kind"].is_null())
            });
            graph.normal.insert(text(&node["id"]), normal.map(|it| text(&it["pkg"])).collect());
        }
        for member in metadata["workspace_members"].as_array().into_iter().flatten() {
            graph.members.insert(text(member));
        }
        Ok(graph)
    }

    fn id(&self, name: &str) -> Option<&String> {
        self.members.iter().find(|id| self.names.get(*id).is_some_and(|it| it == name))
    }

    /// Everything that a package uses, with the way there.
    fn closure(&self, from: &str) -> BTreeMap<String, Vec<String>> {
        let mut ways = BTreeMap::from([(from.to_owned(), vec![self.name(from)])]);
        let mut queue = VecDeque::from([from.to_owned()]);
        while let Some(id) = queue.pop_front() {
            for next in self.normal.get(&id).into_iter().flatten() {
                if !ways.contains_key(next) {
                    let mut way = ways[&id].clone();
                    way.push(self.name(next));
                    ways.insert(next.clone(), way);
                    queue.push_back(next.clone());
                }
            }
        }
        ways
    }

    fn name(&self, id: &str) -> String {
        self.names.get(id).cloned().unwrap_or_default()
    }
}

fn borders(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for crate_name in PURE {
        let Some(id) = graph.id(&format!("matriarch-{crate_name}")) else {
            findings.push(format!("PURE crate {crate_name} is not in the workspace"));
            continue;
        };
        for (used, way) in graph.closure(id) {
            let name = graph.name(&used);
            if IMPURE.contains(&name.as_str()) {
                findings.push(format!("PURE crate uses {name}: {}", way.join(" → ")));
            }
            let ours = name.strip_prefix("matriarch-");
            if ours.is_some_and(|ours| !PURE.contains(&ours)) {
                findings.push(format!("arrow upwards: {}", way.join(" → ")));
            }
        }
    }
    findings
}

/// `cargo tree` and not the graph of `cargo metadata`, which lists weak optional dependencies that
/// no feature turns on.
fn bans(rules: &Rules) -> Result<Vec<String>> {
    let mut cargo = command::cargo(&paths::workspace());
    cargo.args(["tree", "--locked", "--package", "matriarch", "--edges", "normal"]);
    let text = command::run_quietly(cargo.args(["--prefix", "none", "--format", "{p}"]))?;
    let used: BTreeSet<&str> =
        text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    if !used.contains("rustls") {
        bail!("`cargo tree` does not list what the binary uses");
    }
    let banned = rules.banned.iter().filter(|name| used.contains(name.as_str()));
    Ok(banned.map(|name| format!("banned crate in the binary: {name}")).collect())
}

/// The program alone and the workspace with its tests have to choose the same features, or building
/// one after the other compiles what differs, and all that uses it, once more (docs/images.md).
fn compiled_twice() -> Result<Vec<String>> {
    let alone = chosen_features(&["--package", "matriarch", "--edges", "normal,build"])?;
    let together = chosen_features(&["--workspace", "--edges", "normal,build,dev"])?;
    let different = alone.difference(&together);
    Ok(different
        .map(|it| format!("compiled twice, its features differ in the workspace: {it}"))
        .collect())
}

/// `name version [features]` of all that a selection is made of.
fn chosen_features(selection: &[&str]) -> Result<BTreeSet<String>> {
    let mut cargo = command::cargo(&paths::workspace());
    cargo.args(["tree", "--locked", "--prefix", "none", "--format", "{p} [{f}]"]).args(selection);
    let text = command::run_quietly(&mut cargo)?;
    let packages: BTreeSet<String> =
        text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect();
    if !packages.iter().any(|package| package.starts_with("rustls v")) {
        bail!("`cargo tree` does not list what the binary uses");
    }
    Ok(packages)
}

fn licences(graph: &Graph, rules: &Rules) -> Vec<String> {
    let mut findings = Vec::new();
    for (id, licence) in &graph.licences {
        let name = graph.name(id);
        match licence {
            None => findings.push(format!("{name} states no licence")),
            Some(expression) if !is_permitted(expression, &rules.licences) => {
                findings.push(format!("{name} has licence {expression}"));
            }
            Some(_) => {}
        }
    }
    findings
}

/// An SPDX expression is permitted if one side of each `OR` is, and both sides of each `AND`.
fn is_permitted(expression: &str, allowed: &[String]) -> bool {
    let text = expression.trim().replace('/', " OR ");
    if let Some((left, right)) = split_outside(&text, " AND ") {
        return is_permitted(&left, allowed) && is_permitted(&right, allowed);
    }
    if let Some((left, right)) = split_outside(&text, " OR ") {
        return is_permitted(&left, allowed) || is_permitted(&right, allowed);
    }
    if let Some(inner) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        return is_permitted(inner, allowed);
    }
    allowed.iter().any(|licence| licence == text.trim())
}

fn split_outside(text: &str, separator: &str) -> Option<(String, String)> {
    let mut depth = 0_i32;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && text[at..].starts_with(separator) => {
                return Some((text[..at].to_owned(), text[at + separator.len()..].to_owned()));
            }
            _ => {}
        }
    }
    None
}

/// The nearest clippy.toml replaces the others, so those of PURE crates repeat the root's rules.
fn pure_lints(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let rules = fs::read_to_string(root.join("clippy.toml")).context("cannot read clippy.toml")?;
    let resolver = "std::net::ToSocketAddrs::to_socket_addrs";
    let wanted: Vec<&str> = rules
        .lines()
        .filter(|line| line.contains(resolver) || line.contains("threshold"))
        .collect();
    for crate_name in PURE {
        let file = root.join("crates").join(crate_name).join("clippy.toml");
        let text = fs::read_to_string(&file).unwrap_or_default();
        for line in wanted.iter().filter(|line| !text.contains(line.trim())) {
            findings.push(format!("{} lacks: {}", file.display(), line.trim()));
        }
        for forbidden in ["HashMap", "SystemTime", "std::env::var", "std::fs::read"] {
            if !text.contains(forbidden) {
                findings.push(format!("{} does not forbid {forbidden}", file.display()));
            }
        }
    }
    Ok(findings)
}

fn sources(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in rust_files(&root.join("crates"))? {
        let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {shown}"))?;
        let lines = text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!("{shown} has {lines} lines, at most {LINES_MAX}"));
        }
        let words: Vec<&str> = shown.split('/').collect();
        if let Some(src) = words.iter().position(|word| *word == "src")
            && words.len() - src - 2 > DEPTH_MAX
        {
            findings.push(format!("{shown} lies deeper than {DEPTH_MAX} folders below src"));
        }
        for word in &words {
            let stem = word.trim_end_matches(".rs");
            if EMPTY_NAMES.contains(&stem) {
                findings.push(format!("{shown}: `{stem}` says nothing about what is in it"));
            }
        }
        findings.extend(forbidden_text(&shown, &text));
    }
    Ok(findings)
}

fn forbidden_text(shown: &str, text: &str) -> Vec<String> {
    // Spelt in two halves, or this file would find itself.
    let anywhere = [["FIX", "ME"].concat(), ["TO", "DO:"].concat(), ["#[al", "low("].concat()];
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in anywhere.iter().filter(|word| line.contains(word.as_str())) {
            findings.push(format!("{shown}:{}: contains {word}", number + 1));
        }
        let is_agent = shown.starts_with("crates/agent/src/") && !shown.ends_with("/root.rs");
        let is_comment = line.trim_start().starts_with("//");
        if is_agent && !is_comment && line.contains("\"/controller/") {
            findings.push(format!("{shown}:{}: a path of the pod outside root.rs", number + 1));
        }
    }
    findings
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut queue = vec![directory.to_path_buf()];
    while let Some(directory) = queue.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let path =
                entry.with_context(|| format!("cannot list {}", directory.display()))?.path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{forbidden_text, is_permitted, run};

    #[test]
    fn the_workspace_is_tidy() {
        run().expect("tidy has findings");
    }

    #[test]
    fn a_choice_of_licences_needs_one_permitted_side_and_a_conjunction_both() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned);
        let permitted = |expression| is_permitted(expression, &allowed);
        assert!(permitted("MIT OR GPL-3.0"));
        assert!(permitted("MIT/Apache-2.0"));
        assert!(permitted("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!permitted("GPL-3.0"));
        assert!(!permitted("MIT AND GPL-3.0"));
    }

    #[test]
    fn a_path_of_the_pod_is_found_outside_its_one_place() {
        let line = "let path = \"/controller/run\";";
        assert_eq!(forbidden_text("crates/agent/src/logs.rs", line).len(), 1);
        assert!(forbidden_text("crates/agent/src/root.rs", line).is_empty());
    }
}
