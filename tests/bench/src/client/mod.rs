//! The load: a sender that keeps its connections and a drainer that checks every octet. Threads and blocking sockets,
//! so that the load itself costs little of the machine it shares with what it measures.

mod connection;
pub(crate) mod pop3;
pub(crate) mod smtp;

pub(crate) use connection::Connection;
