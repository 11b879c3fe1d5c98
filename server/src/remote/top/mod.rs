//! `strandline top`: the load of a server, its commands and its connections, once a second.
//!
//! On a terminal the picture stays in its place until Ctrl-C; elsewhere each picture is printed
//! after the last one.

mod picture;
mod sample;

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use clap::Args;
use console::Term;
use tokio::signal::ctrl_c;
use tokio::time::{MissedTickBehavior, interval};

use super::address::Address;
use super::event_loop;
use super::link::Link;
use super::login::{Login, ServerArguments};
use super::paint::Paint;
use picture::Picture;
use sample::Sample;

/// Another screen, and no cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The arguments of the verb.
#[derive(Args)]
pub struct TopArguments {
    /// The server's address; the same as --address.
    #[arg(value_name = "ADDR")]
    place: Option<Address>,
    #[command(flatten)]
    server: ServerArguments,
    /// Print one picture and end.
    #[arg(long)]
    once: bool,
    /// Seconds from one picture to the next: rates are averages of that time.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    interval: f64,
}

/// Runs the verb.
pub fn run(arguments: TopArguments) -> anyhow::Result<()> {
    let TopArguments { place, server, once, interval } = arguments;
    let period = Duration::try_from_secs_f64(interval)
        .ok()
        .filter(|period| (Duration::from_millis(100)..Duration::from_hours(1)).contains(period));
    let Some(period) = period else { anyhow::bail!("--interval takes 0.1 to 3600 seconds") };
    let mut login = server.at(place).login()?;
    event_loop()?.block_on(async {
        let link = login.complete().await?;
        let screen = Screen::new(!once);
        let shown = tokio::select! {
            shown = show(link, &login, period, once, &screen) => shown,
            _ = ctrl_c() => Ok(()),
        };
        drop(screen);
        shown
    })
}

/// Shows pictures until something fails.
async fn show(
    mut link: Link,
    login: &Login,
    period: Duration,
    once: bool,
    screen: &Screen,
) -> anyhow::Result<()> {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut before = Sample::take(&mut link).await?;
    if screen.is_live {
        let waiting =
            Picture::new(&before, &before, login).lines(screen.size(), Paint::for_stdout());
        screen.put(&waiting)?;
    }
    loop {
        ticks.tick().await;
        let now = Sample::take(&mut link).await?;
        screen
            .put(&Picture::new(&before, &now, login).lines(screen.size(), Paint::for_stdout()))?;
        if once {
            return Ok(());
        }
        before = now;
    }
}

/// Where pictures go. Dropping it gives the terminal back as it was.
struct Screen {
    is_live: bool,
}

impl Screen {
    fn new(may_be_live: bool) -> Screen {
        let is_live = may_be_live && io::stdout().is_terminal();
        if is_live {
            let _ = write!(io::stdout(), "{ENTER}");
        }
        Screen { is_live }
    }

    /// Lines and columns; without limits if it is not a terminal.
    fn size(&self) -> (usize, usize) {
        if !self.is_live {
            return (usize::MAX, usize::MAX);
        }
        let (lines, columns) = Term::stdout().size();
        (lines.into(), columns.into())
    }

    fn put(&self, lines: &[String]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.is_live {
            // Each line removes what an earlier picture left of it; the last also what is below.
            write!(out, "\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n"))?;
        } else {
            writeln!(out, "{}\n", lines.join("\n"))?;
        }
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_live {
            let _ = write!(io::stdout(), "{LEAVE}");
            let _ = io::stdout().flush();
        }
    }
}
