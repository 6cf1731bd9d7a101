//! The laws of the journal: what is committed is read back, also by the next process.

mod crash;
mod damage;
mod faults;
mod fixture;
mod identity;
mod laws;
mod ledger;
#[expect(unreachable_pub, dead_code, reason = "other tests include the same file")]
#[path = "../../tests/support/sim_disk.rs"]
mod sim_disk;
mod sweep;
