use std::convert::Infallible;
use std::future::pending;

use anyhow::Result;
use tokio::sync::watch;

/// The signals that end a process, counted from the start on.
pub(super) struct Signals {
    came: watch::Receiver<u32>,
}

// === impl Signals ===

impl Signals {
    /// Listens from now on: Ctrl-C, or SIGTERM as orchestrators send it. Within a tokio runtime.
    pub(super) fn new() -> Result<Self> {
        let (count, came) = watch::channel(0);
        let mut source = Source::new()?;
        tokio::spawn(async move {
            while !count.is_closed() {
                source.next().await;
                count.send_modify(|n| *n += 1);
            }
        });
        Ok(Self { came })
    }

    /// Resolves at the first: time to drain.
    pub(super) fn first(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reach(1)
    }

    /// Resolves at the second: time to end.
    pub(super) fn second(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reach(2)
    }

    fn reach(&self, n: u32) -> impl Future<Output = ()> + Send + use<> {
        let mut came = self.came.clone();
        async move {
            // The counting task lives as long as the runtime.
            if came.wait_for(|&count| count >= n).await.is_err() {
                pending::<()>().await;
            }
        }
    }

    /// Does something at every SIGHUP.
    #[cfg(unix)]
    pub(super) async fn on_hang_up(&self, act: impl Fn()) -> Infallible {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hang_up) = signal(SignalKind::hangup()) else { return pending().await };
        while hang_up.recv().await.is_some() {
            act();
        }
        pending().await
    }

    #[cfg(not(unix))]
    pub(super) async fn on_hang_up(&self, _: impl Fn()) -> Infallible {
        pending().await
    }
}

#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            pending().await
        }
    }
}
