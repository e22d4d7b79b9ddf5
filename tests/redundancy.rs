//! Two gateways as one: active-active with Postfix in front, a failover drill, and a node that is gone.
//!
//! Each run takes loopback addresses of its own (127.x.y.2, .3 and .53, by its process id), so that both gateways can have
//! the real ports. Ports 25 and 53 and Postfix need root.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{
    Access, Archiver, Gateway, Smtp,
    archiver::restrict,
    copy,
    dns::{Data, Dns, Table},
    folder,
    killed::{killed, points},
    numbered_report, run, sha256,
};

const DOMAIN: &str = "msgw.test";

/// How many messages: `POSTKEEP_REPORTS`, else `usual`.
fn count(usual: usize) -> usize {
    std::env::var("POSTKEEP_REPORTS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// A loopback address of this run; `part` tells the tests of one process apart.
fn address(part: u8, last: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    // 127.0.0.0/16 is what everybody else uses.
    Ipv4Addr::new(127, 1 + high % 250, low, last + part)
}

/// Whether this machine lets the test have ports 25 and 53; where not, it says that it was not run.
fn may_run(what: &str) -> bool {
    let bound = TcpListener::bind((address(200, 2), 25)).and(UdpSocket::bind((address(200, 2), 53)));
    if let Err(error) = &bound {
        eprintln!("NOT RUN: {what} needs ports 25 and 53 of loopback addresses: {error}");
    }
    bound.is_ok()
}

/// Whether a Postfix with a resolver of its own can be had.
fn has_postfix() -> bool {
    let quiet =
        |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    let may = Path::new("/usr/lib/postfix/sbin/master").exists()
        && quiet(Command::new("unshare").args(["--mount", "true"]))
        && Path::new("/etc/resolv.conf").exists();
    if !may {
        eprintln!("NOT RUN: active-active needs Postfix and a mount namespace");
    }
    may
}

/// A gateway with the real ports at an address.
fn gateway(folder: &Path, name: &str, ip: Ipv4Addr, more: &str) -> Result<Gateway> {
    let folder = folder.join(name);
    std::fs::create_dir(&folder)?;
    let gateway = Gateway::create(&folder)?;
    let text = format!(
        "hostname = \"{name}.test\"\ndomains = [\"{DOMAIN}\"]\ndata_dir = \"data\"\n[smtp]\nlisten = [\"{ip}:25\"]\n\
         [pop3]\nlisten = [\"{ip}:110\"]\nlisten_tls = [\"{ip}:995\"]\n[tls]\nmode = \"self-signed\"\n{more}"
    );
    std::fs::write(&gateway.config, text)?;
    Ok(gateway)
}

/// Gives `to` all mailboxes of `from`, by a bundle.
fn share(folder: &Path, from: &Gateway, to: &Gateway) -> Result<()> {
    let bundle = folder.join("bundle").display().to_string();
    from.run(&["mailbox", "export", "--out", &bundle], b"")?.expect(0)?;
    to.run(&["mailbox", "import", &bundle], b"")?.expect(0)?;
    Ok(std::fs::remove_file(&bundle)?)
}

/// Points an archiver at both gateways: `at` is its `hosts` or `mx` line.
fn collect(archiver: &Archiver, at: &str, dns: Option<SocketAddr>, pins: &[String], access: &Access) -> Result<()> {
    let password = archiver.folder.join("m365.password");
    std::fs::write(&password, format!("{}\n", access.password))?;
    restrict(&password)?;
    let dns = dns.map(|dns| format!("[dns]\nservers = [\"{dns}\"]\n")).unwrap_or_default();
    archiver.configure(&format!(
        "{dns}[[source]]\nname = \"m365\"\n{at}\nmailbox = \"{}\"\npassword_file = \"m365.password\"\n\
         tls = {{ verify = \"pin\", pin_sha256 = [\"{}\"] }}\n",
        access.id,
        pins.join("\", \"")
    ))
}

/// One round, whatever it finds: exit code and what it says.
fn round(archiver: &Archiver) -> Result<(i32, Value)> {
    let output = archiver.run(&["run", "--once", "--json"], b"")?;
    ensure!([0, 1].contains(&output.code), "run --once: {} {} {}", output.code, output.text(), output.err);
    let report = output.json_stream()?.into_iter().next().context("run --json")?;
    Ok((output.code, report))
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// How often each of the originals `0..sent` is in bob's archive; anything else there is an error.
fn archived(archiver: &Archiver, sent: usize) -> Result<(usize, usize, usize)> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for entry in archiver.list("bob")? {
        *found.entry(entry.get("sha256").and_then(Value::as_str).context("list --json")?.to_owned()).or_default() += 1;
    }
    let wanted: Vec<String> = (0..sent).map(|n| sha256(&numbered_report(n).1)).collect();
    let lost = wanted.iter().filter(|sum| !found.contains_key(*sum)).count();
    let twice = found.values().filter(|times| **times > 1).count();
    let strange = found.keys().filter(|sum| !wanted.contains(sum)).count();
    ensure!(strange == 0, "{strange} messages in the archive were never sent");
    Ok((found.len(), lost, twice))
}

/// `reconcile` is green and names these nodes.
fn reconciled(archiver: &Archiver, nodes: usize) -> Result<Vec<Value>> {
    let (code, rows) = archiver.reconcile()?;
    for row in &rows {
        println!(
            "reconcile: node {} accepted {} moved in {} collected {} waiting {} missing {} unknown {} ok {}",
            row.get("node").and_then(Value::as_str).unwrap_or("none"),
            number(row, "accepted"),
            number(row, "moved_in"),
            number(row, "collected"),
            number(row, "waiting"),
            number(row, "missing"),
            number(row, "unknown"),
            row.get("ok") == Some(&Value::Bool(true)),
        );
    }
    ensure!(code == 0 && rows.len() == nodes, "reconcile: exit {code}, {rows:?}");
    Ok(rows)
}

/// A Postfix of our own that looks names up at our DNS server and delivers by MX.
struct Postfix {
    master: Child,
    port: u16,
}

const MASTER_CF: &str = "
127.0.0.1:PORT inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

impl Postfix {
    fn start(folder: &Path, dns: SocketAddr) -> Result<Self> {
        // Its daemons run as another user.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        let config = folder.join("postfix");
        let (queue, data, log) = (folder.join("queue"), folder.join("postfix-data"), folder.join("maillog"));
        for made in [&config, &queue, &data] {
            std::fs::create_dir(made)?;
        }
        run(Command::new("chown").arg("postfix").arg(&data), b"")?.expect(0)?;
        let port = support::ports::free_port(std::net::Ipv4Addr::LOCALHOST)?;
        let main = format!(
            "compatibility_level = 3.6\nmail_owner = postfix\nsetgid_group = postdrop\n\
             queue_directory = {}\ndata_directory = {}\nmaillog_file = {}\nmaillog_file_prefixes = {}\n\
             inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = relay.sender.example\nmydestination =\n\
             alias_maps =\nalias_database =\nmynetworks = 127.0.0.0/8\nlocal_header_rewrite_clients =\nrelayhost =\n\
             smtp_host_lookup = dns\nsmtp_tls_security_level = may\nsmtp_connect_timeout = 2s\n\
             minimal_backoff_time = 1s\nmaximal_backoff_time = 2s\nqueue_run_delay = 1s\n\
             default_destination_concurrency_failed_cohort_limit = 1000\n",
            queue.display(),
            data.display(),
            log.display(),
            folder.display()
        );
        std::fs::write(config.join("main.cf"), main)?;
        std::fs::write(config.join("master.cf"), MASTER_CF.replace("PORT", &port.to_string()))?;
        let resolv = folder.join("resolv.conf");
        std::fs::write(&resolv, format!("nameserver {}\noptions timeout:1\n", dns.ip()))?;
        run(Command::new("postfix").arg("-c").arg(&config).arg("check"), b"")?.expect(0)?;
        // A mount namespace of its own: only this Postfix sees that resolv.conf.
        let script = "mount --bind \"$1\" /etc/resolv.conf && exec /usr/lib/postfix/sbin/master -c \"$2\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", script, "sh"]).arg(&resolv).arg(&config);
        let master = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { master, port })
    }

    fn connect(&self) -> Result<Smtp> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match Smtp::connect(([127, 0, 0, 1], self.port).into()) {
                Err(error) if Instant::now() > deadline => return Err(error.context("Postfix does not answer")),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
                connected => return connected,
            }
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.master.id().to_string()]).status();
        let _ = self.master.wait();
    }
}

