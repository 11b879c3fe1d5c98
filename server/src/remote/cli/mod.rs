//! `strandline cli`: commands at a prompt, from the command line, or from standard input.
//!
//! On a terminal replies are shown for people; otherwise a reply that is one string is written as
//! its bytes, so that it can be stored and compared.

mod editor;
mod prompt;
mod vocabulary;

use std::ffi::OsString;
use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::os::unix::ffi::OsStringExt as _;

use clap::Args;
use strandline_server::split_words;
use tokio::signal::ctrl_c;

use super::event_loop;
use super::frame::{Frame, Refused};
use super::link::{Link, LinkError};
use super::login::ServerArguments;
use super::paint::Paint;
use super::show;
use crate::output::complain;

/// The arguments of the verb.
#[derive(Args)]
pub struct CliArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Print each reply as a line of JSON.
    #[arg(long)]
    json: bool,
    /// The server's address, if the first word has a colon; then a command and its arguments.
    ///
    /// Options come before them. Without a command: a prompt on a terminal, otherwise one command a
    /// line from standard input.
    /// Words of such lines may be quoted: 'it\'s', "\x00\n".
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ADDR] [COMMAND")]
    words: Vec<OsString>,
}

/// How replies are written.
#[derive(Clone, Copy)]
pub struct Manner {
    json: bool,
    is_terminal: bool,
    paint: Paint,
}

impl Manner {
    /// A reply or push frame as bytes, with the end of its line.
    fn text(self, frame: &Frame) -> Vec<u8> {
        let mut bytes = match frame {
            _ if self.json => serde_json::to_vec(frame).expect("keys are strings"),
            Frame::Bulk(bytes) if !self.is_terminal => bytes.to_vec(),
            Frame::Push(elements) => show::push(elements, self.paint).into_bytes(),
            frame => show::lines(frame, self.paint).into_bytes(),
        };
        bytes.push(b'\n');
        bytes
    }
}

/// Runs the verb.
pub fn run(arguments: CliArguments) -> anyhow::Result<()> {
    let CliArguments { server, json, words } = arguments;
    let mut words: Vec<Vec<u8>> = words.into_iter().map(OsString::into_vec).collect();
    refuse_option(&words)?;
    let named = words.first().and_then(|word| String::from_utf8(word.clone()).ok());
    let address = match named.filter(|word| word.contains(':')) {
        Some(word) => {
            words.remove(0);
            Some(word.parse().map_err(anyhow::Error::msg)?)
        }
        None => None,
    };
    refuse_option(&words)?;
    let mut login = server.at(address).login()?;
    let is_terminal = io::stdout().is_terminal();
    let manner = Manner { json, is_terminal, paint: Paint::for_stdout() };
    let runtime = event_loop()?;
    let mut link = runtime.block_on(login.complete())?;
    if !words.is_empty() {
        runtime.block_on(run_once(&mut link, &words, manner))
    } else if io::stdin().is_terminal() && is_terminal {
        prompt::run(runtime, link, login, manner)
    } else {
        runtime.block_on(run_input(&mut link, manner))
    }
}

/// Refuses an option that is not known, which would be sent as a command. Its value may be a
/// secret, and is not repeated.
fn refuse_option(words: &[Vec<u8>]) -> anyhow::Result<()> {
    let first = words.first().map_or(&b""[..], Vec::as_slice);
    if !first.starts_with(b"-") {
        return Ok(());
    }
    let name = first.split(|byte| *byte == b'=').next().unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    anyhow::ensure!(
        !matches!(&*name, "--password" | "--pass"),
        "there is no option {name}: use --password-file or STRANDLINE_PASSWORD"
    );
    anyhow::bail!(
        "there is no option {name} here: strandline cli --help lists those there are, which come \
         before the address and the command"
    )
}

/// Whether the replies to a command are push frames in RESP3.
fn is_subscription(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 4] = [b"SUBSCRIBE", b"SSUBSCRIBE", b"UNSUBSCRIBE", b"SUNSUBSCRIBE"];
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Whether more frames follow the reply to a command.
fn goes_on(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 5] = [b"SUBSCRIBE", b"SSUBSCRIBE", b"MONITOR", b"TL.FOLLOW", b"IM.FOLLOW"];
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// The reply to a command.
async fn reply(link: &mut Link, words: &[impl AsRef<[u8]>]) -> Result<Frame, LinkError> {
    if words.first().is_some_and(|word| is_subscription(word.as_ref())) {
        link.send(words).await?;
        return link.next().await;
    }
    link.call(words).await
}

async fn run_once(link: &mut Link, words: &[Vec<u8>], manner: Manner) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let answered = tokio::select! {
        answered = reply(link, words) => answered?,
        _ = ctrl_c() => return Ok(()),
    };
    write_reply(&mut out, answered, manner)?;
    while goes_on(&words[0]) {
        tokio::select! {
            frame = link.next() => write_reply(&mut out, frame?, manner)?,
            _ = ctrl_c() => return Ok(()),
        }
    }
    Ok(())
}

/// Writes a reply, or returns the error that it is. JSON has errors too.
fn write_reply(out: &mut impl Write, frame: Frame, manner: Manner) -> anyhow::Result<()> {
    if manner.json || !matches!(frame, Frame::Error(_)) {
        out.write_all(&manner.text(&frame))?;
        out.flush()?;
    }
    frame.or_error()?;
    Ok(())
}

/// One command a line. All lines are run; if the server refused one, the verb ends with that.
async fn run_input(link: &mut Link, manner: Manner) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let mut refused = 0;
    for (number, command) in (1..).zip(io::stdin().lock().split(b'\n')) {
        let words = split_words(&command?)
            .ok_or_else(|| anyhow::anyhow!("line {number}: a quote is not closed"))?;
        if words.is_empty() {
            continue;
        }
        let answered = reply(link, &words).await?;
        if let Err(problem) = write_reply(&mut out, answered, manner) {
            let Some(Refused(text)) = problem.downcast_ref() else { return Err(problem) };
            complain(format_args!("line {number}: {text}"));
            refused += 1;
        }
        while link.has_frame() {
            write_reply(&mut out, link.next().await?, manner)?;
        }
    }
    anyhow::ensure!(refused == 0, Refused(format!("{refused} commands were refused")));
    Ok(())
}
