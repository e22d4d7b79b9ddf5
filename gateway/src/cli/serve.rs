//! `serve`: runs the gateway until SIGTERM or SIGINT; SIGHUP reads the certificate and the authorities of clients again.
//! systemd hears when it is ready, reloading, stopping, and that it is alive.

use super::Context;
use crate::{
    server,
    tls::{Certificates, ClientAuthorities},
};
use postkeep_shared::{
    alarm::{Alarms, Condition, Kind},
    disk::{LocalDisk, require_standing},
    run::{Exit, Failure, Shutdown, ShutdownTrigger, init_logs, manager, on_signals},
};
use std::sync::Arc;

/// What a reload may fail at.
const CERTIFICATE: &str = "the certificate";
const AUTHORITIES: &str = "authorities of clients";

/// Arguments of `serve`.
#[derive(clap::Args)]
pub struct Args {
    /// Run on a network file system all the same
    #[arg(long)]
    pub i_accept_data_loss: bool,
}

/// Runs until a signal or until storage fails.
///
/// # Errors
/// Configuration, addresses, data directory, storage.
pub fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    init_logs(&config.log.level, config.log.format);
    if let Some(warning) = require_standing(&config.data_dir, args.i_accept_data_loss)? {
        tracing::warn!("ALARM: {warning}");
    }
    // Sessions make files and look into the kernel's tables without handing their thread over: that is quick, but may wait
    // for the disk a moment, and the others shall go on.
    let workers = 2 * std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = runtime.map_err(|e| Failure::cannot(format!("cannot start threads: {e}")))?;
    runtime.block_on(async {
        let (trigger, shutdown) = ShutdownTrigger::new();
        on_signals(trigger).map_err(|e| Failure::cannot(format!("cannot handle signals: {e}")))?;
        let running = server::serve(config, Arc::new(LocalDisk), shutdown.clone()).await?;
        reload_at_hangup(Arc::clone(&running.certificates), Arc::clone(&running.authorities), running.alarms.clone())?;
        for (kind, address) in &running.addresses {
            eprintln!("listening {kind} {address}");
        }
        manager::ready();
        let alive = tokio::spawn(say_alive(shutdown));
        let ended = running.wait().await.map(|()| Exit::Done);
        alive.abort();
        ended
    })
}

/// Tells systemd that tasks are run, until it is told that everything stops. Storage that has failed stops the server by
/// itself.
async fn say_alive(mut shutdown: Shutdown) {
    let beat = async {
        let Some(every) = manager::watchdog() else { return std::future::pending().await };
        loop {
            manager::alive();
            tokio::time::sleep(every).await;
        }
    };
    tokio::select! {
        () = beat => {}
        () = shutdown.fired() => manager::stopping(),
    }
}

fn reload_at_hangup(
    certificates: Arc<Certificates>,
    authorities: Arc<ClientAuthorities>,
    alarms: Alarms,
) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|e| Failure::cannot(format!("cannot handle signals: {e}")))?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            manager::reloading();
            // Whoever has mended what kept an authority away need not wait for the back-off.
            certificates.nudge();
            let certificates = Arc::clone(&certificates);
            match tokio::task::spawn_blocking(move || certificates.reload()).await {
                Ok(Ok(())) => {
                    tracing::info!("the certificate was read again");
                    alarms.clear(Kind::Reload, CERTIFICATE);
                }
                Ok(Err(error)) => {
                    tracing::warn!(alarm = "certificate", %error, "ALARM: the old certificate stays in use");
                    alarms.raise(Condition::new(Kind::Reload, CERTIFICATE, &error.to_string()));
                }
                Err(error) => tracing::error!(%error, "the certificate could not be read"),
            }
            let authorities = Arc::clone(&authorities);
            match tokio::task::spawn_blocking(move || authorities.reload()).await {
                Ok(Ok(())) => {
                    tracing::debug!("the authorities of client certificates were read again");
                    alarms.clear(Kind::Reload, AUTHORITIES);
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "ALARM: the old authorities of clients stay in use");
                    alarms.raise(Condition::new(Kind::Reload, AUTHORITIES, &error.to_string()));
                }
                Err(error) => tracing::error!(%error, "ALARM: the old authorities of clients stay in use"),
            }
            manager::ready();
        }
    });
    Ok(())
}
