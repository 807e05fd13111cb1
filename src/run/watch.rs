//! Who watches over the process: a thread of its own, so that signals are heard and time passes though the runtime is blocked.
//!
//! W1. Groups are reached through what they share with their members, from any thread. W2. A group that opens after it was asked to end is
//! told at once. W3. When the run is over, the thread stays: a signal that comes later ends the process, since nobody else
//! hears it any more.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::cancel::{Cancelled, Token};
use crate::observe::{CancelReason, DisplacedWhat, displace};
use crate::panic::catch;
use crate::run::StopSignal;
use crate::run::stages::{Action, Stages, Time};
use crate::state::{Core, listing};
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering, PlainArc};
use crate::time::{Deadline, timeout_at};
use crate::watched::Watched;

/// How many runs are not over: as long as there is one, a signal is for it.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Whether a thread stays to hear signals when no run is left.
static IS_HEARD: AtomicBool = AtomicBool::new(false);

/// What the run and its watch share.
pub(super) struct Board {
    shared: Watched<Shared>,
}

struct Shared {
    phases: Vec<Phase>,
    /// The watch has something to look at.
    has_news: bool,
    is_over: bool,
    /// Whether signals are heard.
    watched: Option<io::Result<()>>,
    /// The body of the run has ended.
    is_body_over: bool,
    signal: Option<StopSignal>,
    alive_at_stop: usize,
}

struct Phase {
    name: PlainArc<str>,
    groups: Vec<Arc<Core>>,
    /// Groups that have not ended, opened or not.
    left: usize,
    asked: Asked,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Nothing,
    Stop,
    Force,
}

impl Board {
    /// A board for phases with so many groups each.
    pub(super) fn new(phases: impl IntoIterator<Item = (PlainArc<str>, usize)>) -> PlainArc<Self> {
        let phases = phases.into_iter().map(|(name, left)| Phase {
            name,
            groups: Vec::new(),
            left,
            asked: Asked::Nothing,
        });
        RUNS.fetch_add(1, Ordering::SeqCst);
        PlainArc::new(Self {
            shared: Watched::new(Shared {
                phases: phases.collect(),
                has_news: false,
                is_over: false,
                watched: None,
                is_body_over: false,
                signal: None,
                alive_at_stop: 0,
            }),
        })
    }

    /// A group of a phase has opened (W2).
    pub(super) fn open(&self, phase: usize, group: &Arc<Core>) {
        let (asked, signal) = self.shared.change(|shared| {
            shared.has_news = true;
            let entry = &mut shared.phases[phase];
            entry.groups.push(group.clone());
            (entry.asked, shared.signal)
        });
        ask(group, asked, signal);
    }

    /// A group of a phase is gone.
    pub(super) fn left(&self, phase: usize) {
        self.shared.change(|shared| {
            shared.has_news = true;
            shared.phases[phase].left -= 1;
        });
    }

    pub(super) fn is_watched(&self, watched: io::Result<()>) {
        self.shared.change(|shared| shared.watched = Some(watched));
    }

    /// Waits until signals are heard, or cannot be.
    pub(super) async fn watched(&self) -> io::Result<()> {
        self.shared.until(|shared| shared.watched.take()).await
    }

    pub(super) fn phases(&self) -> usize {
        self.shared.with(|shared| shared.phases.len())
    }

    /// Waits until nobody is left who may need a phase: the body is over, and all phases before it are gone.
    pub(super) async fn unneeded(&self, phase: usize) {
        let unneeded = |shared: &mut Shared| {
            let mut before = shared.phases.iter().take(phase);
            (shared.is_body_over && before.all(|before| before.left == 0)).then_some(())
        };
        self.shared.until(unneeded).await;
    }

