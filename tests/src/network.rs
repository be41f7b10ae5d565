//! Nodes of a network on this machine: Linux network namespaces at one switch, which vanish
//! with this process. Needs root, and the programs `unshare`, `nsenter` and `ip`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use crate::process::Guard;

/// The network's addresses are this one with another last byte. It is nobody else's: the
/// switch stands in a namespace of its own, too.
const NET: [u8; 3] = [10, 77, 0];

/// Last byte of the first node's address.
const FIRST: u8 = 10;

/// A switch and the nodes at it.
#[derive(Debug)]
pub struct Network {
    switch: Namespace,
    nodes: Vec<Namespace>,
}

impl Network {
    /// A network of so many nodes that reach each other.
    ///
    /// # Errors
    /// Why there can be none here: tests that need one are then to be skipped.
    pub fn new(nodes: u8) -> Result<Self, String> {
        let switch = Namespace::new()?;
        switch.ip("link add switch type bridge")?;
        switch.ip("link set switch up")?;
        let mut network = Self { switch, nodes: Vec::new() };
        for index in 0..nodes {
            let node = Namespace::new()?;
            let (port, id) = (port(index.into()), node.holder.id());
            network.switch.ip(&format!("link add {port} type veth peer name eth0 netns {id}"))?;
            network.switch.ip(&format!("link set {port} master switch"))?;
            network.switch.ip(&format!("link set {port} up"))?;
            node.ip(&format!("addr add {}/24 dev eth0", address(index.into())))?;
            node.ip("link set eth0 up")?;
            node.ip("link set lo up")?;
            network.nodes.push(node);
        }
        Ok(network)
    }

    /// The words before a command that make it run on a node.
    #[must_use]
    pub fn enter(&self, node: usize) -> Vec<OsString> {
        self.nodes[node].enter()
    }

    /// Cuts a node off from all others.
    pub fn cut(&self, node: usize) {
        self.switch.ip(&format!("link set {} down", port(node))).unwrap();
    }

    /// Brings it back.
    pub fn mend(&self, node: usize) {
        self.switch.ip(&format!("link set {} up", port(node))).unwrap();
    }
}

/// A node's address.
#[must_use]
pub fn address(node: usize) -> IpAddr {
    let [a, b, c] = NET;
    Ipv4Addr::new(a, b, c, FIRST + u8::try_from(node).unwrap()).into()
}

/// The switch's port for a node.
fn port(node: usize) -> String {
    format!("port{node}")
}

/// A network namespace, held by a process that ends with this one.
#[derive(Debug)]
struct Namespace {
    holder: Guard,
}

impl Namespace {
    fn new() -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("no network namespaces: unshare: {error}");
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; read -r line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let mut holder = Guard::from(child);
        let mut line = String::new();
        let stdout = holder.child().stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        if line == "ready\n" {
            Ok(Self { holder })
        } else {
            Err("no network namespaces: not root".into())
        }
    }

    fn enter(&self) -> Vec<OsString> {
        vec!["nsenter".into(), format!("--net=/proc/{}/ns/net", self.holder.id()).into()]
    }

    /// Runs `ip` there.
    fn ip(&self, arguments: &str) -> Result<(), String> {
        let output = crate::process::entering(&self.enter(), "ip")
            .args(arguments.split(' '))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("no network namespaces: nsenter: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(format!("no network namespaces: ip {arguments}: {}", why.trim()))
    }
}
