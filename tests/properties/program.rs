//! Random programs: what is generated, shrunk and printed.
//!
//! An operation names its participants by a number that is taken modulo the candidates at the moment when it is carried
//! out, so every shorter program is a valid program too, and shrinking needs no rules of its own.

use std::fmt;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

/// How an actor ends of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Ok,
    Err,
    Panic,
}

/// What the destructor of an actor's future does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destructor {
    Quiet,
    Panics,
    /// Spawns into its own group.
    Spawns,
    /// Tries to spawn into its own group.
    TrySpawns,
    /// Cancels its own group.
    Cancels,
}

/// Who has the handle of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    Dropped,
    /// It lies on a table, for later operations.
    Kept,
    /// A stranger awaits it.
    Awaited,
}

#[derive(Clone, Debug)]
pub(crate) struct ChildSpec {
    pub(crate) background: bool,
    pub(crate) tries: bool,
    pub(crate) named: bool,
    pub(crate) destructor: Destructor,
    /// Ends this way when its token is cancelled.
    pub(crate) listens: Option<Finish>,
    pub(crate) handle: Handle,
    /// Which of the shared budgets it takes a slot of.
    pub(crate) slot: Option<usize>,
}

impl ChildSpec {
    /// Whether whoever spawns it waits for its slot.
    pub(crate) fn waits(&self) -> bool {
        self.slot.is_some() && (self.background || !self.tries)
    }

    /// The same where nobody can wait.
    pub(crate) fn at_once(&self) -> Self {
        let tries = self.tries || self.slot.is_some();
        let background = self.background && self.slot.is_none();
        Self {
            background,
            tries,
            ..self.clone()
        }
    }

    /// What it is called where it is named: after the way in which it is spawned.
    pub(crate) fn name(&self) -> Option<&'static str> {
        self.named.then_some(match (self.background, self.tries) {
            (true, _) => "background",
            (false, false) => "normal",
            (false, true) => "tried",
        })
    }
}

/// The sizes of the budgets that all groups share.
pub(crate) const BUDGETS: [usize; 2] = [1, 2];

/// What is around the scope's future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrap {
    Nothing,
    /// A `select!` whose other branch an operation makes ready.
    Select,
    /// A timeout of so many steps.
    Timeout(u8),
}

#[derive(Clone, Debug)]
pub(crate) struct ScopeSpec {
    /// In steps.
    pub(crate) grace: Option<u8>,
    /// In steps.
    pub(crate) deadline: Option<u8>,
    pub(crate) panics_as_errors: bool,
    pub(crate) wrap: Wrap,
    /// The opener fails if the scope does.
    pub(crate) passes_on: bool,
    /// How the opener ends, in the same poll, when the scope is dropped by its wrap.
    pub(crate) after_cut: Option<Finish>,
    pub(crate) body_destructor: Destructor,
    pub(crate) body_listens: Option<Finish>,
}

/// What becomes of a long-lived group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    Close,
    Drop,
    Wait,
    /// With a grace in steps.
    Down(Option<u8>),
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A raw task of the runtime is started.
    Stranger,
    /// An idle actor opens a scope and runs it.
    Open {
        by: u8,
        spec: ScopeSpec,
    },
    /// An idle actor spawns through the spawner of some scope.
    Spawn {
        by: u8,
        into: u8,
        spec: ChildSpec,
    },
    /// The same from outside of every task.
    SpawnOutside {
        into: u8,
        spec: ChildSpec,
    },
    /// An idle body spawns and keeps the handle to itself.
    SpawnHere {
        by: u8,
        spec: ChildSpec,
    },
    /// An idle body awaits the value of one of the children that it spawned itself.
    Await {
        by: u8,
        child: u8,
    },
    /// An idle body starts a child, and waits until it is ready.
    Start {
        by: u8,
        spec: ChildSpec,
    },
    /// An idle child that is being started says that it is ready, or never will be.
    Ready {
        child: u8,
        is_ready: bool,
    },
    /// An idle actor makes a long-lived group of its own.
    Own {
        by: u8,
    },
    /// An idle actor closes, shuts down, waits for, or drops one that it owns.
    Shut {
        by: u8,
        group: u8,
        how: Shut,
    },
    /// Idle actors end, all in one go.
    Finish {
        who: Vec<(u8, Finish)>,
    },
    CancelHandle {
        child: u8,
    },
    CancelAndWait {
        child: u8,
    },
    AwaitHandle {
        child: u8,
    },
    DropHandle {
        child: u8,
    },
    /// By an idle body.
    CancelChildren {
        by: u8,
    },
    /// By an idle actor, of its own group or any other.
    Cancel {
        by: u8,
        scope: u8,
    },
    CancelOutside {
        scope: u8,
    },
    /// Drops a scope by the other branch of its `select!`.
    Cut {
        scope: u8,
    },
    /// Aborts a raw task.
    Abort {
        stranger: u8,
    },
    /// Lets so many steps of time pass.
    Sleep {
        steps: u8,
    },
}

/// A scope with nothing special about it.
pub(crate) fn plain() -> ScopeSpec {
    ScopeSpec {
        grace: None,
        deadline: None,
        panics_as_errors: true,
        wrap: Wrap::Nothing,
        passes_on: false,
        after_cut: None,
        body_destructor: Destructor::Quiet,
        body_listens: None,
    }
}

