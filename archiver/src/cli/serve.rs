//! `serve`: every source in its rhythm, until SIGTERM or SIGINT; SIGHUP reads the configuration again.
//!
//! A stop lets the batches in work end, so everything the store took is deleted at its source in the same session.

use super::{
    ServeArgs, check_standing, load_and_lock_alone,
    run::{runtime, select},
};
use crate::{
    serve::{
        Board, Keeper, Order, Service, control, proof,
        teller::{PREFIX, Teller},
    },
    watch::Watcher,
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    metrics::{self, Told},
    run::{Exit, Failure, Shutdown, ShutdownTrigger, manager, on_signals},
};
use std::{path::Path, sync::Arc};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Orders that wait.
const ORDERS: usize = 8;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// A sentence and an exit code; trouble of a host is logged and tried again.
pub fn run(config: Option<&Path>, args: &ServeArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let (config, lock) = load_and_lock_alone(config, &*disk)?;
    config.log.start();
    check_standing(&config, args.i_accept_data_loss)?;
    select(&config, None)?;
    let prepared = Keeper::prepare(&config, &*disk)?;
    runtime()?.block_on(async {
        let (trigger, shutdown) = ShutdownTrigger::new();
        on_signals(trigger).map_err(Failure::cannot)?;
        let (orders, taken) = mpsc::channel(ORDERS);
        reload_at_hangup(orders.clone())?;
        let board = Arc::new(Board::new());
        let socket = config.control_socket();
        let metrics = metrics::bind(&config.metrics.listen).await.map_err(|(address, error)| {
            Failure::cannot(format!("cannot listen at {address} for metrics: {error}; change metrics.listen"))
        })?;
        let watched = Arc::clone(&disk);
        let (watching, watch_until) = ShutdownTrigger::new();
        let keeper = Arc::new(Keeper::new(config, lock, disk, Arc::clone(&board), shutdown.clone())?);
        let teller = Arc::new(Teller::new(Arc::clone(&keeper), Arc::clone(&board)));
        for listener in metrics {
            eprintln!("listening metrics {}", listener.local_addr().map_err(Failure::cannot)?);
            let told = Arc::clone(&teller) as Arc<dyn Told>;
            tokio::spawn(metrics::serve(listener, told, PREFIX, shutdown.clone()));
        }
        // Collecting matters more than being spoken to.
        match control::bind(&socket) {
            Ok(listener) => drop(tokio::spawn(control::serve(listener, Arc::clone(&board), orders, shutdown.clone()))),
            Err(failure) => tracing::error!("ALARM: {failure}"),
        }
        tracing::info!("serving {} sources", prepared.len());
        manager::ready();
        tokio::spawn(say_alive(teller, shutdown.clone()));
        let watcher = Watcher::start(keeper.configs(), &board, &watched, &watch_until)?;
        tokio::spawn(proof::prove(Arc::clone(&keeper), watcher.alarms().clone(), shutdown.clone()));
        let done = Service::new(keeper, board, prepared, shutdown).run(taken).await;
        // It looks for as long as the service works; a failure is told before the program ends.
        watching.fire();
        watcher.end(done.as_ref().err()).await;
        done?;
        tracing::info!("stopped");
        Ok(Exit::Done)
    })
}

/// Tells systemd that tasks are run and the store answers, until everything stops.
async fn say_alive(teller: Arc<Teller>, mut shutdown: Shutdown) {
    let beat = async {
        let Some(every) = manager::watchdog() else { return std::future::pending().await };
        loop {
            if teller.alive().ok {
                manager::alive();
            }
            tokio::time::sleep(every).await;
        }
    };
    tokio::select! {
        () = beat => {}
        () = shutdown.fired() => manager::stopping(),
    }
}

fn reload_at_hangup(orders: mpsc::Sender<Order>) -> Result<(), Failure> {
    let mut hangup = signal(SignalKind::hangup()).map_err(Failure::cannot)?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if orders.send(Order::Reload).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}
