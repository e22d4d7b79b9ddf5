//! `doctor`: what is wrong, how to mend it, and the DNS records to publish.

use super::{Context, status};
use crate::{
    config::CertificateSource,
    doctor::{Doctor, State, policy, records},
    sources::Dns,
    tls,
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure},
};
use serde_json::json;
use std::sync::Arc;

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub struct Args {
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
    /// Do not read the waiting messages
    #[arg(long)]
    pub quick: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`]; [`Exit::Attention`] when something is wrong or could not be checked.
pub fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let account = match &config.tls.source {
        CertificateSource::Acme(settings) => tls::store(settings, &config.data_dir, &disk).account_url(),
        _ => None,
    };
    let (served, trouble) = match status::served(&config, &disk) {
        Ok(served) => (served, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let doctor = Doctor { config: &config, disk, certificate: served, account, thorough: !args.quick };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::cannot(format!("cannot start: {e}")))?;
    let mut findings = runtime.block_on(async {
        let dns = Dns::new(&config.dns).map_err(Failure::cannot)?;
        Ok::<_, Failure>(doctor.run(&dns).await)
    })?;
    if let Some(text) = trouble {
        findings.insert(0, crate::doctor::unusable(&text));
    }
    let publish = records(&doctor);
    let policies: Vec<(String, String)> = match config.tls.source {
        CertificateSource::SelfSigned => Vec::new(),
        _ => config.domains.iter().map(|d| (policy_url(d), policy(&config.hostname))).collect(),
    };
    let ok = findings.iter().all(|f| matches!(f.state, State::Ok | State::Note));
    if args.json {
        let policies: Vec<_> = policies.iter().map(|(url, text)| json!({"url": url, "text": text})).collect();
        println!("{}", json!({"ok": ok, "findings": findings, "publish": publish, "policies": policies}));
    } else {
        for finding in &findings {
            let state = match finding.state {
                State::Ok => "ok      ",
                State::Note => "note    ",
                State::Unknown => "UNKNOWN ",
                State::Problem => "PROBLEM ",
            };
            println!("{state} {:13} {}", finding.check, finding.detail);
            if !finding.remedy.is_empty() {
                println!("{:22} -> {}", "", finding.remedy);
            }
        }
        println!("\nRecords to publish:");
        for record in &publish {
            let need = if record.required { "required" } else { "optional" };
            println!("{}\n    ; {need}: {}", record.line(), record.note);
        }
        for (url, text) in &policies {
            println!(
                "\nPolicy to publish with MTA-STS at {url}\n(a month of trial, then mode: enforce and max_age: 604800):\n{text}"
            );
        }
    }
    Ok(if ok { Exit::Done } else { Exit::Attention })
}

fn policy_url(domain: &str) -> String {
    format!("https://mta-sts.{domain}/.well-known/mta-sts.txt")
}
