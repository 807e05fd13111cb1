//! Random programs, carried out one operation at a time by the real crate and by the model, on the paused clock.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::Strategy;
use proptest::test_runner::TestCaseError;
use ringfence::root;
use tokio::runtime::Builder;

use crate::model::{Kind, Model};
use crate::program::{BUDGETS, Op, Program, ScopeSpec, Shut, Wrap, program};
use crate::world::{Action, Command, Event, Id, MOST_TIMERS, Returned, STEP, Times, World};
use crate::{cases, figures, seed, try_cases};

/// How far the runs went, all together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    programs: usize,
    steps: usize,
    events: usize,
    children: usize,
    scopes: usize,
    adoptions: usize,
    /// Children that got a slot after a wait, were refused for a circle, were started, and groups that were shut down.
    slots: usize,
    circles: usize,
    starts: usize,
    reports: usize,
}

impl Figures {
    fn and(self, run: Self) -> Self {
        Self {
            programs: self.programs + run.programs,
            steps: self.steps + run.steps,
            events: self.events + run.events,
            children: self.children + run.children,
            scopes: self.scopes + run.scopes,
            adoptions: self.adoptions + run.adoptions,
            slots: self.slots + run.slots,
            circles: self.circles + run.circles,
            starts: self.starts + run.starts,
            reports: self.reports + run.reports,
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Circle(_) => self.circles += 1,
            Event::Started(..) => self.starts += 1,
            Event::Returned(_, Returned::Report { .. }) => self.reports += 1,
            _ => {}
        }
    }
}

const ANYBODY: &[Kind] = &[Kind::Stranger, Kind::Body, Kind::Child];
const BODIES: &[Kind] = &[Kind::Body];

fn pick(list: &[Id], number: u8) -> Option<Id> {
    list.get(usize::from(number) % list.len().max(1)).copied()
}

struct Run {
    world: Arc<World>,
    model: Model,
    timers: u32,
    transcript: String,
    figures: Figures,
}

impl Run {
    fn new() -> Self {
        Self {
            world: World::new(),
            model: Model::default(),
            timers: 0,
            transcript: String::new(),
            figures: Figures::default(),
        }
    }

    fn duration(&mut self, steps: u8) -> Option<u64> {
        if self.timers == MOST_TIMERS {
            return None;
        }
        self.timers += 1;
        Some(u64::from(steps) * STEP + 3_u64.pow(self.timers - 1))
    }

    fn open(&mut self, spec: &ScopeSpec) -> Command {
        let times = Times {
            grace: spec.grace.and_then(|steps| self.duration(steps)),
            deadline: spec.deadline.and_then(|steps| self.duration(steps)),
            timeout: match spec.wrap {
                Wrap::Timeout(steps) => self.duration(steps),
                Wrap::Nothing | Wrap::Select => None,
            },
        };
        Command::Open {
            scope: self.world.fresh(),
            spec: spec.clone(),
            times,
        }
    }

    fn idle(&self, kinds: &[Kind]) -> Vec<Id> {
        let actors = self.model.actors.iter();
        let idle =
            actors.filter(|(id, actor)| kinds.contains(&actor.kind) && self.model.is_idle(**id));
        idle.map(|(id, _)| *id).collect()
    }

    /// A group to spawn into: more often than not an open one.
    fn group(&self, number: u8) -> Option<Id> {
        let mut groups = self.world.scopes();
        if number % 8 > 0 {
            groups.retain(|scope| self.model.is_open(*scope));
        }
        pick(&groups, number / 8)
    }

    fn strangers(&self) -> Vec<Id> {
        let alive = self.world.alive();
        let mut strangers = self.world.strangers();
        strangers.retain(|stranger| alive.contains(stranger));
        strangers
    }

    /// The idle, children first in line.
    fn most_children(&self) -> Vec<Id> {
        let mut idle = self.idle(&[Kind::Child]).repeat(3);
        idle.extend(self.idle(ANYBODY));
        idle
    }

