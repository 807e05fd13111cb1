//! Supervisors: what is restarted, in which order, how often, and what is left when they end.

mod end;
mod fault;
mod handle;
mod order;
mod restart;

use std::{
    future::{Future, pending},
    time::Duration,
};

use ringfence::{
    BoxError, Jitter, Retry, Scope, TaskGroup,
    supervise::{Child, Run, Supervisor, SupervisorError, SupervisorReport},
    token,
};
use tokio::time::{Instant, sleep};

use crate::support::Log;

type Ended = Result<SupervisorReport, SupervisorError>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Restarts after 10 ms, 20, 40 and so on.
const DELAYS: Retry = Retry::exponential(Duration::from_millis(10)).jitter(Jitter::None);

/// Writes when it starts and when it is gone, with the milliseconds since the clock was read.
#[derive(Clone)]
struct Diary {
    log: Log<String>,
    start: Instant,
}

impl Diary {
    fn new() -> Self {
        Self {
            log: Log::new(),
            start: Instant::now(),
        }
    }

    fn write(&self, what: &str) {
        let at = self.start.elapsed().as_millis();
        self.log.push(format!("{at} {what}"));
    }

    fn entries(&self) -> Vec<String> {
        self.log.entries()
    }

    /// A child that runs until it is told to end, and then for so long; or fails at the times given, one for each run.
    fn child(&self, name: &'static str, lasts: u64, fails: &'static [u64]) -> Child {
        let diary = self.clone();
        Child::permanent(name, move |run: Run| {
            diary.clone().live(name, run, lasts, fails)
        })
        .backoff(DELAYS)
    }

    async fn live(
        self,
        name: &'static str,
        run: Run,
        lasts: u64,
        fails: &'static [u64],
    ) -> Result<(), BoxError> {
        self.write(&format!("+{name}"));
        let _gone = Gone(self, name);
        match fails.get(run.number() as usize - 1) {
            Some(at) => {
                sleep(ms(*at)).await;
                Err("out".into())
            }
            None => {
                token().cancelled().await;
                sleep(ms(lasts)).await;
                Ok(())
            }
        }
    }
}

struct Gone(Diary, &'static str);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.write(&format!("-{}", self.1));
    }
}

/// A child that does nothing until it is told to end.
fn idle(name: &'static str) -> Child {
    Child::permanent(name, |_| async { token().cancelled().await })
}

/// Runs a supervisor and shuts it down after so long.
async fn for_a_while(supervisor: Supervisor, lasts: u64) -> Ended {
    let handle = supervisor.handle();
    let (ended, ()) = tokio::join!(supervisor.run(), async {
        sleep(ms(lasts)).await;
        handle.shut_down();
    });
    ended
}

/// Runs a future in a group with so much grace, which is cancelled after a while.
async fn cancelled_after(
    lasts: u64,
    grace: u64,
    future: impl Future<Output = ()> + Send + 'static,
) {
    let ended = Scope::new()
        .grace(ms(grace))
        .run(async |group: &TaskGroup| {
            group.spawn(future);
            sleep(ms(lasts)).await;
            group.cancel();
            pending::<Result<(), BoxError>>().await
        });
    assert!(ended.await.is_err());
}