    /// The run is over. Returns what it was stopped by, and how many children were alive then: a signal is either in there, or
    /// finds that it is over (W3).
    pub(super) fn close(&self) -> (Option<StopSignal>, usize) {
        self.shared.change(|shared| {
            shared.has_news = true;
            if !std::mem::replace(&mut shared.is_over, true) {
                RUNS.fetch_sub(1, Ordering::SeqCst);
            }
            (shared.signal, shared.alive_at_stop)
        })
    }

    /// Notes a signal, unless the run is over.
    fn signalled(&self, signal: StopSignal) -> bool {
        self.shared.with(|shared| {
            if !shared.is_over {
                shared.signal.get_or_insert(signal);
            }
            !shared.is_over
        })
    }

    fn groups(&self) -> Vec<Arc<Core>> {
        self.shared.with(|shared| {
            let groups = shared.phases.iter().flat_map(|phase| &phase.groups);
            groups.cloned().collect()
        })
    }

    fn ask(&self, phase: usize, asked: Asked) {
        let (groups, signal) = self.shared.with(|shared| {
            let signal = shared.signal;
            let entry = &mut shared.phases[phase];
            entry.asked = entry.asked.max(asked);
            (entry.groups.clone(), signal)
        });
        for group in &groups {
            ask(group, asked, signal);
        }
    }

    fn waiting(&self, waited: Duration, is_last: bool) -> Nag {
        let (phases, signal, is_body_over) = self.shared.with(|shared| {
            // Those who were not told to stop yet hold nobody up.
            let is_held_up = |phase: &&Phase| phase.left > 0 && phase.asked >= Asked::Stop;
            let phases = shared.phases.iter().filter(is_held_up);
            let phases: Vec<_> = phases
                .map(|phase| (phase.name.clone(), phase.groups.clone()))
                .collect();
            (phases, shared.signal, shared.is_body_over)
        });
        let mut nag = Nag {
            signal,
            waited,
            is_last,
            alive: 0,
            tasks: Vec::new(),
            phase: phases.first().map(|(name, _)| name.clone()),
        };
        if !is_body_over {
            nag.alive += 1;
            nag.tasks.push("the body".to_owned());
        }
        for group in phases.iter().flat_map(|(_, groups)| groups) {
            nag.alive += group.view().children as usize;
            nag.tasks.extend(named(group));
        }
        nag
    }
}

/// The body of the run: it has ended when this is dropped, whatever ended it.
pub(super) struct Body<'a>(pub(super) &'a Board);

impl Drop for Body<'_> {
    fn drop(&mut self) {
        self.0.shared.change(|shared| shared.is_body_over = true);
    }
}

/// Names the children of a group that are there, and those of the groups inside it, as far as they can be named.
fn named(group: &Core) -> Vec<String> {
    let mut groups = listing::all();
    groups.retain(|(core, _)| core.task_id(0) == group.task_id(0) || core.is_inside(group));
    groups.sort_unstable_by_key(|(core, _)| core.task_id(0));
    let mut tasks = Vec::new();
    for (core, _) in groups {
        for seen in core.view().tasks {
            let id = core.task_id(seen.serial);
            let mut text = match (core.path(), seen.name) {
                (Some(path), Some(name)) => format!("task `{path}/{name}`"),
                (None, Some(name)) => format!("task `{name}`"),
                (Some(path), None) => format!("task {id} of `{path}`"),
                (None, None) => format!("task {id}"),
            };
            if let Some(location) = seen.location {
                text += &format!(" spawned at {location}");
            }
            tasks.push(text);
        }
    }
    tasks
}

fn ask(group: &Core, asked: Asked, signal: Option<StopSignal>) {
    if group.word().read().live() == 0 {
        return;
    }
    if asked >= Asked::Stop {
        let note = signal.map_or("the process stops", StopSignal::name);
        group.cancel(CancelReason::Requested {
            note: Some(note.into()),
            by: None,
        });
    }
    if asked == Asked::Force {
        group.force();
    }
}

