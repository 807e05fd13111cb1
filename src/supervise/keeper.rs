//! What drives a supervisor: the body of its scope, which does what the plan says, and waits for all runs at once.
//!
//! Each run is a group of its own, so that its end is the end of all that it had opened, and its failure nobody else's. It is opened
//! in the body: when that is dropped, the scope of the supervisor adopts it.
//!
//! K1. Plan, children and news are under one lock: a handle that returns from a call has changed the plan. K2. Children, closures
//! and errors are dropped, and predicates and hooks called, outside it. K3. A run that was begun is there until its end was heard
//! of, exactly once; it is looked at only when its bell has rung. K4. When the driver is gone, however that came, nobody waits for it
//! any more.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::calm::{calmly, keeping};
use crate::cancel::Token;
use crate::detail;
use crate::group::TaskGroup;
use crate::group::error::BoxError;
use crate::group::handle::{Outcome, OutcomeHandle};
use crate::group::owned::OwnedGroup;
use crate::group::report::Report;
use crate::group::spawn::{Birth, Spawner};
use crate::observe::{DisplacedWhat, Observer, Straggler, TaskInfo, displace};
use crate::panic::{PanicPayload, catch};
use crate::runtime::step;
use crate::sorted_map::SortedMap;
use crate::state::word::Kind;
use crate::supervise::child::{Child, ChildEnd, Run};
use crate::supervise::error::{Escalation, Inner, SupervisorError, SupervisorReport};
use crate::supervise::handle::ChildHandle;
use crate::supervise::restart::{Counts, Id, Next, Plan, Rules, State, Step, Time, Turn, Why};
use crate::supervise::{Hook, RunEnded, WhatNext};
use crate::sync::PlainArc;
use crate::time::{Deadline, timeout_at};
use crate::watched::Watched;

/// What everybody shares who has to do with a supervisor.
pub(super) struct Desk {
    epoch: Instant,
    tray: Watched<Tray>,
}

struct Tray {
    plan: Plan,
    /// The driver has something to look at.
    has_news: bool,
    /// Whose runs may have ended.
    rung: Vec<Id>,
    ready: Vec<Id>,
    children: SortedMap<Id, Supervised>,
}

#[derive(Clone)]
struct Supervised {
    child: PlainArc<Child>,
    record: PlainArc<Record>,
}

#[derive(Clone)]
struct Ended {
    id: Id,
    run: u64,
    end: ChildEnd,
    forced: Vec<Straggler>,
    task: Option<TaskInfo>,
}

impl Ended {
    /// Tells the observer of a failure that nobody else is told of.
    fn displace(&self, observer: Option<&PlainArc<dyn Observer>>) {
        let what = match &self.end {
            ChildEnd::Failed(error) => DisplacedWhat::Error(Box::new(error.clone())),
            ChildEnd::Panicked(panic) => {
                let message = panic.message().to_owned();
                DisplacedWhat::Panic(PanicPayload::new(Box::new(message)))
            }
            _ => return,
        };
        displace(observer, self.task.clone(), what);
    }
}

/// What is known of a child, and stays known to its handles.
pub(super) struct Record {
    pub(super) name: PlainArc<str>,
    pub(super) life: Watched<Life>,
}

#[derive(Default)]
pub(super) struct Life {
    pub(super) runs: u64,
    pub(super) is_up: bool,
    pub(super) is_over: bool,
    pub(super) last: Option<ChildEnd>,
}

impl Desk {
    pub(super) fn new(rules: Rules) -> PlainArc<Self> {
        PlainArc::new(Self {
            epoch: Instant::now(),
            tray: Watched::new(Tray {
                plan: Plan::new(rules),
                has_news: false,
                rung: Vec::new(),
                ready: Vec::new(),
                children: SortedMap::new(),
            }),
        })
    }

    fn now(&self) -> Time {
        Instant::now().saturating_duration_since(self.epoch)
    }

    pub(super) fn rules(&self, set: impl FnOnce(&mut Rules)) {
        self.tray.with(|tray| set(tray.plan.rules()));
    }

