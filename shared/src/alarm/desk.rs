//! The task that holds the alarms of a running program, and the handle to it.
//!
//! Everything that is said comes in by a channel without limit, so saying never waits. The desk asks the engine what is
//! news, writes the file, and then delivers: one at a time to each recipient, all recipients side by side. When the file
//! cannot be written the alarms are sent all the same; that they might come again after a restart is the smaller evil.

use super::{Active, AlarmSettings, Condition, Item, Kept, Kind, Notice, Post, Queued};
use crate::{
    disk::Disk,
    mailer::{Letter, Mailer},
    run::{Shutdown, now_ms},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// How often the desk looks at the clock.
const TICK: Duration = Duration::from_millis(500);
/// Longest wait for deliveries under way when the program stops; what they carry stays in the queue.
const GOODBYE: Duration = Duration::from_secs(3);

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Name of the program.
    pub program: &'static str,
    /// Where it runs.
    pub host: String,
}

/// The handle. Cheap to clone; nothing here blocks or fails.
#[derive(Clone)]
pub struct Alarms {
    orders: mpsc::UnboundedSender<Order>,
    view: Arc<Mutex<View>>,
}

/// What lists show.
#[derive(Debug, Clone, Default)]
struct View {
    active: Vec<Active>,
    queued: Vec<Queued>,
    status_ms: Option<u64>,
}

enum Order {
    Raise(Condition),
    Clear(Kind, String),
    Replace(Kind, Vec<Condition>, Vec<String>),
    Mail(Vec<String>, Letter),
    StatusWritten(u64),
    LastWords(Instant, oneshot::Sender<()>),
    Settings(Box<(AlarmSettings, Option<Mailer>, Vec<String>)>),
}

impl Alarms {
    /// Reads what was told before and starts the desk. The caller holds the data folder's lock. `also`: mail addresses
    /// beside those of `[alarms]` that letters go to.
    #[must_use]
    pub fn start(
        settings: AlarmSettings,
        mailer: Option<Mailer>,
        also: &[String],
        who: Who,
        data_dir: &Path,
        disk: Arc<dyn Disk>,
        shutdown: Shutdown,
    ) -> (Self, JoinHandle<()>) {
        let mut kept = Kept::open(disk.as_ref(), data_dir);
        kept.outbox.wake(now_ms());
        forget_others(&mut kept, &settings, also);
        let (orders, inbox) = mpsc::unbounded_channel();
        let view = Arc::new(Mutex::new(View::default()));
        let desk = Desk {
            settings: Arc::new(settings),
            mailer,
            who: Arc::new(who),
            data_dir: data_dir.to_owned(),
            disk,
            kept,
            dirty: false,
            under_way: BTreeSet::new(),
            carriers: JoinSet::new(),
            view: Arc::clone(&view),
        };
        desk.show();
        (Self { orders, view }, tokio::spawn(desk.run(inbox, shutdown)))
    }

    /// A handle that nobody listens to.
    #[must_use]
    pub fn silent() -> Self {
        Self { orders: mpsc::unbounded_channel().0, view: Arc::default() }
    }

    /// Goes on with other settings, mailer and addresses. What is on its way to somebody who is not named any more is
    /// dropped, and what waits for the others is tried at once.
    pub fn reconfigure(&self, settings: AlarmSettings, mailer: Option<Mailer>, also: Vec<String>) {
        self.order(Order::Settings(Box::new((settings, mailer, also))));
    }

    /// Something is wrong now.
    pub fn raise(&self, condition: Condition) {
        self.order(Order::Raise(condition));
    }

    /// It is not wrong now.
    pub fn clear(&self, kind: Kind, subject: &str) {
        self.order(Order::Clear(kind, subject.to_owned()));
    }

    /// These are all conditions of this kind.
    pub fn replace(&self, kind: Kind, conditions: Vec<Condition>) {
        self.replace_but(kind, conditions, Vec::new());
    }

    /// These are all conditions of this kind, but for subjects of which nothing is known at the moment.
    pub fn replace_but(&self, kind: Kind, conditions: Vec<Condition>, unknown: Vec<String>) {
        self.order(Order::Replace(kind, conditions, unknown));
    }

    /// Mails a letter to these addresses, by the same queue. The addresses must be among those that the desk knows.
    pub fn mail(&self, to: Vec<String>, letter: Letter) {
        self.order(Order::Mail(to, letter));
    }

