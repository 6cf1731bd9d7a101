//! Signals: the first asks for a clean stop, the second is obeyed at once.

use std::future::Future;

use tokio::sync::watch;

use crate::cli::Failure;
use crate::cli::output::note;

/// Ctrl-C and, where the system has it, SIGTERM.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes over the signals; from now on they no longer end the process by themselves.
    ///
    /// # Errors
    /// The system refuses.
    #[cfg(unix)]
    pub(crate) fn install() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |error| Failure::General(format!("cannot listen for signals: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// Takes over the signals.
    #[cfg(not(unix))]
    pub(crate) fn install() -> Result<Self, Failure> {
        Ok(Self {})
    }

    /// Waits for the next signal.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for the next signal.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Resolves once a clean stop is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits until a stop is asked for.
    pub(crate) async fn requested(mut self) {
        // A sender that is gone can no longer ask, and nobody is left to wait for.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// Runs a service until it ends by itself or a signal asks it to stop. A second signal ends the
/// process there and then: whoever asks twice does not want to wait for threads to be joined, and
/// what was acknowledged is durable.
///
/// # Errors
/// What the service failed with.
pub(crate) async fn run_until_signal<S, F>(service: S) -> Result<(), Failure>
where
    S: FnOnce(Stop) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let mut signals = Signals::install()?;
    let (ask, stop) = watch::channel(false);
    let service = service(Stop(stop));
    tokio::pin!(service);
    tokio::select! {
        outcome = &mut service => return outcome,
        () = signals.next() => note("stopping; once more to stop at once"),
    }
    ask.send_replace(true);
    tokio::select! {
        outcome = &mut service => outcome,
        () = signals.next() => std::process::exit(i32::from(Failure::Interrupted.code())),
    }
}

/// Runs a command that a signal ends at once.
///
/// # Errors
/// What the command failed with, or `Interrupted`.
pub(crate) async fn unless_interrupted(
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    tokio::select! {
        outcome = command => outcome,
        () = signals.next() => Err(Failure::Interrupted),
    }
}
