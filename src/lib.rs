//! Anabranch: a multi-leader, geo-replicated CRDT document store.
//!
//! # Layout
//!
//! In the order of the data flow: `api` takes requests, `document` owns documents and commits
//! edits, `journal` makes them durable, `replication` decides what other regions are sent,
//! `transport` carries it, `subscription` tells who is waiting, `node` wires the parts and
//! supervises them. `pki` makes the certificates by which nodes know each other. `client` is the
//! offline-first client library, `leaf` what it and a node say to each other, `cli` the command
//! line.

#[cfg(feature = "server")]
pub mod api;
mod cbor;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod document;
pub mod error;
mod file;
pub mod journal;
pub mod leaf;
#[cfg(feature = "server")]
pub mod node;
pub mod pki;
pub mod replication;
pub mod settings;
#[cfg(feature = "server")]
pub mod sim;
pub mod subscription;
pub mod transport;
