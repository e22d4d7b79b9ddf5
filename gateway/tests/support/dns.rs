//! A DNS server on loopback: answers TXT, A, AAAA, MX, PTR and whatever else is given as octets over UDP from a table (RFC 1035 §4). For tests.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};
use tokio::{net::UdpSocket, task::JoinHandle};

const NAME_ERROR: u8 = 3;
const SERVER_FAILURE: u8 = 2;

/// A record's data.
#[derive(Clone)]
pub(crate) enum Data {
    Txt(Vec<String>),
    Address(IpAddr),
    Mx(u16, &'static str),
    Ptr(&'static str),
    /// Type and octets.
    Raw(u16, Vec<u8>),
}

/// One line of the table.
#[derive(Clone)]
pub(crate) struct Line {
    /// Lower case, without the dot at the end.
    pub name: String,
    /// Seconds.
    pub ttl: u32,
    pub data: Data,
}

/// The server; stops when dropped.
pub(crate) struct Server {
    pub address: SocketAddr,
    pub table: Arc<Mutex<Vec<Line>>>,
    /// Questions received.
    pub asked: Arc<AtomicU32>,
    /// Says nothing at all.
    pub silent: Arc<AtomicBool>,
    /// Answers everything with a server failure.
    pub sick: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(table: Vec<Line>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let address = socket.local_addr().expect("address");
        let table = Arc::new(Mutex::new(table));
        let (asked, silent, sick) = (Arc::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (lines, count): (_, Arc<AtomicU32>) = (Arc::clone(&table), Arc::clone(&asked));
        let (mute, ill) = (Arc::clone(&silent), Arc::clone(&sick));
        let task = tokio::spawn(async move {
            let mut packet = [0_u8; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                count.fetch_add(1, Ordering::SeqCst);
                if mute.load(Ordering::SeqCst) {
                    continue;
                }
                let lines = lines.lock().expect("not poisoned").clone();
                if let Some(reply) = answer(&packet[..length], &lines, ill.load(Ordering::SeqCst)) {
                    socket.send_to(&reply, peer).await.expect("sends");
                }
            }
        });
        Self { address, table, asked, silent, sick, task }
    }

    pub(crate) fn questions(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(query: &[u8], table: &[Line], sick: bool) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let name = labels.join(".");
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    let question = query.get(12..at + 4)?;
    let of_name: Vec<&Line> = table.iter().filter(|line| line.name == name).collect();
    let answers: Vec<Vec<u8>> = of_name.iter().filter_map(|line| record(line, kind)).collect();
    let code = match (sick, of_name.is_empty()) {
        (true, _) => SERVER_FAILURE,
        (false, true) => NAME_ERROR,
        (false, false) => 0,
    };
    let count = if sick { 0 } else { u16::try_from(answers.len()).ok()? };
    let mut reply = query.get(..2)?.to_vec();
    // QR, AA, RD, RA.
    reply.extend([0x85, 0x80 | code]);
    reply.extend(1_u16.to_be_bytes());
    reply.extend(count.to_be_bytes());
    reply.extend([0; 4]);
    reply.extend(question);
    reply.extend(answers.iter().take(usize::from(count)).flatten());
    Some(reply)
}

fn record(line: &Line, wanted: u16) -> Option<Vec<u8>> {
    let (kind, data): (u16, Vec<u8>) = match &line.data {
        Data::Address(IpAddr::V4(ip)) => (1, ip.octets().to_vec()),
        Data::Address(IpAddr::V6(ip)) => (28, ip.octets().to_vec()),
        Data::Ptr(name) => (12, encoded(name)),
        Data::Mx(preference, name) => (15, [preference.to_be_bytes().to_vec(), encoded(name)].concat()),
        Data::Raw(kind, octets) => (*kind, octets.clone()),
        Data::Txt(texts) => (16, texts.iter().flat_map(|text| counted(text)).collect()),
    };
    if kind != wanted {
        return None;
    }
    // The name of the question, by pointer.
    let mut octets = vec![0xc0, 12];
    octets.extend(kind.to_be_bytes());
    octets.extend([0, 1]);
    octets.extend(line.ttl.to_be_bytes());
    octets.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
    octets.extend(data);
    Some(octets)
}

fn counted(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("at most 255")], text.as_bytes()].concat()
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty()).flat_map(counted);
    labels.chain([0]).collect()
}
