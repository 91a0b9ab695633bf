//! The network: a namespace for each machine, and a bridge between them.

use std::process::Command;

use anyhow::{Context, Result};

use super::cluster::{Cluster, MACHINES, Machine, PODS};
use crate::command;

/// The bridge that all machines are on.
pub const BRIDGE: &str = "matriarch0";

/// Makes what is missing.
pub fn make(cluster: &Cluster) -> Result<()> {
    if !exists(BRIDGE) {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    }
    let [a, b, c] = MACHINES;
    ip(&["addr", "replace", &format!("{a}.{b}.{c}.1/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    let namespaces = namespaces()?;
    for machine in cluster.machines() {
        if !namespaces.contains(&machine.namespace()) {
            make_machine(machine)?;
        }
    }
    for machine in cluster.nodes() {
        if let Some(pods) = machine.pods() {
            ip(&["route", "replace", &pods, "via", &machine.address().to_string()])?;
        }
    }
    for from in cluster.machines() {
        for to in cluster.nodes().filter(|to| *to != from) {
            let Some(pods) = to.pods() else { continue };
            let (namespace, via) = (from.namespace(), to.address().to_string());
            ip(&["-n", &namespace, "route", "replace", &pods, "via", &via])?;
        }
    }
    Ok(())
}

fn make_machine(machine: Machine) -> Result<()> {
    let (namespace, link) = (machine.namespace(), machine.link());
    let [a, b, c] = MACHINES;
    ip(&["netns", "add", &namespace])?;
    ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
    ip(&["link", "set", &link, "master", BRIDGE, "up"])?;
    let address = format!("{}/24", machine.address());
    ip(&["-n", &namespace, "addr", "add", &address, "dev", "eth0"])?;
    ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
    ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
    // Addresses of Services have no route of their own, and kube-proxy comes after routing.
    ip(&["-n", &namespace, "route", "add", "default", "via", &format!("{a}.{b}.{c}.1")])?;
    let mut settings = enter(machine);
    settings.args(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
    settings.arg("net.ipv4.conf.all.route_localnet=1");
    command::run_quietly(&mut settings)?;
    Ok(())
}

/// Takes a machine off the network, or puts it back: its programs run on.
pub fn connect(machine: Machine, connected: bool) -> Result<()> {
    ip(&["link", "set", &machine.link(), if connected { "up" } else { "down" }])
}

/// True if the machine's cable is in; none if it has no cable.
pub fn connected(machine: Machine) -> Option<bool> {
    let mut show = Command::new("ip");
    let said = command::run_quietly(show.args(["-o", "link", "show", &machine.link()])).ok()?;
    let flags = said.split_once('<')?.1.split_once('>')?.0;
    Some(flags.split(',').any(|flag| flag == "UP"))
}

/// A command that starts what follows in a machine's network namespace, with the files of this
/// machine. `ip netns exec` would hide the control groups.
pub fn enter(machine: Machine) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", machine.namespace()));
    command
}

/// Removes a machine's namespace, and with it its link.
pub fn remove_machine(machine: Machine) -> Result<()> {
    if exists(&machine.link()) {
        ip(&["link", "del", &machine.link()])?;
    }
    if namespaces()?.contains(&machine.namespace()) {
        ip(&["netns", "del", &machine.namespace()])?;
    }
    Ok(())
}

/// Removes all that is left of any cluster: also of one with more nodes. Its routes go with the
/// bridge; iptables' rules are in the namespaces alone.
pub fn remove_all() -> Result<()> {
    for link in links()? {
        ip(&["link", "del", &link])?;
    }
    for namespace in our_namespaces()? {
        ip(&["netns", "del", &namespace])?;
    }
    Ok(())
}

/// The links of the cluster on this machine.
pub fn links() -> Result<Vec<String>> {
    let said = command::run_quietly(Command::new("ip").args(["-o", "link", "show"]))?;
    let names = said.lines().filter_map(|line| line.split(": ").nth(1));
    let names = names.map(|name| name.split('@').next().unwrap_or(name).to_owned());
    Ok(names.filter(|name| name == BRIDGE || name.starts_with("mk-")).collect())
}

/// The routes to the cluster's pods and machines on this machine.
pub fn routes() -> Result<Vec<String>> {
    let said = command::run_quietly(Command::new("ip").args(["-4", "route", "show"]))?;
    let ([a, b, c], [d, e]) = (MACHINES, PODS);
    let ours = [format!("{a}.{b}.{c}."), format!("{d}.{e}.")];
    let lines = said.lines().filter(|line| ours.iter().any(|start| line.starts_with(start)));
    Ok(lines.map(|line| line.trim().to_owned()).collect())
}

/// The namespaces of the cluster's machines.
pub fn our_namespaces() -> Result<Vec<String>> {
    Ok(namespaces()?.into_iter().filter(|name| name.starts_with("matriarch-")).collect())
}

fn namespaces() -> Result<Vec<String>> {
    let said = command::run_quietly(Command::new("ip").args(["netns", "list"]))?;
    let names = said.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

fn exists(link: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(link).exists()
}

fn ip(words: &[&str]) -> Result<()> {
    command::run_quietly(Command::new("ip").args(words)).context("the network cannot be set up")?;
    Ok(())
}
