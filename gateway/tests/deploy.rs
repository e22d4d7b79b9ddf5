//! `deploy/gateway.toml` loads as it is, and every default it shows is the real one.

use postkeep_gateway::config::GatewayConfig;
use std::path::Path;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/gateway.toml");

#[test]
fn the_file_loads_as_it_is() {
    let config = GatewayConfig::load(Path::new(FILE)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.hostname, "msgw.archive.example");
}

#[test]
fn what_is_shown_as_default_is_the_default() {
    let text = std::fs::read_to_string(FILE).expect("is there");
    let settings = |line: &&str| line.strip_prefix("# ").is_some_and(|l| l.split_once(" = ").is_some_and(is_setting));
    let shown = text.lines().filter(settings).count();
    // Files cannot be named together with the default mode; everything else is switched on.
    let switched: String = text
        .lines()
        .map(|line| {
            let on = settings(&line) && !line.contains("_file = ");
            if on { line.trim_start_matches("# ") } else { line }
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let folder = tempfile::tempdir().expect("temporary folder");
    let (all, short) = (folder.path().join("all.toml"), folder.path().join("short.toml"));
    std::fs::write(&all, switched).expect("writes");
    std::fs::write(&short, "hostname = 'msgw.archive.example'\n").expect("writes");
    let load = |path: &Path| {
        let mut config = GatewayConfig::load(path).unwrap_or_else(|e| panic!("{e}"));
        config.file = Path::new("same").to_owned();
        format!("{config:?}")
    };
    assert_eq!(load(&all), load(&short));
    assert!(shown > 15, "only {shown} settings found");
}

fn is_setting((key, _): (&str, &str)) -> bool {
    key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}
