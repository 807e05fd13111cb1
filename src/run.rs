//! The outside of a process: it runs until it is done or told to stop, and then stops in order, within a time that is known.
//!
//! What is done when is decided in `stages`, which is pure; `watch` hears signals and carries it out, on a thread of its own, so
//! that neither a blocked runtime nor a hung task can keep the process from ending.

pub(crate) mod stages;
mod watch;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::process::{ExitCode, Termination};
use std::task::{Context, Poll};
use std::time::Duration;

pub use watch::Nag;

use crate::cancel::token;
use crate::group::TaskGroup;
use crate::group::error::{BoxError, Cause, Failure, FailureKind, GroupError, capped};
use crate::group::options::Scope;
use crate::group::spawn::Spawner;
use crate::observe::{CancelReason, Straggler, path};
use crate::run::stages::Stages;
use crate::run::watch::{Alive, Board, Body, NagHook, Watch, tell};
use crate::sync::PlainArc;
use crate::watched::Watched;

/// A signal that asks a process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopSignal {
    /// SIGINT, or Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl StopSignal {
    /// Returns its usual name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// Returns the exit code of a process that died of it, as a shell tells it.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Runs a process: a [`scope`](crate::scope) that also ends, in order, when SIGINT or SIGTERM asks it to.
///
/// | | what happens |
/// |---|---|
/// | the body and all children end | so does the run |
/// | a child or the body fails or panics, or cancels the group | as on a signal |
/// | a signal | the group is cancelled: [tokens](crate::token) fire, nobody new comes in |
/// | the grace (10 s) is over, or a second signal | whoever is still there is dropped where it is parked |
/// | 5 s later, or on a third signal | the process exits: a thread that blocks cannot be stopped |
///
/// From the first signal on, standard error tells every two seconds who is still there. All this is kept by a thread of its own,
/// so it happens also when every thread of the runtime is blocked, and by the real clock. [`Process`] has the options: times, phases, what is told to whom.
///
/// # Cancel safety
///
/// As a scope: dropped, it cancels its children at once.
///
/// # Panics
///
/// If there is no thread to be had, or signals cannot be heard.
///
/// # Examples
///
/// ```no_run
/// use ringfence::{RunReport, TaskGroup, token};
///
/// #[tokio::main]
/// async fn main() -> RunReport<()> {
///     ringfence::run(async |group: &TaskGroup| {
///         group.named("listener").spawn(async {
///             token().cancelled().await; // … accept until then …
///         });
///         Ok(())
///     })
///     .await
/// }
/// ```
pub fn run<E, T, F>(body: F) -> impl Future<Output = RunReport<T, E>>
where
    E: Send + 'static,
    F: AsyncFnOnce(&TaskGroup<E>) -> Result<T, E>,
{
    Process::new().run(body)
}

