//! Line 7: what an idle connection costs the gateway. The peaks are shown by `accept` and `archive`.

use super::Bench;
use crate::{
    client::smtp::Session,
    product::{Gateway, Settings},
    table::{Table, Target},
};
use anyhow::Result;

/// Connections held at once; within what a process may open without being asked.
const HELD: usize = 400;

pub(crate) fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    println!("\n== memory: {HELD} idle SMTP connections after EHLO");
    for (tls, target) in [(false, 16.0), (true, 48.0)] {
        let settings = Settings { connections: HELD * 2, mailboxes: 1 };
        let mut gateway = Gateway::new(&crate::fresh(&bench.folder, "memory")?, settings)?;
        // What is loaded or grown once is there then.
        for _ in 0..3 {
            drop(hold(&gateway, tls, 8)?);
        }
        let report = bench.wire.first().map(|report| report.as_slice()).unwrap_or_default();
        Session::open(gateway.smtp, tls)?.message(&gateway.recipients[0], report)?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        let before = gateway.server()?.resident()?;
        let held = hold(&gateway, tls, HELD)?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        let with = gateway.server()?.resident()?;
        drop(held);
        gateway.halt()?;
        let each = with.saturating_sub(before) as f64 / 1024.0 / HELD as f64;
        let what = if tls { "KiB for an idle connection under TLS" } else { "KiB for an idle connection in clear" };
        table.judge(7, what, each, Target::AtMost(target));
    }
    Ok(())
}

fn hold(gateway: &Gateway, tls: bool, count: usize) -> Result<Vec<Session>> {
    (0..count).map(|_| Session::open(gateway.smtp, tls)).collect()
}
