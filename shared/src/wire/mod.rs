//! The sans-IO contract: a protocol machine takes bytes and gives steps, and never sees a socket, a clock or a file.
//!
//! Because nothing here waits, a client machine and a server machine can talk to each other in a test without a
//! port, and every protocol test can be fed in one gulp, byte by byte, or in random cuts.

mod dots;
mod input;

pub use dots::{Decoded, DotDecoder, DotEncoder};
pub use input::{Drained, Input, LineError, NotDrained};

/// A protocol endpoint without input or output of its own.
pub trait Machine {
    /// What the session around the machine has to do or decide.
    type Event;
    /// A failure after which the connection can only be closed.
    type Error;

    /// Gives the machine bytes that arrived.
    fn input(&mut self, bytes: &[u8]);

    /// The next step; never blocks, never asks the time. After [`Step::Event`] the session must answer the machine
    /// (by the method the event's documentation names) before it asks for another step.
    ///
    /// # Errors
    /// The machine's own error; nothing more may be asked of it then.
    fn next(&mut self) -> Result<Step<Self::Event>, Self::Error>;
}

/// What a [`Machine`] wants next.
#[derive(Debug)]
pub enum Step<E> {
    /// Nothing to do until more bytes arrive.
    NeedInput,
    /// These bytes go to the peer, in this order.
    Send(Vec<u8>),
    /// Everything sent so far is flushed, then the connection becomes a TLS one. The proof shows that no byte of
    /// the clear-text phase is left (RFC 3207 §6, CVE-2011-0411).
    StartTls(Drained),
    /// The session has to do something.
    Event(E),
    /// Flush, then close.
    Close,
}