/// Who is still there while a process stops: see [`Process::on_nag`](crate::Process::on_nag).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Nag {
    /// The signal that had it stop, if it was one.
    pub signal: Option<StopSignal>,
    /// For how long it has been stopping.
    pub waited: Duration,
    /// The phase that it waits for, if it has any.
    pub phase: Option<PlainArc<str>>,
    /// How many bodies and children are alive.
    pub alive: usize,
    /// Those of them that can be told: the ones that have a name, or have waited for something at least once.
    pub tasks: Vec<String>,
    /// The process is given up: it exits now, although they are there.
    pub is_last: bool,
}

impl fmt::Display for Nag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.signal.map_or("stopping", StopSignal::name);
        let verb = if self.is_last {
            "gave up on"
        } else {
            "still waiting for"
        };
        let waited = self.waited.as_secs_f64();
        write!(f, "{what}: {verb} {} after {waited:.1} s", self.alive)?;
        if let Some(phase) = self.phase.as_deref().filter(|phase| !phase.is_empty()) {
            write!(f, ", in phase `{phase}`")?;
        }
        for task in &self.tasks {
            write!(f, "\n  {task}")?;
        }
        Ok(())
    }
}

/// What is done with a nag.
pub(super) type NagHook = PlainArc<dyn Fn(&Nag) + Send + Sync>;

/// Writes a line where people look, and does not mind if nobody does any more.
pub(super) fn tell(line: &dyn fmt::Display) {
    let _lost = writeln!(io::stderr(), "ringfence: {line}");
}

/// Where nags go to be told, with a way to say that one has been.
pub(super) type Teller = mpsc::Sender<(Nag, mpsc::Sender<()>)>;

/// Starts the thread that tells nags. Without one they are lost: there is nobody to tell that.
fn teller(hook: Option<NagHook>) -> Teller {
    let (sender, nags) = mpsc::channel::<(Nag, mpsc::Sender<()>)>();
    let tell_all = move || {
        for (nag, done) in nags {
            match &hook {
                None => tell(&nag),
                Some(hook) => {
                    if let Err(panic) = catch(|| hook(&nag)) {
                        displace(None, None, DisplacedWhat::Panic(panic));
                    }
                }
            }
            let _gone = done.send(());
        }
    };
    let thread = std::thread::Builder::new().name("ringfence-nag".to_owned());
    drop(thread.spawn(tell_all));
    sender
}

/// What a watch goes by.
pub(super) struct Watch<S, X> {
    pub(super) board: PlainArc<Board>,
    pub(super) stages: Stages,
    pub(super) hook: Option<NagHook>,
    pub(super) teller: Option<Teller>,
    /// Of what is around the run, if anything.
    pub(super) around: Token,
    /// Polls for the next signal.
    pub(super) signals: S,
    /// Ends the process.
    pub(super) exit: X,
}

/// A group of the run, or what is around it, that may be cancelled from inside.
type Listening = (Option<Arc<Core>>, Pin<Box<Cancelled>>);

enum News {
    Signal(StopSignal),
    Cancelled,
    Board,
}

