//! The schedule on a clock that stands still until everybody waits: hours pass in milliseconds, and exactly.

use super::*;
use crate::config::Window;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use tokio::time::{sleep, timeout};

/// 01:50 UTC of some day.
const START_MS: u64 = 20_000 * 86_400_000 + 110 * 60_000;

struct Fake {
    start: Instant,
    /// Seconds at which rounds began, by source.
    begun: Mutex<BTreeMap<String, Vec<u64>>>,
    /// Seconds at which rounds ended, and whether they were told to stop.
    ended: Mutex<BTreeMap<String, Vec<(u64, bool)>>>,
    paused: Mutex<Vec<String>>,
    next: Mutex<Result<Vec<Arc<FakeSource>>, String>>,
    open: AtomicBool,
    chance: f64,
}

struct FakeSource {
    name: String,
    rhythm: Rhythm,
    takes: Duration,
    postponed: Mutex<u64>,
    fails: bool,
}

fn source(name: &str, interval: u64, takes: u64) -> FakeSource {
    let seconds = Duration::from_secs;
    FakeSource {
        name: name.to_owned(),
        rhythm: Rhythm { interval: seconds(interval), jitter: Duration::ZERO, pause: false, maintenance: Vec::new() },
        takes: seconds(takes),
        postponed: Mutex::new(0),
        fails: false,
    }
}

impl Fake {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            begun: Mutex::default(),
            ended: Mutex::default(),
            paused: Mutex::default(),
            next: Mutex::new(Err("a mistake".into())),
            open: AtomicBool::new(true),
            chance: 0.5,
        }
    }

    fn seconds(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    fn begun(&self, name: &str) -> Vec<u64> {
        self.begun.lock().expect("unpoisoned").get(name).cloned().unwrap_or_default()
    }

    fn ended(&self, name: &str) -> Vec<(u64, bool)> {
        self.ended.lock().expect("unpoisoned").get(name).cloned().unwrap_or_default()
    }
}

impl Work for Fake {
    type Source = FakeSource;

    fn rhythm(source: &FakeSource) -> (&str, &Rhythm) {
        (&source.name, &source.rhythm)
    }

    fn is_paused(&self, source: &FakeSource) -> bool {
        self.paused.lock().expect("unpoisoned").contains(&source.name)
    }

    async fn round(self: Arc<Self>, source: Arc<FakeSource>, mut stop: Shutdown) -> Result<Report, Failure> {
        assert!(self.open.load(SeqCst), "a round while the store is lent");
        self.begun.lock().expect("unpoisoned").entry(source.name.clone()).or_default().push(self.seconds());
        let whole = timeout(source.takes, stop.fired()).await.is_err();
        if !whole {
            // The batch in work.
            sleep(Duration::from_secs(2)).await;
        }
        assert!(self.open.load(SeqCst), "the store was lent while a round went on");
        let end = (self.seconds(), !whole);
        self.ended.lock().expect("unpoisoned").entry(source.name.clone()).or_default().push(end);
        if source.fails {
            return Err(Failure::cannot("the disk has failed"));
        }
        let mut report = Report::new(&source.name);
        let mut postponed = source.postponed.lock().expect("unpoisoned");
        report.postponed = *postponed;
        *postponed = postponed.saturating_sub(1);
        Ok(report)
    }

    fn reload(&self) -> Result<Vec<Arc<FakeSource>>, Failure> {
        let mut next = self.next.lock().expect("unpoisoned");
        std::mem::replace(&mut *next, Err("a mistake".into())).map_err(Failure::usage)
    }

    fn close(&self) {
        assert!(self.open.swap(false, SeqCst));
    }

    fn open(&self) -> Result<(), Failure> {
        assert!(!self.open.swap(true, SeqCst));
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        START_MS + u64::try_from(self.start.elapsed().as_millis()).expect("fits")
    }

    fn chance(&self) -> f64 {
        self.chance
    }
}

