//! TLS 1.2 renegotiation (RFC 5746, CVE-2009-3555, CVE-2011-1473): refused, on every port with TLS.
//!
//! rustls answers a second ClientHello with the alert no_renegotiation and never does a second handshake; OpenSSL, which
//! asks for one here, then ends the connection. Nothing that a client said before counts for another one.
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something else")]

#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "support/rig.rs"]
mod rig;

use postkeep_gateway::server::Kind;
use postkeep_shared::disk::LocalDisk;
use rig::Rig;
use std::{
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// Stops the program whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Connects with OpenSSL and a line of no sense, asks for a new handshake, and says `behind`. What OpenSSL prints.
fn renegotiate(file: &Path, kind: Kind, address: SocketAddr, behind: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-tls1_2", "-crlf", "-connect", &address.to_string()]);
    match kind {
        Kind::Smtp => drop(command.args(["-starttls", "smtp"])),
        Kind::Pop3 => drop(command.args(["-starttls", "pop3"])),
        _ => {}
    }
    let out = File::create(file).unwrap();
    command.stdin(Stdio::piped()).stdout(out.try_clone().unwrap()).stderr(out);
    let mut openssl = Running(command.spawn().expect("openssl is installed"));
    let mut stdin = openssl.0.stdin.take().unwrap();
    wait_for(file, "Verify return code");
    stdin.write_all(b"XYZZY\n").unwrap();
    // The handshake is through and the server answers.
    wait_for(
        file,
        match kind {
            Kind::Smtp | Kind::Smtps => "500 5.5.1",
            _ => "-ERR",
        },
    );
    // A line with `R` alone is s_client's command for it.
    stdin.write_all(b"R\n").unwrap();
    wait_for(file, "RENEGOTIATING");
    // Behind a refusal the program may be gone already.
    let _gone = stdin.write_all(behind.as_bytes());
    drop(stdin);
    openssl.0.wait().unwrap();
    std::fs::read_to_string(file).unwrap()
}

fn wait_for(file: &Path, text: &str) {
    let began = Instant::now();
    loop {
        let printed = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        if printed.contains(text) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "OpenSSL never printed `{text}`: {printed}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_handshake_is_refused() {
    let rig = Rig::with("listen_tls = ['127.0.0.1:0']", "", &[]).await;
    let served = rig.serve(Arc::new(LocalDisk)).await;
    for kind in [Kind::Smtp, Kind::Smtps, Kind::Pop3, Kind::Pop3s] {
        // What would be answered only in a session that goes on.
        let (behind, answer) = match kind {
            Kind::Smtp | Kind::Smtps => ("HELP\n", "214 "),
            _ => ("CAPA\n", "IMPLEMENTATION"),
        };
        let (file, address) = (rig.folder.path().join(kind.to_string()), served.address(kind));
        let asking = tokio::task::spawn_blocking(move || renegotiate(&file, kind, address, behind));
        let printed = asking.await.unwrap();
        assert!(printed.contains("no renegotiation"), "{kind}: {printed}");
        assert!(!printed.contains(answer), "{kind}: the session went on: {printed}");
        println!("{kind}: renegotiation refused");
    }
    // The next client is served.
    assert!(rig.login(&served, 0).await.ask("STAT").await.starts_with("+OK 0"));
    served.stop().await;
}
