//! What a scope is made with, and what it hands down.

use crate::observe::{Observer, path};
use crate::state::Core;
use crate::sync::PlainArc;
use crate::time::Deadline;
use crate::trace::Span;

/// What a scope is made with.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) name: Option<PlainArc<str>>,
    pub(crate) has_grace: bool,
    /// Whether a grace may be given later.
    pub(crate) is_long_lived: bool,
    /// Whether work that outlasts its child can be given up.
    pub(crate) gives_up: bool,
    /// Whether the scope is opened in a section that is shielded.
    pub(crate) is_shielded: bool,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) observer: Option<PlainArc<dyn Observer>>,
    /// What children are polled in.
    pub(crate) span: Option<Span>,
    /// The member of the parent that the scope was opened in.
    pub(crate) opener: u64,
}

/// What the groups around a scope, and itself, have set; shared with the scopes inside that set nothing.
pub(crate) struct Inherited {
    pub(super) path: Option<PlainArc<str>>,
    pub(super) deadline: Deadline,
    pub(super) observer: Option<PlainArc<dyn Observer>>,
    pub(super) span: Option<Span>,
}

/// Works out what a new scope goes by. Where it sets nothing itself, it shares what is around it.
pub(super) fn inherit(settings: Settings, parent: Option<&Core>) -> Option<PlainArc<Inherited>> {
    let Settings {
        name,
        deadline,
        mut observer,
        span,
        opener,
        is_shielded,
        ..
    } = settings;
    let around = parent.and_then(|parent| parent.inherited.as_ref());
    // Through the child it is opened in, if that one has a name.
    let through = parent.and_then(|parent| parent.name_of(opener));
    if parent.is_none() && observer.is_none() {
        observer = crate::observe::process().cloned();
    }
    let outer = around.map_or(Deadline::NEVER, |around| around.deadline);
    // A section that is shielded has until its bound, whatever the deadline around it.
    let is_shielded = is_shielded && outer != Deadline::NEVER;
    let outer = if is_shielded { Deadline::NEVER } else { outer };
    if name.is_none()
        && through.is_none()
        && deadline.is_none()
        && observer.is_none()
        && span.is_none()
        && !is_shielded
    {
        return around.cloned();
    }
    let above = path(
        around.and_then(|around| around.path.as_ref()),
        through.as_deref(),
    );
    Some(PlainArc::new(Inherited {
        path: path(above.as_ref(), name.as_deref()),
        deadline: deadline.map_or(outer, |own| own.min(outer)),
        observer: observer.or_else(|| around.and_then(|around| around.observer.clone())),
        span: span.or_else(|| around.and_then(|around| around.span.clone())),
    }))
}

impl Inherited {
    pub(crate) fn observer(&self) -> Option<&PlainArc<dyn Observer>> {
        self.observer.as_ref()
    }
}