    /// Changes the plan, and has the driver look at it.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Plan, Time) -> R) -> R {
        let now = self.now();
        self.tray.change(|tray| {
            tray.has_news = true;
            change(&mut tray.plan, now)
        })
    }

    pub(super) fn state(&self, id: Id) -> Option<State> {
        self.tray.with(|tray| tray.plan.state(id))
    }

    pub(super) fn counts(&self) -> Counts {
        self.tray.with(|tray| tray.plan.counts())
    }

    pub(super) fn restarts(&self) -> u64 {
        self.tray.with(|tray| tray.plan.restarts())
    }

    pub(super) fn ready(&self, id: Id, run: u64) {
        let now = self.now();
        self.tray.change(|tray| {
            if tray.plan.ready(id, run, now) {
                tray.ready.push(id);
                tray.has_news = true;
            }
        });
    }

    pub(super) fn add(me: &PlainArc<Self>, child: Child) -> ChildHandle {
        let record = PlainArc::new(Record {
            name: child.name.clone(),
            life: Watched::new(Life::default()),
        });
        let terms = child.terms();
        let child = PlainArc::new(child);
        let supervised = Supervised {
            child: child.clone(),
            record: record.clone(),
        };
        let id = me.tray.change(|tray| {
            let id = tray.plan.add(terms)?;
            tray.has_news = true;
            tray.children.insert(id, supervised);
            Some(id)
        });
        if id.is_none() {
            record.life.change(|life| life.is_over = true);
        }
        ChildHandle {
            desk: me.clone(),
            id,
            record,
        }
    }

    /// Nobody drives it any more (K4).
    pub(super) fn close(&self) {
        let children = self.tray.with(|tray| {
            tray.plan.close();
            std::mem::take(&mut tray.children)
        });
        for Supervised { record, .. } in children.values() {
            let old = record.life.change(|life| {
                life.is_up = false;
                life.is_over = true;
                life.last.replace(ChildEnd::Lost)
            });
            calmly(|| drop(old)); // K2: what it throws must not cost the others their end
        }
        // K2. Neither has a place any more.
        if let Err(panic) = catch(|| drop(children)) {
            displace(None, None, DisplacedWhat::Panic(panic));
        }
    }
}

/// Wakes the driver, and says for which run.
struct Bell {
    desk: PlainArc<Desk>,
    id: Id,
}

impl Wake for Bell {
    fn wake(self: PlainArc<Self>) {
        self.desk.tray.change(|tray| {
            tray.rung.push(self.id);
            tray.has_news = true;
        });
    }
}

type Ending = Pin<Box<dyn Future<Output = (Outcome<()>, Report<BoxError>)> + Send>>;

/// A run that has begun, and was not heard the end of.
struct Running {
    number: u64,
    /// The way to it, to ask it to end.
    way: Spawner,
    bell: Waker,
    ending: Ending,
}

impl Running {
    fn new(number: u64, group: OwnedGroup, handle: OutcomeHandle<()>, bell: Bell) -> Self {
        Self {
            number,
            way: group.spawner(),
            bell: Waker::from(PlainArc::new(bell)),
            ending: Box::pin(async move {
                let outcome = handle.await;
                (outcome, group.wait().await)
            }),
        }
    }
}

/// The task that does what the plan says.
pub(super) struct Driver<'g> {
    pub(super) desk: PlainArc<Desk>,
    pub(super) group: &'g TaskGroup,
    pub(super) hook: Option<Hook>,
    runs: SortedMap<Id, Running>,
    report: SupervisorReport,
    /// What ends it, and the run that it comes from.
    escalated: Option<(Escalation, PlainArc<str>, Ended)>,
}

impl<'g> Driver<'g> {
    pub(super) fn new(desk: PlainArc<Desk>, group: &'g TaskGroup, hook: Option<Hook>) -> Self {
        Self {
            desk,
            group,
            hook,
            runs: SortedMap::new(),
            report: SupervisorReport::default(),
            escalated: None,
        }
    }

