//! Writes settings into the configuration file. All other lines, their order and the comments stay.
//!
//! The file is replaced as a whole by a rename, so that a crash leaves the old one or the new one.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the configuration file is no file of the engine's"
)]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, TableLike, Value, value};

use super::mistake::mistake;
use super::setting::Plain;
use super::{Config, ConfigError};

/// Sets the values of these names in the file.
pub fn rewrite(path: &Path, values: &[(&str, Plain)]) -> Result<(), ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_path_buf(), source };
    let written = |source| ConfigError::Write { path: path.to_path_buf(), source };
    // A link stays a link: the file that it names is replaced.
    let path = fs::canonicalize(path).map_err(read)?;
    let text = fs::read_to_string(&path).map_err(read)?;
    let text = edited(&text, values)
        .map_err(|what| ConfigError::Value { what: format!("{}: {what}", path.display()) })?;
    replace(&path, &text).map_err(written)
}

/// The text with these values.
fn edited(text: &str, values: &[(&str, Plain)]) -> Result<String, String> {
    let parsed = text.parse();
    let mut document: DocumentMut = parsed
        .map_err(|error: toml_edit::TomlError| mistake(text, error.message(), error.span()))?;
    for (name, plain) in values {
        let mut parts: Vec<&str> = name.split('.').collect();
        let key = parts.pop().expect("a split has at least one part");
        let mut table: &mut dyn TableLike = document.as_table_mut();
        for part in parts {
            let section = table.entry(part).or_insert_with(|| Item::Table(Table::new()));
            table = section.as_table_like_mut().ok_or(format!("{part} is not a section"))?;
        }
        put(table, key, plain);
    }
    let text = document.to_string();
    // What was written must be read at the next start.
    toml::from_str::<Config>(&text)
        .map_err(|error| mistake(&text, error.message(), error.span()))?;
    Ok(text)
}

fn put(table: &mut dyn TableLike, key: &str, plain: &Plain) {
    let new: Value = match plain {
        Plain::Nothing => "".into(),
        Plain::Flag(flag) => (*flag).into(),
        Plain::Number(number) => i64::try_from(*number).unwrap_or(i64::MAX).into(),
        Plain::Text(text) => text.as_str().into(),
    };
    match table.get_mut(key).and_then(Item::as_value_mut) {
        // The comment after the old value stays.
        Some(old) => {
            let decor = old.decor().clone();
            *old = new;
            *old.decor_mut() = decor;
        }
        None => drop(table.insert(key, value(new))),
    }
}

/// Replaces a file, and keeps its mode.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    let written = write_new(&new, path, text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The error is what counts; the next rewrite overwrites the rest.
        let _ = fs::remove_file(&new);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(new: &Path, old: &Path, text: &str) -> io::Result<()> {
    // It may have secrets in it: it must not be readable by others before it has its mode.
    let _ = fs::remove_file(new);
    let mut file = {
        use std::os::unix::fs::OpenOptionsExt as _;
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?
    };
    file.set_permissions(fs::metadata(old)?.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn values_are_replaced_and_everything_else_stays() {
        let text = "# Ours.\nport = 1 # a port\n\n[limits]\n# Few.\nmax_clients = 1  # one\n\n\
                    [messaging]\nmax_members = 3\n";
        let values = [
            ("limits.max_clients", Plain::Number(20)),
            ("limits.auth_seconds", Plain::Number(5)),
            ("compact_bytes_per_second", Plain::Number(7)),
        ];
        let expected = "# Ours.\nport = 1 # a port\ncompact_bytes_per_second = 7\n\n[limits]\n\
                        # Few.\nmax_clients = 20  # one\nauth_seconds = 5\n\n[messaging]\n\
                        max_members = 3\n";
        assert_eq!(edited(text, &values).expect("it is valid"), expected);
        let other = "limits = { max_clients = 1 }\n";
        let changed = edited(other, &values[..1]).expect("it is valid");
        assert_eq!(changed, "limits = { max_clients = 20 }\n");
        assert_eq!(
            edited("", &values[..1]).expect("it is valid"),
            "[limits]\nmax_clients = 20\n",
            "a section is made"
        );
        assert!(edited("port = ", &values).is_err());
        assert!(edited("limits = 1", &values).is_err_and(|what| what.contains("limits")));
        for text in ["password = \"sesame", "users = \"sesame\""] {
            let what = edited(text, &values).expect_err("it is not valid");
            assert!(what.starts_with("line ") && !what.contains("sesame"), "{what}");
        }
    }

    #[test]
    fn the_file_keeps_its_mode_and_a_link_stays_a_link() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (file, link) = (folder.path().join("real.toml"), folder.path().join("link.toml"));
        fs::write(&file, "port = 1\n").expect("it is written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it has a mode");
        std::os::unix::fs::symlink(&file, &link).expect("a link is made");
        rewrite(&link, &[("limits.max_clients", Plain::Number(2))]).expect("it is written");
        assert_eq!(
            fs::read_to_string(&file).expect("it is read"),
            "port = 1\n\n[limits]\nmax_clients = 2\n"
        );
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
        assert_eq!(fs::read_dir(folder.path()).expect("it is read").count(), 2);
        let missing = rewrite(&folder.path().join("none.toml"), &[]).expect_err("it is missing");
        assert!(missing.to_string().contains("none.toml"));
    }
}
