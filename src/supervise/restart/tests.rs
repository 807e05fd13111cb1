//! The plan against what has to hold at every step, with random orders, ends and delays.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Next, Plan, Rules, State, Step, Strategy, Terms, Time, Verdict, Why};
use crate::retry::{Jitter, Retry};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn plan(strategy: Strategy, intensity: Option<(u32, Duration)>) -> Plan {
    Plan::new(Rules {
        strategy,
        intensity,
        grace: ms(300),
        stays_open: false,
    })
}

fn terms(grace: u64) -> Terms {
    let (curve, seed) = Retry::exponential(ms(10)).seed(7).endless();
    Terms {
        is_temporary: false,
        grace: ms(grace),
        ready_within: None,
        healthy_after: ms(100),
        curve,
        seed,
    }
}

/// A small generator (an LCG): the same numbers each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// What a driver knows: which runs there are, and what it was told to do with them.
#[derive(Default)]
struct World {
    alive: BTreeMap<u64, (u64, bool)>,
    stopped: Vec<u64>,
    gone: usize,
    /// Those that are stopped for their own sake when they are not ready in time.
    may_be_late: Vec<u64>,
    is_alone: bool,
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Start(id, run) => {
                assert!(!self.stopped.contains(&id), "P3: {id} was stopped for good");
                let old = self.alive.insert(id, (run, false));
                assert_eq!(old, None, "P1: {id} runs already");
                // Whoever goes down otherwise takes part in a round of everybody after it, and whoever starts, too.
                let mut falling = self.alive.iter().filter(|(_, (_, is_told))| *is_told);
                let is_own =
                    |other| self.stopped.contains(other) || self.may_be_late.contains(other);
                let other = falling.find(|(other, _)| !self.is_alone && !is_own(other));
                assert_eq!(other, None, "P2: {id} starts meanwhile");
            }
            Step::Stop(id, _) => {
                let run = self.alive.get_mut(&id).expect("it runs");
                assert!(!std::mem::replace(&mut run.1, true), "{id} was told before");
            }
            Step::Force(id) => assert!(self.alive.contains_key(&id), "{id} is alive"),
            Step::Gone(id) => {
                assert!(!self.alive.contains_key(&id), "P5: {id} runs");
                self.gone += 1;
            }
        }
    }
}