    /// Chooses the participants of an operation; none if there are none.
    fn resolve(&mut self, op: &Op) -> Option<Action> {
        let pick =
            |list: &[Id], number: u8| list.get(usize::from(number) % list.len().max(1)).copied();
        let tell = |actor, command| Some(Action::Tell(vec![(actor, command)]));
        match op {
            Op::Stranger => Some(Action::Stranger(self.world.fresh())),
            Op::Open { by, spec } => {
                let by = pick(&self.idle(ANYBODY), *by)?;
                if self.model.depth(by) > 8 {
                    return None;
                }
                let open = self.open(spec);
                tell(by, open)
            }
            Op::Spawn { by, into, spec } => {
                let by = pick(&self.idle(ANYBODY), *by)?;
                let into = self.group(*into)?;
                let child = self.world.fresh();
                tell(
                    by,
                    Command::Spawn {
                        into,
                        child,
                        spec: spec.clone(),
                    },
                )
            }
            Op::SpawnOutside { into, spec } => Some(Action::SpawnOutside {
                into: self.group(*into)?,
                child: self.world.fresh(),
                spec: spec.at_once(),
            }),
            Op::SpawnHere { by, spec } => {
                let by = pick(&self.idle(BODIES), *by)?;
                let child = self.world.fresh();
                tell(
                    by,
                    Command::SpawnHere {
                        child,
                        spec: spec.clone(),
                    },
                )
            }
            Op::Await { by, child } => {
                let mut bodies = self.idle(BODIES);
                bodies.retain(|body| !self.model.actors[body].handles.is_empty());
                let by = pick(&bodies, *by)?;
                let child = pick(&self.model.actors[&by].handles, *child)?;
                tell(by, Command::Await { child })
            }
            Op::Start { by, spec } => {
                let by = pick(&self.idle(BODIES), *by)?;
                let child = self.world.fresh();
                let spec = spec.clone();
                tell(by, Command::Start { child, spec })
            }
            Op::Ready { child, is_ready } => {
                let mut starting = self.idle(&[Kind::Child]);
                starting.retain(|child| self.model.actors[child].is_starting());
                tell(pick(&starting, *child)?, Command::Ready(*is_ready))
            }
            Op::Own { by } => {
                // In a tree that is observed.
                let by = pick(&self.idle(&[Kind::Body, Kind::Child]), *by)?;
                let scope = self.world.fresh();
                tell(by, Command::Own { scope })
            }
            Op::Shut { by, group, how } => {
                let mut owners = self.idle(ANYBODY);
                owners.retain(|owner| !self.model.actors[owner].owned.is_empty());
                let by = pick(&owners, *by)?;
                let owned: Vec<Id> = self.model.actors[&by].owned.iter().copied().collect();
                let (scope, how) = (pick(&owned, *group)?, *how);
                let grace = match how {
                    Shut::Down(Some(steps)) => self.duration(steps),
                    _ => None,
                };
                tell(by, Command::Shut { scope, how, grace })
            }
            Op::Finish { who } => {
                let mut idle = self.most_children();
                let mut commands = Vec::new();
                for (number, finish) in who {
                    if let Some(actor) = pick(&idle, *number) {
                        idle.retain(|other| *other != actor);
                        commands.push((actor, Command::Finish(*finish)));
                    }
                }
                (!commands.is_empty()).then_some(Action::Tell(commands))
            }
            Op::CancelHandle { child } => {
                pick(&self.world.kept(), *child).map(Action::CancelHandle)
            }
            Op::CancelAndWait { child } => {
                pick(&self.world.kept(), *child).map(Action::CancelAndWait)
            }
            Op::AwaitHandle { child } => pick(&self.world.kept(), *child).map(Action::AwaitHandle),
            Op::DropHandle { child } => pick(&self.world.kept(), *child).map(Action::DropHandle),
            Op::CancelChildren { by } => {
                tell(pick(&self.idle(BODIES), *by)?, Command::CancelChildren)
            }
            Op::Cancel { by, scope } => {
                let scope = pick(&self.world.scopes(), *scope)?;
                tell(pick(&self.idle(ANYBODY), *by)?, Command::Cancel { scope })
            }
            Op::CancelOutside { scope } => {
                pick(&self.world.scopes(), *scope).map(Action::CancelOutside)
            }
            Op::Cut { scope } => {
                let mut cuttable = self.world.cuttable();
                cuttable.retain(|scope| {
                    self.model
                        .scopes
                        .get(scope)
                        .is_some_and(|scope| !scope.over)
                });
                pick(&cuttable, *scope).map(Action::Cut)
            }
            Op::Abort { stranger } => pick(&self.strangers(), *stranger).map(Action::Abort),
            Op::Sleep { steps } => Some(Action::Sleep(*steps)),
        }
    }