    /// The status mail of this moment was handed over: kept, so that a restart does not write it again.
    pub fn status_written(&self, at_ms: u64) {
        self.order(Order::StatusWritten(at_ms));
    }

    /// When the status mail was written last.
    #[must_use]
    pub fn last_status(&self) -> Option<u64> {
        self.view().status_ms
    }

    /// Tells everything that is due and waits until it is delivered, at most `limit`: before an exit that no restart of
    /// ours may follow.
    pub async fn last_words(&self, limit: Duration) {
        let (done, said) = oneshot::channel();
        self.order(Order::LastWords(Instant::now() + limit, done));
        let _ = timeout(limit, said).await;
    }

    /// Every alarm, told or not.
    #[must_use]
    pub fn active(&self) -> Vec<Active> {
        self.view().active.clone()
    }

    /// What waits to be delivered.
    #[must_use]
    pub fn queued(&self) -> Vec<Queued> {
        self.view().queued.clone()
    }

    fn view(&self) -> std::sync::MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) {
        // Without a listener there is nobody to tell: the program ends, or alarms are off.
        let _ = self.orders.send(order);
    }
}

struct Desk {
    settings: Arc<AlarmSettings>,
    mailer: Option<Mailer>,
    who: Arc<Who>,
    data_dir: PathBuf,
    disk: Arc<dyn Disk>,
    kept: Kept,
    /// Something is not in the file yet.
    dirty: bool,
    under_way: BTreeSet<String>,
    carriers: JoinSet<Carried>,
    view: Arc<Mutex<View>>,
}

struct Carried {
    recipient: String,
    id: String,
    result: Result<String, String>,
}

impl Desk {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>, mut shutdown: Shutdown) {
        let mut clock = interval(TICK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.fired() => break,
                order = inbox.recv() => match order {
                    Some(order) => {
                        self.take_all(order, &mut inbox).await;
                    }
                    None => break,
                },
                Some(carried) = self.carriers.join_next(), if !self.carriers.is_empty() => self.carried(carried),
                _ = clock.tick() => {}
            }
            self.work().await;
        }
        // What was said before the stop is kept, and told by the next start.
        while let Ok(order) = inbox.try_recv() {
            self.take(order).await;
        }
        let end = Instant::now() + GOODBYE;
        while let Ok(Some(carried)) = tokio::time::timeout_at(end, self.carriers.join_next()).await {
            self.carried(carried);
        }
        self.news();
        self.write().await;
    }

    async fn take_all(&mut self, first: Order, inbox: &mut mpsc::UnboundedReceiver<Order>) {
        self.take(first).await;
        while let Ok(order) = inbox.try_recv() {
            self.take(order).await;
        }
    }

    async fn take(&mut self, order: Order) {
        let now = now_ms();
        match order {
            Order::Raise(condition) => self.dirty |= self.kept.engine.raise(condition, now),
            Order::Clear(kind, subject) => self.dirty |= self.kept.engine.clear(kind, &subject, now),
            Order::Replace(kind, conditions, unknown) => {
                self.dirty |= self.kept.engine.replace(kind, conditions, &unknown, now);
            }
            Order::Mail(to, letter) => {
                for address in to {
                    self.kept.outbox.put(&format!("mail:{address}"), Post::Letter(letter.clone()));
                }
                self.dirty = true;
            }
            Order::StatusWritten(at_ms) => {
                self.kept.status_ms = Some(at_ms);
                self.dirty = true;
            }
            Order::Settings(new) => {
                let (settings, mailer, also) = *new;
                forget_others(&mut self.kept, &settings, &also);
                self.kept.outbox.hurry();
                (self.settings, self.mailer) = (Arc::new(settings), mailer);
                self.dirty = true;
            }
            Order::LastWords(end, done) => {
                self.last_words(end).await;
                let _ = done.send(());
            }
        }
    }

    /// News, the file, deliveries: in this order.
    async fn work(&mut self) {
        self.news();
        if self.dirty {
            self.write().await;
        }
        self.deliver();
        self.show();
    }

    fn news(&mut self) {
        for notice in self.kept.engine.due(&self.settings.rules, now_ms()) {
            log(&notice);
            for recipient in self.settings.recipients() {
                self.kept.outbox.put(&recipient, Post::Notice(notice.clone()));
            }
            self.dirty = true;
        }
    }

    async fn write(&mut self) {
        let (kept, disk, data_dir) = (self.kept.clone(), Arc::clone(&self.disk), self.data_dir.clone());
        let written = tokio::task::spawn_blocking(move || kept.write(disk.as_ref(), &data_dir)).await;
        self.dirty = false;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("ALARM: what was told is not kept: {error}"),
            Err(error) => tracing::error!("ALARM: what was told is not kept: {error}"),
        }
    }

    fn deliver(&mut self) {
        for (recipient, Item { id, post }) in self.kept.outbox.due(now_ms()) {
            if !self.under_way.insert(recipient.clone()) {
                continue;
            }
            let (settings, mailer, who) = (Arc::clone(&self.settings), self.mailer.clone(), Arc::clone(&self.who));
            self.carriers.spawn(async move {
                let result = carry(&settings, mailer.as_ref(), &who, &recipient, &id, post).await;
                Carried { recipient, id, result }
            });
        }
    }

    fn carried(&mut self, carried: Result<Carried, tokio::task::JoinError>) {
        let Ok(Carried { recipient, id, result }) = carried else {
            // Nobody knows whose it was: all that are not under way any more are tried again.
            tracing::error!("ALARM: a delivery broke off");
            self.under_way.clear();
            return;
        };
        self.under_way.remove(&recipient);
        match result {
            Ok(_) => self.kept.outbox.sent(&recipient, &id),
            Err(error) => {
                tracing::warn!("an alarm could not be delivered to {recipient} and is tried again: {error}");
                self.kept.outbox.failed(&recipient, error, self.settings.retry, now_ms());
            }
        }
        self.dirty = true;
    }

    async fn last_words(&mut self, end: Instant) {
        self.news();
        self.kept.outbox.hurry();
        self.write().await;
        while Instant::now() < end {
            self.deliver();
            match tokio::time::timeout_at(end, self.carriers.join_next()).await {
                Ok(Some(carried)) => self.carried(carried),
                Ok(None) if self.kept.outbox.is_empty() => break,
                Ok(None) => tokio::time::sleep(TICK).await,
                Err(_) => break,
            }
        }
        self.write().await;
    }

    fn show(&self) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        *view = View {
            active: self.kept.engine.active(),
            queued: self.kept.outbox.queued(),
            status_ms: self.kept.status_ms,
        };
    }
}

