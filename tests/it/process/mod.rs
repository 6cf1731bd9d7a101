//! Tests with real processes: the program as people and init systems run it. Every child has a
//! deadline and is killed when its test ends, however it ends.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that panics has failed, which is its purpose"
)]

mod bootstrap;
mod chaos;
mod cli;
mod concerns;
mod conflicts;
mod dev;
mod docs;
mod epochs;
mod help;
mod http;
mod identity;
mod inspector;
mod kill;
mod load;
mod membership;
mod mistakes;
mod proxy;
mod runner;
mod serve;
mod support;
mod topology;
mod transfer;
