//! Line 3: collecting over TLS, decrypting, every octet compared.

use super::Bench;
use crate::{
    client::{
        pop3::{Account, Ask, Draining, drain},
        smtp::{Sending, send},
    },
    peers::{self, dovecot, dovecot::Dovecot, postfix, postfix::Postfix, postfix::Then},
    process::Server,
    product::{Gateway, Settings},
    table::{Figures, Table, Target, per_thousand},
};
use anyhow::{Result, ensure};
use std::net::SocketAddr;

/// Commands on their way at once in the cells with pipelining.
const WINDOW: usize = 16;

pub(crate) fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let folder = crate::fresh(&bench.folder, "drain")?;
    let messages = bench.fourth();
    let settings = Settings { connections: 8, mailboxes: peers::MAILBOXES };
    let mut gateway = Gateway::new(&folder.join("gateway"), settings)?;
    let (address, recipients) = (gateway.smtp, gateway.recipients.clone());
    send(&Sending { address, recipients, connections: 8, tls: false, messages: messages.clone() })?;

    let peer = match peers::missing(postfix::PROGRAMS, true).or_else(|| peers::missing(dovecot::PROGRAMS, true)) {
        Some(why) => {
            table.not_run("Dovecot mail-crypt", &why);
            None
        }
        None => {
            let dovecot = Dovecot::start(&folder.join("dovecot"))?;
            let postfix = Postfix::start(&folder.join("postfix"), Then::Lmtp(dovecot.lmtp))?;
            let (address, recipients) = (postfix.smtp, peers::recipients());
            send(&Sending { address, recipients, connections: 8, tls: false, messages: messages.clone() })?;
            dovecot.wait_for(messages.len())?;
            dovecot.check_encrypted()?;
            postfix.stop()?;
            Some(dovecot)
        }
    };

    let names = ["Dovecot mail-crypt, RETR", "gateway, RETR", "gateway, XRETR", "gateway, XRETR, 16 at once"];
    let mut rounds: [Vec<Figures>; 4] = Default::default();
    for round in 1..=bench.rounds {
        for (cell, figures) in rounds.iter_mut().enumerate() {
            let found = match (cell, &peer) {
                (0, None) => continue,
                (0, Some(dovecot)) => {
                    one(bench, &dovecot.server, dovecot.pop3s, &Dovecot::accounts(), Ask::Retr, 1, messages.len())?
                }
                (cell, _) => {
                    let ask = if cell == 1 { Ask::Retr } else { Ask::Xretr };
                    let window = if cell == 3 { WINDOW } else { 1 };
                    let server = gateway.server()?;
                    one(bench, server, gateway.pop3s, &gateway.accounts, ask, window, messages.len())?
                }
            };
            eprintln!("round {round}: {}: {:.0} msg/s", names[cell], found.messages);
            figures.push(found);
        }
    }
    gateway.halt()?;
    if let Some(dovecot) = peer {
        dovecot.stop()?;
    }
    let medians: Vec<Figures> = rounds.iter().map(|rounds| Figures::median(rounds)).collect();
    Table::head("drain: collected over TLS, decrypted, compared");
    names.iter().zip(&medians).for_each(|(name, figures)| Table::row(name, figures));
    println!();
    let [dovecot, retr, xretr, _] = &medians[..] else { return Ok(()) };
    let two = Target::AtLeast(2.0);
    table.judge(3, "messages, gateway / Dovecot mail-crypt", retr.messages / dovecot.messages, two);
    table.judge(3, "octets, gateway / Dovecot mail-crypt", retr.megabytes / dovecot.megabytes, two);
    table.judge(3, "XRETR / RETR", xretr.messages / retr.messages, Target::AtLeast(1.0));
    Ok(())
}

/// Takes everything, removes nothing, so that every round finds the same.
fn one(
    bench: &Bench,
    server: &Server,
    address: SocketAddr,
    accounts: &[Account],
    ask: Ask,
    window: usize,
    expected: usize,
) -> Result<Figures> {
    let before = server.cpu()?;
    let drained = drain(&Draining { address, accounts, ask, window, remove: false, corpus: &bench.reports })?;
    ensure!(drained.numbers.len() == expected, "{} of {expected} reports came", drained.numbers.len());
    Ok(Figures {
        messages: drained.rate(),
        megabytes: drained.megabytes(),
        cpu: per_thousand(server.cpu()? - before, expected),
        ..Figures::default()
    })
}
