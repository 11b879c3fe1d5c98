//! What an operator asks for: check, repair, copy, rescue.

pub mod backup;
pub mod finding;
pub mod repair;
pub mod salvage;
pub mod target;
pub mod verify;
