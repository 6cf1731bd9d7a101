//! Reconciliation between machines that are wired by hand, over a network that loses, repeats and
//! reorders, in virtual time.

mod hostile;
mod laws;
mod stories;
mod world;
