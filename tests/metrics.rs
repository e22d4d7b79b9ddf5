//! Figures of both programs, scraped by a real Prometheus (Debian's package), and everything in `deploy/` that reads them.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, UNIX_EPOCH},
};
use support::{Archiver, Gateway, Server, folder, http::get, numbered_report, root, run};

const METRICS: &str = "[metrics]\nlisten = [\"127.0.0.1:0\"]\n";
const LIMIT: Duration = Duration::from_secs(90);

fn has_prometheus() -> Result<bool> {
    let has = |name: &str| {
        let quiet = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet.is_ok_and(|status| status.success())
    };
    let may = has("prometheus") && has("promtool");
    if !may {
        eprintln!("NOT RUN: metrics need Prometheus (apt-get install prometheus)");
        ensure!(std::env::var_os("CI").is_none(), "under CI everything runs");
    }
    Ok(may)
}

/// Both programs with something of everything: accepted, refused, collected, quarantined, left, reconciled.
struct Scene {
    folder: tempfile::TempDir,
    gateway: Gateway,
    metrics: [SocketAddr; 2],
    archiver: Archiver,
    _gateway: Server,
    _archiver: Server,
    secrets: Vec<String>,
    mailbox: support::Access,
}

fn scene() -> Result<Scene> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    let access = gateway.create_mailbox()?;
    gateway.start()?;
    let pin = gateway.pin()?;
    gateway.stop()?;
    gateway.configure(METRICS)?;
    let of_gateway = Server::start(&mut gateway.command(&["serve"])?, &["smtp", "pop3s", "metrics"])?;
    let archiver = Archiver::create(folder.path())?;
    let password = archiver.folder.join("m365.password");
    std::fs::write(&password, format!("{}\n", access.password))?;
    support::archiver::restrict(&password)?;
    archiver.configure(&format!(
        "{METRICS}[[source]]\nname = \"m365\"\nhosts = [\"{}\"]\nmailbox = \"{}\"\npassword_file = \"m365.password\"\n\
         tls = {{ verify = \"pin\", pin_sha256 = [\"{pin}\"] }}\ninterval = \"1s\"\n\n\
         [[probe]]\nname = \"way\"\nserver = \"127.0.0.1:9\"\nfrom = \"probe@aurora.example\"\n\
         to = \"echo@aurora.example\"\ninterval = \"1h\"\n",
        of_gateway.address("pop3s")?,
        access.id,
    ))?;
    // One that came back a minute ago: the next is not due yet.
    let now = u64::try_from(UNIX_EPOCH.elapsed()?.as_millis())?;
    let (sent, probes) = (now - 60_000, archiver.data().join("probes"));
    std::fs::create_dir_all(&probes)?;
    let one = json!([{"chance": "ab", "sent_ms": sent, "error": null}]);
    std::fs::write(probes.join("way.sent.json"), one.to_string())?;
    let one = json!([{"chance": "ab", "sent_ms": sent, "arrived_ms": sent + 1500}]);
    std::fs::write(probes.join("way.seen.json"), one.to_string())?;
    let of_archiver = Server::start(&mut archiver.command(&["serve"])?, &["metrics"])?;
    let secrets = vec![access.id.clone(), access.id.trim_start_matches("mbx-").to_owned(), access.password.clone()];
    let metrics = [of_gateway.address("metrics")?, of_archiver.address("metrics")?];
    Ok(Scene {
        folder,
        gateway,
        metrics,
        archiver,
        _gateway: of_gateway,
        _archiver: of_archiver,
        secrets,
        mailbox: access,
    })
}

impl Scene {
    fn send(&self, from: usize, to: usize) -> Result<()> {
        let mut smtp = support::Smtp::connect_tls(self._gateway.address("smtp")?, &self.gateway.pin()?)?;
        for n in from..to {
            let reply = smtp.send_data("", &[&self.mailbox.address], &numbered_report(n).0)?;
            ensure!(reply.code == 250, "{reply:?}");
        }
        let refused = smtp.send_data("", &["nobody@msgw.archive.example"], b"Subject: x\r\n\r\nx\r\n")?;
        ensure!(refused.code == 550 || refused.code == 554 || refused.code == 503, "{refused:?}");
        smtp.quit()
    }
}

fn until(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !is()? {
        ensure!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Names of all families in a text.
fn families(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect()
}

/// Every expression of the dashboard, with its panel's title.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard.get("panels").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for panel in panels {
        let title = panel.get("title").and_then(Value::as_str).unwrap_or_default().to_owned();
        for target in panel.get("targets").and_then(Value::as_array).into_iter().flatten() {
            let expr = target.get("expr").and_then(Value::as_str).unwrap_or_default();
            found.push((title.clone(), expr.replace("$__rate_interval", "30s")));
        }
    }
    found
}

struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(folder: &Path, targets: &[SocketAddr; 2]) -> Result<Self> {
        let rules = root().join("deploy/prometheus/postkeep.rules.yml");
        let config = folder.join("prometheus.yml");
        std::fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{}\"]\nscrape_configs:\n\
                 - {{ job_name: postkeep-gateway, static_configs: [{{ targets: [\"{}\"] }}] }}\n\
                 - {{ job_name: postkeep-archiver, static_configs: [{{ targets: [\"{}\"] }}] }}\n",
                rules.display(),
                targets[0],
                targets[1]
            ),
        )?;
        let address = support::ports::free_address()?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("prometheus.log"))?)
            .spawn()?;
        Ok(Self { child, address })
    }

    fn ask(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "10", "--get"]);
        for (name, value) in query {
            curl.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        curl.arg(format!("http://{}{path}", self.address));
        run(&mut curl, b"")?.json()
    }

    /// The samples of a query.
    fn query(&self, expr: &str) -> Result<Vec<Value>> {
        let answer = self.ask("/api/v1/query", &[("query", expr)])?;
        ensure!(answer.get("status").and_then(Value::as_str) == Some("success"), "{expr}: {answer}");
        Ok(answer.pointer("/data/result").and_then(Value::as_array).cloned().unwrap_or_default())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_prometheus_reads_both_programs() -> Result<()> {
    if !has_prometheus()? {
        return Ok(());
    }
    let deploy = root().join("deploy");
    let promtool = |arguments: &[&str], input: &[u8]| {
        run(Command::new("promtool").args(arguments).current_dir(deploy.join("prometheus")), input)
    };
    println!("{}", promtool(&["check", "rules", "postkeep.rules.yml"], b"")?.expect(0)?.text().trim());
    println!("{}", promtool(&["test", "rules", "postkeep.test.yml"], b"")?.expect(0)?.text().trim());

    let scene = scene()?;
    let prometheus = Prometheus::start(scene.folder.path(), &scene.metrics)?;
    until("Prometheus answers", || Ok(prometheus.query("up == 1").is_ok_and(|up| up.len() == 2)))?;
    scene.send(0, 20)?;
    until("collected", || {
        Ok(get(scene.metrics[1], "/metrics")?.1.contains("postkeep_archiver_collected_total{source=\"m365\"} 20"))
    })?;
    // Exit 0: green. What it found is a figure from then on.
    scene.archiver.run(&["reconcile"], b"")?.expect(0)?;
    ensure!(scene.archiver.data().join("reconcile.json").exists(), "what reconcile found was not kept");
    // A message that waits has an age.
    scene.archiver.run(&["source", "pause", "m365"], b"")?.expect(0)?;
    std::thread::sleep(Duration::from_secs(2));
    scene.send(20, 22)?;

    let documented = std::fs::read_to_string(root().join("docs/metrics.md"))?;
    let mut total = 0;
    for (address, prefix) in scene.metrics.iter().zip(["postkeep_gateway_", "postkeep_archiver_"]) {
        let (code, text) = get(*address, "/metrics")?;
        ensure!(code == 200);
        let checked = promtool(&["check", "metrics"], text.as_bytes())?.expect(0)?;
        ensure!(checked.text().is_empty() && checked.err.is_empty(), "{}{}", checked.text(), checked.err);
        for secret in scene.secrets.iter().map(String::as_str).chain(["@", "aurora.example"]) {
            ensure!(!text.contains(secret), "a secret or an address stands in the figures");
        }
        let (told, names) = (families(&text), words(&documented, prefix));
        let undocumented: Vec<_> = told.difference(&names).collect();
        let gone: Vec<_> = names.difference(&told).collect();
        ensure!(undocumented.is_empty() && gone.is_empty(), "not in the page: {undocumented:?}, not told: {gone:?}");
        total += told.len();
        for path in ["/healthz", "/readyz"] {
            let (code, body) = get(*address, path)?;
            ensure!(code == 200 && body == "{\"ok\":true,\"reasons\":[]}\n", "{path}: {code} {body}");
        }
    }
    let text = get(scene.metrics[1], "/metrics")?.1;
    ensure!(text.contains("postkeep_archiver_probe_latency_seconds{probe=\"way\"} 1.5"), "{text}");
    ensure!(text.contains("postkeep_archiver_probe_lost_total{probe=\"way\"} 0"), "{text}");
    let label = scene.gateway.show(&scene.mailbox.id)?;
    let label = label.get("label").and_then(Value::as_str).context("label")?.to_owned();
    ensure!(get(scene.metrics[0], "/metrics")?.1.contains(&format!("waiting_messages{{mailbox=\"{label}\"}} 2")));

    // Every query of the dashboard has data; some need two scrapes, and the store's figures come once a minute.
    let dashboard: Value = serde_json::from_slice(&std::fs::read(deploy.join("grafana/postkeep.json"))?)?;
    let expressions = expressions(&dashboard);
    ensure!(expressions.len() > 40, "{}", expressions.len());
    for (title, expr) in &expressions {
        until(&format!("{title}: {expr}"), || Ok(!prometheus.query(expr)?.is_empty()))?;
    }
    // Every alert can be evaluated, and none is raised but what is so.
    let rules = prometheus.ask("/api/v1/rules", &[])?;
    let groups = rules.pointer("/data/groups").and_then(Value::as_array).context("groups")?;
    let rules: Vec<&Value> = groups.iter().filter_map(|g| g.get("rules")?.as_array()).flatten().collect();
    let sick: Vec<_> = rules.iter().filter(|r| r.get("health").and_then(Value::as_str) != Some("ok")).collect();
    ensure!(sick.is_empty(), "{sick:?}");
    let firing: Vec<_> = rules.iter().filter(|r| r.get("state").and_then(Value::as_str) == Some("firing")).collect();
    ensure!(firing.is_empty(), "{firing:?}");
    println!(
        "{total} figures, `promtool check metrics` without a word; {} dashboard queries with data; {} alerts healthy",
        expressions.len(),
        rules.len()
    );
    Ok(())
}

/// Every figure with this prefix that the page names.
fn words(page: &str, prefix: &str) -> BTreeSet<String> {
    let names = page.split('`').filter(|word| word.starts_with(prefix));
    names
        .filter(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        .map(str::to_owned)
        .collect()
}