struct Scene {
    fake: Arc<Fake>,
    board: Arc<Board>,
    trigger: ShutdownTrigger,
    orders: mpsc::Sender<Order>,
    service: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl Scene {
    fn new(sources: Vec<FakeSource>) -> Self {
        let (fake, board) = (Arc::new(Fake::new()), Arc::new(Board::new()));
        let (trigger, shutdown) = ShutdownTrigger::new();
        let (orders, taken) = mpsc::channel(8);
        let sources = sources.into_iter().map(Arc::new).collect();
        let service = Service::new(Arc::clone(&fake), Arc::clone(&board), sources, shutdown);
        let service = tokio::spawn(service.run(taken));
        Self { fake, board, trigger, orders, service }
    }

    async fn at(&self, second: u64) {
        tokio::time::sleep_until(self.fake.start + Duration::from_secs(second) + Duration::from_millis(1)).await;
    }

    async fn end(self) -> Result<(), Failure> {
        self.trigger.fire();
        self.service.await.expect("no panic")
    }
}

#[tokio::test(start_paused = true)]
async fn each_source_in_its_rhythm_and_slow_ones_delay_nobody() {
    let mut jittery = source("jittery", 60, 0);
    jittery.rhythm.jitter = Duration::from_secs(20);
    let scene = Scene::new(vec![source("minute", 60, 5), source("slow", 10, 86_400), jittery]);
    scene.at(300).await;
    assert_eq!(scene.fake.begun("minute"), [0, 65, 130, 195, 260]);
    assert_eq!(scene.fake.begun("slow"), [0]);
    // Half of the jitter: that is this clock's chance.
    assert_eq!(scene.fake.begun("jittery"), [0, 70, 140, 210, 280]);
    let board = scene.board.snapshot();
    assert!(board.sources[1].running_ms.is_some() && board.sources[0].totals.rounds == 5);
    let fake = Arc::clone(&scene.fake);
    scene.end().await.expect("ends well");
    // What ran when it was told to stop ended its batch.
    assert_eq!(fake.ended("slow"), [(302, true)]);
    assert_eq!(fake.ended("minute").len(), 5);
}

#[tokio::test(start_paused = true)]
async fn maintenance_hours() {
    let window = || vec![Window::parse("02:00-04:00").expect("a window")];
    let (mut short, mut long) = (source("short", 60, 0), source("long", 60, 100_000));
    (short.rhythm.maintenance, long.rhythm.maintenance) = (window(), window());
    let scene = Scene::new(vec![short, long]);
    scene.at(3 * 3600).await;
    // It is 01:50 at the start: ten minutes, then nothing until 04:00.
    let begun = scene.fake.begun("short");
    assert_eq!(begun.iter().filter(|at| **at < 600).count(), 10, "{begun:?}");
    assert!(!begun.iter().any(|at| (600..7800).contains(at)), "{begun:?}");
    assert!(begun.contains(&7800), "{begun:?}");
    // The one that ran at 02:00 ended with its batch and began anew at 04:00.
    assert_eq!((scene.fake.begun("long"), scene.fake.ended("long")), (vec![0, 7800], vec![(602, true)]));
    scene.end().await.expect("ends well");
}

#[tokio::test(start_paused = true)]
async fn paused_by_command_and_by_configuration() {
    let mut configured = source("configured", 60, 0);
    configured.rhythm.pause = true;
    let scene = Scene::new(vec![source("m365", 60, 0), configured]);
    scene.at(130).await;
    scene.fake.paused.lock().expect("unpoisoned").push("m365".into());
    scene.at(1000).await;
    assert_eq!(scene.fake.begun("m365"), [0, 60, 120]);
    assert!(scene.board.snapshot().sources.iter().all(|source| source.paused));
    scene.fake.paused.lock().expect("unpoisoned").clear();
    scene.at(1006).await;
    assert_eq!(scene.fake.begun("m365").len(), 4);
    assert_eq!(scene.fake.begun("configured"), [0u64; 0]);
    assert!(!scene.board.snapshot().sources[0].paused);
    scene.end().await.expect("ends well");
}

#[tokio::test(start_paused = true)]
async fn what_a_round_left_is_taken_at_once() {
    let backlog = source("backlog", 60, 1);
    *backlog.postponed.lock().expect("unpoisoned") = 3;
    let scene = Scene::new(vec![backlog]);
    scene.at(100).await;
    assert_eq!(scene.fake.begun("backlog"), [0, 1, 2, 3, 64]);
    scene.end().await.expect("ends well");
}

#[tokio::test(start_paused = true)]
async fn a_reload_replaces_sources_and_a_mistake_changes_nothing() {
    let scene = Scene::new(vec![source("stays", 3600, 0), source("goes", 60, 100_000)]);
    scene.at(10).await;
    scene.orders.send(Order::Reload).await.expect("taken");
    scene.at(11).await;
    assert_eq!(scene.board.snapshot().reload_error.as_deref(), Some("a mistake"));
    assert!(scene.fake.ended("goes").is_empty());
    *scene.fake.next.lock().expect("unpoisoned") =
        Ok(vec![Arc::new(source("stays", 30, 0)), Arc::new(source("comes", 60, 0))]);
    scene.orders.send(Order::Reload).await.expect("taken");
    scene.at(100).await;
    assert_eq!(scene.board.snapshot().reload_error, None);
    assert_eq!(scene.fake.ended("goes"), [(13, true)]);
    assert_eq!(scene.fake.begun("comes"), [11, 71]);
    assert_eq!(scene.fake.begun("stays"), [0, 41, 71]);
    assert_eq!(scene.board.snapshot().sources.len(), 2);
    scene.end().await.expect("ends well");
}

#[tokio::test(start_paused = true)]
async fn the_store_is_lent_between_batches_and_taken_back() {
    let scene = Scene::new(vec![source("minute", 60, 0), source("long", 60, 100_000)]);
    scene.at(10).await;
    let ((ready, lent), (back_sender, back)) = (oneshot::channel(), oneshot::channel());
    scene.orders.send(Order::Lend { to: "retry".into(), ready, back }).await.expect("taken");
    lent.await.expect("an answer").expect("lent");
    assert!(!scene.fake.open.load(SeqCst));
    assert_eq!(scene.fake.ended("long"), [(12, true)]);
    scene.at(500).await;
    assert_eq!(scene.board.snapshot().lent_to.as_deref(), Some("retry"));
    assert_eq!((scene.fake.begun("minute"), scene.fake.begun("long")), (vec![0], vec![0]));
    drop(back_sender);
    scene.at(501).await;
    assert_eq!(scene.board.snapshot().lent_to, None);
    assert_eq!((scene.fake.begun("minute"), scene.fake.begun("long")), (vec![0, 500], vec![0, 500]));
    scene.end().await.expect("ends well");
}

#[tokio::test(start_paused = true)]
async fn a_failed_disk_ends_everything_in_order() {
    let mut bad = source("bad", 60, 30);
    bad.fails = true;
    let scene = Scene::new(vec![bad, source("other", 60, 100_000)]);
    let failure = scene.service.await.expect("no panic").expect_err("fails");
    assert_eq!((failure.exit, failure.text.as_str()), (Exit::Cannot, "the disk has failed"));
    assert_eq!(scene.fake.ended("other"), [(32, true)]);
}
