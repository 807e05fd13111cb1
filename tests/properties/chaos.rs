//! Chaos: the same random programs on real threads and the real clock, nobody waiting for anybody. No model says what
//! happens in which order; what holds in every order is checked in the log.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use ringfence::root;

use crate::program::{BUDGETS, Op, Program, ScopeSpec, Shut, Wrap, program};
use crate::support::{Watchdog, multi_thread, spawn, until};
use crate::world::{Action, Command, Event, Id, Returned, Times, World};
use crate::{cases, figures, seed};

/// Who belongs to whom.
#[derive(Default)]
struct Family {
    /// The actor that a body's scope was opened by.
    openers: BTreeMap<Id, Id>,
    /// The scope that a child was spawned into.
    groups: BTreeMap<Id, Id>,
    children_of: BTreeMap<Id, Vec<Id>>,
    /// Long-lived groups and their owners.
    owned: Vec<(Id, Id)>,
}

impl Family {
    fn open(&mut self, by: Id, world: &World, spec: &ScopeSpec) -> Command {
        let scope = world.fresh();
        self.openers.insert(scope, by);
        let time = |steps: u8| Some(u64::from(steps).max(1));
        Command::Open {
            scope,
            spec: spec.clone(),
            times: Times {
                grace: spec.grace.and_then(time),
                deadline: spec.deadline.and_then(time),
                timeout: match spec.wrap {
                    Wrap::Timeout(steps) => time(steps),
                    Wrap::Nothing | Wrap::Select => None,
                },
            },
        }
    }

    fn child(&mut self, into: Id, world: &World) -> Id {
        let child = world.fresh();
        self.groups.insert(child, into);
        self.children_of.entry(into).or_default().push(child);
        child
    }

    /// The scope or the actor right around an actor.
    fn around(&self, actor: Id) -> Option<Id> {
        self.openers
            .get(&actor)
            .or_else(|| self.groups.get(&actor))
            .copied()
    }

    /// Chooses participants by what is known outside: whoever is chosen may be gone by then.
    fn resolve(&mut self, op: &Op, world: &World) -> Option<Action> {
        let pick =
            |list: &[Id], number: u8| list.get(usize::from(number) % list.len().max(1)).copied();
        let alive: Vec<Id> = world.alive().into_iter().collect();
        let bodies: Vec<Id> = alive
            .iter()
            .copied()
            .filter(|id| self.openers.contains_key(id))
            .collect();
        let (scopes, kept) = (world.scopes(), world.kept());
        let tell = |actor, command| Some(Action::Tell(vec![(actor, command)]));
        match op {
            Op::Stranger => Some(Action::Stranger(world.fresh())),
            Op::Open { by, spec } => {
                let by = pick(&alive, *by)?;
                let open = self.open(by, world, spec);
                tell(by, open)
            }
            Op::Spawn { by, into, spec } => {
                let (by, into) = (pick(&alive, *by)?, pick(&scopes, *into)?);
                let child = self.child(into, world);
                tell(
                    by,
                    Command::Spawn {
                        into,
                        child,
                        spec: spec.clone(),
                    },
                )
            }
            Op::SpawnOutside { into, spec } => {
                let into = pick(&scopes, *into)?;
                let child = self.child(into, world);
                Some(Action::SpawnOutside {
                    into,
                    child,
                    spec: spec.at_once(),
                })
            }
            Op::SpawnHere { by, spec } => {
                let by = pick(&bodies, *by)?;
                let child = self.child(by, world);
                tell(
                    by,
                    Command::SpawnHere {
                        child,
                        spec: spec.clone(),
                    },
                )
            }
            Op::Start { by, spec } => {
                let by = pick(&bodies, *by)?;
                let child = self.child(by, world);
                let spec = spec.clone();
                tell(by, Command::Start { child, spec })
            }
            Op::Ready { child, is_ready } => tell(pick(&alive, *child)?, Command::Ready(*is_ready)),
            Op::Own { by } => {
                let inside = |id: &&Id| self.around(**id).is_some();
                let observed: Vec<Id> = alive.iter().filter(inside).copied().collect();
                let by = pick(&observed, *by)?;
                let scope = world.fresh();
                self.owned.push((by, scope));
                self.openers.insert(scope, by);
                tell(by, Command::Own { scope })
            }
            Op::Shut { by, how, .. } => {
                let by = usize::from(*by) % self.owned.len().max(1);
                let (by, scope) = self.owned.get(by).copied()?;
                let how = *how;
                let grace = match how {
                    Shut::Down(Some(steps)) => Some(u64::from(steps).max(1)),
                    _ => None,
                };
                tell(by, Command::Shut { scope, how, grace })
            }
            Op::Await { by, child } => {
                let by = pick(&bodies, *by)?;
                let child = pick(self.children_of.get(&by)?, *child)?;
                tell(by, Command::Await { child })
            }
            Op::Finish { who } => {
                let finish = |(number, finish): &(u8, _)| {
                    Some((pick(&alive, *number)?, Command::Finish(*finish)))
                };
                Some(Action::Tell(who.iter().filter_map(finish).collect()))
            }
            Op::CancelHandle { child } => pick(&kept, *child).map(Action::CancelHandle),
            Op::CancelAndWait { child } => pick(&kept, *child).map(Action::CancelAndWait),
            Op::AwaitHandle { child } => pick(&kept, *child).map(Action::AwaitHandle),
            Op::DropHandle { child } => pick(&kept, *child).map(Action::DropHandle),
            Op::CancelChildren { by } => tell(pick(&bodies, *by)?, Command::CancelChildren),
            Op::Cancel { by, scope } => tell(
                pick(&alive, *by)?,
                Command::Cancel {
                    scope: pick(&scopes, *scope)?,
                },
            ),
            Op::CancelOutside { scope } => pick(&scopes, *scope).map(Action::CancelOutside),
            Op::Cut { scope } => pick(&world.cuttable(), *scope).map(Action::Cut),
            Op::Abort { stranger } => pick(&world.strangers(), *stranger).map(Action::Abort),
            Op::Sleep { .. } => None,
        }
    }

