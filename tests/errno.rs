//! The same errors from outside: the kernel's answers to a running gateway are replaced with strace (`-e inject`), one
//! call and one error at a time, while a message is sent. A sample; `gateway/tests/faults.rs` covers every place.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};
use support::{Gateway, Smtp, folder, numbered_report, pop3};

/// Calls that carry a message to the disk, and what they are made to say.
const FAULTS: [(&str, &str); 10] = [
    ("fdatasync", "EIO"),
    ("fdatasync", "ENOSPC"),
    ("fdatasync", "EDQUOT"),
    ("fsync", "EIO"),
    ("fsync", "EROFS"),
    ("renameat2", "EIO"),
    ("renameat2", "ENOSPC"),
    ("open", "EMFILE"),
    ("open", "EROFS"),
    ("open", "EDQUOT"),
];

/// Attaches strace; it is at work when this returns.
fn inject(pid: u32, call: &str, error: &str) -> Result<Child> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-p", &pid.to_string(), "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:error={error}")]);
    let mut child = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("piped")?).lines();
    let first = lines.next().context("strace says nothing")??;
    ensure!(first.contains("attached"), "strace: {first}");
    // Whatever else it says must not fill the pipe.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Ok(child)
}

#[test]
fn no_250_for_what_the_kernel_refused() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    let access = gateway.create_mailbox()?;
    let (mut acknowledged, mut replies) = (Vec::new(), Vec::new());
    for (n, (call, error)) in FAULTS.into_iter().enumerate() {
        gateway.start()?;
        let mut sender = Smtp::connect(gateway.address("smtp")?)?;
        let message = numbered_report(2 * n).0;
        let reply = sender.send("", &[&access.address], &message)?;
        ensure!(reply.code == 250, "before {call} {error}: {reply:?}");
        acknowledged.push((reply.receipts()?.first().context("a receipt")?.0.clone(), message));
        let mut strace = inject(gateway.server()?.pid(), call, error)?;
        // The connection may end instead of a reply: nothing was promised then either.
        let code = sender.send("", &[&access.address], &numbered_report(2 * n + 1).0).map_or(0, |reply| reply.code);
        strace.kill()?;
        strace.wait()?;
        ensure!(code != 250, "{call} {error}: answered 250");
        let full = matches!(error, "ENOSPC" | "EDQUOT");
        // The first file opened is the mailbox definition, where nothing can be full.
        let full = full && call != "open";
        ensure!(code == 0 || matches!((full, code), (true, 452) | (false, 421 | 451)), "{call} {error}: {code}");
        replies.push(format!("{call} {error} {code}"));
        gateway.kill()?;
    }
    gateway.start()?;
    let mut collector = gateway.pop3(&access)?;
    let listed = collector.uidl()?;
    let mut found = 0;
    for (uidl, message) in &acknowledged {
        let mut numbers = listed.iter().filter(|(_, name)| name == uidl);
        let (number, _) = numbers.next().with_context(|| format!("{uidl} is lost"))?;
        ensure!(numbers.next().is_none(), "{uidl} twice");
        pop3::same(uidl, pop3::without_trace(&collector.xretr(*number)?.0)?, message)?;
        found += 1;
    }
    println!(
        "strace: {} points ({}); {} acknowledged, {found} found, lost 0, duplicated 0",
        FAULTS.len(),
        replies.join(", "),
        acknowledged.len()
    );
    Ok(())
}
