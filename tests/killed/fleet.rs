//! One or more nodes on one database, killed and started again.

use std::time::Duration;

use tokio::sync::watch;

use crate::binary::{Daemon, Installation};
use crate::support::DIRECTORY;

/// The nodes, and who sends to and receives from them.
pub struct Fleet {
    pub installation: Installation,
    pub sending_key: String,
    pub receiving_key: String,
    pub kills: u32,
    /// How a node starts.
    serve: fn(&Installation) -> Daemon,
    nodes: Vec<Daemon>,
    addresses: watch::Sender<Vec<String>>,
}

impl Fleet {
    /// Starts `nodes` on the database of `settings`. They share a folder, and
    /// so keys and certificate, as nodes of one installation do.
    pub fn start(settings: &str, nodes: usize) -> Self {
        Self::in_place(Installation::new(settings), nodes, DIRECTORY)
    }

    /// One node whose disk can be made full.
    pub fn bounded() -> Self {
        Self::made(
            Installation::new(""),
            1,
            DIRECTORY,
            Installation::serve_bounded,
        )
    }

    /// The same, in a folder that holds what `directory` refers to.
    pub fn in_place(installation: Installation, nodes: usize, directory: &str) -> Self {
        Self::made(installation, nodes, directory, Installation::serve)
    }

    fn made(
        installation: Installation,
        nodes: usize,
        directory: &str,
        serve: fn(&Installation) -> Daemon,
    ) -> Self {
        installation.write("directory.toml", directory);
        installation.yes(&["apply", "directory.toml"]);
        let issue = |party: &str| {
            let key = installation.yes(&["key", "issue", "--party", party]);
            key.trim().to_owned()
        };
        let (sending_key, receiving_key) = (issue("adp"), issue("arbo-noord"));
        let nodes: Vec<Daemon> = (0..nodes).map(|_| serve(&installation)).collect();
        let addresses = nodes.iter().map(|node| node.url.clone()).collect();
        Self {
            sending_key,
            receiving_key,
            kills: 0,
            serve,
            nodes,
            addresses: watch::Sender::new(addresses),
            installation,
        }
    }

    /// Where the nodes listen now; a dead one stays in the list until it is
    /// started again.
    pub fn addresses(&self) -> watch::Receiver<Vec<String>> {
        self.addresses.subscribe()
    }

    /// SIGKILL to a node, and another one in its place.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
        self.kills += 1;
        self.put(node, (self.serve)(&self.installation));
    }

    /// Nothing more goes on the disk of a node, not even in place of what is
    /// there.
    pub fn fill_disk(&self, node: usize) {
        self.nodes[node].let_files_grow(Some(0));
    }

    /// There is room again.
    pub fn make_room(&self, node: usize) {
        self.nodes[node].let_files_grow(None);
    }

    /// Puts nodes in place that die at `place:n`, one after the other, and one
    /// that lives at the end.
    pub fn kill_at(&mut self, node: usize, places: &[String]) {
        self.nodes[node].kill();
        for place in places {
            self.revive(node, place);
            let died = self.nodes[node].died(Duration::from_secs(30));
            assert!(died, "{place} was never passed");
            self.kills += 1;
        }
        self.revive(node, "");
    }

    fn revive(&mut self, node: usize, place: &str) {
        self.put(node, self.installation.serve_dying(place));
    }

    fn put(&mut self, node: usize, daemon: Daemon) {
        self.nodes[node] = daemon;
        let url = self.nodes[node].url.clone();
        self.addresses.send_modify(|list| list[node] = url);
    }

    /// Stops the nodes in an orderly way.
    pub fn stop(self) {
        for node in self.nodes {
            assert_eq!(node.stop().0, 0);
        }
    }
}
