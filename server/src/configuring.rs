//! The settings on the command line: the options with which they are given, and the verbs that show
//! them.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use strandline_server::{Sources, check, sample_file, settings_help};

/// The options that give settings. They override the environment, which overrides the file.
#[derive(Args)]
pub struct GivenSettings {
    /// TOML file with settings [default: the variable `STRANDLINE_CONFIG`].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting, as in `limits.max_clients=20000`; may be repeated. `strandline settings` lists
    /// all.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

impl GivenSettings {
    /// The sources of the settings, with those of the environment.
    pub fn sources(self) -> anyhow::Result<Sources> {
        let mut sources = Sources::of_environment()?;
        sources.file = self.config.or(sources.file);
        sources.flags = self.settings;
        Ok(sources)
    }
}

/// The options of `serve`.
#[derive(Args)]
pub struct Serve {
    /// Directory of the data [default: strandline-data].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Port to listen on; 0 takes a free one [default: 7411].
    #[arg(long)]
    port: Option<u16>,
    /// Serve intact data and refuse writes.
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    given: GivenSettings,
}

impl Serve {
    /// The sources of the settings: the options that have a name of their own are settings like
    /// all others.
    pub fn sources(self) -> anyhow::Result<Sources> {
        let mut sources = self.given.sources()?;
        let named = [
            ("dir", self.dir.map(|dir| dir.into_os_string().into_string())),
            ("bind", self.bind.map(|bind| Ok(bind.to_string()))),
            ("port", self.port.map(|port| Ok(port.to_string()))),
            ("read_only", self.read_only.then(|| Ok("true".into()))),
        ];
        for (name, value) in named {
            let Some(value) = value else { continue };
            let value = value.map_err(|_| anyhow::anyhow!("--{name} must be UTF-8"))?;
            sources.flags.push((name.into(), value));
        }
        Ok(sources)
    }
}

/// The verbs about settings.
#[derive(Subcommand)]
pub enum Configuring {
    /// Check the settings, and print those that a server would have, each with its origin.
    ///
    /// Reads the file, the environment, the options, the certificates, the users and the keys of
    /// tokens as `serve` does. Ends with 1, and a sentence on standard error, if a setting is
    /// unknown or is not allowed. Secrets are not shown.
    CheckConfig(CheckConfig),
    /// List all settings, with defaults, variables of the environment, and bounds.
    Settings(ListSettings),
}

/// The options of `check-config`.
#[derive(Args)]
pub struct CheckConfig {
    /// TOML file with settings [default: the variable `STRANDLINE_CONFIG`].
    file: Option<PathBuf>,
    /// A setting, as in `limits.max_clients=20000`; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
}

/// The options of `settings`.
#[derive(Args)]
pub struct ListSettings {
    /// Print a configuration file with all settings in comments instead.
    #[arg(long)]
    sample: bool,
}

/// Runs a verb.
pub fn run(verb: Configuring) -> anyhow::Result<()> {
    let text = match verb {
        Configuring::Settings(ListSettings { sample: true }) => sample_file(),
        Configuring::Settings(ListSettings { sample: false }) => settings_help(),
        Configuring::CheckConfig(CheckConfig { file, settings }) => {
            let loaded = GivenSettings { config: file, settings }.sources()?.load()?;
            check(&loaded.config)?;
            loaded.lines()
        }
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}