    /// Does what the plan says, until nobody is left. Whoever is around may have it stop.
    pub(super) async fn drive(
        mut self,
        around: Token,
    ) -> Result<SupervisorReport, SupervisorError> {
        if around.is_cancelled() {
            self.desk.change(Plan::shut_down); // nobody is started
        }
        let mut around = pin!(heed(self.desk.clone(), around));
        let mut is_heard = false;
        let ended = loop {
            step().await; // also for the sake of runs that cannot be looked at when the budget is spent
            let (rung, ready) = self.desk.tray.with(|tray| {
                tray.has_news = false;
                (
                    std::mem::take(&mut tray.rung),
                    std::mem::take(&mut tray.ready),
                )
            });
            for id in ready {
                self.publish(id, |life| life.is_up = true);
            }
            for id in rung {
                self.look(id);
            }
            let now = self.desk.now();
            let Turn {
                steps,
                next,
                is_over,
            } = self.desk.tray.with(|tray| tray.plan.turn(now));
            let is_at_rest = steps.is_empty();
            steps.into_iter().for_each(|step| self.step(step));
            if is_over {
                break self.finish();
            }
            if !is_at_rest {
                continue;
            }
            let at = next.and_then(|next| self.desk.epoch.checked_add(next));
            let deadline = at.map_or(Deadline::NEVER, Deadline::at);
            let mut news = self.desk.tray.until(|tray| tray.has_news.then_some(()));
            let news = poll_fn(|cx| {
                is_heard = is_heard || around.as_mut().poll(cx).is_ready();
                Pin::new(&mut news).poll(cx)
            });
            let _elapsed = timeout_at(deadline, news).await;
        };
        // The hook goes here: K3 of `calm`.
        keeping(ended, self, |ended| calmly(|| drop(ended)))
    }

    /// Looks whether a run has ended, and is gone (K3).
    fn look(&mut self, id: Id) {
        let Some(run) = self.runs.get_mut(id) else {
            return;
        };
        let ending = run.ending.as_mut();
        let ended = ending.poll(&mut Context::from_waker(&run.bell));
        detail::forget(); // it waits for all of them alike
        let Poll::Ready((outcome, report)) = ended else {
            return;
        };
        let run = run.number;
        self.runs.remove(id);
        let observer = self.group.core().observer();
        let forced = report.forced().to_vec();
        let (end, task) = ChildEnd::of(outcome, report, observer);
        self.ended(Ended {
            id,
            run,
            end,
            forced,
            task,
        });
    }

    fn finish(&mut self) -> Result<SupervisorReport, SupervisorError> {
        let mut report = std::mem::take(&mut self.report);
        report.restarts = self.desk.restarts();
        match self.escalated.take() {
            None => Ok(report),
            Some((why, child, Ended { end, .. })) => Err(SupervisorError {
                inner: Box::new(Inner {
                    child: Some(child),
                    why,
                    end,
                    report,
                }),
            }),
        }
    }

    fn supervised(&self, id: Id) -> Option<Supervised> {
        self.desk.tray.with(|tray| tray.children.get(id).cloned())
    }

    fn publish(&self, id: Id, change: impl FnOnce(&mut Life)) {
        if let Some(Supervised { record, .. }) = self.supervised(id) {
            record.life.change(change);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start(id, run) => self.start(id, run),
            Step::Stop(id, has_time) => {
                if let Some(run) = self.runs.get(id) {
                    run.way.core.shut_down(has_time);
                }
            }
            Step::Force(id) => {
                if let Some(run) = self.runs.get(id) {
                    run.way.core.force();
                }
            }
            Step::Gone(id) => {
                self.publish(id, |life| life.is_over = true);
                let gone = self.desk.tray.with(|tray| tray.children.remove(id));
                // K2
                if let Err(panic) = catch(|| drop(gone)) {
                    displace(None, None, DisplacedWhat::Panic(panic));
                }
            }
        }
    }

    fn start(&mut self, id: Id, number: u64) {
        let Some(Supervised { child, .. }) = self.supervised(id) else {
            return;
        };
        let run = Run {
            desk: self.desk.clone(),
            id,
            number,
        };
        let group: OwnedGroup = OwnedGroup::new();
        let spawner = group.spawner();
        let birth = Birth {
            kind: Kind::Normal,
            name: Some(child.name.clone()),
            location: child.location,
        };
        let handle = spawner
            .launch(child.start(run), birth)
            .unwrap_or_else(|refused| spawner.refuse(refused));
        let bell = Bell {
            desk: self.desk.clone(),
            id,
        };
        self.runs
            .insert(id, Running::new(number, group, handle, bell));
        let is_up = self.desk.state(id);
        self.publish(id, |life| {
            life.runs = number;
            life.is_up = matches!(is_up, Some(State::Up { .. }));
        });
        self.desk.tray.with(|tray| tray.rung.push(id)); // looked at once, it has its bell
    }

