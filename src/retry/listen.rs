//! What is around a run: until when it may go on, and whether its task was asked to end.
//!
//! L1. Nothing is registered before a wait that a cancel has to end, and nothing at all where no signal can come: a group
//! without a grace drops its tasks where they are parked. L2. In a shield nobody is asked to end. L3. A run that goes on
//! elsewhere than it began looks again: what was around before it has left behind.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::cancel::{Cancelled, Token};
use crate::observe::TaskId;
use crate::time::Deadline;

/// Where a run is polled: by which member of a group, and whether in a shield.
type Place = Option<(TaskId, bool)>;

/// What a run was told to listen to.
pub(crate) enum Listen {
    /// To the task that the run is in.
    Ambient,
    To(Token),
    Nobody,
}

impl From<Option<Token>> for Listen {
    fn from(token: Option<Token>) -> Self {
        token.map_or(Self::Nobody, Self::To)
    }
}

/// What holds where a run is: its own word, and that of the groups around.
pub(crate) struct Around {
    /// Where it looked; not at all, or not since it was told something, if there is none.
    seen: Option<Place>,
    pub(crate) deadline: Deadline,
    ear: Ear,
}

impl Around {
    const fn new(seen: Option<Place>) -> Self {
        Self {
            seen,
            deadline: Deadline::NEVER,
            ear: Ear::DEAF,
        }
    }

    pub(crate) const UNSEEN: Self = Self::new(None);
    /// That of a run which was told nothing, in no group.
    pub(crate) const NOTHING: Self = Self::new(Some(None));

    pub(crate) const fn forget(&mut self) {
        self.seen = None;
    }

    /// Looks, unless nothing can have changed (L3).
    pub(crate) fn look(&mut self, own: Deadline, listen: &Listen) {
        let here = crate::context::here();
        if self.seen.replace(here) == Some(here) {
            return;
        }
        self.deadline = own;
        if here.is_some() {
            self.deadline = own.min(Deadline::current());
        }
        self.ear = match (listen, here) {
            (Listen::To(token), _) => Ear::new(token.clone(), true),
            (Listen::Ambient, Some((_, false))) => Ear::around(),
            (Listen::Ambient | Listen::Nobody, _) => Ear::DEAF, // L2
        };
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.ear.token.as_ref().is_some_and(Token::is_cancelled)
    }

    /// Ready once the task is asked to end, if that is by a signal (L1).
    pub(crate) fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ear = &mut self.ear;
        let Some(token) = ear.token.as_ref().filter(|_| ear.may_signal) else {
            return Poll::Pending;
        };
        let cancelled = ear.cancelled.get_or_insert_with(|| token.cancelled());
        Pin::new(cancelled).poll(cx)
    }
}

struct Ear {
    token: Option<Token>,
    /// Whether it may signal while the run waits.
    may_signal: bool,
    cancelled: Option<Cancelled>,
}

impl Ear {
    const DEAF: Self = Self {
        token: None,
        may_signal: false,
        cancelled: None,
    };

    fn new(token: Token, may_signal: bool) -> Self {
        Self {
            token: Some(token),
            may_signal,
            cancelled: None,
        }
    }

    /// For the task that the caller is in.
    fn around() -> Self {
        let Some((core, serial)) = crate::context::current() else {
            return Self::DEAF;
        };
        let mut around = std::iter::successors(Some(&core), |core| core.parent());
        let may_signal = around.any(|core| core.may_signal());
        Self::new(Token::of(core, serial), may_signal)
    }
}