/// What waits for nobody whom the configuration names.
fn forget_others(kept: &mut Kept, settings: &AlarmSettings, also: &[String]) {
    let also = also.iter().map(|address| format!("mail:{address}"));
    let known: BTreeSet<String> = settings.recipients().chain(also).collect();
    for (recipient, count) in kept.outbox.keep_only(|recipient| known.contains(recipient)) {
        tracing::warn!("{count} notices for {recipient} are dropped: the configuration does not name it any more");
    }
}

fn log(notice: &Notice) {
    let (alarm, event, line) = (notice.kind.name(), notice.event.name(), notice.line());
    if notice.event == super::Event::Resolved {
        tracing::info!(alarm, event, "{line}");
    } else {
        tracing::warn!(alarm, event, "{line}");
    }
}

/// Delivers one thing to one recipient; who took it.
pub(super) async fn carry(
    settings: &AlarmSettings,
    mailer: Option<&Mailer>,
    who: &Who,
    recipient: &str,
    id: &str,
    post: Post,
) -> Result<String, String> {
    if let Some(to) = recipient.strip_prefix("mail:") {
        let mailer = mailer.ok_or("there is no [mail] to send with")?;
        return match post {
            Post::Notice(notice) => mailer.notice(to, id, &notice, who).await,
            Post::Letter(letter) => mailer.send(to, id, &letter).await.map_err(|e| e.to_string()),
        };
    }
    let hook = settings.command.clone().ok_or("there is no command any more")?;
    // Letters are mailed only.
    let Post::Notice(notice) = post else { return Ok("nobody".to_owned()) };
    let input = notice.json(who, id).to_string();
    let program = hook.program.clone();
    let ran = tokio::task::spawn_blocking(move || hook.run(input.as_bytes())).await;
    ran.map_err(|e| e.to_string())?.map(|()| program)
}
