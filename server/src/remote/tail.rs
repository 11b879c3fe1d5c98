//! `strandline tail`: follows a timeline or a user, and prints each entry once.
//!
//! If the connection is lost, or silent for longer than the server's heartbeat explains, it is made
//! again, and the follow continues from the last position. What cannot be read any more is printed
//! as a gap, in its place.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use clap::{ArgGroup, Args};
use tokio::signal::ctrl_c;
use tokio::time::{sleep, timeout};

use super::event_loop;
use super::frame::Frame;
use super::link::{Link, LinkError};
use super::login::{Login, LoginProblem, ServerArguments};
use super::paint::Paint;
use super::show;
use crate::output::complain;

/// The server sends a frame at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Silence after which the connection is taken to be dead.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first pause before a connection is made again, which doubles up to the longest one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The arguments of the verb.
#[derive(Args)]
#[command(group = ArgGroup::new("followed").required(true))]
pub struct TailArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// The timeline, as STORE:NAME.
    #[arg(group = "followed", value_name = "KEY")]
    timeline: Option<String>,
    /// Follow what reaches this user instead.
    #[arg(long, group = "followed")]
    user: Option<String>,
    /// Start after this sequence; for a user, after this cursor. By default only what comes from
    /// now on is printed.
    #[arg(long, value_name = "SEQ", conflicts_with = "from_start")]
    after: Option<String>,
    /// Start with the oldest entry that can be read.
    #[arg(long)]
    from_start: bool,
    /// End after this many entries.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print each entry and gap as a line of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(arguments: TailArguments) -> anyhow::Result<()> {
    let TailArguments { server, timeline, user, after, from_start, count, json } = arguments;
    let start = if from_start { Some("0".to_owned()) } else { after };
    let followed = match (timeline, user) {
        (Some(key), _) => {
            let after = start.map(|text| text.parse::<u64>()).transpose();
            let after = after.map_err(|_| anyhow::anyhow!("--after takes a sequence: a number"))?;
            Followed::Timeline { key, after, epoch: None }
        }
        (None, user) => Followed::User {
            user: user.unwrap_or_default(),
            cursor: start.unwrap_or_else(|| "$".to_owned()),
        },
    };
    let paint = Paint::for_stdout();
    let mut tail = Follower { followed, count, json, paint, out: io::stdout() };
    let mut login = server.login()?;
    event_loop()?.block_on(async {
        tokio::select! {
            done = tail.run(&mut login) => done,
            _ = ctrl_c() => Ok(()),
        }
    })
}

/// What is followed, and the position that was reached.
#[derive(Debug, PartialEq)]
enum Followed {
    /// `after` is unknown before the first follow from now on.
    Timeline {
        key: String,
        after: Option<u64>,
        epoch: Option<String>,
    },
    User {
        user: String,
        cursor: String,
    },
}

/// How a follow of one connection ended.
#[derive(Debug, PartialEq)]
enum Parted {
    /// As many entries as wanted were printed.
    Enough,
    /// The position is of another history: follow again, from the position now known.
    Restart,
}

struct Follower<W> {
    followed: Followed,
    /// Entries to print until the end.
    count: Option<u64>,
    json: bool,
    paint: Paint,
    out: W,
}

impl<W: Write> Follower<W> {
    async fn run(&mut self, login: &mut Login) -> anyhow::Result<()> {
        let mut link = login.complete().await?;
        loop {
            let lost = match self.follow(&mut link).await {
                Ok(Parted::Enough) => return Ok(()),
                Ok(Parted::Restart) => continue,
                Err(problem) => problem,
            };
            self.out.flush()?;
            // Everything else would happen again.
            let Some(LinkError::Lost(_)) = lost.downcast_ref() else { return Err(lost) };
            complain(format_args!("{lost}; connecting again"));
            link = again(login).await?;
            complain("connected again");
        }
    }

