//! The server as its clients see it: each test starts one in this process, on a free port and in a
//! directory of its own, and talks to it over TCP.

mod access;
mod bounds;
mod care;
mod changes;
mod commands;
mod connections;
mod damaged;
#[path = "../../../engine/tests/disks/mod.rs"]
mod disks;
mod document;
mod frames;
mod gate;
mod health;
mod measures;
mod memory;
mod messaging;
mod observing;
mod operations;
mod packages;
mod permissions;
mod push;
mod released;
mod service;
mod settings;
mod stock_client;
mod stop;
mod stores;
mod support;
mod syncing;
mod tls;
mod tour;