#[test]
fn active_active_while_one_gateway_is_killed() -> Result<()> {
    if !may_run("active-active behind an MX") || !has_postfix() {
        return Ok(());
    }
    let (reports, started) = (count(200), Instant::now());
    let folder = folder()?;
    let (ip1, ip2) = (address(0, 2), address(0, 3));
    let table: Table = vec![
        (DOMAIN, Data::Mx(10, "msgw1.test")),
        (DOMAIN, Data::Mx(10, "msgw2.test")),
        ("msgw1.test", Data::A(ip1)),
        ("msgw2.test", Data::A(ip2)),
    ];
    let dns = Dns::start((address(0, 53), 53).into(), table)?;
    let mut one = gateway(folder.path(), "msgw1", ip1, "")?;
    let mut two = gateway(folder.path(), "msgw2", ip2, "")?;
    let made = one.create_mailbox()?;
    share(folder.path(), &one, &two)?;
    one.start()?;
    two.start()?;
    let access = Access { address: format!("{}@{DOMAIN}", made.id), ..made };
    let archiver = Archiver::create(folder.path())?;
    collect(&archiver, &format!("mx = \"{DOMAIN}\""), Some(dns.address), &[one.pin()?, two.pin()?], &access)?;
    let postfix = Postfix::start(folder.path(), dns.address)?;
    let mut sender = postfix.connect()?;
    let (mut unreachable, mut rounds) = (0, 0);
    for part in 0..4 {
        for n in part * reports / 4..(part + 1) * reports / 4 {
            let reply = sender.send_data("", &[&access.address], &numbered_report(n).0)?;
            ensure!(reply.code == 250, "Postfix: {reply:?}");
            if part < 3 && n == part * reports / 4 + reports / 8 {
                one.kill()?;
                // One that is down is reported, and the other one collected.
                let (code, report) = round(&archiver)?;
                let hosts = report.get("hosts").and_then(Value::as_array).context("hosts")?;
                let well = hosts.iter().filter(|h| h.get("ok") == Some(&Value::Bool(true))).count();
                ensure!(code == 1 && hosts.len() == 2 && well == 1, "{report}");
                (unreachable, rounds) = (unreachable + 1, rounds + 1);
            }
        }
        if part < 3 {
            one.start()?;
        }
        round(&archiver)?;
        rounds += 1;
    }
    sender.quit()?;
    let deadline = Instant::now() + Duration::from_secs(60 + reports as u64 / 10);
    loop {
        round(&archiver)?;
        rounds += 1;
        let (found, ..) = archived(&archiver, reports)?;
        if found == reports && one.waiting(&access.id)?.len() + two.waiting(&access.id)?.len() == 0 {
            break;
        }
        let log = || std::fs::read_to_string(folder.path().join("maillog")).unwrap_or_default();
        let tail = |log: String| log.lines().rev().take(20).map(str::to_owned).collect::<Vec<_>>().join("\n");
        ensure!(Instant::now() < deadline, "{found} of {reports} archived:\n{}", tail(log()));
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(postfix);
    let (found, lost, twice) = archived(&archiver, reports)?;
    let rows = reconciled(&archiver, 2)?;
    let shares: Vec<u64> = rows.iter().map(|row| number(row, "accepted")).collect();
    println!(
        "active-active: sent {reports}, archived {found}, lost {lost}, duplicated {twice}; one gateway killed and started 3 times, \
         rounds {rounds} ({unreachable} with one host down), accepted by node {shares:?}, {:.0?}",
        started.elapsed()
    );
    ensure!(lost == 0 && twice == 0 && found == reports);
    ensure!(shares.iter().all(|share| *share > 0), "one gateway had no part in it: {shares:?}");
    Ok(())
}

#[test]
fn failover_with_recovery_through_all_states() -> Result<()> {
    if !may_run("the failover drill") {
        return Ok(());
    }
    let folder = folder()?;
    let (ip1, ip2) = (address(0, 12), address(0, 13));
    let names = |more: Table| {
        let fixed: Table = vec![("msgw1.test", Data::A(ip1)), ("msgw2.test", Data::A(ip2))];
        [fixed, more].concat()
    };
    let normal = || names(vec![(DOMAIN, Data::Cname("msgw1.test"))]);
    let failover = || names(vec![(DOMAIN, Data::Cname("msgw2.test"))]);
    let recovery = || names(vec![(DOMAIN, Data::Cname("msgw2.test")), ("msgw2.test", Data::Mx(0, "msgw1.test"))]);
    let dns = Dns::start((address(0, 63), 53).into(), normal())?;
    let mut one = gateway(folder.path(), "msgw1", ip1, "")?;
    let mut two = gateway(folder.path(), "msgw2", ip2, "")?;
    let made = one.create_mailbox()?;
    share(folder.path(), &one, &two)?;
    one.start()?;
    two.start()?;
    let pins = [one.pin()?, two.pin()?];
    ensure!(two.stop()? == 0, "the second gateway waits for its day");
    let access = Access { address: format!("{}@{DOMAIN}", made.id), ..made };
    let archiver = Archiver::create(folder.path())?;
    collect(&archiver, &format!("mx = \"{DOMAIN}\""), Some(dns.address), &pins, &access)?;
    let mut sent = 0;
    let mut send = |gateway: &Gateway, reports: usize| -> Result<()> {
        let mut sender = gateway.smtp()?;
        for _ in 0..reports {
            let reply = sender.send("", &[&access.address], &numbered_report(sent).0)?;
            ensure!(reply.code == 250, "{reply:?}");
            sent += 1;
        }
        sender.quit()
    };
    let step = |state: &str, expected: u64, exit: i32| -> Result<()> {
        let (code, report) = round(&archiver)?;
        println!("{state}: collected {}, exit {code}", number(&report, "collected"));
        ensure!(number(&report, "collected") == expected && code == exit, "{state}: exit {code}, {report}");
        Ok(())
    };

    send(&one, 10)?;
    step("normal", 10, 0)?;
    // The first gateway ends with mail on it that nobody has collected.
    send(&one, 5)?;
    one.kill()?;
    dns.set(failover());
    two.start()?;
    send(&two, 8)?;
    step("failover", 8, 1)?;
    // It is back: new mail goes there, late mail still to the second.
    dns.set(recovery());
    one.start()?;
    send(&one, 4)?;
    send(&two, 3)?;
    step("recovery", 5 + 4 + 3, 0)?;
    dns.set(normal());
    ensure!(number(&two.show(&access.id)?, "messages") == 0, "the second gateway may not be stopped yet");
    ensure!(two.stop()? == 0);
    send(&one, 6)?;
    step("back to normal", 6, 0)?;
    let (found, lost, twice) = archived(&archiver, sent)?;
    reconciled(&archiver, 2)?;
    println!("failover drill: sent {sent}, archived {found}, lost {lost}, duplicated {twice}, left behind 0");
    ensure!(lost == 0 && twice == 0 && number(&one.show(&access.id)?, "messages") == 0);
    Ok(())
}

/// A gateway without the real ports.
fn plain(folder: &Path, name: &str) -> Result<Gateway> {
    let folder = folder.join(name);
    std::fs::create_dir(&folder)?;
    Gateway::create(&folder)
}

fn moved(gateway: &Gateway, from: &Path) -> Result<(i32, Value)> {
    let output = gateway.run(&["spool", "move-in", &from.display().to_string(), "--json"], b"")?;
    Ok((output.code, output.json()?))
}

#[test]
fn a_node_that_is_gone() -> Result<()> {
    let (reports, started) = (count(100).min(500), Instant::now());
    let folder = folder()?;
    let (mut one, mut two) = (plain(folder.path(), "msgw1")?, plain(folder.path(), "msgw2")?);
    one.start()?;
    let access = one.create_mailbox()?;
    share(folder.path(), &one, &two)?;
    two.start()?;
    let archiver = Archiver::create(folder.path())?;
    let hosts = |gateways: &[&Gateway]| -> Result<String> {
        let hosts = gateways.iter().map(|g| Ok(g.address("pop3s")?.to_string())).collect::<Result<Vec<_>>>()?;
        Ok(format!("hosts = [\"{}\"]", hosts.join("\", \"")))
    };
    let pins = [one.pin()?, two.pin()?];
    collect(&archiver, &hosts(&[&one, &two])?, None, &pins, &access)?;
    // Some were collected before: the old ledger is known up to there.
    let before = 7;
    for n in 0..reports {
        if n == before {
            let (code, report) = round(&archiver)?;
            ensure!(code == 0 && number(&report, "collected") == before as u64, "{report}");
        }
        let reply = one.smtp()?.send("", &[&access.address], &numbered_report(n).0)?;
        ensure!(reply.code == 250, "{reply:?}");
    }
    one.kill()?;
    let saved = folder.path().join("saved");
    copy(&one.data(), &saved)?;
    std::fs::remove_dir_all(one.data())?;

    let (code, first) = moved(&two, &saved)?;
    println!("move-in: {first}");
    ensure!(code == 0 && number(&first, "moved") == (reports - before) as u64, "{first}");
    let (code, second) = moved(&two, &saved)?;
    println!("again: {second}");
    ensure!(code == 0 && number(&second, "moved") + number(&second, "unrecorded") == 0, "{second}");
    ensure!(number(&two.show(&access.id)?, "messages") == (reports - before) as u64);
    let events = two.ledger(&access.id)?;
    let origin = events.first().and_then(|e| e.pointer("/origin/node")).and_then(Value::as_str).map(str::to_owned);
    ensure!(origin.is_some_and(|node| node.len() == 16), "the entry must name the node: {:?}", events.first());

    collect(&archiver, &hosts(&[&two])?, None, &pins, &access)?;
    let (code, report) = round(&archiver)?;
    ensure!(code == 0 && number(&report, "collected") == (reports - before) as u64, "exit {code}: {report}");
    let (found, lost, twice) = archived(&archiver, reports)?;
    let rows = reconciled(&archiver, 2)?;
    ensure!(rows.iter().map(|row| number(row, "accepted")).sum::<u64>() == reports as u64, "counted once: {rows:?}");
    two.run(&["verify"], b"")?.expect(0)?;
    // The old node, were it started again, has nothing to hand out.
    copy(&saved, &one.data())?;
    one.start()?;
    ensure!(one.pop3(&access)?.list()?.is_empty(), "the old node still hands messages out");
    let again = number(&moved(&two, &saved)?.1, "moved");
    println!(
        "a node destroyed after {reports} acceptances: {} moved, archived {found}, lost {lost}, duplicated {twice}, moved again {again}, \
         {:.0?}",
        reports - before,
        started.elapsed()
    );
    ensure!(lost == 0 && twice == 0 && again == 0);
    Ok(())
}

#[test]
fn move_in_killed_at_its_system_calls() -> Result<()> {
    let folder = folder()?;
    let (mut one, mut two) = (plain(folder.path(), "msgw1")?, plain(folder.path(), "msgw2")?);
    one.start()?;
    let access = one.create_mailbox()?;
    for n in 0..3 {
        ensure!(one.smtp()?.send("", &[&access.address], &numbered_report(n).0)?.code == 250);
    }
    one.kill()?;
    share(folder.path(), &one, &two)?;
    let (there, here) = (folder.path().join("there"), folder.path().join("here"));
    copy(&one.data(), &there)?;
    copy(&two.data(), &here)?;
    let fresh = || -> Result<()> {
        for (from, to) in [(&there, one.data()), (&here, two.data())] {
            std::fs::remove_dir_all(&to)?;
            copy(from, &to)?;
        }
        Ok(())
    };
    let command = two.command(&["spool", "move-in", &one.data().display().to_string()])?;
    let Some((output, all)) = points(&command, b"", folder.path(), 2)? else { return Ok(()) };
    output.expect(0)?;
    let mut ended = 0;
    for point in &all {
        fresh()?;
        ended += usize::from(killed(&command, b"", *point)?.code != 0);
        let (code, report) = moved(&two, &one.data())?;
        ensure!(code == 0, "{point:?}: {report}");
        let show = two.show(&access.id)?;
        let counts = ["messages", "moved_in_total", "accepted_total"].map(|key| number(&show, key));
        ensure!(counts == [3, 3, 0], "{point:?}: waiting, moved in, accepted {counts:?}");
        two.run(&["verify"], b"")?.expect(0).with_context(|| format!("{point:?}"))?;
        ensure!(number(&one.show(&access.id)?, "messages") == 0, "{point:?}: the old node still has them");
    }
    two.start()?;
    let mut session = two.pop3(&access)?;
    ensure!(session.list()?.len() == 3);
    println!("move-in killed at system calls: points {}, killed {ended}, each message once", all.len());
    ensure!(ended >= 5);
    Ok(())
}
