//! What a supervisor does next: pure, without a clock, tasks, or code of the user's.
//!
//! A child is where it is (`State`) and is meant to go somewhere (`Aim`). A *round* is what goes down and up together: a child
//! alone, or with it all others or all later ones, as the strategy says. [`Plan::turn`] brings every child one step nearer to its aim.
//!
//! | state | aim | step |
//! |-------|-----|------|
//! | down | up | start it, once its delay is over, nothing of its round is on the way down, and all before it in its round are up |
//! | down | again | – (its end has made that *up*) |
//! | down | down | it is gone |
//! | starting | up | wait for it to say that it is ready; stop it when that takes too long |
//! | starting, up | again, down | stop it, when nothing of its round is stopping and all after it in its round are down |
//! | up | up | at rest |
//! | stopping | any | force it when its grace is over, or that of the whole |
//!
//! P1. A child has one run at a time, and an end counts for the run that it belongs to. P2. Within a round nothing starts while anything
//! of it is on its way down; stops go from last to first, starts from first to last, one by one. P3. Once a child is meant to go
//! down for good it never starts again. P4. No more restarts are begun within the window than the rules allow: the next one ends
//! all. P5. It is over when every child is gone. P6. A child that is restarted for ever is not restarted without a delay.

use std::collections::VecDeque;
use std::time::Duration;

use crate::retry::backoff::{Backoff, Curve};
use crate::sorted_map::SortedMap;

/// Children are numbered in the order in which they were added, from 1.
pub(crate) type Id = u64;

/// Since the supervisor was made.
pub(crate) type Time = Duration;

/// Whom a failure takes down with the child that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// Nobody: the child is restarted alone. For children that do not know of one another.
    #[default]
    OneForOne,
    /// Everybody: all are stopped, from last to first, and started again, from first to last. For children that depend on one
    /// another both ways.
    OneForAll,
    /// Those that were added after it. For children each of which depends on earlier ones.
    RestForOne,
}

/// What holds for all children.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) strategy: Strategy,
    /// So many restarts within so long, or any number.
    pub(crate) intensity: Option<(u32, Duration)>,
    /// How long the end of everybody may take.
    pub(crate) grace: Duration,
    /// Whether it goes on without children.
    pub(crate) stays_open: bool,
}

/// What holds for one child.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// When it is stopped for the sake of others it is not started again.
    pub(crate) is_temporary: bool,
    pub(crate) grace: Duration,
    /// Whether it says when it is ready, and how long that may take.
    pub(crate) ready_within: Option<Duration>,
    /// A run that lasts so long starts the delays anew.
    pub(crate) healthy_after: Duration,
    pub(crate) curve: Curve,
    pub(crate) seed: u64,
}

impl Terms {
    fn backoff(&self) -> Backoff {
        Backoff::new(&self.curve, self.seed, 0)
    }
}

/// What the end of a run that nobody had asked for means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The child is done.
    Done,
    /// It is to be started again.
    Again,
    /// It must not have ended.
    Fault,
}

/// Why all is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Too many restarts.
    Intensity,
    /// A critical child has ended.
    Critical,
    /// A child failed before it was ready, the first time that all were started.
    Start,
    /// There is nothing to run on.
    RuntimeGone,
}

/// What follows from the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It had been asked for.
    Ordered,
    /// The child is gone.
    Over,
    /// It is started again after so long.
    Again(Duration),
    /// All is given up.
    Escalates(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Start(Id, u64),
    /// Asks a run to end; whether it has time for that.
    Stop(Id, bool),
    Force(Id),
    Gone(Id),
}

/// What is to be done now, and when to look again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) steps: Vec<Step>,
    pub(crate) next: Option<Time>,
    pub(crate) is_over: bool,
}

impl Turn {
    fn look_at(&mut self, at: Time) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Down,
    Starting { until: Time },
    Up { since: Time },
    Stopping { until: Time, is_forced: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Up,
    /// Down, and then up.
    Again,
    Down,
}

#[derive(Debug)]
struct Slot {
    terms: Terms,
    state: State,
    aim: Aim,
    round: u64,
    not_before: Time,
    backoff: Backoff,
    run: u64,
    /// It was there before the supervisor was run.
    is_declared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Nobody is started any more.
    Finishing,
    /// Everybody is stopped.
    Stopping { until: Time },
}

/// How many children are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Children that have not ended for good.
    pub children: usize,
    /// Those that run, also while they are starting.
    pub running: usize,
    /// Those that were asked to end, and still run.
    pub stopping: usize,
    /// Those that wait to be started, or started again.
    pub waiting: usize,
}

