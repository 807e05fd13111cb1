//! How a process stops: pure, without signals, a clock, or tasks.
//!
//! | state | a signal | a fault | a phase is gone | time |
//! |-------|----------|---------|-----------------|------|
//! | running | stop the first phase → stopping | the same | – | – |
//! | stopping phase *n* | force all → ending | – | of *n*: stop the next → stopping *n* + 1; of the last: → ending | *n*'s share is over: force it, and the same |
//! | ending | exit | – | – | the bound is over: exit |
//! | over | – | – | – | – |
//!
//! S1. Phases are told to stop in their order, each when the one before it is gone or was forced. S2. All have the grace together: each gets
//! an equal part of what is left, so that one that takes all of its part takes nothing from those after it. S3. From the moment at
//! which everybody is gone or was forced the process ends within the bound. S4. A signal always makes it go faster: the
//! first stops, the second forces, the third exits.

use std::time::Duration;

/// Since the process was run.
pub(crate) type Time = Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Stop(usize),
    Force(usize),
    /// Names who is still there.
    Nag,
    Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Stopping { phase: usize, until: Time },
    Ending { until: Time },
    Over,
}

#[derive(Debug)]
pub(crate) struct Stages {
    gone: Vec<bool>,
    grace: Duration,
    bound: Duration,
    nag: Duration,
    state: State,
    /// When the grace of all is over.
    end: Time,
    next_nag: Time,
}

impl Stages {
    pub(crate) fn new(phases: usize, grace: Duration, bound: Duration, nag: Duration) -> Self {
        Self {
            gone: vec![false; phases],
            grace,
            bound,
            nag,
            state: State::Running,
            end: Time::ZERO,
            next_nag: Time::MAX,
        }
    }

    /// Returns when there is something to do although nothing has happened.
    pub(crate) fn next(&self) -> Option<Time> {
        match self.state {
            State::Running | State::Over => None,
            State::Stopping { until, .. } | State::Ending { until } => {
                Some(until.min(self.next_nag))
            }
        }
    }

    /// S4.
    pub(crate) fn signal(&mut self, now: Time) -> Vec<Action> {
        match self.state {
            State::Running => self.begin(now),
            State::Stopping { .. } => {
                let all = (0..self.gone.len()).flat_map(|phase| {
                    let stop = Action::Stop(phase); // one that comes yet is refused
                    [stop, Action::Force(phase)]
                });
                let all = all.collect();
                self.ending(now);
                all
            }
            State::Ending { .. } => self.exit(),
            State::Over => Vec::new(),
        }
    }

    /// A phase was cancelled from inside: all stop.
    pub(crate) fn fault(&mut self, now: Time) -> Vec<Action> {
        match self.state {
            State::Running => self.begin(now),
            _ => Vec::new(),
        }
    }

