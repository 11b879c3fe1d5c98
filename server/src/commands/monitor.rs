//! MONITOR: this connection sees all commands as they run.

use bytes::Bytes;

use super::row::{Class, Command, Context, Flow, Run};
use super::scope::Scope;
use crate::observe::Monitors;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[Command::new(
    "MONITOR",
    1,
    Class::Admin,
    Run::Now(monitor),
)
.touches(Scope::Everything)
.told(
    "",
    "OK, then a line for each command of all connections, until RESET: time, address, words (long \
     ones are cut). Words that may contain secrets are hidden. A connection that does not take \
     its lines is closed. At most 8 connections.",
)];

fn monitor(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    if context.connection.monitoring.is_none() {
        let most = Monitors::most();
        let joined = context.shared.monitors.join().ok_or_else(|| {
            Refusal::new("LIMIT", format!("at most {most} connections may use MONITOR at once"))
        })?;
        context.connection.monitoring = Some(joined);
    }
    context.connection.out.ok();
    Ok(Flow::Done)
}