    /// Follows on one connection.
    async fn follow(&mut self, link: &mut Link) -> anyhow::Result<Parted> {
        if self.count == Some(0) {
            return Ok(Parted::Enough);
        }
        let words = self.command(link).await?;
        let reply = link.call(&words).await?.or_error()?;
        if let Some(parted) = self.begin(&reply)? {
            return Ok(parted);
        }
        loop {
            let silent = || LinkError::Lost(io::ErrorKind::TimedOut.into());
            let frame = timeout(PATIENCE, link.next()).await.map_err(|_| silent())??;
            let parted = match frame {
                Frame::Push(elements) => self.take(&elements)?,
                // The server reports what ends a connection, such as damage.
                other => other.or_error().map(|_| None)?,
            };
            if !link.has_frame() || parted.is_some() {
                self.out.flush()?;
            }
            if let Some(parted) = parted {
                return Ok(parted);
            }
        }
    }

    /// The command that follows from the position.
    async fn command(&mut self, link: &mut Link) -> anyhow::Result<Vec<String>> {
        let heartbeat = ["HEARTBEAT".to_owned(), HEARTBEAT.as_millis().to_string()];
        let mut words = match &mut self.followed {
            Followed::User { user, cursor } => {
                vec!["IM.FOLLOW".to_owned(), user.clone(), cursor.clone()]
            }
            Followed::Timeline { key, after, epoch } => {
                if after.is_none() {
                    let info = link.call(&["TL.INFO", key.as_str()]).await?.or_error()?;
                    *after = Some(number(info.get("last")));
                }
                let after = after.unwrap_or_default().to_string();
                let mut words =
                    vec!["TL.FOLLOW".to_owned(), key.clone(), "AFTER".to_owned(), after];
                if let Some(epoch) = epoch {
                    words.extend(["EPOCH".to_owned(), epoch.clone()]);
                }
                words
            }
        };
        words.extend(heartbeat);
        Ok(words)
    }

    /// Takes the reply to a follow.
    fn begin(&mut self, reply: &Frame) -> anyhow::Result<Option<Parted>> {
        let text = |name: &str| reply.get(name).map(Frame::text).unwrap_or_default();
        let verdict = text("verdict");
        let is_followed = verdict == "OK" || verdict == "TRIMMED";
        let (gap, position) = match &mut self.followed {
            Followed::Timeline { after, epoch, .. } => {
                let (first, last) = (number(reply.get("first")), number(reply.get("last")));
                *epoch = Some(text("epoch"));
                let from = after.unwrap_or_default() + 1;
                let gap = match verdict.as_str() {
                    "TRIMMED" => Some((from, first.saturating_sub(1))),
                    _ => None,
                };
                let restart = match verdict.as_str() {
                    "FUTURE" => last,
                    _ => first.saturating_sub(1),
                };
                if !is_followed {
                    *after = Some(restart);
                }
                (gap, restart.to_string())
            }
            Followed::User { cursor, .. } => {
                let given = text("cursor");
                *cursor = if is_followed { given } else { "0".to_owned() };
                (None, cursor.clone())
            }
        };
        if verdict != "OK" {
            self.gap(&verdict, gap, &position)?;
            self.out.flush()?;
        }
        Ok((!is_followed).then_some(Parted::Restart))
    }