#[test]
fn whatever_comes_in_whatever_order_the_invariants_hold() {
    let strategies = [
        Strategy::OneForOne,
        Strategy::OneForAll,
        Strategy::RestForOne,
    ];
    for seed in 0..3000 {
        let mut dice = Dice(seed);
        let strategy = strategies[dice.below(3) as usize];
        let most = dice.below(6) as u32;
        let mut plan = plan(strategy, Some((most, ms(200))));
        let mut world = World {
            is_alone: strategy == Strategy::OneForOne,
            ..World::default()
        };
        let mut children = 1 + dice.below(6);
        for id in 1..=children {
            let mut terms = terms(dice.below(3) * 20);
            terms.is_temporary = dice.below(4) == 0;
            if dice.below(3) == 0 {
                terms.ready_within = Some(ms(15));
                world.may_be_late.push(id);
            }
            plan.add(terms).expect("it is open");
        }
        let mut now = Time::ZERO;
        let mut restarts: Vec<Time> = Vec::new();
        for round in 0.. {
            assert!(round < 2000, "seed {seed}: it ends within its grace");
            let next = loop {
                let turn = plan.turn(now);
                let is_at_rest = turn.steps.is_empty();
                turn.steps.into_iter().for_each(|step| world.step(step));
                if turn.is_over {
                    break None;
                }
                if is_at_rest {
                    break Some(turn.next);
                }
            };
            let Some(next) = next else {
                break;
            };
            assert!(
                next.is_none_or(|next| next > now),
                "it waits for what is past"
            );
            if round > 60 {
                plan.shut_down(now);
            }
            let alive: Vec<_> = world.alive.iter().map(|(id, run)| (*id, *run)).collect();
            match dice.below(10) {
                0..=5 if !alive.is_empty() => {
                    let (id, (run, _)) = alive[dice.below(alive.len() as u64) as usize];
                    world.alive.remove(&id);
                    let verdict = [Verdict::Again, Verdict::Again, Verdict::Done];
                    let verdict = verdict[dice.below(3) as usize];
                    if dice.below(2) == 0 {
                        plan.ready(id, run, now);
                    }
                    match plan.ended(id, run, verdict, now) {
                        Next::Again(_) => {
                            restarts.push(now);
                            let recent = restarts.iter().filter(|at| now - **at < ms(200));
                            assert!(recent.count() <= most as usize, "P4");
                        }
                        Next::Escalates(Why::Start | Why::Intensity) | Next::Over => {}
                        Next::Escalates(why) => panic!("{why:?}"),
                        Next::Ordered => {}
                    }
                    assert_eq!(plan.ended(id, run, verdict, now), Next::Ordered, "P1: once");
                }
                6 => match dice.below(8) {
                    0 => {
                        if plan.add(terms(10)).is_some() {
                            children += 1;
                        }
                    }
                    1 if dice.below(10) == 0 => plan.finish(),
                    _ => {
                        let id = 1 + dice.below(children);
                        plan.stop(id);
                        world.stopped.push(id);
                    }
                },
                7 => {
                    let _is_there = plan.restart(1 + dice.below(children), now);
                }
                _ => now += ms(1 + dice.below(30)),
            }
            if let Some(next) = next.filter(|_| alive.is_empty()) {
                now = now.max(next);
            }
        }
        assert_eq!(
            (world.gone, world.alive.len()),
            (children as usize, 0),
            "P5"
        );
    }
}

#[test]
fn nothing_of_a_round_starts_while_anything_of_it_is_on_its_way_down() {
    let mut plan = plan(Strategy::OneForAll, None);
    for _ in 0..3 {
        plan.add(terms(100)).expect("it is open");
    }
    let mut now = ms(0);
    assert_eq!(plan.turn(now).steps.len(), 3);
    assert_eq!(plan.turn(now).steps, []);
    assert!(matches!(
        plan.ended(2, 1, Verdict::Again, now),
        Next::Again(_)
    ));
    assert_eq!(plan.turn(now).steps, [Step::Stop(3, true)]);
    now = ms(50);
    assert_eq!(
        plan.turn(now).next,
        Some(ms(100)),
        "its grace, not the delay"
    );
    assert_eq!(plan.ended(3, 1, Verdict::Again, now), Next::Ordered);
    assert_eq!(plan.turn(now).steps, [Step::Stop(1, true)]);
    now = ms(150);
    assert_eq!(plan.turn(now).steps, [Step::Force(1)]);
    assert!(matches!(
        plan.state(1),
        Some(State::Stopping {
            is_forced: true,
            ..
        })
    ));
    assert_eq!(plan.ended(1, 1, Verdict::Again, now), Next::Ordered);
    let all = [Step::Start(1, 2), Step::Start(2, 2), Step::Start(3, 2)];
    assert_eq!(plan.turn(now).steps, all);
}

/// A child that says when it is ready, and has so long for it.
fn slow(within: u64) -> Terms {
    Terms {
        ready_within: Some(ms(within)),
        ..terms(20)
    }
}

/// One that waits so long before each restart.
fn late(delay: u64) -> Terms {
    let (curve, seed) = Retry::constant(ms(delay)).jitter(Jitter::None).endless();
    Terms {
        curve,
        seed,
        ..terms(20)
    }
}

