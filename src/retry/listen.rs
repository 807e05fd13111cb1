//! What a run hears: whether its task was asked to end.
//!
//! L1. Nothing is registered before a wait that a cancel has to end, and nothing at all where no signal can come: a group
//! without a grace drops its tasks where they are parked. L2. In a shield nobody is asked to end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::cancel::{Cancelled, Token};
use crate::state::Core;
use crate::sync::Arc;

/// The group that a run is in, and which member it is.
pub(crate) type Around = (Arc<Core>, u64);

/// What a run was told to listen to.
#[derive(Clone, Default)]
pub(crate) enum Listen {
    /// To the task that the run is in.
    #[default]
    Ambient,
    To(Token),
    Nobody,
}

impl From<Option<Token>> for Listen {
    fn from(token: Option<Token>) -> Self {
        token.map_or(Self::Nobody, Self::To)
    }
}

/// The ear of a run that has begun.
pub(crate) struct Ear {
    token: Option<Token>,
    /// Whether it may signal while the run waits.
    may_signal: bool,
    cancelled: Option<Cancelled>,
}

impl Ear {
    pub(crate) const DEAF: Self = Self {
        token: None,
        may_signal: false,
        cancelled: None,
    };

    pub(crate) fn new(listen: Listen, around: Option<Around>) -> Self {
        let (token, may_signal) = match (listen, around) {
            (Listen::To(token), _) => (token, true),
            (Listen::Ambient, Some((core, serial))) if !crate::context::is_inside_shield() => {
                let mut around = std::iter::successors(Some(&core), |core| core.parent());
                let may_signal = around.any(|core| core.may_signal());
                (Token::of(core, serial), may_signal)
            }
            (Listen::Ambient | Listen::Nobody, _) => return Self::DEAF, // L2
        };
        Self {
            token: Some(token),
            may_signal,
            cancelled: None,
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.token.as_ref().is_some_and(Token::is_cancelled)
    }

    /// Ready once the task is asked to end, if that is by a signal (L1).
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(token) = self.token.as_ref().filter(|_| self.may_signal) else {
            return Poll::Pending;
        };
        let cancelled = self.cancelled.get_or_insert_with(|| token.cancelled());
        Pin::new(cancelled).poll(cx)
    }
}
