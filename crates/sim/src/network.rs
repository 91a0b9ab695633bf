//! Who can send to whom, how long it takes, and what gets lost. Cuts have a direction.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Micros, random::Random};

/// An end of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    /// kube-apiserver and its etcd.
    Api,
    /// Where the clients run.
    Clients,
    /// Where the operator runs.
    Operator,
    /// A machine with database pods.
    Machine(usize),
}

/// The network between machines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    /// Directed: the first cannot send to the second.
    cuts: BTreeSet<(Node, Node)>,
    /// Additional delay of one machine's traffic.
    slow: BTreeMap<Node, Micros>,
    /// Messages lost, per mille, while no cut is there.
    pub(crate) loss: u64,
}

impl Network {
    pub(crate) fn cut(&mut self, from: Node, to: Node) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn cut_both(&mut self, a: Node, b: Node) {
        self.cut(a, b);
        self.cut(b, a);
    }

    pub(crate) fn heal(&mut self, from: Node, to: Node) {
        self.cuts.remove(&(from, to));
    }

    pub(crate) fn heal_all(&mut self) {
        self.cuts.clear();
        self.slow.clear();
        self.loss = 0;
    }

    pub(crate) fn slow(&mut self, node: Node, by: Micros) {
        if by == 0 {
            self.slow.remove(&node);
        } else {
            self.slow.insert(node, by);
        }
    }

    pub(crate) fn open(&self, from: Node, to: Node) -> bool {
        self.cuts.is_empty() || !self.cuts.contains(&(from, to))
    }

    /// Travel time of one message.
    pub(crate) fn delay(&self, random: &mut Random, from: Node, to: Node) -> Micros {
        let base = if from == to { random.between(20, 80) } else { random.between(150, 1200) };
        let tail = if random.chance(5) { random.millis(5, 120) } else { 0 };
        let slow = [from, to]
            .iter()
            .filter_map(|node| self.slow.get(node))
            .map(|&by| random.between(by / 2, by))
            .sum::<u64>();
        base + tail + slow
    }

    /// Is this one message lost although nothing is cut?
    pub(crate) fn loses(&self, random: &mut Random) -> bool {
        self.loss > 0 && random.chance(self.loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_has_a_direction() {
        let mut network = Network::default();
        network.cut(Node::Machine(0), Node::Api);
        assert!(!network.open(Node::Machine(0), Node::Api));
        assert!(network.open(Node::Api, Node::Machine(0)));
        network.heal(Node::Machine(0), Node::Api);
        assert!(network.open(Node::Machine(0), Node::Api));
    }
}
