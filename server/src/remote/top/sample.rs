//! What a server reports of itself at one time: TL.STATS, INFO, CLIENT LIST.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::remote::frame::Frame;
use crate::remote::link::{Link, LinkError};

/// The figures of one time. What this user may not ask for is empty.
#[derive(Debug)]
pub struct Sample {
    /// When they were taken.
    pub at: Instant,
    /// TL.STATS.
    pub figures: BTreeMap<String, u64>,
    /// The facts of INFO.
    pub info: BTreeMap<String, String>,
    /// The lines of CLIENT LIST, as words with values.
    pub connections: Vec<BTreeMap<String, String>>,
}

impl Sample {
    /// Asks a server.
    pub async fn take(link: &mut Link) -> anyhow::Result<Sample> {
        let figures = link.call(&["TL.STATS"]).await?.or_error()?;
        let at = Instant::now();
        let info = facts(&text(link, &["INFO", "server", "commandstats", "busiest"]).await?);
        let list = text(link, &["CLIENT", "LIST"]).await?;
        Ok(Sample { at, figures: numbers(&figures), info, connections: connections(&list) })
    }

    /// A figure; 0 if the server has none of that name.
    pub fn figure(&self, name: &str) -> u64 {
        self.figures.get(name).copied().unwrap_or_default()
    }

    /// The calls of each command and their microseconds, if the server counts them.
    pub fn commands(&self) -> BTreeMap<String, (u64, u64)> {
        let stats = self.info.iter().filter_map(|(name, value)| {
            let command = name.strip_prefix("cmdstat_")?.to_ascii_uppercase();
            let figure = |wanted: &str| {
                let pair = value.split(',').find_map(|pair| pair.strip_prefix(wanted));
                pair.and_then(|number| number.parse().ok())
            };
            Some((command, (figure("calls=")?, figure("usec=").unwrap_or_default())))
        });
        stats.collect()
    }

    /// The keys that are written to most, as text, and their share of the last writes in percent.
    pub fn busiest(&self) -> Vec<(String, String)> {
        let facts = (0..).map_while(|number| self.info.get(&format!("busiest_{number}")));
        let parts = facts.filter_map(|fact| fact.strip_prefix("share=")?.split_once(",key="));
        parts.map(|(share, key)| (key.to_owned(), share.to_owned())).collect()
    }
}

/// A reply as text; empty if it was refused.
async fn text(link: &mut Link, words: &[&str]) -> Result<String, LinkError> {
    Ok(match link.call(words).await? {
        Frame::Error(_) => String::new(),
        reply => reply.text(),
    })
}

fn numbers(stats: &Frame) -> BTreeMap<String, u64> {
    let Frame::Map(pairs) = stats else { return BTreeMap::new() };
    let known = pairs.iter().filter_map(|(name, value)| {
        Some((name.text(), value.number().and_then(|number| u64::try_from(number).ok())?))
    });
    known.collect()
}

fn facts(info: &str) -> BTreeMap<String, String> {
    let facts = info.lines().filter_map(|line| line.trim_end().split_once(':'));
    facts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn connections(list: &str) -> Vec<BTreeMap<String, String>> {
    let words = |line: &str| {
        let pairs = line.split(' ').filter_map(|word| word.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    list.lines().filter(|line| !line.is_empty()).map(words).collect()
}

#[cfg(test)]
pub mod fixture {
    //! Samples as a server could give them.

    use super::*;

    /// A sample with these figures, facts and lines.
    pub fn sample(at: Instant, stats: &[(&str, u64)], info: &str, list: &str) -> Sample {
        let figures = stats.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Sample { at, figures, info: facts(info), connections: connections(list) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_facts_and_connections_are_read() {
        let taken = fixture::sample(
            Instant::now(),
            &[("entries", 7)],
            "# Server\r\nstrandline_version:0.1.0\r\n\
             cmdstat_tl.append:calls=3,usec=30,usec_per_call=10.00\r\n\
             busiest_0:share=62.5,key=messages:a,key=b\r\n",
            "id=1 addr=[::1]:9 name= cmd=ping\nid=2 addr=a:1 name=x cmd=tl.append\n",
        );
        assert_eq!((taken.figure("entries"), taken.figure("nothing")), (7, 0));
        assert_eq!(taken.info["strandline_version"], "0.1.0");
        assert_eq!(taken.commands()["TL.APPEND"], (3, 30));
        assert_eq!(taken.busiest(), [("messages:a,key=b".to_owned(), "62.5".to_owned())]);
        assert_eq!(taken.connections[0]["addr"], "[::1]:9");
        assert_eq!(taken.connections[1]["name"], "x");
    }
}