#[test]
fn one_that_comes_later_waits_for_what_it_goes_with_and_for_nobody_else() {
    for (strategy, waits) in [
        (Strategy::OneForOne, false),
        (Strategy::OneForAll, true),
        (Strategy::RestForOne, true),
    ] {
        let mut plan = plan(strategy, None);
        plan.add(late(100)).expect("it is open");
        assert_eq!(plan.turn(ms(0)).steps, [Step::Start(1, 1)]);
        assert_eq!(
            plan.ended(1, 1, Verdict::Again, ms(1)),
            Next::Again(ms(100))
        );
        plan.add(terms(0)).expect("it is open");
        let turn = plan.turn(ms(2));
        assert_eq!(turn.next, Some(ms(101)));
        let (first, second) = (Step::Start(1, 2), Step::Start(2, 1));
        if waits {
            assert_eq!(turn.steps, [], "{strategy:?}");
            assert_eq!(plan.turn(ms(101)).steps, [first, second]);
        } else {
            assert_eq!(turn.steps, [second], "{strategy:?}");
            assert_eq!(plan.turn(ms(101)).steps, [first]);
        }
    }
}

#[test]
fn one_that_is_stopped_is_not_waited_for_by_those_after_it() {
    let mut plan = plan(Strategy::RestForOne, None);
    plan.add(terms(1000)).expect("it is open");
    plan.add(late(1)).expect("it is open");
    plan.turn(ms(0));
    plan.stop(1);
    assert_eq!(plan.turn(ms(0)).steps, [Step::Stop(1, true)]);
    assert_eq!(plan.ended(2, 1, Verdict::Again, ms(1)), Next::Again(ms(1)));
    assert_eq!(plan.turn(ms(2)).steps, [Step::Start(2, 2)]);
}

#[test]
fn only_the_first_start_of_all_ends_all() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll] {
        // It was there from the beginning.
        let mut all = plan(strategy, None);
        all.add(slow(50)).expect("it is open");
        all.turn(ms(0));
        let end = all.ended(1, 1, Verdict::Again, ms(1));
        assert_eq!(end, Next::Escalates(Why::Start));
        // It came later, while the others were started.
        let mut all = plan(strategy, None);
        all.add(slow(50)).expect("it is open");
        all.turn(ms(0));
        all.add(slow(50)).expect("it is open");
        assert!(all.ready(1, 1, ms(1)));
        all.turn(ms(1));
        let end = all.ended(2, 1, Verdict::Again, ms(2));
        assert!(matches!(end, Next::Again(_)), "{strategy:?}: {end:?}");
    }
    // It had not been started when another one had to be started again.
    let mut all = plan(Strategy::OneForAll, None);
    for terms in [terms(0), slow(50), slow(50)] {
        all.add(terms).expect("it is open");
    }
    let steps = all.turn(ms(0)).steps;
    assert_eq!(steps, [Step::Start(1, 1), Step::Start(2, 1)]);
    let end = all.ended(1, 1, Verdict::Again, ms(1));
    assert!(matches!(end, Next::Again(_)), "{end:?}");
    assert_eq!(all.turn(ms(1)).steps, [Step::Stop(2, true)]);
    assert_eq!(all.ended(2, 1, Verdict::Again, ms(2)), Next::Ordered);
    let steps = all.turn(ms(100)).steps;
    assert_eq!(steps, [Step::Start(1, 2), Step::Start(2, 2)]);
    assert!(all.ready(2, 2, ms(101)));
    assert_eq!(all.turn(ms(101)).steps, [Step::Start(3, 1)]);
    let end = all.ended(3, 1, Verdict::Again, ms(102));
    assert!(matches!(end, Next::Again(_)), "{end:?}");
}