/// A [run](run()) with options.
///
/// # Default
///
/// A grace of 10 s, a bound of 5 s, a nag every 2 s to standard error, no name.
#[derive(Clone)]
#[must_use = "a process does nothing unless it is run"]
pub struct Process {
    name: Option<PlainArc<str>>,
    grace: Duration,
    bound: Duration,
    nag: Duration,
    hook: Option<NagHook>,
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Process {
    /// A process without options.
    pub fn new() -> Self {
        Self {
            name: None,
            grace: Duration::from_secs(10),
            bound: Duration::from_secs(5),
            nag: Duration::from_secs(2),
            hook: None,
        }
    }

    /// Names the outermost group, for errors, nags and snapshots. Phases are inside: `chat/listen`.
    pub fn name(mut self, name: impl Into<PlainArc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long everybody together has to end after the first signal; 10 s unless given.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = capped(grace);
        self
    }

    /// How long it may take until all are gone after they were forced; 5 s unless given. Then the process exits.
    pub fn bound(mut self, bound: Duration) -> Self {
        self.bound = capped(bound);
        self
    }

    /// How often it is told who is still there; every 2 s unless given.
    pub fn nag_every(mut self, nag: Duration) -> Self {
        self.nag = nag.max(Duration::from_millis(1));
        self
    }

    /// Has `hook` told who is still there, in place of standard error. It runs on a thread of its own, and may
    /// take its time: nobody waits for it, but for half a second before the process exits.
    pub fn on_nag(mut self, hook: impl Fn(&Nag) + Send + Sync + 'static) -> Self {
        self.hook = Some(PlainArc::new(hook));
        self
    }

    /// Divides the process into phases, which stop one after the other, in this order: what takes in work first, what
    /// the others need last.
    ///
    /// A phase is told to stop when the one before it is gone, or had to be forced. They share the grace: each has an equal part of what
    /// is left of it. The body belongs to the first.
    ///
    /// ```no_run
    /// use ringfence::{Process, RunReport, token};
    ///
    /// #[tokio::main]
    /// async fn main() -> RunReport<(), std::io::Error> {
    ///     Process::new()
    ///         .phases(["listen", "work", "flush"])
    ///         .run(async |[listen, work, flush]| {
    ///             listen.spawn(async { token().cancelled().await });
    ///             work.spawn(async { token().cancelled().await }); // fires when `listen` is empty
    ///             flush.spawn(async { token().cancelled().await }); // fires when `work` is empty
    ///             Ok(())
    ///         })
    ///         .await
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn phases<const N: usize>(self, names: [&str; N]) -> Phased<N> {
        assert!(
            N > 0,
            "ringfence: a process of 0 phases has no place for anybody"
        );
        Phased {
            process: self,
            names: names.map(PlainArc::from),
        }
    }

    /// Runs `body` and all that it spawns until they are done, or told to stop: see [`run`](run()).
    ///
    /// # Cancel safety
    ///
    /// As a scope: dropped, it cancels its children at once.
    ///
    /// # Panics
    ///
    /// If there is no thread to be had, or signals cannot be heard.
    pub async fn run<E, T, F>(self, body: F) -> RunReport<T, E>
    where
        E: Send + 'static,
        F: AsyncFnOnce(&TaskGroup<E>) -> Result<T, E>,
    {
        let board = Board::new([(PlainArc::from(""), 1)]);
        let closing = self.watch(&board).await;
        let ended = self.main(&board, body).await;
        board.left(0);
        closing.report(vec![ended])
    }

    /// The scope of the body.
    async fn main<E, T, F>(&self, board: &Board, body: F) -> Result<Option<T>, GroupError<E>>
    where
        E: Send + 'static,
        F: AsyncFnOnce(&TaskGroup<E>) -> Result<T, E>,
    {
        let ended = scope(self.name.clone()).run(async |group: &TaskGroup<E>| {
            board.open(0, group.core());
            let _in = Body(board);
            body(group).await.map(Some)
        });
        ended.await
    }

    async fn watch(&self, board: &PlainArc<Board>) -> Closing {
        let stages = Stages::new(board.phases(), self.grace, self.bound, self.nag);
        let (board, hook, around) = (board.clone(), self.hook.clone(), token());
        let closing = Closing(board.clone());
        crate::runtime::aside("ringfence-watch", move || async move {
            let signals = match signals() {
                Ok(signals) => signals,
                Err(error) => return board.is_watched(Err(error)),
            };
            board.is_watched(Ok(()));
            let mut watch = Watch {
                board,
                stages,
                hook,
                teller: None,
                around,
                signals,
                exit: |code| std::process::exit(i32::from(code)),
            };
            watch.watch().await;
            watch.linger().await;
        });
        // From here on no signal is lost.
        if let Err(error) = closing.0.watched().await {
            panic!("ringfence: cannot hear signals: {error}");
        }
        closing
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("grace", &self.grace)
            .field("bound", &self.bound)
            .field("nag", &self.nag)
            .finish_non_exhaustive()
    }
}

/// A process in phases: see [`Process::phases`].
#[derive(Clone, Debug)]
#[must_use = "a process does nothing unless it is run"]
pub struct Phased<const N: usize> {
    process: Process,
    names: [PlainArc<str>; N],
}

impl<const N: usize> Phased<N> {
    /// Runs `body`, which is given a spawner for each phase, and all that it spawns: see [`run`](run()).
    ///
    /// When it is over, each phase ends when those before it are gone and all its children have ended.
    ///
    /// # Cancel safety
    ///
    /// As a scope: dropped, it cancels its children at once.
    ///
    /// # Panics
    ///
    /// If there is no thread to be had, or signals cannot be heard.
    pub async fn run<E, T, F>(self, body: F) -> RunReport<T, E>
    where
        E: Send + 'static,
        F: AsyncFnOnce([Spawner<E>; N]) -> Result<T, E>,
    {
        let Self { process, names } = self;
        // The first phase also has the body.
        let groups =
            |(phase, name): (usize, &PlainArc<str>)| (name.clone(), 1 + usize::from(phase == 0));
        let board = Board::new(names.iter().enumerate().map(groups));
        let closing = process.watch(&board).await;
        let spawners: Watched<Vec<Spawner<E>>> = Watched::new(Vec::new());
        let mut phases = Vec::new();
        for (phase, name) in names.into_iter().enumerate() {
            let path = path(process.name.as_ref(), Some(&*name)).unwrap_or(name);
            phases.push(Box::pin(run_phase(&board, &spawners, phase, path)));
        }
        let mut main = pin!(async {
            let all =
                |spawners: &mut Vec<Spawner<E>>| <[_; N]>::try_from(std::mem::take(spawners)).ok();
            let spawners = spawners.until(|known| (known.len() == N).then(|| all(known)).flatten());
            let spawners = spawners.await;
            let ended = process.main(&board, async |_| body(spawners).await).await;
            board.left(0);
            ended
        });
        let mut ends: Vec<Option<Result<Option<T>, GroupError<E>>>> = Vec::new();
        ends.resize_with(N + 1, || None);
        poll_fn(|cx| {
            // In their order: each opens when it is first polled, and leaves its spawner.
            for (phase, end) in phases.iter_mut().zip(&mut ends[1..]) {
                if end.is_none() {
                    if let Poll::Ready(ended) = phase.as_mut().poll(cx) {
                        *end = Some(ended.map(|()| None));
                    }
                }
            }
            if ends[0].is_none() {
                if let Poll::Ready(ended) = main.as_mut().poll(cx) {
                    ends[0] = Some(ended);
                }
            }
            let is_over = ends.iter().all(Option::is_some);
            if is_over {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        closing.report(ends.into_iter().flatten().collect())
    }
}

/// The scope of a phase: open as long as somebody may need it.
async fn run_phase<E: Send + 'static>(
    board: &Board,
    spawners: &Watched<Vec<Spawner<E>>>,
    phase: usize,
    name: PlainArc<str>,
) -> Result<(), GroupError<E>> {
    let ended = scope(Some(name)).run(async |group: &TaskGroup<E>| {
        spawners.change(|spawners| spawners.push(group.spawner()));
        board.open(phase, group.core());
        let token = group.token();
        let mut cancelled = pin!(token.cancelled());
        let mut unneeded = pin!(board.unneeded(phase));
        poll_fn(|cx| {
            if cancelled.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            unneeded.as_mut().poll(cx)
        })
        .await;
        Ok(())
    });
    let ended = ended.await;
    board.left(phase);
    ended
}

/// A scope that waits for ever between the two rungs of a cancel: the watch keeps the time.
fn scope(name: Option<PlainArc<str>>) -> Scope {
    let scope = Scope::new().apart().grace(Duration::MAX).panics_as_errors();
    match name {
        Some(name) => scope.name(name),
        None => scope,
    }
}

/// Ends the watch when the run is over, also when it was dropped.
struct Closing(PlainArc<Board>);

impl Closing {
    fn report<T, E>(self, ends: Vec<Result<Option<T>, GroupError<E>>>) -> RunReport<T, E> {
        let (signal, alive) = self.0.close();
        let mut report = RunReport {
            value: None,
            errors: Vec::new(),
            signal,
            finished: 0,
        };
        for end in ends {
            match end {
                Ok(value) => report.value = report.value.or(value),
                Err(error) => report.errors.push(error),
            }
        }
        let (count, forced) = (alive.iter().map(Alive::count), report.forced());
        let forced = forced.filter(|straggler| alive.iter().any(|group| group.had(straggler)));
        report.finished = count.sum::<usize>().saturating_sub(forced.count());
        report
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How a process ended: return it from `main`.
///
/// | | exit code |
/// |---|---|
/// | it was done, or stopped in order | 0 |
/// | somebody failed | 1 |
/// | somebody panicked | 101 |
/// | it was told to stop by a signal, and somebody had to be forced | 128 and the number of the signal: 130, 143 |
///
/// A process that had to be given up never gets here: it exits with 128 and the number of the signal, or with 1.
pub struct RunReport<T, E = BoxError> {
    value: Option<T>,
    errors: Vec<GroupError<E>>,
    signal: Option<StopSignal>,
    finished: usize,
}

impl<T, E> RunReport<T, E> {
    /// Returns the signal that had it stop, if it was one.
    #[must_use]
    pub fn signal(&self) -> Option<StopSignal> {
        self.signal
    }

    /// Iterates over every failure and panic, phase by phase.
    pub fn failures(&self) -> impl Iterator<Item = &Failure<E>> {
        self.errors.iter().flatten()
    }

    /// Iterates over those who did not end within the grace, and had to be forced.
    pub fn forced(&self) -> impl Iterator<Item = &Straggler> {
        self.errors.iter().flat_map(GroupError::forced)
    }

    /// Returns how many of its children (of the phases, not of groups inside) that were alive when it was told to stop ended by
    /// themselves.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// Returns what its exit code is.
    #[must_use]
    pub fn code(&self) -> u8 {
        let is_panic = |failure: &Failure<E>| matches!(failure.kind(), FailureKind::Panic(_));
        match self.signal {
            Some(signal) if self.forced().next().is_some() => signal.code(),
            _ if self.failures().any(is_panic) => 101,
            _ if self.failure().is_some() => 1,
            _ => 0,
        }
    }

    /// Returns the value of the body, `None` if it was stopped.
    ///
    /// # Errors
    ///
    /// The first group with a failure.
    pub fn into_result(self) -> Result<Option<T>, GroupError<E>> {
        match self.errors.into_iter().find(is_failure) {
            Some(error) => Err(error),
            None => Ok(self.value),
        }
    }

    fn failure(&self) -> Option<&GroupError<E>> {
        self.errors.iter().find(|error| is_failure(error))
    }
}

/// A cancel that somebody asked for is how a process stops.
fn is_failure<E>(error: &GroupError<E>) -> bool {
    let is_stop = matches!(
        error.cause(),
        Cause::Cancelled(CancelReason::Requested { .. })
    );
    !(is_stop && error.is_empty())
}

impl<T, E: fmt::Display> fmt::Display for RunReport<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal {
            Some(signal) => write!(f, "stopped by {signal}")?,
            None => f.write_str("ended")?,
        }
        let forced = self.forced().count();
        if self.finished + forced > 0 {
            write!(f, ": {} finished, {forced} forced", self.finished)?;
        }
        for straggler in self.forced() {
            write!(f, "\n  {straggler}")?;
        }
        for failure in self.failures() {
            write!(f, "\n  {failure}")?;
        }
        if let Some(error) = self.failure().filter(|error| error.is_empty()) {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

impl<T: fmt::Debug, E: fmt::Debug> fmt::Debug for RunReport<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunReport")
            .field("value", &self.value)
            .field("signal", &self.signal)
            .field("finished", &self.finished)
            .field("errors", &self.errors)
            .finish()
    }
}

/// Tells standard error of a process that did not end well, or was stopped.
impl<T, E: fmt::Display> Termination for RunReport<T, E> {
    fn report(self) -> ExitCode {
        if self.code() != 0 || self.signal.is_some() {
            tell(&self);
        }
        ExitCode::from(self.code())
    }
}

/// Listens for signals, and returns what polls for the next one.
#[cfg(unix)]
fn signals() -> std::io::Result<impl FnMut(&mut Context<'_>) -> Poll<StopSignal> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(move |cx: &mut Context<'_>| {
        if terminate.poll_recv(cx).is_ready() {
            return Poll::Ready(StopSignal::Terminate);
        }
        interrupt.poll_recv(cx).map(|_| StopSignal::Interrupt)
    })
}

/// The same where there is only Ctrl-C.
#[cfg(windows)]
fn signals() -> std::io::Result<impl FnMut(&mut Context<'_>) -> Poll<StopSignal> + Send> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(move |cx: &mut Context<'_>| interrupt.poll_recv(cx).map(|_| StopSignal::Interrupt))
}
