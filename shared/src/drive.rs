//! Pumps a [`Machine`] over a byte stream with deadlines: the only loop between a protocol and a socket.

use crate::wire::{Drained, Machine, Step};
use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, timeout},
};

/// Output collected before it is written, so that pipelined replies share a packet.
const OUTPUT: usize = 32 * 1024;
/// Octets read at once.
const INPUT: usize = 64 * 1024;
/// Output memory that an idle session keeps.
const KEPT: usize = 1024;

/// A byte stream: a TCP connection or a TLS one.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A machine on a stream.
pub struct Driver<M> {
    /// The protocol; the session answers its events here.
    pub machine: M,
    stream: Box<dyn Stream>,
    output: Vec<u8>,
    read_deadline: Duration,
    write_deadline: Duration,
    step_deadline: Option<Duration>,
    /// When the machine last did anything but ask for input.
    stepped: Instant,
    received: u64,
}

/// What the session has to handle.
#[derive(Debug)]
pub enum Driven<E> {
    /// Answer by the machine's method, then ask again.
    Event(E),
    /// Everything is flushed; call [`Driver::upgrade`].
    StartTls(Drained),
    /// The machine ended the session; everything is flushed.
    Close,
}

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriveError<E> {
    /// The protocol failed.
    #[error(transparent)]
    Machine(E),
    /// The connection failed, or ended where it must not.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The peer sent or took nothing in time.
    #[error("the peer was silent for too long")]
    Deadline,
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
}

impl<M: Machine> Driver<M> {
    /// Puts `machine` on `stream`. The deadlines bound one read and one write each.
    pub fn new(machine: M, stream: Box<dyn Stream>, read_deadline: Duration, write_deadline: Duration) -> Self {
        let (output, stepped) = (Vec::new(), Instant::now());
        Self { machine, stream, output, read_deadline, write_deadline, step_deadline: None, stepped, received: 0 }
    }

    /// Changes how long one read may take.
    pub fn set_read_deadline(&mut self, deadline: Duration) {
        self.read_deadline = deadline;
    }

    /// Bounds the time until the machine does something, however the peer spreads its octets: a command sent letter
    /// by letter does not last for ever. `None`: each read has its own deadline only.
    pub fn set_step_deadline(&mut self, deadline: Option<Duration>) {
        self.step_deadline = deadline;
    }

    /// Octets received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Runs the machine until the session has something to do. May be dropped while it waits and called again.
    ///
    /// # Errors
    /// [`DriveError`]; the connection is then only good for dropping.
    pub async fn next(&mut self) -> Result<Driven<M::Event>, DriveError<M::Error>> {
        loop {
            let step = self.machine.next().map_err(DriveError::Machine)?;
            if !matches!(step, Step::NeedInput) {
                self.stepped = Instant::now();
            }
            match step {
                Step::Event(event) => return Ok(Driven::Event(event)),
                Step::Send(bytes) => {
                    self.output.extend_from_slice(&bytes);
                    if self.output.len() >= OUTPUT {
                        self.flush().await?;
                    }
                }
                Step::NeedInput => {
                    self.flush().await?;
                    self.read().await?;
                }
                Step::StartTls(proof) => {
                    self.flush().await?;
                    return Ok(Driven::StartTls(proof));
                }
                Step::Close => {
                    self.flush().await?;
                    return Ok(Driven::Close);
                }
            }
        }
    }

    /// Writes what the machine wants sent, without reading; for a session that produces a long answer in pieces.
    /// Dropped half-way, it has forgotten exactly what it wrote: no octet goes out twice.
    ///
    /// # Errors
    /// [`DriveError::Io`] or [`DriveError::Deadline`].
    pub async fn flush(&mut self) -> Result<(), DriveError<M::Error>> {
        if self.output.is_empty() {
            return Ok(());
        }
        let write = async {
            while !self.output.is_empty() {
                match self.stream.write(&self.output).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => drop(self.output.drain(..count)),
                }
            }
            self.stream.flush().await
        };
        timeout(self.write_deadline, write).await.map_err(|_| DriveError::Deadline)??;
        // An idle session must not hold the memory of its longest answer.
        if self.output.capacity() > KEPT {
            self.output = Vec::new();
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), DriveError<M::Error>> {
        let left = self.step_deadline.map(|deadline| deadline.saturating_sub(self.stepped.elapsed()));
        let deadline = left.map_or(self.read_deadline, |left| left.min(self.read_deadline));
        let Self { machine, stream, .. } = self;
        let read = poll_fn(|context| {
            // On the stack of this call, not in the session: one that waits holds no buffer.
            let mut octets = [const { MaybeUninit::<u8>::uninit() }; INPUT];
            let mut buffer = ReadBuf::uninit(&mut octets);
            let read = Pin::new(&mut *stream).poll_read(context, &mut buffer);
            // What TLS itself has to say is said now and not with our next octets, or a peer whose wish for a new
            // handshake is refused would wait for the answer until its deadline.
            if read.is_pending()
                && let Poll::Ready(Err(error)) = Pin::new(&mut *stream).poll_flush(context)
            {
                return Poll::Ready(Err(error));
            }
            ready!(read)?;
            machine.input(buffer.filled());
            io::Result::Ok(buffer.filled().len()).into()
        });
        match timeout(deadline, read).await.map_err(|_| DriveError::Deadline)?? {
            0 => Err(DriveError::Closed),
            count => {
                self.received += count as u64;
                Ok(())
            }
        }
    }

    /// Replaces the clear stream by the TLS stream that `handshake` makes of it. The proof came with
    /// [`Driven::StartTls`]; without it no upgrade can be written.
    ///
    /// # Errors
    /// What the handshake gives.
    pub async fn upgrade<F, R, S>(self, _proof: Drained, handshake: F) -> io::Result<Self>
    where
        // Not AsyncFnOnce: a session that holds one is not Send in the eyes of today's compiler.
        F: FnOnce(Box<dyn Stream>) -> R,
        R: Future<Output = io::Result<S>>,
        S: Stream + 'static,
    {
        let Self { machine, stream, output, read_deadline, write_deadline, step_deadline, stepped, received } = self;
        let stream = Box::new(handshake(stream).await?);
        Ok(Self { machine, stream, output, read_deadline, write_deadline, step_deadline, stepped, received })
    }

    /// Ends the connection in order (close_notify, FIN).
    pub async fn shutdown(mut self) {
        // The peer may be gone already; there is nobody left to tell.
        let _ = timeout(Duration::from_secs(2), self.stream.shutdown()).await;
    }
}