#[test]
fn one_that_is_not_ready_is_told_from_one_that_was_asked_to_end() {
    let mut plan = plan(Strategy::OneForOne, None);
    plan.add(slow(50)).expect("it is open");
    plan.turn(ms(0));
    assert_eq!(plan.unready(1), Some(ms(50)));
    assert!(plan.ready(1, 1, ms(1)));
    assert_eq!(plan.unready(1), None, "it was ready");
    plan.add(slow(50)).expect("it is open");
    plan.turn(ms(1));
    assert_eq!(plan.turn(ms(51)).steps, [Step::Stop(2, true)]);
    assert_eq!(plan.unready(2), Some(ms(50)), "that took too long");
    plan.add(slow(50)).expect("it is open");
    plan.turn(ms(51));
    plan.stop(3);
    assert_eq!(plan.turn(ms(51)).steps, [Step::Stop(3, true)]);
    assert_eq!(plan.unready(3), None, "it was asked");
}

#[test]
fn one_that_is_forced_and_stays_does_not_keep_the_others_beyond_the_end() {
    let mut plan = plan(Strategy::OneForAll, None);
    plan.add(terms(10)).expect("it is open");
    plan.add(terms(10)).expect("it is open");
    plan.turn(ms(0));
    plan.shut_down(ms(0));
    assert_eq!(plan.turn(ms(0)).steps, [Step::Stop(2, true)]);
    assert_eq!(plan.turn(ms(10)).steps, [Step::Force(2)]);
    let turn = plan.turn(ms(10));
    assert_eq!((turn.steps, turn.next), (Vec::new(), Some(ms(300))));
    assert_eq!(plan.turn(ms(300)).steps, [Step::Stop(1, false)]);
}

#[test]
fn whoever_is_at_rest_or_gone_is_not_looked_at_again() {
    let mut plan = plan(Strategy::OneForOne, None);
    let busy = |plan: &Plan| plan.busy.iter().count();
    for _ in 0..3 {
        plan.add(slow(50)).expect("it is open");
    }
    assert_eq!((plan.turn(ms(0)).steps.len(), busy(&plan)), (1, 3));
    for id in 1..=3 {
        assert!(plan.ready(id, 1, ms(1)));
        plan.turn(ms(1));
    }
    assert_eq!((plan.turn(ms(1)).steps, busy(&plan)), (Vec::new(), 0));
    for id in 1..=2 {
        plan.ended(id, 1, Verdict::Done, ms(2));
    }
    let gone = [Step::Gone(1), Step::Gone(2)];
    assert_eq!(plan.turn(ms(2)).steps, gone);
    plan.turn(ms(2));
    assert_eq!((plan.counts().children, busy(&plan)), (1, 0));
}

#[test]
fn an_end_that_belongs_to_an_older_run_changes_nothing() {
    let mut plan = plan(Strategy::OneForOne, None);
    plan.add(terms(0)).expect("it is open");
    plan.turn(ms(0));
    plan.ended(1, 1, Verdict::Again, ms(1));
    assert_eq!(plan.turn(ms(50)).steps, [Step::Start(1, 2)]);
    assert_eq!(plan.ended(1, 1, Verdict::Fault, ms(51)), Next::Ordered);
    assert!(!plan.ready(1, 1, ms(51)));
    assert_eq!(plan.turn(ms(51)).steps, []);
}

#[test]
fn one_that_is_up_by_now_takes_nobody_along() {
    let mut plan = plan(Strategy::RestForOne, None);
    let mut slow = terms(0);
    slow.ready_within = Some(ms(50));
    plan.add(slow).expect("it is open");
    assert_eq!(plan.turn(ms(0)).steps, [Step::Start(1, 1)]);
    assert!(plan.ready(1, 1, ms(1)));
    plan.add(terms(0)).expect("it is open");
    assert_eq!(plan.turn(ms(1)).steps, [Step::Start(2, 1)]);
    assert!(matches!(
        plan.ended(2, 1, Verdict::Again, ms(2)),
        Next::Again(_)
    ));
    assert_eq!(plan.turn(ms(60)).steps, [Step::Start(2, 2)]);
    let stranger = plan.ended(3, 1, Verdict::Fault, ms(60));
    assert_eq!(stranger, Next::Ordered, "it never was one of ours");
}