    /// What holds in whatever order things happened.
    fn check(&mut self, log: &[Event]) -> Result<(), String> {
        let mut gone: BTreeMap<Id, usize> = BTreeMap::new();
        let (mut polled, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let (mut spawned, mut ended) = (HashSet::new(), HashSet::new());
        let mut taken_in = BTreeSet::new();
        for (at, event) in log.iter().enumerate() {
            let is_new = match event {
                Event::DropDone(actor, _) => gone.insert(*actor, at).is_none(),
                Event::FirstPoll(actor) => polled.insert(*actor),
                Event::Refused(child, _) | Event::Full(child) | Event::Circle(child) => {
                    refused.insert(*child)
                }
                Event::ObservedSpawn(task) => spawned.insert(*task),
                Event::ObservedEnd(task, _) => ended.insert(*task),
                Event::Spawned(child, _) => taken_in.insert(*child),
                Event::SpawnThrew(..) => false,
                Event::DestructorSpawns(by, child) => {
                    let group = self.groups.get(by).copied().unwrap_or(*by);
                    self.groups.insert(*child, group).is_none()
                }
                _ => true,
            };
            if !is_new {
                return Err(format!("{event:?} happened twice, or should not at all"));
            }
        }
        if let Some(child) = refused.intersection(&polled).next() {
            return Err(format!("the refused {child} was polled"));
        }
        if spawned != ended {
            return Err(format!(
                "{} children were spawned, {} ended",
                spawned.len(),
                ended.len()
            ));
        }
        // Promise 1: who came back has nothing alive below it.
        let ends = log
            .iter()
            .enumerate()
            .filter_map(|(at, event)| match event {
                Event::Returned(scope, _) => Some((*scope, at)),
                Event::Outcome(child, _) if !refused.contains(child) => Some((*child, at)),
                _ => None,
            });
        let ends: BTreeMap<Id, usize> = ends.collect();
        for (&actor, &when) in &gone {
            // One that waits for a slot is its caller's, and goes with it: it is nobody's child yet.
            let is_child = taken_in.contains(&actor) || polled.contains(&actor);
            if self.groups.contains_key(&actor) && !is_child {
                continue;
            }
            let mut above = Some(actor);
            while let Some(id) = above {
                if ends.get(&id).is_some_and(|end| *end < when) {
                    return Err(format!(
                        "{id} had come back when {actor}, below it, was still alive"
                    ));
                }
                above = self.around(id);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Totals {
    programs: usize,
    children: usize,
    panics: usize,
    outcomes: usize,
    refused: usize,
}

impl Totals {
    fn add(&mut self, one: &Self) {
        self.programs += 1;
        self.children += one.children;
        self.panics += one.panics;
        self.outcomes += one.outcomes;
        self.refused += one.refused;
    }
}

async fn run(program: Program) -> Result<Totals, String> {
    let world = World::new();
    let mut totals = Totals::default();
    let mut family = Family::default();
    let stranger = world.fresh();
    world.perform(&Action::Stranger(stranger));
    let open = family.open(stranger, &world, &program.first);
    world.perform(&Action::Tell(vec![(stranger, open)]));
    until(|| !world.scopes().is_empty()).await;
    for (number, op) in program.ops.iter().enumerate() {
        if let Some(action) = family.resolve(op, &world) {
            world.perform(&action);
        }
        // Now and then everybody gets a turn, else all at once.
        for _ in 0..if number % 6 == 0 { 10 } else { 0 } {
            tokio::task::yield_now().await;
        }
    }
    for stranger in world.take_strangers() {
        stranger.abort();
        // How it ended is of no interest: that it did is.
        drop(stranger.await);
    }
    root()
        .wait(Duration::from_secs(30))
        .await
        .map_err(|error| error.to_string())?;
    let alive = world.alive();
    if !alive.is_empty() {
        return Err(format!("{alive:?} are alive after the root was waited for"));
    }
    if world.free() != BUDGETS {
        return Err(format!("at the end free slots are {:?}", world.free()));
    }
    for scope in world.scopes() {
        let reading = world
            .spawner(scope)
            .map(|spawner| format!("{spawner:?}"))
            .unwrap_or_default();
        if !reading.contains("normal: 0, background: 0") {
            return Err(format!("scope {scope} is over, and is {reading}"));
        }
    }
    // Strangers that await outcomes are no business of the root.
    until(|| world.waiting() == 0).await;
    let log: Vec<Event> = world
        .take_log()
        .into_iter()
        .map(|(_, event)| event)
        .collect();
    for event in &log {
        match event {
            Event::ObservedEnd(..) => totals.children += 1,
            Event::DropDone(_, true) | Event::Returned(_, Returned::Panic(_)) => totals.panics += 1,
            Event::Outcome(..) => totals.outcomes += 1,
            Event::Refused(..) => totals.refused += 1,
            _ => {}
        }
    }
    let text = |log: &[Event]| {
        log.iter()
            .map(|event| format!("  {event:?}\n"))
            .collect::<String>()
    };
    family
        .check(&log)
        .map_err(|error| format!("{error}\n\nwhat happened:\n{}", text(&log)))?;
    Ok(totals)
}

fn chaos(workers: usize) {
    let _watchdog = Watchdog::start("chaos", Duration::from_secs(120));
    figures(format_args!("chaos on {workers} workers, seed {}", seed()));
    let config = Config {
        cases: (cases(600) / 10).min(10_000),
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        // Another run goes another way: nothing to shrink by.
        max_shrink_iters: 0,
        ..Config::default()
    };
    let runtime = multi_thread(workers);
    let all = RefCell::new(Totals::default());
    let result = TestRunner::new(config).run(&program(60), |program| {
        // In tasks of the runtime, so that they take turns with all the others.
        let running = async {
            let four = std::array::from_fn::<_, 4, _>(|_| spawn(run(program.clone())));
            futures::future::join_all(four).await
        };
        for done in runtime.block_on(running) {
            let totals = done.map_err(|error| TestCaseError::fail(error.to_string()))?;
            all.borrow_mut().add(&totals.map_err(TestCaseError::fail)?);
        }
        Ok(())
    });
    figures(format_args!("{:?}", all.borrow()));
    if let Err(error) = result {
        panic!("seed {}: {error}", seed());
    }
}

#[test]
fn chaos_on_one_worker_leaves_and_loses_nothing() {
    chaos(1);
}

#[test]
fn chaos_on_two_workers_leaves_and_loses_nothing() {
    chaos(2);
}

#[test]
fn chaos_on_four_workers_leaves_and_loses_nothing() {
    chaos(4);
}