    pub(crate) fn gone(&mut self, phase: usize, now: Time) -> Vec<Action> {
        self.gone[phase] = true;
        match self.state {
            State::Stopping { phase: current, .. } if current == phase => {
                self.stop_from(phase + 1, now)
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn time(&mut self, now: Time) -> Vec<Action> {
        let mut actions = match self.state {
            State::Stopping { phase, until } if until <= now => {
                let mut actions = vec![Action::Force(phase)];
                actions.extend(self.stop_from(phase + 1, now)); // S1
                actions
            }
            State::Ending { until } if until <= now => return self.exit(),
            State::Running | State::Over => return Vec::new(),
            _ => Vec::new(),
        };
        if self.next_nag <= now {
            self.next_nag = now.saturating_add(self.nag);
            actions.push(Action::Nag);
        }
        actions
    }

    fn begin(&mut self, now: Time) -> Vec<Action> {
        self.end = now.saturating_add(self.grace);
        self.next_nag = now.saturating_add(self.nag);
        self.stop_from(0, now)
    }

    fn stop_from(&mut self, first: usize, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        for phase in first..self.gone.len() {
            actions.push(Action::Stop(phase));
            if self.gone[phase] {
                continue;
            }
            // S2
            let left = self.end.saturating_sub(now);
            let share = left / u32::try_from(self.gone.len() - phase).unwrap_or(u32::MAX);
            let until = now.saturating_add(share);
            self.state = State::Stopping { phase, until };
            return actions;
        }
        self.ending(now);
        actions
    }

    fn ending(&mut self, now: Time) {
        let until = now.saturating_add(self.bound); // S3
        self.state = State::Ending { until };
    }

    fn exit(&mut self) -> Vec<Action> {
        self.state = State::Over;
        vec![Action::Exit]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Action::{Exit, Force, Nag, Stop};
    use super::{Action, Stages};

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn stages(phases: usize) -> Stages {
        Stages::new(phases, s(12), s(5), s(100))
    }

    const NOTHING: [Action; 0] = [];

    #[test]
    fn one_signal_stops_a_second_forces_a_third_exits() {
        let mut stages = stages(2);
        assert_eq!(stages.next(), None);
        assert_eq!(stages.signal(s(10)), [Stop(0)]);
        assert_eq!(stages.signal(s(11)), [Stop(0), Force(0), Stop(1), Force(1)]);
        assert_eq!(stages.next(), Some(s(16)), "S3");
        assert_eq!(stages.signal(s(12)), [Exit]);
        assert_eq!(stages.signal(s(12)), NOTHING);
        assert_eq!(stages.next(), None);
    }

    #[test]
    fn phases_stop_in_order_and_share_what_is_left_of_the_grace() {
        let mut stages = stages(3);
        assert_eq!(stages.signal(s(0)), [Stop(0)]);
        assert_eq!(stages.next(), Some(s(4)));
        assert_eq!(stages.gone(1, s(1)), NOTHING, "before its turn");
        assert_eq!(stages.gone(0, s(2)), [Stop(1), Stop(2)]);
        assert_eq!(
            stages.next(),
            Some(s(12)),
            "the last one has all that is left"
        );
        assert_eq!(stages.gone(2, s(3)), NOTHING);
        assert_eq!(stages.next(), Some(s(8)), "S3");
    }

    #[test]
    fn a_phase_that_takes_too_long_is_forced_and_takes_nothing_from_the_others() {
        let mut stages = stages(3);
        assert_eq!(stages.fault(s(0)), [Stop(0)]);
        assert_eq!(stages.fault(s(1)), NOTHING, "it stops already");
        assert_eq!(stages.time(s(3)), NOTHING);
        assert_eq!(stages.time(s(4)), [Force(0), Stop(1)]);
        assert_eq!(stages.time(s(8)), [Force(1), Stop(2)]);
        assert_eq!(stages.time(s(12)), [Force(2)]);
        assert_eq!(stages.gone(0, s(13)), NOTHING);
        assert_eq!(stages.time(s(16)), NOTHING);
        assert_eq!(stages.time(s(17)), [Exit]);
    }

    #[test]
    fn it_nags_as_long_as_somebody_is_there() {
        let mut stages = Stages::new(1, s(5), s(5), s(2));
        assert_eq!(stages.time(s(100)), NOTHING, "nobody has asked anything");
        assert_eq!(stages.signal(s(100)), [Stop(0)]);
        assert_eq!(stages.next(), Some(s(102)));
        assert_eq!(stages.time(s(102)), [Nag]);
        assert_eq!(stages.time(s(104)), [Nag]);
        assert_eq!(stages.time(s(105)), [Force(0)]);
        assert_eq!(stages.time(s(106)), [Nag]);
        assert_eq!(stages.time(s(110)), [Exit]);
        assert_eq!(stages.time(s(200)), NOTHING, "it is over");
        assert_eq!(stages.next(), None);
    }

    #[test]
    fn no_length_of_time_overflows() {
        let most = Duration::MAX;
        let mut stages = Stages::new(2, most, most, most);
        assert_eq!(stages.signal(s(1)), [Stop(0)]);
        assert_eq!(stages.gone(0, s(2)), [Stop(1)]);
        assert_eq!(stages.next(), Some(most));
        assert_eq!(stages.signal(s(3)).len(), 4);
        let mut stages = Stages::new(1, s(0), s(0), s(1));
        assert_eq!(stages.signal(s(1)), [Stop(0)]);
        assert_eq!(stages.time(s(1)), [Force(0)]);
        assert_eq!(stages.time(s(1)), [Exit]);
    }
}
