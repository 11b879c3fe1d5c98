//! The operator's tools: backup and restore, verify, repair, salvage.

pub mod backup;
pub mod finding;
pub mod repair;
pub mod salvage;
pub mod target;
pub mod verify;
