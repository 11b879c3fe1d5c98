//! The files in `ops/` and the site agree with the program: settings that they contain are valid,
//! versions are this one, and every document has its place.

#![allow(clippy::disallowed_methods, reason = "the tests read files of the repository")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use strandline_server::{Config, ConfigError, Sources};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn settings(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("strandline.toml");
    std::fs::write(&path, text).expect("it is written");
    // Kubernetes has it from a secret.
    let variables = vec![("STRANDLINE_PASSWORD".to_owned(), "secret".to_owned())];
    let sources = Sources { file: Some(path), variables, ..Sources::default() };
    sources.load().map(|loaded| loaded.config)
}

/// The value of a setting of a unit.
fn of_unit<'a>(unit: &'a str, name: &str) -> &'a str {
    let line = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("the unit has no {name}"))
}

#[test]
fn the_settings_of_the_debian_package_are_valid_and_fit_its_unit() {
    let config = settings(&text("ops/debian/strandline.toml")).expect("they are valid");
    let unit = text("ops/systemd/strandline.service");
    let state = Path::new("/var/lib").join(of_unit(&unit, "StateDirectory"));
    let backups = config.backup_dir.expect("backups are taken");
    assert!(config.backup.schedule.is_some());
    assert!(config.dir.starts_with(&state) && backups.starts_with(&state));
    assert!(!backups.starts_with(&config.dir), "a backup is no file of the data");
    assert!(config.bind.is_loopback(), "nobody has set who may log in");
    assert!(
        of_unit(&unit, "ExecStart").ends_with("--config /etc/strandline/strandline.toml"),
        "the package installs this file"
    );
    let manifest = text("server/Cargo.toml");
    assert!(manifest.contains(r#"conf-files = ["/etc/strandline/strandline.toml"]"#));
}

#[test]
fn the_settings_of_the_kubernetes_manifest_are_valid_and_its_image_is_this_version() {
    let manifest = text("ops/kubernetes/strandline.yaml");
    let (_, rest) = manifest.split_once("strandline.toml: |\n").expect("it has settings");
    let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let config = settings(&lines.collect::<Vec<_>>().join("\n")).expect("they are valid");
    let backups = config.backup_dir.expect("backups are taken");
    assert!(config.dir.starts_with("/data") && backups.starts_with("/data"));
    assert!(manifest.contains("mountPath: /data\n"));
    assert!(manifest.contains(concat!("image: strandline:", env!("CARGO_PKG_VERSION"), "\n")));
    assert!(manifest.contains("enableServiceLinks: false"), "it would set STRANDLINE_PORT");
}

#[test]
fn the_site_has_every_document() {
    let summary = text("docs/SUMMARY.md");
    let listed: BTreeSet<String> = summary
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .filter(|link| !link.is_empty())
        .collect();
    let mut there = BTreeSet::new();
    for folder in ["", "decisions/"] {
        for entry in std::fs::read_dir(root().join("docs").join(folder)).expect("a folder") {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            if Path::new(&name).extension().is_some_and(|ending| ending == "md") {
                there.insert(format!("{folder}{name}"));
            }
        }
    }
    there.remove("SUMMARY.md");
    assert_eq!(listed, there);
}
