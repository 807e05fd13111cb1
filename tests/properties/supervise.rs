//! Supervisors under orders, ends and time in any order, on the paused clock. No model of the order in which children go down and
//! up (the plan inside has that); what holds whatever the order is looked at where it happens, and after each step.
//!
//! V1. A child has one run at a time. V2. After a stop no run begins. V3. No run begins before its delay is over, unless somebody
//! restarts it. V4. There are never more restarts within the window than allowed. V5. Each run is told of once, and what follows
//! from it is what its kind says. V6. Where a child is said to be is where it is. V7. Who is due and waits for nobody runs. V8. In
//! the end nobody is left, and the report has it all.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::TestCaseError;
use ringfence::supervise::{
    Child, ChildHandle, ChildState, Run, RunEnded, Strategy as Whom, Supervisor, SupervisorHandle,
    WhatNext,
};
use ringfence::{BoxError, Jitter, Retry, token};
use tokio::time::{Instant, advance};

use crate::support::{DropGuard, Drops, paused_runtime, settle, spawn};
use crate::{cases, figures, try_cases};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Permanent,
    Transient,
    Temporary,
    Critical,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    kind: Kind,
    /// In milliseconds, as all times.
    grace: u64,
    delay: u64,
    ready_within: Option<u64>,
    /// Ends when it is told to.
    listens: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Shape {
    whom: Whom,
    intensity: Option<(u32, u64)>,
    grace: u64,
    children: Vec<Spec>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Good,
    Bad,
    Throw,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    End(u8, Fate),
    Ready(u8),
    Stop(u8),
    Restart(u8),
    Add(Spec),
    Pass(u64),
    Finish,
    ShutDown,
}

pub(crate) fn case() -> impl Strategy<Value = (Shape, Vec<Op>)> {
    fn spec() -> impl Strategy<Value = Spec> {
        let kind = prop_oneof![
            6 => Just(Kind::Permanent),
            4 => Just(Kind::Transient),
            2 => Just(Kind::Temporary),
            1 => Just(Kind::Critical),
        ];
        let times = (0..20_u64, 0..20_u64, option::weighted(0.2, 5..60_u64));
        (kind, times, any::<bool>()).prop_map(|(kind, (grace, delay, ready_within), listens)| {
            Spec {
                kind,
                grace,
                delay,
                ready_within,
                listens,
            }
        })
    }
    let whom = prop_oneof![
        Just(Whom::OneForOne),
        Just(Whom::OneForAll),
        Just(Whom::RestForOne)
    ];
    let intensity = option::weighted(0.6, (0..8_u32, 1..60_u64));
    let shape = (whom, intensity, 0..40_u64, vec(spec(), 0..5)).prop_map(
        |(whom, intensity, grace, children)| Shape {
            whom,
            intensity,
            grace,
            children,
        },
    );
    let fate = prop_oneof![Just(Fate::Good), Just(Fate::Bad), Just(Fate::Throw)];
    let op = prop_oneof![
        12 => (any::<u8>(), fate).prop_map(|(child, fate)| Op::End(child, fate)),
        6 => any::<u8>().prop_map(Op::Ready),
        2 => any::<u8>().prop_map(Op::Stop),
        3 => any::<u8>().prop_map(Op::Restart),
        2 => spec().prop_map(Op::Add),
        10 => (0..25_u64).prop_map(Op::Pass),
        1 => Just(Op::Finish),
        1 => Just(Op::ShutDown),
    ];
    (shape, vec(op, 1..60))
}

/// One that runs.
struct Running {
    number: u64,
    run: Option<Run>,
    fate: Option<Fate>,
    waker: Option<Waker>,
}

/// What children, the hook and the program share.
#[derive(Default)]
struct Board {
    alive: BTreeMap<usize, Running>,
    begun: BTreeMap<usize, u64>,
    told: BTreeSet<(String, u64)>,
    /// Those of whom no run may begin any more.
    stopped: BTreeSet<usize>,
    /// Not before then.
    due: BTreeMap<usize, Instant>,
    restarts: Vec<Instant>,
    /// Nobody is restarted any more.
    is_ending: bool,
    has_escalated: bool,
    /// What is wrong.
    wrong: Option<String>,
}

