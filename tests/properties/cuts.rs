//! Cuts: a program is dropped at each of its awaits in turn, in seven ways; each time nothing may stay alive, and the
//! end of each child must be observed once.

mod steps;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::test_runner::TestCaseError;
use ringfence::{TaskGroup, root, scope, timeout, token};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use self::steps::{HELPERS, Program, Running, Step, Tally, ms, run};
use crate::support::spawn;
use crate::{cases, figures, seed, try_cases};

/// Polls a future until it has been pending so many times; then drops it in the same poll, or says so and leaves it.
struct CutAt {
    running: Option<Running<'static>>,
    left: usize,
    says_so: Option<oneshot::Sender<()>>,
    leaves_it: bool,
}

impl CutAt {
    fn new(running: Running<'static>, left: usize) -> Self {
        Self {
            running: Some(running),
            left,
            says_so: None,
            leaves_it: false,
        }
    }

    /// The other half hears when the point is reached; it is dropped if the future ends before.
    fn telling(running: Running<'static>, left: usize) -> (Self, oneshot::Receiver<()>) {
        let (says_so, reached) = oneshot::channel();
        let cut = Self {
            says_so: Some(says_so),
            leaves_it: true,
            ..Self::new(running, left)
        };
        (cut, reached)
    }

    fn reached(&mut self) -> Poll<bool> {
        // Nobody listens where it is dropped at once.
        let _ = self.says_so.take().map(|sender| sender.send(()));
        if self.leaves_it {
            return Poll::Pending;
        }
        self.running = None;
        Poll::Ready(true)
    }
}

impl Future for CutAt {
    /// Whether it was cut.
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.left == 0 {
            let reached = self.reached();
            // Whoever keeps it, although it is to end, has it under a shield.
            let mut running = self.running.take_if(|_| token().is_cancelled());
            if running
                .as_mut()
                .is_some_and(|it| it.as_mut().poll(cx).is_pending())
            {
                self.running = running;
            }
            return reached;
        }
        let Some(running) = &mut self.running else {
            return Poll::Ready(true);
        };
        if running.as_mut().poll(cx).is_ready() {
            self.says_so = None;
            self.running = None;
            return Poll::Ready(false);
        }
        self.left -= 1;
        if self.left == 0 {
            self.reached()
        } else {
            Poll::Pending
        }
    }
}

/// The ways to cut.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Dropped where no group is around it.
    Bare,
    /// Dropped in a child, which goes on.
    InChild,
    /// Dropped in a body, which goes on.
    InBody,
    /// The raw task around it is aborted.
    Abort,
    /// The child that it is is cancelled through its handle.
    Handle,
    /// The group around it is cancelled.
    Group,
    /// It is timed out, so many milliseconds after it began.
    Timeout,
}

const WAYS: [Way; 7] = [
    Way::Bare,
    Way::InChild,
    Way::InBody,
    Way::Abort,
    Way::Handle,
    Way::Group,
    Way::Timeout,
];

/// Runs a program and cuts it at one point. Says whether it was still there to be cut.
async fn cut(way: Way, point: usize, program: &Program) -> Result<bool, String> {
    let tally = Tally::default();
    let running = run(tally.clone(), program.clone());
    // What is dropped takes turns of the scheduler, not time: but for shields, which have their bounds.
    let is_shielded = format!("{program:?}").contains("Shield");
    let patience = ms(if is_shielded { 250 } else { 1 });
    let was_cut = match way {
        Way::Bare => {
            let was_cut = CutAt::new(running, point).await;
            root()
                .wait(patience)
                .await
                .map_err(|error| error.to_string())?;
            was_cut
        }
        Way::InChild => {
            let cut = CutAt::new(running, point);
            let result = scope(async |group: &TaskGroup<String>| {
                Ok(group.spawn(async { Ok(cut.await) }).await)
            })
            .await;
            result.map_err(|error| error.to_string())?
        }
        Way::InBody => {
            let cut = CutAt::new(running, point);
            let result = scope(async |_: &TaskGroup<String>| Ok(cut.await)).await;
            result.map_err(|error| error.to_string())?
        }
        Way::Abort => {
            let (cut, reached) = CutAt::telling(running, point);
            let task = spawn(cut);
            let was_cut = reached.await.is_ok();
            task.abort();
            drop(task.await);
            root()
                .wait(patience)
                .await
                .map_err(|error| error.to_string())?;
            was_cut
        }
        Way::Handle => {
            let (cut, reached) = CutAt::telling(running, point);
            let result = scope(async |group: &TaskGroup<String>| {
                let handle = group.spawn(async { Ok(cut.await) });
                let was_cut = reached.await.is_ok();
                let outcome = handle.cancel_and_wait().await;
                tally.check()?; // gone now, not only when the scope returns
                if outcome.is_cancelled() == was_cut {
                    Ok(was_cut)
                } else {
                    Err(format!("cut: {was_cut}, outcome: {outcome:?}"))
                }
            });
            result.await.map_err(|error| error.to_string())?
        }
        Way::Group => {
            let (cut, reached) = CutAt::telling(running, point);
            let result = scope(async |group: &TaskGroup<String>| {
                drop(group.spawn(async { Ok(cut.await) }));
                if reached.await.is_ok() {
                    group.cancel();
                    std::future::pending::<()>().await;
                }
                Ok(false)
            });
            result.await.is_err()
        }
        Way::Timeout => {
            let limit = Duration::from_millis(point as u64);
            let child = async move { Ok(timeout(limit, running).await.is_err()) };
            let result =
                scope(async |group: &TaskGroup<String>| Ok(group.spawn(child).await)).await;
            result.map_err(|error| error.to_string())?
        }
    };
    tally.check()?;
    Ok(was_cut)
}

