//! What a run tells `tracing`.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use ringfence::{Hedge, RetryBudget};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use super::{Oops, STEADY, ms};
use crate::hearing::hearing;
use crate::support::paused;

/// An event: its level and its fields.
type Told = (Level, Vec<(&'static str, String)>);

#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<Told>>>);

struct Fields<'a>(&'a mut Vec<(&'static str, String)>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ringfence"
    }
    fn event(&self, event: &Event<'_>) {
        let mut fields = Vec::new();
        event.record(&mut Fields(&mut fields));
        self.0
            .lock()
            .expect("nobody panics with it")
            .push((*event.metadata().level(), fields));
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What was told, one line an event.
fn told(run: impl AsyncFnOnce()) -> Vec<String> {
    let ear = Ear::default();
    hearing(&ear, || paused(run));
    let told = ear.0.lock().expect("nobody panics with it");
    let line = |(level, fields): &Told| {
        let mut text = level.to_string();
        for (name, value) in fields {
            match *name {
                "message" => text += &format!(" {value}:"),
                _ => text += &format!(" {name}={value}"),
            }
        }
        text
    };
    told.iter().map(line).collect()
}

#[test]
fn each_retry_and_each_end_is_an_event() {
    let lines = told(async || {
        let run = STEADY.retry(|attempt| async move { Err::<(), _>(Oops(attempt.number)) });
        assert!(run.await.is_err());
        let run = STEADY.retry(|attempt| async move {
            if attempt.number == 1 {
                Err(Oops(1))
            } else {
                Ok(())
            }
        });
        assert!(run.await.is_ok());
        // No pause, no event that is lost.
        let run = STEADY.without_pauses();
        assert!(
            run.retry(|_| async { Err::<(), _>(Oops(0)) })
                .await
                .is_err()
        );
    });
    assert_eq!(
        lines,
        [
            "WARN an attempt failed; trying again: attempt=1 delay_ms=100 elapsed_ms=0",
            "WARN an attempt failed; trying again: attempt=2 delay_ms=100 elapsed_ms=100",
            "ERROR gave up: attempt=3 elapsed_ms=200 reason=no attempts left",
            "WARN an attempt failed; trying again: attempt=1 delay_ms=100 elapsed_ms=0",
            "WARN an attempt failed; trying again: attempt=1 delay_ms=0 elapsed_ms=0",
            "WARN an attempt failed; trying again: attempt=2 delay_ms=0 elapsed_ms=0",
            "ERROR gave up: attempt=3 elapsed_ms=0 reason=no attempts left",
        ]
    );
}

#[test]
fn each_copy_and_each_refusal_is_an_event() {
    let slow = async |_| {
        tokio::time::sleep(ms(300)).await;
        Ok::<_, Oops>(())
    };
    let lines = told(async || {
        let budget = RetryBudget::new(0.0).capacity(1).reserve(0);
        for _ in 0..2 {
            let run = Hedge::after(ms(100)).run(slow).budget(&budget);
            assert!(run.await.is_ok());
        }
        let at_once = Hedge::after(Duration::ZERO).run(slow);
        assert!(at_once.await.is_ok());
        assert!(Hedge::after(Duration::MAX).run(slow).await.is_ok());
    });
    assert_eq!(
        lines,
        [
            "WARN another copy was started: attempt=2 elapsed_ms=100",
            "WARN no budget for another copy: attempt=2 elapsed_ms=100",
            "WARN another copy was started: attempt=2 elapsed_ms=0"
        ]
    );
}
