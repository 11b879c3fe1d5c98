//! Servers side by side, in turns: ours, Redis, Valkey and NATS, each in a fresh directory, with an
//! fsync before each reply to a write (but `nats-unsynced`).
//!
//! The clients are those of `load`. A table for each traffic shows rates, latencies, and what a
//! reply cost the server's process. Traffic at a fixed rate shows latencies below saturation: a
//! server that is only slower at full speed is not slower there.

pub mod process;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::load::clients::{Plan, Seen, fill, interval, run, set_up};
use crate::load::commands::{Shared, Traffic};
use crate::report::{Column, Table};
use crate::rounds::{Settings, in_turns};
use crate::workload::groups;
use process::{Program, Server};

/// Members of a group, in a fan-out.
const MEMBERS: usize = 500;

const WARM_UP: Duration = Duration::from_secs(1);

/// What the clients do.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    traffic: Traffic,
    clients: usize,
    pipeline: usize,
    /// Commands a second of all clients; 0: as many as the server answers.
    rate: u32,
}

const SCENARIOS: [Scenario; 8] = [
    Scenario { traffic: Traffic::Append, clients: 1, pipeline: 1, rate: 0 },
    Scenario { traffic: Traffic::Append, clients: 50, pipeline: 1, rate: 0 },
    Scenario { traffic: Traffic::Append, clients: 50, pipeline: 16, rate: 0 },
    Scenario { traffic: Traffic::Append, clients: 1, pipeline: 1, rate: 500 },
    Scenario { traffic: Traffic::Append, clients: 50, pipeline: 1, rate: 10_000 },
    Scenario { traffic: Traffic::Fanout, clients: 16, pipeline: 1, rate: 0 },
    Scenario { traffic: Traffic::Latest, clients: 1, pipeline: 1, rate: 0 },
    Scenario { traffic: Traffic::Latest, clients: 50, pipeline: 16, rate: 0 },
];

impl Scenario {
    fn title(self) -> String {
        let Scenario { traffic, clients, pipeline, rate } = self;
        let name = match traffic {
            Traffic::Append => "append".to_owned(),
            Traffic::Fanout => format!("fan-out to {MEMBERS}"),
            Traffic::Latest => "latest 50".to_owned(),
        };
        let rate = if rate == 0 { String::new() } else { format!(", {rate} a second") };
        format!("Server, {name}, {clients} × {pipeline}{rate}")
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::compared("replies/s"),
            Column::compared("p50 µs"),
            Column::compared("p99 µs"),
            Column::plain("p99.9 µs"),
            Column::plain("max µs"),
            Column::compared("processor µs a reply"),
            Column::plain("call bytes a reply"),
        ]
    }

    fn measure(self, program: &Program, settings: &Settings) -> Result<Vec<f64>> {
        let server = Server::start(program, settings.fresh_dir()?)?;
        let groups = if self.traffic == Traffic::Fanout { groups(MEMBERS) } else { Vec::new() };
        let shared = Arc::new(Shared::new(program.make.target(), self.traffic, false, groups));
        set_up(&server.address, program.make.target())?;
        if self.traffic == Traffic::Latest {
            fill(&server.address, &shared)?;
        }
        let plan = Plan {
            address: server.address.clone(),
            clients: self.clients,
            pipeline: self.pipeline,
            threads: 1,
            warm_up: WARM_UP,
            measured: Duration::from_secs_f64((4.0 * settings.scale).max(0.5)),
            interval: interval(f64::from(self.rate), self.clients, self.pipeline)?,
        };
        let before = server.cost()?;
        let seen = run(&plan, &shared)?;
        let after = server.cost()?;
        seen.check()?;
        Ok(figures(&seen, &plan, after.processor - before.processor, {
            after.call_bytes - before.call_bytes
        }))
    }
}

/// The figures of `Scenario::columns`. What the warm-up cost is counted, and its replies are
/// estimated from the rate of the others. Without a reply to a command that began after the
/// warm-up, the figures are zeros and infinite costs.
fn figures(seen: &Seen, plan: &Plan, processor: f64, call_bytes: u64) -> Vec<f64> {
    let rate = seen.replies as f64 / plan.measured.as_secs_f64();
    let all = rate * (plan.warm_up + plan.measured).as_secs_f64();
    vec![
        rate,
        seen.latency_us(0.5),
        seen.latency_us(0.99),
        seen.latency_us(0.999),
        seen.latency.max() as f64 / 1000.0,
        processor * 1e6 / all,
        call_bytes as f64 / all,
    ]
}

/// Compares servers: a table for each scenario, each as soon as it is asked for. Ratios are
/// relative to the first program.
pub fn compare<'a>(
    programs: &'a [Program],
    settings: &'a Settings,
) -> impl Iterator<Item = Result<Table>> + 'a {
    SCENARIOS.into_iter().map(|scenario| compare_under(scenario, programs, settings))
}

fn compare_under(scenario: Scenario, programs: &[Program], settings: &Settings) -> Result<Table> {
    let can = |program: &&Program| program.make.target().can(scenario.traffic);
    let able: Vec<&Program> = programs.iter().filter(can).collect();
    let labels = able.iter().map(|program| program.make.name().to_owned()).collect();
    in_turns(settings, (scenario.title(), Scenario::columns()), labels, |place| {
        scenario.measure(able[place], settings)
    })
}
