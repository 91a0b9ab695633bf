//! Clients that write all the time through the endpoint they see, and remember every answer.

use crate::{
    Micros, SECOND,
    network::Node,
    postgres::Pending,
    story,
    wal::{Commit, Place},
    world::{Event, World},
};

/// A client gives up a connection that has not answered for so long.
const CLIENT_TIMEOUT: Micros = 2 * SECOND;

/// One client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    connection: Option<(usize, u64)>,
    waiting: Option<(Commit, Micros)>,
}

/// A commit of which a client was told.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) commit: Commit,
    pub(crate) place: Place,
    pub(crate) at: Micros,
    /// w of the quorum that the Lease showed then; 0 when it promised nothing.
    pub(crate) promised: usize,
}

/// All clients of a world with their common record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients {
    pub(crate) all: Vec<Client>,
    /// Where the service leads new connections: what the proxies have seen of the endpoint.
    pub(crate) route: Option<usize>,
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) last_answer: Micros,
    /// Write at a high rate until then.
    pub(crate) busy_until: Micros,
    pub(crate) stopped: bool,
}

impl World {
    pub(crate) fn start_clients(&mut self, count: usize) {
        self.clients.all = vec![Client::default(); count];
        for client in 0..count {
            let at = self.random.millis(0, 500);
            self.after(at, Event::ClientTick { client });
        }
    }

    pub(crate) fn client_tick(&mut self, client: usize) {
        if self.clients.stopped {
            return;
        }
        let again = if self.now < self.clients.busy_until {
            self.random.millis(15, 60)
        } else {
            self.random.millis(200, self.swarm.write_interval)
        };
        self.after(again, Event::ClientTick { client });
        let now = self.now;
        let route = self.clients.route;
        let Some(one) = self.clients.all.get_mut(client) else { return };
        if let Some((_, since)) = one.waiting {
            if now.saturating_sub(since) < CLIENT_TIMEOUT {
                return;
            }
            one.waiting = None;
            one.connection = None;
        }
        let target = match one.connection {
            Some(open) => Some(open),
            None => route.and_then(|pod| self.server(pod).map(|server| (pod, server.run))),
        };
        let Some((pod, run)) = target else { return };
        let node = self.node_of(pod);
        if !self.network.open(Node::Clients, node) || !self.network.open(node, Node::Clients) {
            if let Some(one) = self.clients.all.get_mut(client) {
                one.waiting = Some((0, now));
            }
            return;
        }
        let connected = self.clients.all[client].connection.is_some();
        let accepts = !self.pod_frozen(pod)
            && self.server(pod).is_some_and(|server| {
                server.run == run && server.takes_writes() && (connected || !server.frozen)
            });
        if !accepts && !self.pod_frozen(pod) {
            self.clients.all[client].connection = None;
            return;
        }
        self.commits += 1;
        let commit = self.commits;
        self.clients.all[client].connection = Some((pod, run));
        self.clients.all[client].waiting = Some((commit, now));
        let delay = self.network.delay(&mut self.random, Node::Clients, node);
        self.after(delay, Event::ClientRequest { client, pod, run, commit });
    }

    pub(crate) fn client_request(&mut self, client: usize, pod: usize, run: u64, commit: Commit) {
        let bytes = if self.random.chance(self.swarm.large_writes) {
            self.random.between(20_000, 900_000)
        } else {
            self.random.between(80, 8000)
        };
        let taken = self.server(pod).is_some_and(|server| server.run == run)
            && self.commit(pod, client, commit, bytes);
        if !taken {
            self.clients.all[client].connection = None;
            self.clients.all[client].waiting = None;
        }
    }

    /// PostgreSQL tells a client that its commit is done: the instant that counts.
    pub(crate) fn answer_client(&mut self, pod: usize, done: &Pending) {
        let Some(branch) = self.directory(pod).map(|directory| directory.branch) else { return };
        let place = Place { branch, lsn: done.lsn };
        self.check_acknowledgement(pod, place);
        let node = self.node_of(pod);
        if !self.network.open(node, Node::Clients) {
            return;
        }
        let delay = self.network.delay(&mut self.random, node, Node::Clients);
        let (client, commit) = (done.client, done.commit);
        let promised = self.promised_by(pod);
        self.after(delay, Event::ClientReply { client, commit, place, promised });
    }

    pub(crate) fn client_reply(
        &mut self,
        client: usize,
        commit: Commit,
        place: Place,
        promised: usize,
    ) {
        let at = self.now;
        self.clients.acknowledged.push(Acknowledged { commit, place, at, promised });
        self.clients.last_answer = at;
        let Some(one) = self.clients.all.get_mut(client) else { return };
        if one.waiting.is_some_and(|(waiting, _)| waiting == commit) {
            one.waiting = None;
        }
    }

    /// The proxies have taken the endpoint's new address; open connections stay where they are.
    pub(crate) fn proxies_see(&mut self, pod: Option<usize>) {
        if self.clients.route == pod {
            return;
        }
        self.clients.route = pod;
        story!(
            self,
            "service -rw leads to {}",
            pod.map_or("nobody".to_owned(), |pod| self.pod_name(pod))
        );
    }
}
