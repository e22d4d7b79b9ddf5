//! The thread that compresses, seals and writes groups while the next message is fetched and taken apart.
//!
//! Orders are done one after the other, as they came. After an error nothing more is written: the error is the answer
//! to the next [`Worker::sync`], and without a sync nothing counts as stored.

use super::{
    StoreError, StoreResult,
    appender::{Appender, Synced},
    format::{
        group::{Class, Filling},
        pack::ChunkId,
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// Groups that wait at most: whoever brings more waits. A group has about 1 MiB, at most little more than 4 MiB.
const QUEUE: usize = 4;

/// Chunks that go into one frame.
pub(crate) struct Group {
    pub(crate) ids: Vec<ChunkId>,
    pub(crate) filling: Filling,
    pub(crate) class: Class,
}

enum Order {
    Append(Group),
    Sync(SyncSender<StoreResult<Synced>>),
    Leave,
}

/// The thread, seen from outside. It ends when this is dropped; what was not synced then is nowhere promised.
pub(crate) struct Worker {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<AtomicBool>,
}

impl Worker {
    pub(crate) fn start(appender: Appender) -> StoreResult<Self> {
        let (orders, todo) = sync_channel(QUEUE);
        let failed = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&failed);
        let thread = thread::Builder::new().name("packs".to_owned()).spawn(move || work(appender, &todo, &tell));
        let thread = thread.map_err(|error| StoreError::Failed(format!("no thread can be started: {error}")))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), failed })
    }

    /// Gives a group to be written.
    pub(crate) fn append(&mut self, group: Group) -> StoreResult<()> {
        if self.failed.load(Ordering::Acquire) {
            // Told now, not after everything else of the batch was fetched.
            return self.sync().and_then(|_| Err(gone()));
        }
        self.order(Order::Append(group))
    }

    /// Waits until everything given is on stable storage.
    pub(crate) fn sync(&mut self) -> StoreResult<Synced> {
        let (answer, answered) = sync_channel(1);
        self.order(Order::Sync(answer))?;
        answered.recv().map_err(|_| gone())?
    }

    /// Leaves the open pack as it is; see [`Appender::leave`].
    pub(crate) fn leave(&mut self) -> StoreResult<()> {
        self.order(Order::Leave)
    }

    fn order(&self, order: Order) -> StoreResult<()> {
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send(order).map_err(|_| gone())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported as an error to whoever waited for its answer.
            let _ = thread.join();
        }
    }
}

fn gone() -> StoreError {
    StoreError::Failed("writing to packs ended early".to_owned())
}

fn work(mut appender: Appender, todo: &Receiver<Order>, tell: &AtomicBool) {
    let mut failure: Option<StoreError> = None;
    while let Ok(order) = todo.recv() {
        match order {
            Order::Append(mut group) if !tell.load(Ordering::Acquire) => {
                let done = appender.append(&group.ids, group.filling.encode(), group.class);
                if let Err(error) = done {
                    failure = Some(error);
                    tell.store(true, Ordering::Release);
                }
            }
            Order::Append(_) => {}
            Order::Leave => appender.leave(),
            Order::Sync(answer) => {
                let result = match failure.take() {
                    Some(error) => Err(error),
                    None if tell.load(Ordering::Acquire) => Err(gone()),
                    None => appender.sync(),
                };
                tell.fetch_or(result.is_err(), Ordering::AcqRel);
                // Nobody waits any more where the receiver is gone.
                let _ = answer.send(result);
            }
        }
    }
}