    /// Takes a push frame.
    fn take(&mut self, elements: &[Frame]) -> anyhow::Result<Option<Parted>> {
        let kind = elements.first().map(Frame::text).unwrap_or_default();
        let at = |position: usize| elements.get(position);
        match (kind.as_str(), &mut self.followed) {
            ("tl.entry", Followed::Timeline { after, .. }) => {
                *after = Some(number(at(2)));
                self.entry(&["seq", "time", "body"], elements.get(2..).unwrap_or_default())?;
            }
            ("tl.cursor", Followed::Timeline { after, .. }) => *after = Some(number(at(2))),
            ("im.entry", Followed::User { cursor, .. }) => {
                *cursor = at(2).map(Frame::text).unwrap_or_default();
                let names = ["conv", "seq", "time", "sender", "kind", "body", "attributes"];
                self.entry(&names, elements.get(3..).unwrap_or_default())?;
            }
            ("im.cursor", Followed::User { cursor, .. }) => {
                *cursor = at(2).map(Frame::text).unwrap_or_default();
            }
            ("tl.gap", Followed::Timeline { after, epoch, .. }) => {
                let verdict = at(2).map(Frame::text).unwrap_or_default();
                let (first, last) = (number(at(3)), number(at(4)));
                // The store was dropped: its timelines begin again.
                let is_over = verdict == "EPOCH";
                *after = Some(if is_over { 0 } else { last });
                if is_over {
                    *epoch = None;
                }
                self.gap(&verdict, Some((first, last)), &last.to_string())?;
                return Ok(is_over.then_some(Parted::Restart));
            }
            ("im.gap", Followed::User { cursor, .. }) => {
                let verdict = at(2).map(Frame::text).unwrap_or_default();
                *cursor = at(3).map(Frame::text).unwrap_or_default();
                let position = cursor.clone();
                self.gap(&verdict, None, &position)?;
                return Ok((verdict == "EPOCH").then_some(Parted::Restart));
            }
            _ => {}
        }
        Ok((self.count == Some(0)).then_some(Parted::Enough))
    }

    fn entry(&mut self, names: &[&str], elements: &[Frame]) -> io::Result<()> {
        if self.json {
            let pairs = names.iter().map(|name| string(name)).zip(elements.iter().cloned());
            self.json_line(&Frame::Map(pairs.collect()))?;
        } else {
            let line = show::lines(&Frame::Array(elements.to_vec()), self.paint);
            writeln!(self.out, "{line}")?;
        }
        self.count = self.count.map(|count| count.saturating_sub(1));
        Ok(())
    }

    fn gap(&mut self, verdict: &str, range: Option<(u64, u64)>, position: &str) -> io::Result<()> {
        if self.json {
            let mut pairs = vec![(string("gap"), string(verdict))];
            match range {
                Some((first, last)) => pairs.extend([
                    (string("first"), Frame::Integer(first.cast_signed())),
                    (string("last"), Frame::Integer(last.cast_signed())),
                ]),
                None => pairs.push((string("cursor"), string(position))),
            }
            return self.json_line(&Frame::Map(pairs));
        }
        let what = match range {
            Some((first, last)) if first <= last => {
                format!("-- gap {verdict}: {first} to {last} cannot be read any more --")
            }
            _ if verdict == "TRIMMED" => {
                format!("-- gap {verdict}: older entries cannot be read any more --")
            }
            _ => format!("-- gap {verdict}: another history; it goes on after {position} --"),
        };
        writeln!(self.out, "{}", self.paint.error(&what))
    }

    fn json_line(&mut self, frame: &Frame) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, frame)?;
        self.out.write_all(b"\n")
    }
}

/// Connects again, however long it takes; fails if it would be in vain.
async fn again(login: &Login) -> Result<Link, LoginProblem> {
    let mut pause = SHORTEST_PAUSE;
    loop {
        sleep(pause).await;
        match login.open().await {
            Err(problem) if problem.may_pass() => {
                pause = (pause * 2).min(LONGEST_PAUSE);
                complain(format_args!("{problem}; again in {} s", pause.as_secs_f32()));
            }
            opened => return opened,
        }
    }
}

fn number(frame: Option<&Frame>) -> u64 {
    frame.and_then(Frame::number).and_then(|number| u64::try_from(number).ok()).unwrap_or_default()
}

