//! How each helper comes to its answer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use super::held::Held;
use super::racers::Racers;
use crate::group::handle::{Outcome, TaskHandle};
use crate::observe::CancelReason;
use crate::state::Core;
use crate::time::{Deadline, timeout_at};

pub(super) async fn try_join_all<T, E>(mut racers: Racers<'_, Result<T, E>>) -> Result<Vec<T>, E> {
    let mut values: Vec<_> = racers.handles.iter().map(|_| None).collect();
    while racers.running > 0 {
        let (place, output) = match racers.next().await {
            Ok(end) => end,
            Err(place) => racers.stuck(place).await,
        };
        if matches!(output.get(), Some(Err(_))) {
            racers.finish().await;
            values = vec![Some(output)]; // Nobody takes the others.
            break;
        }
        values[place] = Some(output);
    }
    values
        .into_iter()
        .flatten()
        .filter_map(Held::take)
        .collect()
}

pub(super) async fn first<T>(mut racers: Racers<'_, T>) -> Option<T> {
    let mut lost = None;
    while racers.running > 0 {
        match racers.next().await {
            Ok((_, output)) => {
                racers.finish().await;
                return output.take();
            }
            Err(place) => lost = Some(place),
        }
    }
    match lost {
        Some(place) => racers.stuck(place).await,
        None => None,
    }
}

/// The engine of the races that look for a success: `start` starts the next one, or says that there is none.
pub(super) async fn staggered<'g, T, E>(
    mut racers: Racers<'g, Result<T, E>>,
    delay: Duration,
    mut start: impl FnMut(&mut Racers<'g, Result<T, E>>) -> bool,
) -> Result<T, Vec<E>> {
    let (mut ends, mut lost) = (Vec::new(), None);
    let mut is_more = start(&mut racers);
    while is_more && delay.is_zero() {
        is_more = start(&mut racers);
    }
    while racers.running > 0 {
        let end = if is_more {
            racers.next_within(delay).await
        } else {
            Some(racers.next().await)
        };
        match end {
            Some(Ok((_, output))) if matches!(output.get(), Some(Err(_))) => ends.push(output),
            Some(Ok((_, output))) => {
                ends = vec![output]; // Nobody takes the others.
                break;
            }
            Some(Err(place)) => lost = Some(place),
            None => {} // It is the next one's time.
        }
        is_more = is_more && start(&mut racers);
    }
    match lost {
        Some(place) if ends.is_empty() => racers.stuck(place).await,
        _ => racers.finish().await,
    }
    let mut errors = Vec::with_capacity(ends.len());
    for end in ends.into_iter().filter_map(Held::take) {
        errors.push(match end {
            Ok(value) => return Ok(value),
            Err(error) => error,
        });
    }
    Err(errors)
}

/// Handles whose children are cancelled if they are not waited for to the end (J3).
pub(super) struct Unfinished<'g, T> {
    handles: VecDeque<TaskHandle<'g, T>>,
    outcomes: Vec<Held<Outcome<T>>>,
    core: &'g Core,
}

impl<T> Drop for Unfinished<'_, T> {
    fn drop(&mut self) {
        self.handles.iter().for_each(TaskHandle::cancel);
    }
}

impl<'g, T> Unfinished<'g, T> {
    pub(super) fn new(core: &'g Core, handles: impl Iterator<Item = TaskHandle<'g, T>>) -> Self {
        let handles: VecDeque<_> = handles.collect();
        Self {
            outcomes: Vec::with_capacity(handles.len()),
            handles,
            core,
        }
    }

    /// Waits for the rest, in their order.
    async fn settle(&mut self) {
        while let Some(handle) = self.handles.front_mut() {
            let outcome = poll_fn(|cx| handle.poll_outcome(cx)).await;
            self.outcomes.push(Held::of(outcome, self.core));
            self.handles.pop_front();
        }
    }

    fn outcomes(mut self) -> Vec<Outcome<T>> {
        self.outcomes.drain(..).filter_map(Held::take).collect()
    }
}

pub(super) async fn settle_all<T>(mut all: Unfinished<'_, T>) -> Vec<Outcome<T>> {
    all.settle().await;
    all.outcomes()
}

pub(super) async fn settle_all_by<T>(
    mut all: Unfinished<'_, T>,
    deadline: Deadline,
) -> Vec<Outcome<T>> {
    if timeout_at(deadline, all.settle()).await.is_ok() {
        return all.outcomes();
    }
    let in_time = all.outcomes.len();
    all.handles.iter().for_each(TaskHandle::cancel);
    all.settle().await;
    for outcome in all.outcomes[in_time..].iter_mut().filter_map(Held::get_mut) {
        // Nobody else has the handles.
        if matches!(outcome, Outcome::Cancelled(CancelReason::Handle)) {
            *outcome = Outcome::Cancelled(CancelReason::Deadline);
        }
    }
    all.outcomes()
}