fn paused() -> Result<Runtime, String> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.map_err(|error| error.to_string())
}

/// Cuts a program at all its points, in all ways, and returns the number of cuts.
fn cut_everywhere(program: &Program) -> Result<usize, String> {
    paused()?.block_on(async {
        let mut cuts = 0;
        for way in WAYS {
            for point in 0.. {
                // On the paused clock an hour passes at once when nobody has anything to do.
                let hour = Duration::from_secs(60 * 60);
                let done = tokio::time::timeout(hour, cut(way, point, program)).await;
                match done.unwrap_or_else(|_| Err("it hangs".to_owned())) {
                    Ok(true) => cuts += 1,
                    Ok(false) => break,
                    Err(error) => return Err(format!("{way:?} at point {point}: {error}")),
                }
            }
        }
        Ok(cuts)
    })
}

// -- programs with a name ---------------------------------------------------------------------------------------------

fn program(steps: impl Into<Vec<Step>>) -> Program {
    Program {
        has_grace: false,
        steps: steps.into(),
    }
}

fn nap() -> Program {
    program([Step::Yield, Step::Sleep(2), Step::Yield])
}

/// A scope whose body awaits the values of its children, so many of them one after the other.
fn wide(children: u16, awaited: u16) -> Program {
    let child = |time| Step::Spawn(1, program([Step::Yield, Step::Sleep(time), Step::Yield]));
    // The one spawned last is the first to end, and to be awaited.
    let times = (0..children).rev().map(|place| place.min(awaited));
    let mut steps: Vec<_> = times.map(child).collect();
    steps.extend(std::iter::repeat_n(Step::Value, awaited.into()));
    program(steps)
}

/// Scopes in children of scopes, and in bodies.
fn deep(levels: usize) -> Program {
    (0..levels).fold(nap(), |inner, level| {
        let inside = if level % 2 == 0 {
            Step::Spawn(1, inner)
        } else {
            Step::Scope(inner)
        };
        program([
            Step::Spawn(1, nap()),
            inside,
            Step::Sleep(1),
            Step::Background(nap()),
        ])
    })
}

fn named() -> Vec<(&'static str, Program)> {
    let spawned = |last: Step| program([Step::Spawn(2, nap()), Step::Yield, last, Step::Sleep(1)]);
    let grace = |program: Program| Program {
        has_grace: true,
        ..program
    };
    // All of the thousand would take a debug build too long.
    let many = if cases(0) < 10_000 { 10 } else { 1000 };
    vec![
        ("a scope with 1 child", wide(1, 1)),
        ("a scope with 10 children", wide(10, 10)),
        ("a scope with 1000 children", wide(1000, many)),
        ("10 nested scopes", deep(10)),
        ("a value", spawned(Step::Value)),
        ("outcome", spawned(Step::Outcome)),
        ("a detached handle", spawned(Step::Detached)),
        ("cancel_and_wait", spawned(Step::CancelAndWait)),
        (
            "cancel_and_wait with grace",
            grace(spawned(Step::CancelAndWait)),
        ),
        ("cancel_children", spawned(Step::CancelChildren)),
        ("a grace", grace(wide(10, 5))),
        ("timeout", program([Step::Timeout(1, deep(3)), Step::Yield])),
        (
            "timeout_at",
            program([Step::TimeoutAt(1, deep(3)), Step::Yield]),
        ),
        (
            "move_on_after",
            program([Step::MoveOn(1, deep(3)), Step::Yield]),
        ),
        (
            "a token",
            program([
                Step::Spawn(1, program([Step::Token(4)])),
                Step::Token(2),
                Step::CancelChildren,
            ]),
        ),
        (
            "the root",
            program([
                Step::Timeout(1, wide(3, 1)),
                Step::Root(2),
                Step::Spawn(1, program([Step::Root(1)])),
            ]),
        ),
        ("a retry", program([Step::Retry(0, nap()), Step::Yield])),
        (
            "a retry that lends",
            program([Step::Retry(1, nap()), Step::Yield]),
        ),
        (
            "a retry as a loop",
            program([Step::Retry(2, nap()), Step::Yield]),
        ),
        (
            "a hedge",
            program([Step::Hedge(program([
                Step::Yield,
                Step::Sleep(4),
                Step::Yield,
            ]))]),
        ),
        (
            "a hedge in a retry",
            program([Step::Retry(0, program([Step::Hedge(deep(2))]))]),
        ),
        (
            "retries within a grace",
            grace(program([
                Step::Spawn(1, program([Step::Retry(0, nap())])),
                Step::Spawn(1, program([Step::Retry(1, deep(2))])),
                Step::Spawn(1, program([Step::Retry(2, nap())])),
                Step::Spawn(1, program([Step::Hedge(program([Step::Fail]))])),
                Step::Sleep(1),
                Step::CancelChildren,
            ])),
        ),
        (
            "a failure",
            program([
                Step::Spawn(3, nap()),
                Step::Spawn(1, program([Step::Sleep(1), Step::Fail])),
                Step::Sleep(9),
            ]),
        ),
    ]
}

