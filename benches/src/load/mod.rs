//! The load generator: clients over TCP, of Strandline's server, of Redis, or of NATS.
//!
//! `resp` and `nats` write commands and find where replies end; `commands` has the commands of each
//! workload for each target; `clients` connects and measures. The server is a black box: nothing
//! here links to it.

pub mod clients;
pub mod commands;
pub mod nats;
pub mod resp;