/// The shortest delay where nothing else ends a child that fails again and again.
const LEAST: Duration = Duration::from_millis(1);

/// The round of what is started first.
const FIRST: u64 = 0;

pub(crate) struct Plan {
    rules: Rules,
    slots: SortedMap<Id, Slot>,
    /// Those that are not at rest: also one that has come to rest since the last turn.
    busy: SortedMap<Id, ()>,
    last_id: Id,
    last_round: u64,
    /// Whether it has had its first turn.
    is_begun: bool,
    /// When the last restarts were begun.
    recent: VecDeque<Time>,
    restarts: u64,
    ending: Option<Ending>,
}

impl Plan {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            slots: SortedMap::new(),
            busy: SortedMap::new(),
            last_id: 0,
            last_round: FIRST,
            is_begun: false,
            recent: VecDeque::new(),
            restarts: 0,
            ending: None,
        }
    }

    pub(crate) fn rules(&mut self) -> &mut Rules {
        &mut self.rules
    }

    /// Returns how many restarts there were.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Returns how long a child has to become ready, if it has not, and nobody has asked it to end but for that.
    pub(crate) fn unready(&self, id: Id) -> Option<Duration> {
        let slot = self.slots.get(id)?;
        let is_unready = matches!(slot.state, State::Starting { .. } | State::Stopping { .. });
        slot.terms
            .ready_within
            .filter(|_| is_unready && slot.aim == Aim::Up)
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts {
            children: self.slots.len(),
            ..Counts::default()
        };
        for slot in self.slots.values() {
            match slot.state {
                State::Down => counts.waiting += 1,
                State::Starting { .. } | State::Up { .. } => counts.running += 1,
                State::Stopping { .. } => counts.stopping += 1,
            }
        }
        counts
    }

    pub(crate) fn state(&self, id: Id) -> Option<State> {
        self.slots.get(id).map(|slot| slot.state)
    }

    fn new_round(&mut self) -> u64 {
        self.last_round += 1;
        self.last_round
    }

    /// Takes a child in, unless all is ending.
    pub(crate) fn add(&mut self, terms: Terms) -> Option<Id> {
        if self.ending.is_some() {
            return None;
        }
        let round = match self.slots.get(self.in_progress(Id::MAX)) {
            _ if !self.is_begun => FIRST,
            // It comes after all others, so it goes with those that are on their way.
            Some(moving) if self.rules.strategy != Strategy::OneForOne => moving.round,
            _ => self.new_round(),
        };
        self.last_id += 1;
        let slot = Slot {
            backoff: terms.backoff(),
            terms,
            state: State::Down,
            aim: Aim::Up,
            round,
            not_before: Time::ZERO,
            run: 0,
            is_declared: !self.is_begun,
        };
        self.slots.insert(self.last_id, slot);
        self.busy.insert(self.last_id, ());
        Some(self.last_id)
    }

    /// A child says that it is ready.
    pub(crate) fn ready(&mut self, id: Id, run: u64, now: Time) -> bool {
        let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.run == run) else {
            return false;
        };
        let is_news = matches!(slot.state, State::Starting { .. });
        if is_news {
            slot.state = State::Up { since: now };
        }
        is_news
    }

    /// A run has ended, and is gone.
    pub(crate) fn ended(&mut self, id: Id, run: u64, verdict: Verdict, now: Time) -> Next {
        let Some(slot) = self.slots.get_mut(id) else {
            return Next::Ordered;
        };
        if slot.run != run || slot.state == State::Down {
            return Next::Ordered; // P1
        }
        let was = std::mem::replace(&mut slot.state, State::Down);
        self.busy.insert(id, ());
        match slot.aim {
            Aim::Down => return Next::Ordered,
            Aim::Again => {
                slot.aim = Aim::Up;
                return Next::Ordered;
            }
            Aim::Up => {}
        }
        if self.ending.is_some() {
            slot.aim = Aim::Down;
            return Next::Over;
        }
        let up_since = match was {
            State::Up { since } => Some(since),
            _ => None,
        };
        let is_first = slot.is_declared && slot.round == FIRST && run == 1;
        if is_first && up_since.is_none() {
            return self.escalate(Why::Start, now);
        }
        match verdict {
            Verdict::Again => {}
            Verdict::Fault => return self.escalate(Why::Critical, now),
            Verdict::Done => {
                slot.aim = Aim::Down;
                return Next::Over;
            }
        }
        if up_since.is_some_and(|since| now.saturating_sub(since) >= slot.terms.healthy_after) {
            slot.backoff = slot.terms.backoff();
        }
        let mut delay = slot.backoff.next(&slot.terms.curve);
        if !self.allows_restart(now) {
            return self.escalate(Why::Intensity, now); // P4
        }
        if self.rules.intensity.is_none() {
            delay = delay.max(LEAST); // P6
        }
        self.restarts += 1;
        self.begin_round(id, now.saturating_add(delay));
        Next::Again(delay)
    }

    fn allows_restart(&mut self, now: Time) -> bool {
        let Some((most, within)) = self.rules.intensity else {
            return true;
        };
        while let Some(first) = self.recent.front() {
            if now.saturating_sub(*first) < within {
                break;
            }
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.len() <= most as usize
    }

    /// Returns the first child whose way down or up is not over, or else `from`: what goes with that one goes with it still (P2).
    fn in_progress(&self, from: Id) -> Id {
        let round = self.slots.get(from).map(|slot| slot.round);
        let before = self
            .busy
            .range(..from)
            .filter_map(|(id, ())| Some((id, self.slots.get(id)?)));
        let mut moving = before.filter(|(_, slot)| match (slot.state, slot.aim) {
            (State::Down, Aim::Down) | (State::Up { .. }, Aim::Up) => false,
            (_, Aim::Down) => Some(slot.round) == round,
            _ => true,
        });
        moving.next().map_or(from, |(id, _)| id)
    }

    /// Has a child, and those that go with it, go down and up.
    fn begin_round(&mut self, from: Id, not_before: Time) {
        let round = self.new_round();
        let members = match self.rules.strategy {
            Strategy::OneForOne => from..=from,
            Strategy::OneForAll => 0..=Id::MAX,
            Strategy::RestForOne => self.in_progress(from)..=Id::MAX,
        };
        self.slots.for_each_mut(members, |id, slot| {
            self.busy.insert(id, ());
            slot.round = round;
            if id == from {
                slot.not_before = not_before;
            }
            // Those before it that the strategy leaves alone are only waited for.
            let is_left_alone = id < from && self.rules.strategy == Strategy::RestForOne;
            if id == from || is_left_alone {
                return;
            }
            slot.not_before = slot.not_before.max(not_before);
            if slot.terms.is_temporary {
                slot.aim = Aim::Down;
            } else if slot.aim == Aim::Up && slot.state != State::Down {
                slot.aim = Aim::Again;
            }
        });
    }

    /// Restarts a child because somebody wants that, and at once if it waits for that anyway.
    pub(crate) fn restart(&mut self, id: Id, now: Time) -> bool {
        let Some(slot) = self.slots.get_mut(id) else {
            return false;
        };
        if self.ending.is_some() || slot.aim == Aim::Down {
            return false;
        }
        if slot.state != State::Down {
            slot.aim = Aim::Again;
        }
        self.begin_round(id, now);
        true
    }

    /// Ends a child for good.
    pub(crate) fn stop(&mut self, id: Id) {
        let round = self.new_round();
        if let Some(slot) = self.slots.get_mut(id) {
            if slot.aim == Aim::Up {
                slot.round = round; // nobody waits for it, and it for nobody
            }
            slot.aim = Aim::Down; // P3
            self.busy.insert(id, ());
        }
    }

    /// Starts nobody any more.
    pub(crate) fn finish(&mut self) {
        self.ending.get_or_insert(Ending::Finishing);
    }

    /// Forgets all children: nobody does what it says any more.
    pub(crate) fn close(&mut self) {
        self.slots = SortedMap::new();
        self.finish();
    }

    /// Stops everybody, from last to first.
    pub(crate) fn shut_down(&mut self, now: Time) {
        if matches!(self.ending, Some(Ending::Stopping { .. })) {
            return;
        }
        let until = now.saturating_add(self.rules.grace);
        self.ending = Some(Ending::Stopping { until });
        let round = self.new_round();
        self.slots.for_each_mut(.., |id, slot| {
            slot.aim = Aim::Down;
            slot.round = round;
            self.busy.insert(id, ());
        });
    }

    pub(crate) fn escalate(&mut self, why: Why, now: Time) -> Next {
        self.shut_down(now);
        Next::Escalates(why)
    }

    /// Says what is to be done now. Ask again until it says nothing.
    pub(crate) fn turn(&mut self, now: Time) -> Turn {
        self.is_begun = true;
        let mut turn = Turn::default();
        let end = match self.ending {
            Some(Ending::Stopping { until }) => Some(until),
            _ => None,
        };
        let is_late = end.is_some_and(|end| end <= now);
        let mut falling = Falling::default();
        for (id, slot) in self.busy_slots() {
            falling.note(id, slot);
        }
        let mut blocked = SortedMap::new();
        let mut rested = Vec::new();
        for (id, ()) in self.busy.iter() {
            let Some(slot) = self.slots.get_mut(id) else {
                rested.push(id); // It is gone.
                continue;
            };
            let round = slot.round;
            match (slot.state, slot.aim) {
                (State::Down, Aim::Up) if self.ending.is_none() => {
                    if falling.has(round) || blocked.contains_key(round) {
                        continue;
                    }
                    if slot.not_before > now {
                        turn.look_at(slot.not_before);
                        blocked.insert(round, ());
                    } else {
                        slot.run += 1;
                        turn.steps.push(Step::Start(id, slot.run));
                        if let Some(within) = slot.terms.ready_within {
                            let until = now.saturating_add(within);
                            slot.state = State::Starting { until };
                            blocked.insert(round, ());
                        } else {
                            slot.state = State::Up { since: now };
                            rested.push(id);
                        }
                    }
                }
                (State::Down, _) => turn.steps.push(Step::Gone(id)),
                (State::Up { .. }, Aim::Up) => rested.push(id),
                (State::Starting { until }, Aim::Up) if until > now => {
                    turn.look_at(until);
                    blocked.insert(round, ());
                }
                (State::Starting { .. } | State::Up { .. }, aim) => {
                    // One that takes too long to be ready is nobody else's business.
                    if aim == Aim::Up || is_late || falling.is_next(round, id) {
                        let until = now.saturating_add(slot.terms.grace);
                        slot.state = State::Stopping {
                            until,
                            is_forced: false,
                        };
                        turn.steps.push(Step::Stop(id, until > now && !is_late));
                    }
                    blocked.insert(round, ());
                    end.into_iter().for_each(|end| turn.look_at(end));
                }
                (State::Stopping { until, is_forced }, _) => {
                    let until = end.map_or(until, |end| end.min(until));
                    if is_forced {
                        continue;
                    }
                    if until > now {
                        turn.look_at(until);
                    } else {
                        slot.state = State::Stopping {
                            until,
                            is_forced: true,
                        };
                        turn.steps.push(Step::Force(id));
                    }
                }
            }
        }
        for id in rested {
            self.busy.remove(id);
        }
        for step in &turn.steps {
            if let Step::Gone(id) = step {
                self.slots.remove(*id);
            }
        }
        turn.is_over = self.slots.is_empty() && (self.ending.is_some() || !self.rules.stays_open); // P5
        turn
    }

    fn busy_slots(&self) -> impl Iterator<Item = (Id, &Slot)> {
        let slots = self.busy.iter();
        slots.filter_map(|(id, ())| Some((id, self.slots.get(id)?)))
    }
}

/// What each round has to bring down before anything of it starts: whether something is stopping, and the last to be stopped yet.
#[derive(Default)]
struct Falling(SortedMap<u64, (bool, Option<Id>)>);

impl Falling {
    fn note(&mut self, id: Id, slot: &Slot) {
        match (slot.state, slot.aim) {
            (State::Stopping { .. }, _) => self.0.get_or_default(slot.round).0 = true,
            (State::Starting { .. } | State::Up { .. }, Aim::Again | Aim::Down) => {
                self.0.get_or_default(slot.round).1 = Some(id);
            }
            _ => {}
        }
    }

    fn has(&self, round: u64) -> bool {
        self.0.contains_key(round)
    }

    fn is_next(&self, round: u64, id: Id) -> bool {
        self.0.get(round) == Some(&(false, Some(id)))
    }
}

#[cfg(test)]
mod tests;
