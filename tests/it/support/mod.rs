//! What the tests stand on: clusters in one process, an HTTP client, the log, and patience.

pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod log;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

pub(crate) use client::{Call, Client, Reply, encoded};
pub(crate) use cluster::{Cluster, Plan};

/// Looks again and again until `probe` answers `Ok`; after [`PATIENCE`] the test fails with what
/// the last look saw.
pub(crate) async fn eventually<T>(
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= deadline => panic!("not seen: {what}\nbut: {seen}"),
            Err(_) => sleep(BETWEEN_LOOKS).await,
        }
    }
}

/// Waits for what is sure to come, and fails instead of hanging.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("it does not come: {what}"))
}

/// Tells `Ok` from `Err` for [`eventually`].
pub(crate) fn seen(holds: bool, state: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(state()) }
}

/// How long a test waits for what must come: far more than it takes on a busy machine of two
/// cores, so that only what never comes fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
