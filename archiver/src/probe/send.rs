//! Sending probes: one by hand, or one after the other at the interval.

use super::{Key, Marker, Probe, ProbeState, Sent, state};
use postkeep_shared::{
    disk::Disk,
    mailer::{Letter, Server, deliver, login, our_name},
    run::{Shutdown, now_ms},
};
use std::{path::Path, sync::Arc, time::Duration};

/// Sends one; its mark, and why the server did not take it.
///
/// # Errors
/// A sentence: the server did not take it.
pub async fn send(probe: &Probe, key: &Key) -> (Marker, Result<String, String>) {
    let marker = Marker::new(key, probe, now_ms());
    let domain = probe.from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let letter = Letter {
        subject: format!("Postkeep probe {} {}", probe.name, marker.chance),
        text: "This message proves that mail is journalled. It was sent by a program; nobody needs to read it.\n"
            .into(),
        written: i64::try_from(marker.sent_ms / 1000).unwrap_or_default(),
        ..Letter::default()
    };
    let message = letter.message(&probe.from, &probe.to, &format!("{}@{domain}", marker.id()));
    let way = async {
        let server = Server {
            name: probe.server.host.clone(),
            address: None,
            port: probe.server.port,
            security: probe.server.security,
            verify: Some(probe.server.verify.clone()),
            login: login(probe.server.login.as_ref())?,
            helo: our_name(),
        };
        deliver(&server, &probe.from, &probe.to, &message).await
    };
    let result = way.await.map_err(|error| error.to_string());
    (marker, result)
}

/// Sends at every interval until `shutdown`. The first one goes when the last start's is an interval old.
pub async fn run(probe: Probe, key: Arc<Key>, data_dir: Arc<Path>, disk: Arc<dyn Disk>, mut shutdown: Shutdown) {
    let mut last = ProbeState::read(&*disk, &data_dir, &probe).sent.last().map(|sent| sent.sent_ms);
    loop {
        let interval = u64::try_from(probe.interval.as_millis()).unwrap_or(u64::MAX);
        let due = last.map_or(0, |last| last.saturating_add(interval));
        let wait = Duration::from_millis(due.saturating_sub(now_ms()).min(interval));
        tokio::select! {
            () = shutdown.fired() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let (marker, result) = tokio::select! {
            () = shutdown.fired() => return,
            sent = send(&probe, &key) => sent,
        };
        last = Some(marker.sent_ms);
        match &result {
            Ok(server) => tracing::debug!("probe {}: {server} took {}", probe.name, marker.chance),
            Err(error) => tracing::warn!("probe {} could not be sent: {error}", probe.name),
        }
        let now = Sent { chance: marker.chance, sent_ms: marker.sent_ms, error: result.err() };
        let (disk, data_dir, name) = (Arc::clone(&disk), Arc::clone(&data_dir), probe.name.clone());
        let kept = tokio::task::spawn_blocking(move || state::sent(&*disk, &data_dir, &name, now)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!("probe {}: that it was sent is not kept: {error}", probe.name);
        }
    }
}