#[test]
fn whatever_is_dropped_at_whatever_await_leaves_nothing() {
    let mut all = 0;
    for (name, program) in named() {
        match cut_everywhere(&program) {
            Ok(cuts) => {
                assert!(cuts > 10, "{name}: only {cuts} cuts");
                figures(format_args!("{name}: {cuts} cuts"));
                all += cuts;
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
    figures(format_args!("{all} cuts"));
}

#[test]
fn whatever_a_group_can_do_leaves_nothing_wherever_it_is_dropped() {
    let mut all = 0;
    for helper in HELPERS {
        for has_grace in [false, true] {
            let steps = vec![Step::Helped(helper, deep(2)), Step::Sleep(1)];
            match cut_everywhere(&Program { has_grace, steps }) {
                Ok(cuts) => {
                    assert!(cuts > 10, "{helper:?}: only {cuts} cuts");
                    figures(format_args!("{helper:?}: {cuts} cuts"));
                    all += cuts;
                }
                Err(error) => panic!("{helper:?}: {error}"),
            }
        }
    }
    figures(format_args!("{all} cuts"));
}

// -- random programs --------------------------------------------------------------------------------------------------

fn step() -> impl Strategy<Value = Step> {
    let plain = prop_oneof![
        Just(Step::Yield),
        (0..4_u16).prop_map(Step::Sleep),
        Just(Step::Value),
        Just(Step::Outcome),
        Just(Step::Detached),
        Just(Step::CancelAndWait),
        Just(Step::CancelChildren),
        (0..4_u8).prop_map(Step::Token),
        (0..4_u8).prop_map(Step::Root),
        Just(Step::Fail),
    ];
    plain.prop_recursive(4, 24, 4, |step| {
        let inner = (any::<bool>(), vec(step.clone(), 1..5))
            .prop_map(|(has_grace, steps)| Program { has_grace, steps });
        let limited = (0..5_u8, inner.clone());
        prop_oneof![
            4 => step,
            6 => inner.clone().prop_map(|program| Step::Spawn(1, program)),
            1 => inner.clone().prop_map(|program| Step::Spawn(3, program)),
            2 => inner.clone().prop_map(Step::Background),
            2 => inner.clone().prop_map(Step::Scope),
            1 => limited.clone().prop_map(|(limit, program)| Step::Timeout(limit, program)),
            1 => limited.clone().prop_map(|(limit, program)| Step::TimeoutAt(limit, program)),
            1 => limited.prop_map(|(limit, program)| Step::MoveOn(limit, program)),
            1 => (0..3_u8, inner.clone()).prop_map(|(form, program)| Step::Retry(form, program)),
            1 => inner.clone().prop_map(Step::Hedge),
            4 => (select(&HELPERS[..]), inner)
                .prop_map(|(helper, program)| Step::Helped(helper, program)),
        ]
    })
}

pub(crate) fn case() -> impl Strategy<Value = Program> {
    (any::<bool>(), vec(step(), 1..6)).prop_map(|(has_grace, steps)| Program { has_grace, steps })
}

/// How often it was cut.
pub(crate) fn agree(program: &Program) -> Result<usize, TestCaseError> {
    cut_everywhere(program).map_err(TestCaseError::fail)
}

#[test]
fn random_programs_leave_nothing_wherever_they_are_cut() {
    let all = Cell::new(0);
    try_cases(cases(600) / 4, &case(), |program| {
        all.set(all.get() + agree(&program)?);
        Ok(())
    });
    figures(format_args!(
        "seed {}: {} cuts of random programs",
        seed(),
        all.get()
    ));
}
