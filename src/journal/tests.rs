//! The laws of the journal: what is committed is read back, also by the next process.

mod crash;
mod damage;
mod faults;
mod fixture;
mod identity;
mod laws;
mod ledger;