fn string(text: &str) -> Frame {
    Frame::Bulk(Bytes::copy_from_slice(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(followed: Followed, json: bool) -> Follower<Vec<u8>> {
        Follower { followed, count: None, json, paint: Paint::NONE, out: Vec::new() }
    }

    fn timeline(after: u64) -> Followed {
        Followed::Timeline { key: "messages:a".into(), after: Some(after), epoch: None }
    }

    fn reply(verdict: &str, first: i64, last: i64) -> Frame {
        Frame::Map(vec![
            (string("verdict"), string(verdict)),
            (string("epoch"), string("7")),
            (string("first"), Frame::Integer(first)),
            (string("last"), Frame::Integer(last)),
        ])
    }

    fn push(words: &[Frame]) -> Vec<Frame> {
        words.to_vec()
    }

    fn printed(follower: &Follower<Vec<u8>>) -> &str {
        std::str::from_utf8(&follower.out).expect("it is text")
    }

    #[test]
    fn entries_move_the_position_and_the_count() {
        let mut tail = follower(timeline(3), true);
        tail.count = Some(2);
        assert_eq!(tail.begin(&reply("OK", 1, 4)).expect("it is taken"), None);
        let entry = |sequence| {
            push(&[
                string("tl.entry"),
                string("messages:a"),
                Frame::Integer(sequence),
                Frame::Integer(1_700_000_000_000),
                string("x"),
            ])
        };
        assert_eq!(tail.take(&entry(4)).expect("it is taken"), None);
        assert_eq!(tail.take(&entry(5)).expect("it is taken"), Some(Parted::Enough));
        assert_eq!(
            printed(&tail),
            "{\"seq\":4,\"time\":1700000000000,\"body\":\"x\"}\n\
             {\"seq\":5,\"time\":1700000000000,\"body\":\"x\"}\n"
        );
        let Followed::Timeline { after, epoch, .. } = tail.followed else { panic!("a timeline") };
        assert_eq!((after, epoch.as_deref()), (Some(5), Some("7")));
    }

    #[test]
    fn a_trimmed_beginning_is_printed_as_a_gap_and_followed() {
        let mut tail = follower(timeline(3), false);
        assert_eq!(tail.begin(&reply("TRIMMED", 6, 9)).expect("it is taken"), None);
        assert_eq!(printed(&tail), "-- gap TRIMMED: 4 to 5 cannot be read any more --\n");
    }

    #[test]
    fn another_history_is_followed_from_what_it_has() {
        for (verdict, expected) in [("EPOCH", 5), ("FUTURE", 9)] {
            let mut tail = follower(timeline(30), false);
            let parted = tail.begin(&reply(verdict, 6, 9)).expect("it is taken");
            assert_eq!(parted, Some(Parted::Restart));
            let Followed::Timeline { after, .. } = tail.followed else { panic!("a timeline") };
            assert_eq!(after, Some(expected), "{verdict}");
        }
    }

    #[test]
    fn a_dropped_store_is_followed_again_from_its_start() {
        let mut tail = follower(timeline(30), true);
        let gap = push(&[
            string("tl.gap"),
            string("messages:a"),
            string("EPOCH"),
            Frame::Integer(1),
            Frame::Integer(0),
        ]);
        assert_eq!(tail.take(&gap).expect("it is taken"), Some(Parted::Restart));
        assert_eq!(tail.followed, timeline(0));
        assert_eq!(printed(&tail), "{\"gap\":\"EPOCH\",\"first\":1,\"last\":0}\n");
    }

    #[test]
    fn a_user_is_followed_from_the_cursor_of_the_last_frame() {
        let followed = Followed::User { user: "ann".into(), cursor: "$".into() };
        let mut tail = follower(followed, false);
        let reply =
            Frame::Map(vec![(string("verdict"), string("OK")), (string("cursor"), string("c1"))]);
        assert_eq!(tail.begin(&reply).expect("it is taken"), None);
        let entry = push(&[
            string("im.entry"),
            string("ann"),
            string("c2"),
            string("room"),
            Frame::Integer(1),
            Frame::Integer(1_700_000_000_000),
            string("bob"),
            string("message"),
            string("hi"),
        ]);
        tail.take(&entry).expect("it is taken");
        let time = show::local_time(1_700_000_000_000);
        assert_eq!(printed(&tail), format!("room  1  {time}  bob  message  hi\n"));
        let cursor = push(&[string("im.cursor"), string("ann"), string("c3")]);
        tail.take(&cursor).expect("it is taken");
        let Followed::User { cursor, .. } = tail.followed else { panic!("a user") };
        assert_eq!(cursor, "c3");
    }
}