    /// One operation, in both, until all is quiet; then both have to agree.
    async fn step(&mut self, action: Action) -> Result<(), String> {
        let _ = writeln!(self.transcript, "{:>8} {action:?}", self.world.now());
        self.figures.steps += 1;
        match &action {
            Action::Tell(commands) => {
                for (actor, command) in commands {
                    if let Some(actor) = self.model.actors.get_mut(actor) {
                        actor.command = Some(command.clone());
                    }
                }
            }
            Action::Stranger(id) => drop(self.model.add_actor(*id, Kind::Stranger, None)),
            Action::SpawnOutside { into, child, spec } => {
                self.model.add_child(*child, *into, None, spec);
            }
            Action::CancelHandle(child) => self.model.cancel_child(*child)?,
            Action::CancelAndWait(child) => {
                self.model.cancel_child(*child)?;
                self.model.await_handle(*child)?;
            }
            Action::AwaitHandle(child) => self.model.await_handle(*child)?,
            Action::CancelOutside(scope) => self.model.request(*scope, None)?,
            Action::Cut(scope) => self.model.cut(*scope),
            Action::Abort(stranger) => self.model.abort(*stranger),
            Action::DropHandle(_) | Action::Sleep(_) => {}
        }
        self.world.perform(&action);
        let steps = if let Action::Sleep(steps) = action {
            steps
        } else {
            0
        };
        self.world.steps(steps).await;
        self.compare()
    }

    fn compare(&mut self) -> Result<(), String> {
        let log = self.world.take_log();
        self.figures.events += log.len();
        log.iter().for_each(|(_, event)| self.figures.note(event));
        for (at, event) in &log {
            let _ = writeln!(self.transcript, "{at:>8}     {event:?}");
        }
        for (at, event) in &log {
            self.model
                .accept(*at, event)
                .map_err(|error| format!("at {event:?}: {error}"))?;
        }
        self.model.advance(self.world.now())?;
        self.model.check_quiet()?;
        let (real, expected) = (self.world.alive(), self.model.alive());
        if real != expected {
            return Err(format!("alive are {real:?}, expected {expected:?}"));
        }
        for scope in self.world.scopes() {
            let real = self
                .world
                .spawner(scope)
                .map(|spawner| format!("{spawner:?}"));
            let expected = self.model.reading(scope);
            if real.as_deref() != Some(&expected) {
                return Err(format!("scope {scope} is {real:?}, expected {expected}"));
            }
        }
        let (real, expected) = (self.world.free(), self.model.free());
        if real != expected {
            return Err(format!("free slots are {real:?}, expected {expected:?}"));
        }
        let (real, expected) = (root().orphans(), self.model.root_orphans);
        if real != expected {
            return Err(format!(
                "the root holds {real} orphans, expected {expected}"
            ));
        }
        Ok(())
    }

    async fn all(&mut self, program: &Program) -> Result<(), String> {
        let stranger = self.world.fresh();
        self.step(Action::Stranger(stranger)).await?;
        let open = self.open(&program.first);
        self.step(Action::Tell(vec![(stranger, open)])).await?;
        for op in &program.ops {
            if let Some(action) = self.resolve(op) {
                self.step(action).await?;
            }
        }
        for stranger in self.strangers() {
            self.step(Action::Abort(stranger)).await?;
        }
        let alive = self.world.alive();
        if !alive.is_empty() {
            return Err(format!("at the end {alive:?} are alive"));
        }
        if self.world.free() != BUDGETS {
            return Err(format!("at the end free slots are {:?}", self.world.free()));
        }
        root()
            .wait(Duration::ZERO)
            .await
            .map_err(|error| format!("the root: {error}"))
    }
}

pub(crate) fn case() -> impl Strategy<Value = Program> {
    program(60)
}

pub(crate) fn agree(program: &Program) -> Result<Figures, TestCaseError> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
    runtime.block_on(async {
        let mut run = Run::new();
        run.all(program).await.map_err(|error| {
            TestCaseError::fail(format!(
                "{error}\n\nwhat was done, and what happened:\n{}",
                run.transcript
            ))
        })?;
        Ok(Figures {
            programs: 1,
            slots: run.model.slots,
            children: run.model.ended,
            scopes: run.model.scopes.len(),
            adoptions: run.model.adoptions,
            ..run.figures
        })
    })
}

#[test]
fn a_group_behaves_as_the_model_says() {
    let all = Cell::new(Figures::default());
    try_cases(cases(600), &case(), |program| {
        all.set(all.get().and(agree(&program)?));
        Ok(())
    });
    figures(format_args!("seed {}: {:?}", seed(), all.get()));
}
