//! The offline-first client.