type Shared = Arc<Mutex<Board>>;

fn lock(board: &Shared) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    fn begin(&mut self, child: usize, run: Run) {
        let (number, now) = (run.number(), Instant::now());
        let before = self.begun.insert(child, number).unwrap_or(0);
        self.must(number == before + 1, || {
            format!("V1: run {number} of {child} comes after {before}")
        });
        let is_stopped = self.stopped.contains(&child);
        self.must(!is_stopped, || {
            format!("V2: {child} was stopped, and begins")
        });
        let due = self.due.remove(&child);
        self.must(due.is_none_or(|due| due <= now), || {
            format!("V3: {child} begins before its delay is over")
        });
        let running = Running {
            number,
            run: Some(run),
            fate: None,
            waker: None,
        };
        let other = self.alive.insert(child, running);
        self.must(other.is_none(), || format!("V1: {child} runs twice"));
    }

    /// How many restarts there were within the window, and how many there may be.
    fn recent(&self, shape: &Shape) -> (usize, usize) {
        let Some((most, within)) = shape.intensity else {
            return (0, usize::MAX);
        };
        let now = Instant::now();
        let recent = self.restarts.iter().rev();
        let recent = recent.take_while(|at| now - **at < ms(within));
        (recent.count(), most as usize)
    }

    fn ended(&mut self, spec: Spec, shape: &Shape, child: usize, ended: &RunEnded<'_>) {
        let now = Instant::now();
        let is_news = self.told.insert((ended.child.to_owned(), ended.run));
        self.must(is_news, || format!("V5: {ended:?} is told twice"));
        let is_gone = !self.alive.contains_key(&child);
        self.must(is_gone, || format!("V1: {ended:?}, and it runs"));
        match ended.next {
            WhatNext::Restart(delay) => {
                let may = match spec.kind {
                    Kind::Permanent => true,
                    Kind::Transient => !ended.end.is_completed(),
                    Kind::Temporary | Kind::Critical => false,
                };
                let may = may && !self.is_ending && !self.stopped.contains(&child);
                self.must(may, || format!("V5: {ended:?} of {spec:?}"));
                let least = if shape.intensity.is_none() { 1 } else { 0 };
                self.must(delay == ms(spec.delay.max(least)), || {
                    format!("V3: {ended:?} of {spec:?}")
                });
                self.due.insert(child, now + delay);
                self.restarts.push(now);
                let (recent, most) = self.recent(shape);
                self.must(recent <= most, || {
                    format!("V4: {recent} restarts, not {most}")
                });
            }
            WhatNext::Escalate => {
                let (recent, most) = self.recent(shape);
                let is_fault = spec.kind == Kind::Critical;
                let may =
                    recent == most || is_fault || (spec.ready_within.is_some() && ended.run == 1);
                self.must(may, || {
                    format!("V4: {ended:?} after {recent} restarts of {most}")
                });
                self.has_escalated = true;
                self.is_ending = true;
            }
            WhatNext::Nothing => {
                let may = match spec.kind {
                    Kind::Permanent => false,
                    Kind::Transient => ended.end.is_completed(),
                    Kind::Temporary => true,
                    Kind::Critical => false,
                };
                let is_ending = self.is_ending;
                self.must(may || is_ending, || format!("V5: {ended:?} of {spec:?}"));
            }
            _ => {}
        }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Takes a run off the board when it is gone.
struct Gone(
    Shared,
    usize,
    #[expect(dead_code, reason = "it counts")] DropGuard,
);

impl Drop for Gone {
    fn drop(&mut self) {
        let gone = lock(&self.0).alive.remove(&self.1);
        drop(gone); // not under the lock
    }
}

async fn life(gone: Gone, listens: bool) -> Result<(), BoxError> {
    let fate = poll_fn(|cx| {
        let mut board = lock(&gone.0);
        match board.alive.get_mut(&gone.1) {
            Some(Running {
                fate: Some(fate), ..
            }) => Poll::Ready(*fate),
            Some(running) => {
                running.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => unreachable!("it is on the board as long as it lives"),
        }
    });
    let token = token();
    let fate = tokio::select! {
        biased;
        fate = fate => fate,
        () = token.cancelled(), if listens => Fate::Good,
    };
    match fate {
        Fate::Good => Ok(()),
        Fate::Bad => Err("bad".into()),
        Fate::Throw => panic!("thrown"),
    }
}

struct Program {
    shape: Shape,
    specs: Arc<Mutex<Vec<Spec>>>,
    board: Shared,
    drops: Drops,
    children: Vec<ChildHandle>,
    supervisor: SupervisorHandle,
}

fn make(board: &Shared, drops: &Drops, number: usize, spec: Spec) -> Child {
    let (board, drops) = (board.clone(), drops.clone());
    let start = move |run: Run| {
        let gone = Gone(board.clone(), number, drops.guard());
        lock(&board).begin(number, run);
        life(gone, spec.listens)
    };
    let name = number.to_string();
    let child = match spec.kind {
        Kind::Permanent => Child::permanent(name, start),
        Kind::Transient => Child::transient(name, start),
        Kind::Temporary => Child::temporary(name, start),
        Kind::Critical => Child::critical(name, start),
    };
    let delays = Retry::constant(ms(spec.delay)).jitter(Jitter::None);
    let child = child.grace(ms(spec.grace)).backoff(delays);
    match spec.ready_within {
        Some(limit) => child.ready_within(ms(limit)),
        None => child,
    }
}

impl Program {
    fn at(&self, number: u8) -> Option<usize> {
        (!self.children.is_empty()).then(|| usize::from(number) % self.children.len())
    }

    fn alive(&self, number: u8) -> Option<usize> {
        let board = lock(&self.board);
        let alive: Vec<usize> = board.alive.keys().copied().collect();
        (!alive.is_empty()).then(|| alive[usize::from(number) % alive.len()])
    }

    async fn act(&mut self, op: Op) {
        match op {
            Op::End(number, fate) => {
                if let Some(child) = self.alive(number) {
                    let waker = lock(&self.board).alive.get_mut(&child).and_then(|running| {
                        running.fate.get_or_insert(fate);
                        running.waker.take()
                    });
                    waker.into_iter().for_each(Waker::wake);
                }
            }
            Op::Ready(number) => {
                if let Some(child) = self.alive(number) {
                    let mut board = lock(&self.board);
                    let run = board.alive.get_mut(&child).and_then(|it| it.run.take());
                    drop(board);
                    run.into_iter().for_each(Run::ready);
                }
            }
            Op::Stop(number) => {
                if let Some(at) = self.at(number) {
                    self.children[at].stop();
                    lock(&self.board).stopped.insert(at);
                }
            }
            Op::Restart(number) => {
                if let Some(at) = self.at(number) {
                    if self.children[at].restart() {
                        lock(&self.board).due.remove(&at);
                    }
                }
            }
            Op::Add(spec) => {
                if self.children.len() < 8 {
                    let number = self.children.len();
                    self.specs.lock().expect("no poison").push(spec);
                    let child = make(&self.board, &self.drops, number, spec);
                    self.children.push(self.supervisor.add(child));
                }
            }
            Op::Pass(time) => advance(ms(time)).await,
            Op::Finish => {
                self.supervisor.finish();
                lock(&self.board).is_ending = true;
            }
            Op::ShutDown => {
                self.supervisor.shut_down();
                let mut board = lock(&self.board);
                board.is_ending = true;
                board.stopped.extend(0..64);
            }
        }
        settle().await;
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let board = lock(&self.board);
        if let Some(wrong) = &board.wrong {
            return Err(TestCaseError::fail(wrong.clone()));
        }
        let now = Instant::now();
        let (mut running, mut stopping) = (0, 0);
        for (number, child) in self.children.iter().enumerate() {
            let (state, alive) = (child.state(), board.alive.get(&number));
            match state {
                ChildState::Stopping => stopping += 1,
                ChildState::Starting | ChildState::Running => running += 1,
                _ => {}
            }
            let is_up = !matches!(state, ChildState::Waiting | ChildState::Ended);
            let begun = board.begun.get(&number).copied().unwrap_or(0);
            let is_so = is_up == alive.is_some()
                && child.runs() == begun
                && alive.is_none_or(|running| running.number == begun);
            if !is_so {
                let text = format!("V6: {child:?}, and it lives: {}", alive.is_some());
                return Err(TestCaseError::fail(text));
            }
            let is_due = board.due.get(&number).is_some_and(|due| *due <= now);
            let may = !board.is_ending && !board.stopped.contains(&number);
            if is_due && may && self.shape.whom == Whom::OneForOne {
                return Err(TestCaseError::fail(format!("V7: {child:?} does not begin")));
            }
        }
        let counts = self.supervisor.counts();
        if (counts.running, counts.stopping) != (running, stopping) {
            return Err(TestCaseError::fail(format!("V6: {counts:?}")));
        }
        Ok(())
    }
}

async fn run(shape: &Shape, ops: &[Op]) -> Result<usize, TestCaseError> {
    let (board, drops) = (Shared::default(), Drops::new());
    let specs = Arc::new(Mutex::new(shape.children.clone()));
    let mut supervisor = Supervisor::new()
        .strategy(shape.whom)
        .grace(ms(shape.grace));
    supervisor = match shape.intensity {
        Some((most, within)) => supervisor.intensity(most, ms(within)),
        None => supervisor.unlimited(),
    };
    let (seen, known, rules) = (board.clone(), specs.clone(), shape.clone());
    let mut supervisor = supervisor.stay_open().on_end(move |ended| {
        let child: usize = ended.child.parse().expect("a number");
        let spec = known.lock().expect("no poison")[child];
        lock(&seen).ended(spec, &rules, child, ended);
    });
    let children = shape.children.iter().enumerate();
    let children =
        children.map(|(number, spec)| supervisor.add(make(&board, &drops, number, *spec)));
    let mut program = Program {
        shape: shape.clone(),
        specs,
        children: children.collect(),
        supervisor: supervisor.handle(),
        board,
        drops,
    };
    let task = spawn(supervisor.run());
    settle().await;
    program.check()?;
    for op in ops {
        program.act(*op).await;
        program.check()?;
    }
    program.act(Op::ShutDown).await;
    for _ in 0..3 {
        program.act(Op::Pass(60)).await;
        program.check()?;
    }
    let fail = |what: String| Err(TestCaseError::fail(format!("V8: {what}")));
    if !task.is_finished() {
        return fail(format!("it goes on: {:?}", program.supervisor.counts()));
    }
    let ended = task.await;
    let board = lock(&program.board);
    let begun: u64 = board.begun.values().sum();
    if program.drops.alive() > 0 || board.told.len() as u64 != begun {
        return fail(format!("{begun} runs, {} told", board.told.len()));
    }
    let restarts = match &ended {
        Ok(Ok(report)) if !board.has_escalated => report.restarts,
        Ok(Err(error)) if board.has_escalated => error.report().restarts,
        other => return fail(format!("{other:?}")),
    };
    if restarts != board.restarts.len() as u64 {
        return fail(format!("{restarts}, not {} restarts", board.restarts.len()));
    }
    Ok(ops.len())
}

/// How many steps it took.
pub(crate) fn agree((shape, ops): &(Shape, Vec<Op>)) -> Result<usize, TestCaseError> {
    paused_runtime().block_on(run(shape, ops))
}

#[test]
fn whatever_happens_a_supervisor_keeps_its_promises() {
    let steps = std::cell::Cell::new(0);
    try_cases(cases(1_000), &case(), |case| {
        steps.set(steps.get() + agree(&case)?);
        Ok(())
    });
    figures(format_args!("{} steps of supervisors", steps.get()));
}