    fn ended(&mut self, mut ended: Ended) {
        let mut cause = None;
        let (id, run) = (ended.id, ended.run);
        self.report.forced.append(&mut ended.forced);
        let observer = self.group.core().observer();
        let Some(Supervised { child, record }) = self.supervised(id) else {
            return ended.displace(observer);
        };
        let end = &mut ended.end;
        let unready = self.desk.tray.with(|tray| tray.plan.unready(id));
        if let (Some(limit), ChildEnd::Completed | ChildEnd::Cancelled { .. }) = (unready, &*end) {
            *end = ChildEnd::NotReady(limit);
        }
        let is_gone = matches!(end, ChildEnd::RuntimeGone);
        let verdict = child.judge(end);
        let now = self.desk.now();
        let next = self.desk.tray.with(|tray| {
            if is_gone {
                tray.plan.escalate(Why::RuntimeGone, now);
                tray.plan.ended(id, run, verdict, now);
                return Next::Escalates(Why::RuntimeGone);
            }
            tray.plan.ended(id, run, verdict, now)
        });
        let old = record.life.change(|life| {
            life.is_up = false;
            life.last.replace(end.clone())
        });
        calmly(|| drop(old)); // its error may be the last one to know of
        let next = match next {
            Next::Ordered => WhatNext::Ordered,
            Next::Over => WhatNext::Nothing,
            Next::Again(delay) => WhatNext::Restart(delay),
            Next::Escalates(why) => {
                cause = Some(self.escalation(why));
                WhatNext::Escalate
            }
        };
        let told = RunEnded {
            child: &child.name,
            run,
            end,
            next,
        };
        match &self.hook {
            Some(hook) => {
                if let Err(panic) = catch(|| hook(&told)) {
                    displace(observer, None, DisplacedWhat::Panic(panic));
                }
            }
            // What ends the supervisor is in its error.
            None if cause.is_some() && self.escalated.is_none() => {}
            None => ended.displace(observer),
        }
        if let Some(why) = cause {
            let name = child.name.clone();
            self.escalated.get_or_insert((why, name, ended));
        }
    }

    fn escalation(&self, why: Why) -> Escalation {
        match why {
            Why::Intensity => {
                let intensity = self.desk.tray.with(|tray| tray.plan.rules().intensity);
                let (restarts, within) = intensity.unwrap_or((0, Duration::ZERO));
                Escalation::Intensity { restarts, within }
            }
            Why::Critical => Escalation::Critical,
            Why::Start => Escalation::Start,
            Why::RuntimeGone => Escalation::RuntimeGone,
        }
    }
}

impl Drop for Driver<'_> {
    /// Dropped before it could say why it ends, it tells the observer.
    fn drop(&mut self) {
        if let (None, Some((_, _, ended))) = (&self.hook, &self.escalated) {
            ended.displace(self.group.core().observer());
        }
    }
}

/// Waits for the signal of what is around the supervisor, and has it stop.
async fn heed(desk: PlainArc<Desk>, around: Token) {
    around.cancelled().await;
    desk.change(Plan::shut_down);
}

/// Closes the desk when the driver is gone (K4).
pub(super) struct Closing(pub(super) PlainArc<Desk>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl SupervisorError {
    pub(super) fn cancelled(error: &crate::group::error::GroupError<BoxError>) -> Self {
        use crate::group::error::Cause;
        use crate::observe::CancelReason;
        let why = match error.cause() {
            Cause::Cancelled(CancelReason::RuntimeGone) => Escalation::RuntimeGone,
            Cause::Cancelled(reason) => Escalation::Cancelled(reason.clone()),
            _ => Escalation::Cancelled(CancelReason::Deadline),
        };
        Self {
            inner: Box::new(Inner {
                child: None,
                why,
                end: ChildEnd::Lost,
                report: SupervisorReport::default(),
            }),
        }
    }
}
