//! A scope with options.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::group::TaskGroup;
use crate::group::driver::{Clock, Driver};
use crate::group::error::{GroupError, capped};
use crate::observe::Observer;
use crate::state::{Core, Settings, listing};
use crate::time::Deadline;
use crate::trace::Span;

/// A scope with options; [`scope`](crate::scope) is its default.
///
/// # Default
///
/// No name, no grace, no deadline but the inherited one, panics go on in the caller, the observer of the enclosing scope.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
/// use std::time::Duration;
/// use ringfence::Scope;
///
/// let sum = Scope::new()
///     .name("sums")
///     .deadline(Duration::from_secs(1))
///     .run(async |group| {
///         let a = group.spawn(async { Ok(1) });
///         let b = group.spawn(async { Ok(2) });
///         Ok(a.await + b.await)
///     })
///     .await?;
/// assert_eq!(sum, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "a scope does nothing unless it is run"]
pub struct Scope {
    name: Option<Arc<str>>,
    grace: Duration,
    deadline: Option<Deadline>,
    give_up: Option<Duration>,
    panics_as_errors: bool,
    observer: Option<Arc<dyn Observer>>,
    is_apart: bool,
    span: Option<Span>,
}

impl Scope {
    /// A scope without options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the scope, for errors, events and snapshots. Names of nested scopes, and of the children that they are opened
    /// in, form a path.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Puts a grace between the two rungs of a cancel: tokens fire at once, and whoever is still there when the grace is
    /// over is dropped where it is parked, the body included.
    ///
    /// With none, which is the default, everything is dropped where it is parked as soon as the scope is cancelled. The grace
    /// is a lower bound: it is kept by the task that awaits the scope.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = capped(grace);
        self
    }

    /// Sets a deadline: when it passes, the group is cancelled, and waited for.
    ///
    /// A [`Deadline`], an instant, or a `Duration`, which counts from this call.
    ///
    /// It can only be earlier than what the scope inherits. One that is past cancels the scope when its body is first
    /// pending.
    #[doc(alias = "timeout")]
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        self.deadline = Some(deadline.into());
        self
    }

    /// Stops waiting for a blocking call that still runs so long after its child was forced: the scope comes back without it.
    ///
    /// A thread cannot be stopped, so without this the scope waits. What was given up goes to the observer and, if the scope fails,
    /// is in [`GroupError::abandoned`]; to the observer goes an error or a panic that comes of it later. It
    /// covers [`spawn_blocking`](TaskGroup::spawn_blocking) in this scope and in all that are opened in it.
    /// It is this scope's own future that keeps the time: once that is dropped, whoever adopts its children waits for their calls.
    pub fn give_up_blocking_after(mut self, bound: Duration) -> Self {
        self.give_up = Some(capped(bound));
        self
    }

    /// Makes panics of children and body entries of the [`GroupError`] instead of letting the first go on in the caller.
    pub fn panics_as_errors(mut self) -> Self {
        self.panics_as_errors = true;
        self
    }

    /// Has an observer told of what happens in this scope and in all that are opened in it.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Does not hand a cancel of the groups around down to its children: whoever runs the scope listens for that, and tells
    /// them in his own time. What forces it does so all the same.
    pub(crate) fn apart(mut self) -> Self {
        self.is_apart = true;
        self
    }

    /// Has all children of this scope, and of those opened in it, polled in the `tracing` span that is current now (feature `tracing`).
    ///
    /// Without it a child begins in no span: it may outlast the one that it was spawned in.
    #[cfg(feature = "tracing")]
    pub fn in_current_span(mut self) -> Self {
        self.span = Some(Span::current());
        self
    }

    /// Runs `body` and waits for it and all its children: see [`scope`](crate::scope).
    ///
    /// # Cancel safety
    ///
    /// As [`scope`](crate::scope): dropped before it is ready, it cancels its children at once, and whatever encloses it
    /// does not end until they are gone.
    ///
    /// # Errors
    ///
    /// [`GroupError`] if the body or a child failed, or the group was cancelled, or its deadline passed.
    ///
    /// # Panics
    ///
    /// With the first panic of the body or a child, after all of them are gone, unless
    /// [`panics_as_errors`](Self::panics_as_errors) was set. When there is a grace or a deadline and the runtime has no
    /// time driver.
    pub fn run<E, T, F>(self, body: F) -> impl Future<Output = Result<T, GroupError<E>>>
    where
        E: Send + 'static,
        F: AsyncFnOnce(&TaskGroup<E>) -> Result<T, E>,
    {
        run(Some(Box::new(self)), body)
    }
}

/// Runs a scope. The options are boxed, since most scopes have none, and futures of scopes lie inside one another.
pub(crate) async fn run<E, T, F>(options: Option<Box<Scope>>, body: F) -> Result<T, GroupError<E>>
where
    E: Send + 'static,
    F: AsyncFnOnce(&TaskGroup<E>) -> Result<T, E>,
{
    let (group, clock, panics_as_errors) = open(options);
    Driver::new(&group, || body(&group), clock, panics_as_errors).await
}

/// Makes a long-lived group.
pub(crate) fn open_owned<E: Send + 'static>(name: Option<Arc<str>>) -> TaskGroup<E> {
    let group = open_plain(Settings {
        name,
        is_long_lived: true,
        ..Settings::default()
    });
    listing::add_long_lived(group.core(), group.runtime().map(Handle::id));
    group
}

fn open_plain<E: Send + 'static>(settings: Settings) -> TaskGroup<E> {
    let (parent, opener) = crate::context::current().unzip();
    let settings = Settings {
        is_shielded: crate::context::is_inside_shield(),
        opener: opener.unwrap_or(0),
        ..settings
    };
    TaskGroup::new(Core::new(settings, parent), crate::runtime::current())
}

/// Makes the group of a scope that is first polled now.
pub(super) fn open<E: Send + 'static>(
    options: Option<Box<Scope>>,
) -> (TaskGroup<E>, Option<Box<Clock>>, bool) {
    let Some(options) = options else {
        return (open_plain(Settings::default()), None, false);
    };
    let (parent, opener) = crate::context::current().unzip();
    let settings = Settings {
        name: options.name,
        has_grace: !options.grace.is_zero(),
        is_long_lived: false,
        gives_up: options.give_up.is_some(),
        is_shielded: options.is_apart || crate::context::is_inside_shield(),
        // A scope that is apart still tells its children of the deadline around it.
        deadline: options
            .deadline
            .or_else(|| options.is_apart.then(Deadline::current)),
        observer: options.observer,
        span: options.span,
        opener: opener.unwrap_or(0),
    };
    let core = Core::new(settings, parent);
    // Each scope keeps its own deadline, also one that is later than what it inherits: whoever set the earlier one may give a
    // grace then, or not be around any more.
    let deadline = options.deadline.and_then(Deadline::instant);
    let clock = Clock::new(options.grace, deadline, options.give_up);
    let group = TaskGroup::new(core, crate::runtime::current());
    (group, clock, options.panics_as_errors)
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("name", &self.name)
            .field("grace", &self.grace)
            .field("deadline", &self.deadline)
            .field("give_up", &self.give_up)
            .field("panics_as_errors", &self.panics_as_errors)
            .finish_non_exhaustive()
    }
}
