//! Tests with real processes: the program as people and init systems run it. Every child has a
//! deadline and is killed when its test ends, however it ends.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that panics has failed, which is its purpose"
)]

mod cli;
mod conflicts;
mod dev;
mod docs;
mod epochs;
mod help;
mod http;
mod inspector;
mod kill;
mod load;
mod mistakes;
mod runner;
mod serve;
mod support;
mod topology;
mod transfer;