impl<S, X> Watch<S, X>
where
    S: FnMut(&mut Context<'_>) -> Poll<StopSignal> + Send,
    X: FnMut(u8) + Send,
{
    /// Watches until the process has exited, or is over.
    pub(super) async fn watch(&mut self) {
        let start = Instant::now();
        let now = || Instant::now().saturating_duration_since(start);
        let mut begun: Option<Time> = None;
        // Each of them fires once.
        let mut cancels = vec![Some((None, Box::pin(self.around.cancelled())))];
        let mut gone = Vec::new();
        loop {
            let (is_over, left) = self.board.shared.with(|shared| {
                shared.has_news = false;
                let left: Vec<_> = shared.phases.iter().map(|phase| phase.left).collect();
                (shared.is_over, left)
            });
            if is_over {
                return;
            }
            gone.resize(left.len(), false);
            let mut actions = Vec::new();
            for (phase, left) in left.into_iter().enumerate() {
                if left == 0 && !std::mem::replace(&mut gone[phase], true) {
                    actions.extend(self.stages.gone(phase, now()));
                }
            }
            for group in self.board.groups().into_iter().skip(cancels.len() - 1) {
                let cancelled = Token::of(group.clone(), 0).cancelled();
                cancels.push(Some((Some(group), Box::pin(cancelled))));
            }
            let at = self.stages.next().and_then(|next| start.checked_add(next));
            let due = at.map_or(Deadline::NEVER, Deadline::at);
            if actions.is_empty() {
                match timeout_at(due, self.news(&mut cancels)).await {
                    Ok(News::Signal(signal)) => {
                        if !self.board.signalled(signal) {
                            return self.late(signal);
                        }
                        actions = self.stages.signal(now());
                    }
                    Ok(News::Cancelled) => actions = self.stages.fault(now()),
                    Ok(News::Board) => {}
                    Err(_) => actions = self.stages.time(now()),
                }
            }
            if !actions.is_empty() && begun.is_none() {
                begun = Some(now());
                let groups = self.board.groups();
                let children = groups.iter().map(|group| group.view().children);
                let alive = children.sum::<u64>() as usize;
                self.board
                    .shared
                    .with(|shared| shared.alive_at_stop = alive);
            }
            let waited = now().saturating_sub(begun.unwrap_or_default());
            for action in actions {
                match action {
                    Action::Stop(phase) => self.board.ask(phase, Asked::Stop),
                    Action::Force(phase) => self.board.ask(phase, Asked::Force),
                    Action::Nag => self.nag(self.board.waiting(waited, false)),
                    Action::Exit => {
                        self.nag(self.board.waiting(waited, true));
                        let signal = self.board.shared.with(|shared| shared.signal);
                        (self.exit)(signal.map_or(1, StopSignal::code));
                        return;
                    }
                }
            }
        }
    }

    /// Hears of signals when nobody else does any more (W3).
    pub(super) async fn linger(&mut self) {
        while !IS_HEARD.swap(true, Ordering::SeqCst) {
            let signal = poll_fn(|cx| (self.signals)(cx)).await;
            IS_HEARD.store(false, Ordering::SeqCst);
            self.late(signal);
        }
    }

    /// A signal that came when this run was over.
    fn late(&mut self, signal: StopSignal) {
        if RUNS.load(Ordering::SeqCst) == 0 {
            (self.exit)(signal.code());
        }
    }

    async fn news(&mut self, cancels: &mut [Option<Listening>]) -> News {
        let board = self.board.clone();
        let mut board = board
            .shared
            .until(|shared| shared.has_news.then_some(News::Board));
        poll_fn(|cx| {
            if let Poll::Ready(signal) = (self.signals)(cx) {
                return Poll::Ready(News::Signal(signal));
            }
            for place in cancels.iter_mut() {
                let heard = |(_, cancelled): &mut Listening| cancelled.as_mut().poll(cx).is_ready();
                let Some((group, _)) = place.take_if(heard) else {
                    continue;
                };
                // Also when it has ended by itself, which is no fault.
                let is_fault = group.is_none_or(|group| {
                    let is_cancelled = group.word().read().is_cancelled();
                    is_cancelled && group.reason() != Some(CancelReason::Finished)
                });
                if is_fault {
                    return Poll::Ready(News::Cancelled);
                }
            }
            Pin::new(&mut board).poll(cx)
        })
        .await
    }

    /// Has a nag told, on a thread of its own: the hook, and who reads standard error, may take any time. The last one is waited for
    /// as long as a reader may need.
    fn nag(&mut self, nag: Nag) {
        let is_last = nag.is_last;
        let (done, told) = mpsc::channel();
        let teller = self.teller.get_or_insert_with(|| teller(self.hook.clone()));
        if teller.send((nag, done)).is_ok() && is_last {
            let _in_time = told.recv_timeout(Duration::from_millis(500));
        }
    }
}
