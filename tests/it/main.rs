//! The store from end to end: real nodes, real disks, real QUIC with mutual TLS, real HTTP.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is its purpose"
)]

mod certificates;
mod clocks;
mod collections;
mod collisions;
mod conflicts;
mod consistency;
mod epochs;
mod feed;
mod http;
mod interop;
mod limits;
mod membership;
mod packing;
mod process;
mod reconcile;
mod replication;
mod session;
mod story;
mod support;
