//! The load generator: clients over TCP that speak RESP, to Strandline's server or to Redis.
//!
//! `resp` writes commands and finds where replies end; `commands` has the commands of each workload
//! for each target; `clients` connects and measures. The server is a black box: nothing here links
//! to it.

pub mod clients;
pub mod commands;
pub mod resp;
