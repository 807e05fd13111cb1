//! Whoever sees a fault: callers, hooks, the observer.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use ringfence::supervise::ChildEnd;
use ringfence::{
    BoxError, Displaced, DisplacedWhat, Ended, FailureKind, FlightError, GroupError, Observer,
    PanicPayload, RetryError, Straggler, TaskInfo,
};

use crate::ledger::{ENDED, Fault, Kind, SPAWNED, broken, count};

/// Sees the fault that this is the text of.
pub fn see_text(text: &str) {
    match text
        .strip_prefix("fault ")
        .and_then(|number| number.parse().ok())
    {
        Some(number) => Fault::numbered(number).see(),
        None => broken(format!("a panic of somebody else: {text}")),
    }
}

pub fn see_panic(panic: &PanicPayload) {
    see_text(panic.message());
}

/// Sees what a thread or a task was thrown.
pub fn see_payload(payload: &(dyn Any + Send)) {
    match (
        payload.downcast_ref::<String>(),
        payload.downcast_ref::<&str>(),
    ) {
        (Some(text), _) => see_text(text),
        (_, Some(text)) => see_text(text),
        _ => broken("a payload of somebody else"),
    }
}

pub fn see_box(error: &BoxError) {
    match error.downcast_ref::<Fault>() {
        Some(fault) => fault.see(),
        None => broken(format!("an error of somebody else: {error}")),
    }
}

/// Sees how a supervised run ended.
pub fn see_end(end: &ChildEnd) {
    end.error().map(see_box);
    end.panic().map(see_panic);
}

pub fn see_flight(error: &FlightError<Fault>) {
    match error {
        FlightError::Failed(fault) => fault.see(),
        FlightError::Panicked(panic) => see_panic(panic),
        _ => {}
    }
}

/// Sees all that a group failed with.
pub fn see_failures<'a, E: 'a>(
    failures: impl IntoIterator<Item = &'a ringfence::Failure<E>>,
    see: impl Fn(&E),
) {
    for failure in failures {
        match failure.kind() {
            FailureKind::Error(error) => see(error),
            FailureKind::Panic(panic) => see_panic(panic),
            _ => broken("a failure of a kind that is not known"),
        }
    }
}

/// Takes a result of a scope: the value, or nothing when everything in the error has been seen.
pub fn settle<T>(ended: Result<T, GroupError<Fault>>) -> Option<T> {
    ended
        .inspect_err(|error| see_failures(error, Fault::see))
        .ok()
}

/// Hears what nobody else was told, and counts children.
pub struct Collector;

impl Observer for Collector {
    fn spawned(&self, _: &TaskInfo) {
        SPAWNED.fetch_add(1, SeqCst);
    }

    fn ended(&self, _: &TaskInfo, _: &Ended) {
        ENDED.fetch_add(1, SeqCst);
    }

    fn displaced(&self, displaced: &Displaced) {
        let any: &(dyn Any + Send) = match &displaced.what {
            DisplacedWhat::Panic(panic) => return see_panic(panic),
            DisplacedWhat::Error(error) | DisplacedWhat::Overlooked(error) => &**error,
            _ => return broken("something displaced of a kind that is not known"),
        };
        if let Some(fault) = any.downcast_ref::<Fault>() {
            fault.see();
        } else if let Some(error) = any.downcast_ref::<BoxError>() {
            see_box(error);
        } else if let Some(error) = any.downcast_ref::<Arc<BoxError>>() {
            see_box(error);
        } else if let Some(error) = any.downcast_ref::<RetryError<Fault>>() {
            error.last_error().map(Fault::see);
        } else if !any.is::<ringfence::Elapsed>() {
            broken(format!(
                "displaced, of a type that is not known: {displaced}"
            ));
        }
    }

    fn abandoned(&self, _: &Straggler) {
        count(Kind::GivenUp);
    }
}
