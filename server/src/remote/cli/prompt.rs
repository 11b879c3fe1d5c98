//! The prompt. The connection is served by a thread of its own, so that push frames are shown when
//! they come, above the line that a person edits. It prints replies, too, so that both come in the
//! order of the connection.
//!
//! After a lost connection the next command connects again. Subscriptions and follows of the lost
//! one are gone, which the message says.

use std::future::pending;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context as _;
use bytes::Bytes;
use strandline_server::split_words;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::editor::{Above, LineEditor};
use super::vocabulary::Vocabulary;
use super::{Manner, is_subscription};
use crate::remote::frame::Frame;
use crate::remote::link::{Link, LinkError};
use crate::remote::login::Login;

/// Words of the prompt itself.
const HELP: &str = "help [COMMAND], exit; Tab completes, the arrow keys show earlier lines";

type CommandWords = Vec<Bytes>;

/// Reads and runs lines until the end of the input.
pub fn run(runtime: Runtime, mut link: Link, login: Login, manner: Manner) -> anyhow::Result<()> {
    let docs = runtime.block_on(link.call(&["COMMAND", "DOCS"]))?;
    let mut editor = LineEditor::new(Vocabulary::new(&docs), manner.paint)?;
    let prompt = format!("{}> ", login.address);
    let (commands, requests) = unbounded_channel();
    let (answers, answered) = channel();
    let desk = Desk { login, link: Some(link), answers, above: editor.above(), waiting: 0, manner };
    let serving = thread::Builder::new()
        .name("strandline-link".into())
        .spawn(move || runtime.block_on(desk.serve(requests)))
        .context("cannot start the thread of the connection")?;
    while let Some(line) = editor.line(&prompt)? {
        let Some(words) = split_words(line.as_bytes()) else {
            println!("a quote is not closed");
            continue;
        };
        match words.first().map(|word| word.to_ascii_lowercase()).as_deref() {
            None => {}
            Some(b"exit" | b"quit") => break,
            Some(b"help" | b"?") => println!("{}", help(editor.vocabulary(), words.get(1))),
            Some(_) => run_command(words, &commands, &answered)?,
        }
    }
    drop(commands);
    let _ = serving.join();
    Ok(())
}

fn help(vocabulary: &Vocabulary, name: Option<&Bytes>) -> String {
    match name.map(|name| String::from_utf8_lossy(name)) {
        Some(name) => {
            vocabulary.help(&name).unwrap_or_else(|| format!("there is no command {name}"))
        }
        None => format!("{}\n{HELP}", vocabulary.names().collect::<Vec<_>>().join(" ")),
    }
}

/// Sends a command, and waits until its reply is printed.
fn run_command(
    words: CommandWords,
    commands: &UnboundedSender<CommandWords>,
    answered: &Receiver<()>,
) -> anyhow::Result<()> {
    let gone = || anyhow::anyhow!("the thread of the connection ended");
    commands.send(words).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())
}

/// The side of the connection.
struct Desk {
    login: Login,
    link: Option<Link>,
    /// Gets a word for each command that is done.
    answers: Sender<()>,
    above: Above,
    /// Commands whose reply has not come.
    waiting: usize,
    manner: Manner,
}

impl Desk {
    async fn serve(mut self, mut requests: UnboundedReceiver<CommandWords>) {
        loop {
            tokio::select! {
                words = requests.recv() => match words {
                    Some(words) => self.send(&words).await,
                    None => return,
                },
                frame = received(&mut self.link) => self.take(frame),
            }
        }
    }

    async fn send(&mut self, words: &[Bytes]) {
        match self.try_send(words).await {
            // The replies are push frames.
            Ok(()) if words.first().is_some_and(|word| is_subscription(word)) => self.answer(),
            Ok(()) => self.waiting += 1,
            Err(problem) => {
                self.complain(&problem);
                self.answer();
            }
        }
    }

    async fn try_send(&mut self, words: &[Bytes]) -> Result<(), String> {
        let link = match &mut self.link {
            Some(link) => link,
            none => none.insert(self.login.open().await.map_err(|problem| problem.to_string())?),
        };
        let sent = link.send(words).await;
        sent.map_err(|problem| {
            self.link = None;
            problem.to_string()
        })
    }

    fn take(&mut self, frame: Result<Frame, LinkError>) {
        match frame {
            Ok(frame) => {
                let text = self.manner.text(&frame);
                (self.above)(String::from_utf8_lossy(&text).into());
                if self.waiting > 0 && !matches!(frame, Frame::Push(_)) {
                    self.waiting -= 1;
                    self.answer();
                }
            }
            Err(problem) => {
                self.link = None;
                self.complain(&format!(
                    "{problem}. The next command connects again; subscriptions and follows are gone"
                ));
                if std::mem::take(&mut self.waiting) > 0 {
                    self.answer();
                }
            }
        }
    }

    fn complain(&mut self, problem: &str) {
        (self.above)(format!("{}\n", self.manner.paint.error(problem)));
    }

    fn answer(&self) {
        // If the prompt has ended, nobody waits.
        let _ = self.answers.send(());
    }
}

async fn received(link: &mut Option<Link>) -> Result<Frame, LinkError> {
    match link {
        Some(link) => link.next().await,
        None => pending().await,
    }
}
