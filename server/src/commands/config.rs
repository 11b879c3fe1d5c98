//! CONFIG: reads and changes the settings of the running server.
//!
//! Settings have their own names, and those that mean the same in Redis its names as well. GET also
//! reports a few facts that tools for Redis ask for.

use std::sync::Arc;

use bytes::Bytes;

use super::arguments::unknown_subcommand;
use super::reply::write_help;
use super::row::{Class, Command, Context, Done, Flow, Run};
use super::scope::Scope;
use crate::config::{ConfigError, Setting, find, settings};
use crate::glob::matches;
use crate::refusal::Refusal;
use crate::shared::Shared;

pub(super) static COMMANDS: &[Command] = &[Command::new(
    "CONFIG",
    -2,
    Class::Admin,
    Run::Now(config),
)
.touches(Scope::Everything)
.secret()
.told(
    "GET pattern [pattern ...] | SET name value [name value ...] | REWRITE | RESETSTAT",
    "GET: map of the settings whose names match; a secret is hidden. SET changes settings that \
         may change at run time, all of them or none: OK. REWRITE writes what SET has changed into \
         the configuration file: OK. RESETSTAT: counters of the server and of commands start at 0 \
         again: OK.",
)];

fn config(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (word, rest) = (&arguments[0], &arguments[1..]);
    let wrong_count = |word: &str| {
        Err(Refusal::usage(format!("wrong number of arguments for 'config|{word}' command")))
    };
    match word.to_ascii_lowercase().as_slice() {
        b"help" if rest.is_empty() => write_help("CONFIG", context),
        b"get" if rest.is_empty() => wrong_count("get"),
        b"get" => get(context, rest),
        b"set" if rest.is_empty() || !rest.len().is_multiple_of(2) => wrong_count("set"),
        b"set" => set(context, rest),
        b"resetstat" if rest.is_empty() => {
            context.shared.metrics.reset();
            context.shared.calls.reset();
            context.connection.out.ok();
            Ok(Flow::Done)
        }
        b"rewrite" if !rest.is_empty() => wrong_count("rewrite"),
        b"rewrite" => {
            let shared = Arc::clone(context.shared);
            Ok(Flow::Slow(Box::new(move || {
                shared.config.rewrite().map(|()| Done::Ok).map_err(refusal)
            })))
        }
        _ => Err(unknown_subcommand("CONFIG", word)),
    }
}

/// An error of the settings, with its cause.
fn refusal(error: ConfigError) -> Refusal {
    Refusal::usage(format!("{:#}", anyhow::Error::from(error)))
}

fn get(context: &mut Context<'_>, patterns: &[Bytes]) -> Result<Flow, Refusal> {
    let patterns: Vec<Vec<u8>> =
        patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
    let found: Vec<(&str, String)> = all(context.shared)
        .into_iter()
        .filter(|(name, _)| patterns.iter().any(|pattern| matches(pattern, name.as_bytes())))
        .collect();
    let out = &mut context.connection.out;
    out.map(found.len());
    for (name, value) in found {
        out.bulk(name);
        out.bulk(value);
    }
    Ok(Flow::Done)
}

fn set(context: &mut Context<'_>, pairs: &[Bytes]) -> Result<Flow, Refusal> {
    let mut wanted = Vec::with_capacity(pairs.len() / 2);
    for pair in pairs.chunks_exact(2) {
        let name = String::from_utf8_lossy(&pair[0]).to_lowercase();
        let by_redis_name = || settings().find(|setting| setting.redis == Some(name.as_str()));
        let setting = find(&name).or_else(by_redis_name).ok_or_else(|| {
            Refusal::usage(format!(
                "Unknown option or number of arguments for CONFIG SET - '{name}': strandline \
                 settings lists all"
            ))
        })?;
        let is_repeated = |(other, _): &(&Setting, String)| other.name == setting.name;
        if wanted.iter().any(is_repeated) {
            return Err(Refusal::usage(format!("CONFIG SET has '{name}' twice")));
        }
        let value = String::from_utf8(pair[1].to_vec())
            .map_err(|_| Refusal::usage(format!("CONFIG SET: '{name}' is not UTF-8")))?;
        wanted.push((setting, value));
    }
    // A rewrite that is in progress is waited for.
    let shared = Arc::clone(context.shared);
    Ok(Flow::Slow(Box::new(move || {
        shared.configure(&wanted).map_err(refusal)?;
        Ok(Done::Then(Box::new(|context| {
            // The next command of a pipeline already runs with the new settings.
            context.shared.config.refresh(&mut context.connection.config);
            context.connection.out.ok();
            Ok(())
        })))
    })))
}

/// The facts that tools for Redis ask for, then the settings, each under all of its names.
fn all(shared: &Shared) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("save", String::new()),
        ("appendonly", "yes".to_owned()),
        ("appendfsync", "always".to_owned()),
        ("databases", "1".to_owned()),
        ("maxmemory", "0".to_owned()),
        // Those that were found, if any were to be taken.
        ("bind", shared.address.ip().to_string()),
        ("port", shared.address.port().to_string()),
    ];
    let config = shared.config.now();
    for setting in settings().filter(|setting| !matches!(setting.name, "bind" | "port")) {
        let names = [Some(setting.name), setting.redis];
        all.extend(names.into_iter().flatten().map(|name| (name, setting.shown(&config))));
    }
    all
}
