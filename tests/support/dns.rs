//! A DNS server on loopback: A, CNAME and MX from a table, over UDP (RFC 1035 §4).

use anyhow::{Context as _, Result};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// A record's data.
#[derive(Debug, Clone)]
pub enum Data {
    A(Ipv4Addr),
    Cname(&'static str),
    Mx(u16, &'static str),
}

impl Data {
    fn kind(&self) -> u16 {
        match self {
            Self::A(_) => 1,
            Self::Cname(_) => 5,
            Self::Mx(..) => 15,
        }
    }

    fn octets(&self) -> Vec<u8> {
        match self {
            Self::A(ip) => ip.octets().to_vec(),
            Self::Cname(name) => encoded(name),
            Self::Mx(preference, name) => [preference.to_be_bytes().to_vec(), encoded(name)].concat(),
        }
    }
}

/// Names, lower case without the dot at the end, and what they have.
pub type Table = Vec<(&'static str, Data)>;

/// The server; stops when dropped.
pub struct Dns {
    pub address: SocketAddr,
    table: Arc<Mutex<Table>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    pub fn start(address: SocketAddr, table: Table) -> Result<Self> {
        let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let (table, stop) = (Arc::new(Mutex::new(table)), Arc::new(AtomicBool::new(false)));
        let (known, stopping) = (Arc::clone(&table), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut question = [0; 512];
            while !stopping.load(Ordering::Relaxed) {
                let Ok((len, peer)) = socket.recv_from(&mut question) else { continue };
                let table = known.lock().map(|table| table.clone()).unwrap_or_default();
                if let Some(answer) = answer(&question[..len], &table) {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Ok(Self { address, table, stop, thread: Some(thread) })
    }

    /// Switches to another table.
    pub fn set(&self, table: Table) {
        if let Ok(mut known) = self.table.lock() {
            *known = table;
        }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(question: &[u8], table: &Table) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let len = usize::from(*question.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + len)?).to_ascii_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let asked = question.get(12..at + 4)?;
    let mut name = labels.join(".");
    let mut records = Vec::new();
    // Aliases first, then what was asked for.
    while let Some((_, alias)) = table.iter().find(|(n, d)| *n == name && matches!(d, Data::Cname(_))) {
        records.push((name.clone(), alias));
        let Data::Cname(next) = alias else { break };
        name = (*next).to_owned();
    }
    records.extend(table.iter().filter(|(n, d)| *n == name && d.kind() == kind).map(|(n, d)| ((*n).to_owned(), d)));
    let exists = !records.is_empty() || table.iter().any(|(n, _)| *n == name);
    let mut out = question.get(..2)?.to_vec();
    // An authoritative answer; recursion is offered, or stub resolvers complain.
    out.extend([0x85, if exists { 0x80 } else { 0x83 }, 0, 1]);
    out.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(asked);
    for (owner, data) in records {
        let octets = data.octets();
        out.extend(encoded(&owner));
        out.extend(data.kind().to_be_bytes());
        // Class IN, no caching.
        out.extend([0, 1, 0, 0, 0, 0]);
        out.extend(u16::try_from(octets.len()).ok()?.to_be_bytes());
        out.extend(octets);
    }
    Some(out)
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let counted = labels.flat_map(|label| [&[u8::try_from(label.len()).unwrap_or(63)], label.as_bytes()].concat());
    counted.chain([0]).collect()
}
