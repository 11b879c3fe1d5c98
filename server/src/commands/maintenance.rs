//! Looking after the engine: TL.FLUSH, TL.COMPACT, TL.STATS.

use bytes::Bytes;

use super::row::{Class, Command, Context, Done, Flow, Run};
use crate::key::find_store;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.FLUSH", 1, Class::Admin, Run::Now(flush))
        .told("", "Writes what is in memory to segments; OK when that is done."),
    Command::new("TL.COMPACT", -1, Class::Admin, Run::Now(compact)).told(
        "[store]",
        "Merges segments now; OK when that is done. The store must exist; all stores are looked at.",
    ),
    Command::new("TL.STATS", 1, Class::Admin, Run::Now(stats))
        .told("", "Map of figures of the engine and the server. Names and number may change."),
];

fn flush(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    let engine = context.shared.engine.clone();
    Ok(Flow::Slow(Box::new(move || Ok(engine.flush().map(|()| Done::Ok)?))))
}

fn compact(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    match arguments {
        [] => {}
        [name] => {
            find_store(&context.shared.engine, name)?;
        }
        _ => return Err(Refusal::syntax()),
    }
    let engine = context.shared.engine.clone();
    Ok(Flow::Slow(Box::new(move || Ok(engine.compact().map(|()| Done::Ok)?))))
}

fn stats(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    let engine = context.shared.engine.stats().fields;
    let server = context.shared.metrics.fields();
    let out = &mut context.connection.out;
    out.map(engine.len() + server.len() + 1);
    for (name, value) in engine.into_iter().chain(server) {
        out.field(name, value);
    }
    out.field("connected_clients", context.shared.clients.count() as u64);
    Ok(Flow::Done)
}
