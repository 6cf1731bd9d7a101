//! The pure part of Anabranch: documents, edits, JSON, policies, conflicts, clocks, version
//! vectors and session tokens.
//!
//! Nothing in this crate reads a clock, a file or a socket, draws a random number, or runs a
//! task. Time and identity are arguments, so the same inputs give the same outputs in every
//! region, on every restart, and in every simulation.

pub mod bundle;
pub mod clock;
pub mod conflict;
pub mod document;
pub mod edit;
pub mod entry;
pub mod ids;
pub mod json;
pub mod message;
pub mod policy;
pub mod seeded;
pub mod token;
pub mod version;
