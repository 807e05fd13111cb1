//! What drives a supervisor: one task that does what the plan says, and for each run a keeper that tells when it is gone.
//!
//! Each run is a group of its own, so that its end is the end of all that it had opened, and its failure nobody else's.
//!
//! K1. Plan, children and news are under one lock: a handle that returns from a call has changed the plan. K2. Children, closures
//! and errors are dropped, and predicates and hooks called, outside it. K3. A run that was begun is reported exactly once, even
//! when its keeper is lost with its runtime. K4. When the driver is gone, however that came, nobody waits for it any more.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::group::TaskGroup;
use crate::group::error::BoxError;
use crate::group::handle::OutcomeHandle;
use crate::group::owned::OwnedGroup;
use crate::group::spawn::{Birth, Spawner};
use crate::observe::{DisplacedWhat, Observer, Straggler, TaskInfo, displace};
use crate::panic::{PanicPayload, catch};
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
    ended: Vec<Ended>,
    ready: Vec<Id>,
    children: BTreeMap<Id, Supervised>,
    is_closed: bool,
}

#[derive(Clone)]
struct Supervised {
    child: PlainArc<Child>,
    record: PlainArc<Record>,
}

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
                ended: Vec::new(),
                ready: Vec::new(),
                children: BTreeMap::new(),
                is_closed: false,
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
        let (children, ended) = self.tray.with(|tray| {
            tray.is_closed = true;
            tray.plan = Plan::new(tray.plan.rules().clone());
            tray.plan.finish();
            let children = std::mem::take(&mut tray.children);
            (children, std::mem::take(&mut tray.ended))
        });
        for Supervised { record, .. } in children.values() {
            let old = record.life.change(|life| {
                life.is_up = false;
                life.is_over = true;
                life.last.replace(ChildEnd::Lost)
            });
            drop(old); // K2
        }
        // K2. Neither has a place any more.
        if let Err(panic) = catch(|| drop(children)) {
            displace(None, None, DisplacedWhat::Panic(panic));
        }
        ended.iter().for_each(|ended| ended.displace(None));
    }
}

/// Tells of the end of a run, or that it was lost (K3).
struct Keeper {
    desk: PlainArc<Desk>,
    id: Id,
    run: u64,
    is_told: bool,
}

impl Keeper {
    async fn keep(mut self, group: OwnedGroup, handle: OutcomeHandle<()>) {
        let observed = group.spawner().core.observed();
        let observer = observed.as_ref().and_then(|observed| observed.observer());
        let report = group.wait().await;
        let forced = report.forced().to_vec();
        let (end, task) = ChildEnd::of(handle.await, report, observer);
        self.tell(end, forced, task, observer);
    }

    fn tell(
        &mut self,
        end: ChildEnd,
        forced: Vec<Straggler>,
        task: Option<TaskInfo>,
        observer: Option<&PlainArc<dyn Observer>>,
    ) {
        self.is_told = true;
        let (id, run) = (self.id, self.run);
        let refused = self.desk.tray.change(|tray| {
            let ended = Ended {
                id,
                run,
                end,
                forced,
                task,
            };
            if tray.is_closed {
                return Some(ended);
            }
            tray.has_news = true;
            tray.ended.push(ended);
            None
        });
        if let Some(ended) = refused {
            ended.displace(observer);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell(ChildEnd::RuntimeGone, Vec::new(), None, None);
        }
    }
}

/// The task that does what the plan says.
pub(super) struct Driver<'g> {
    pub(super) desk: PlainArc<Desk>,
    pub(super) group: &'g TaskGroup,
    pub(super) hook: Option<Hook>,
    /// The way to each run, to ask it to end.
    runs: BTreeMap<Id, Spawner>,
    report: SupervisorReport,
    escalated: Option<(Escalation, PlainArc<str>, ChildEnd)>,
}

impl<'g> Driver<'g> {
    pub(super) fn new(desk: PlainArc<Desk>, group: &'g TaskGroup, hook: Option<Hook>) -> Self {
        Self {
            desk,
            group,
            hook,
            runs: BTreeMap::new(),
            report: SupervisorReport::default(),
            escalated: None,
        }
    }

    pub(super) async fn drive(mut self) -> Result<SupervisorReport, SupervisorError> {
        loop {
            let (ended, ready) = self.desk.tray.with(|tray| {
                tray.has_news = false;
                (
                    std::mem::take(&mut tray.ended),
                    std::mem::take(&mut tray.ready),
                )
            });
            for id in ready {
                self.publish(id, |life| life.is_up = true);
            }
            for ended in ended {
                self.ended(ended);
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
                return self.finish();
            }
            if !is_at_rest {
                continue;
            }
            let at = next.and_then(|next| self.desk.epoch.checked_add(next));
            let deadline = at.map_or(Deadline::NEVER, Deadline::at);
            let news = self.desk.tray.until(|tray| tray.has_news.then_some(()));
            let _elapsed = timeout_at(deadline, news).await;
        }
    }

    fn finish(mut self) -> Result<SupervisorReport, SupervisorError> {
        let mut report = std::mem::take(&mut self.report);
        report.restarts = self.desk.tray.with(|tray| tray.plan.restarts());
        match self.escalated.take() {
            None => Ok(report),
            Some((why, child, end)) => Err(SupervisorError {
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
        self.desk.tray.with(|tray| tray.children.get(&id).cloned())
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
                if let Some(run) = self.runs.get(&id) {
                    run.core.shut_down(has_time);
                }
            }
            Step::Force(id) => {
                if let Some(run) = self.runs.get(&id) {
                    run.core.force();
                }
            }
            Step::Gone(id) => {
                self.publish(id, |life| life.is_over = true);
                let gone = self.desk.tray.with(|tray| tray.children.remove(&id));
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
        let keeper = Keeper {
            desk: self.desk.clone(),
            id,
            run: number,
            is_told: false,
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
        self.runs.insert(id, spawner);
        let is_up = self.desk.state(id);
        self.publish(id, |life| {
            life.runs = number;
            life.is_up = matches!(is_up, Some(State::Up { .. }));
        });
        // Whoever lists tasks finds the place of the child's, not of ours.
        let birth = Birth {
            kind: Kind::Normal,
            name: Some(format!("keeper of {}", child.name).into()),
            location: child.location,
        };
        let keeping = keeper.keep(group, handle);
        if let Err(refused) = self.group.spawner().launch(keeping, birth) {
            drop(refused); // the scope is closing: with the keeper its run goes, too
        }
    }

    fn ended(&mut self, mut ended: Ended) {
        let (id, run) = (ended.id, ended.run);
        self.runs.remove(&id);
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
        drop(old);
        let next = match next {
            Next::Ordered => WhatNext::Ordered,
            Next::Over => WhatNext::Nothing,
            Next::Again(delay) => WhatNext::Restart(delay),
            Next::Escalates(why) => {
                let why = self.escalation(why);
                if self.escalated.is_none() {
                    self.escalated = Some((why, child.name.clone(), end.clone()));
                }
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
            // What escalates is in the error.
            None if !matches!(next, WhatNext::Escalate) => ended.displace(observer),
            None => {}
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

/// Waits for the signal of what is around the supervisor, and has it stop.
pub(super) async fn heed(desk: PlainArc<Desk>, around: crate::cancel::Token) {
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