#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) first: ScopeSpec,
    pub(crate) ops: Vec<Op>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "program of {} operations:", self.ops.len())?;
        writeln!(f, "  first scope: {:?}", self.first)?;
        for op in &self.ops {
            writeln!(f, "  {op:?}")?;
        }
        Ok(())
    }
}

fn finish() -> impl Strategy<Value = Finish> {
    prop_oneof![8 => Just(Finish::Ok), 2 => Just(Finish::Err), 1 => Just(Finish::Panic)]
}

fn destructor() -> impl Strategy<Value = Destructor> {
    prop_oneof![
        30 => Just(Destructor::Quiet),
        2 => Just(Destructor::Panics),
        2 => Just(Destructor::Spawns),
        1 => Just(Destructor::TrySpawns),
        1 => Just(Destructor::Cancels),
    ]
}

fn rarely<T: fmt::Debug + Clone>(
    inner: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<T>> {
    option::weighted(0.2, inner)
}

fn one_in(n: u32) -> impl Strategy<Value = bool> {
    prop_oneof![n - 1 => Just(false), 1 => Just(true)]
}

fn child() -> impl Strategy<Value = ChildSpec> {
    let handle = prop_oneof![
        Just(Handle::Dropped),
        Just(Handle::Kept),
        Just(Handle::Awaited)
    ];
    (
        one_in(4),
        one_in(4),
        one_in(4),
        destructor(),
        rarely(finish()),
        handle,
        option::weighted(0.35, 0..BUDGETS.len()),
    )
        .prop_map(
            |(background, tries, named, destructor, listens, handle, slot)| {
                let mut spec = ChildSpec {
                    background,
                    tries,
                    named,
                    destructor,
                    listens,
                    handle,
                    slot,
                };
                if spec.waits() && destructor == Destructor::Panics {
                    // While it is waited for, its destructor is one of whoever waits: that is another story.
                    spec.destructor = Destructor::Quiet;
                }
                spec
            },
        )
}

fn scope() -> impl Strategy<Value = ScopeSpec> {
    let wrap = prop_oneof![
        2 => Just(Wrap::Nothing),
        3 => Just(Wrap::Select),
        1 => (0..4_u8).prop_map(Wrap::Timeout),
    ];
    (
        option::weighted(0.3, 0..3_u8),
        rarely(0..6_u8),
        one_in(3),
        wrap,
        one_in(2),
        option::weighted(0.5, finish()),
        destructor(),
        rarely(finish()),
    )
        .prop_map(
            |(
                grace,
                deadline,
                panics_as_errors,
                wrap,
                passes_on,
                after_cut,
                body_destructor,
                body_listens,
            )| ScopeSpec {
                grace,
                deadline,
                panics_as_errors,
                wrap,
                passes_on,
                after_cut,
                body_destructor,
                body_listens,
            },
        )
}

fn shut() -> impl Strategy<Value = Shut> {
    prop_oneof![
        1 => Just(Shut::Close),
        1 => Just(Shut::Drop),
        2 => Just(Shut::Wait),
        4 => option::weighted(0.6, 0..3_u8).prop_map(Shut::Down),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let by = any::<u8>;
    prop_oneof![
        2 => Just(Op::Stranger),
        6 => (by(), scope()).prop_map(|(by, spec)| Op::Open { by, spec }),
        14 => (by(), by(), child()).prop_map(|(by, into, spec)| Op::Spawn { by, into, spec }),
        5 => (by(), child()).prop_map(|(into, spec)| Op::SpawnOutside { into, spec }),
        10 => (by(), child()).prop_map(|(by, spec)| Op::SpawnHere { by, spec }),
        3 => (by(), by()).prop_map(|(by, child)| Op::Await { by, child }),
        5 => (by(), child()).prop_map(|(by, spec)| Op::Start { by, spec }),
        5 => (by(), one_in(4)).prop_map(|(child, never)| Op::Ready { child, is_ready: !never }),
        3 => by().prop_map(|by| Op::Own { by }),
        3 => (by(), by(), shut()).prop_map(|(by, group, how)| Op::Shut { by, group, how }),
        6 => vec((by(), finish()), 1..5).prop_map(|who| Op::Finish { who }),
        2 => by().prop_map(|child| Op::CancelHandle { child }),
        2 => by().prop_map(|child| Op::CancelAndWait { child }),
        1 => by().prop_map(|child| Op::AwaitHandle { child }),
        1 => by().prop_map(|child| Op::DropHandle { child }),
        2 => by().prop_map(|by| Op::CancelChildren { by }),
        1 => (by(), by()).prop_map(|(by, scope)| Op::Cancel { by, scope }),
        1 => by().prop_map(|scope| Op::CancelOutside { scope }),
        3 => by().prop_map(|scope| Op::Cut { scope }),
        1 => by().prop_map(|stranger| Op::Abort { stranger }),
        1 => (1..4_u8).prop_map(|steps| Op::Sleep { steps }),
    ]
}

/// Programs of at most so many operations.
pub(crate) fn program(most: usize) -> impl Strategy<Value = Program> {
    (scope(), vec(op(), 1..most)).prop_map(|(first, ops)| Program { first, ops })
}
