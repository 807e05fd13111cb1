//! What `tracing` hears of groups.

use std::fmt::Debug;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use ringfence::inspect::Traced;
use ringfence::supervise::{Child, Supervisor};
use ringfence::{Limiter, Ready, Scope, TaskGroup, fan_out, root, scope};
use tokio::{sync::oneshot, task::yield_now};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

use crate::hearing::hearing;
use crate::support::{PanicOnDrop, paused, single_thread};

type Group = TaskGroup<String>;

/// Hears of events and of spans, which have one number each; throws, if it is to.
#[derive(Clone, Default)]
struct Ear {
    heard: Arc<Mutex<Vec<String>>>,
    throws: bool,
    /// What the one span is.
    span: Arc<OnceLock<&'static Metadata<'static>>>,
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Numbers of groups differ from run to run.
        if !matches!(field.name(), "task" | "spawned_at") {
            *self.0 += &format!(" {}={value:?}", field.name());
        }
    }
}

impl Ear {
    fn hear(&self, text: String) {
        self.heard.lock().expect("nobody panics").push(text);
        assert!(!self.throws, "a subscriber");
    }

    fn told(&self) -> Vec<String> {
        self.heard.lock().expect("nobody panics").clone()
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() || metadata.target() == "ringfence"
    }
    fn event(&self, event: &Event<'_>) {
        let mut text = event.metadata().level().to_string();
        event.record(&mut Fields(&mut text));
        self.hear(text);
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.span.set(span.metadata()).expect("one span");
        Id::from_u64(7)
    }
    fn current_span(&self) -> Current {
        let span = self.span.get().expect("asked for inside");
        Current::new(Id::from_u64(7), span)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {
        self.heard
            .lock()
            .expect("nobody panics")
            .push("in".to_owned());
    }
    fn exit(&self, _: &Id) {
        self.heard
            .lock()
            .expect("nobody panics")
            .push("out".to_owned());
    }
}

#[test]
fn the_birth_and_the_end_of_a_child_are_events() {
    let ear = Ear::default();
    hearing(&ear, || {
        paused(async || {
            let run = Scope::new().name("shop").observer(Arc::new(Traced));
            let run = run.run(async |group: &Group| {
                group.named("till").spawn(async {}).await;
                group.spawn(async { Err::<(), _>("no".to_owned()) });
                yield_now().await;
                Ok(())
            });
            assert!(run.await.is_err());
        });
    });
    assert_eq!(
        ear.told(),
        [
            "DEBUG message=spawned name=\"till\" group=\"shop\"",
            "DEBUG message=ended name=\"till\" group=\"shop\" outcome=\"completed\"",
            "DEBUG message=spawned group=\"shop\"",
            "WARN message=ended group=\"shop\" outcome=\"failed\"",
        ]
    );
}

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("thrown by a waker");
    }
}

#[test]
fn what_is_displaced_or_forced_is_an_event_without_an_observer() {
    let ear = Ear::default();
    hearing(&ear, || {
        paused(async || {
            let grace = Duration::from_secs(1);
            let run = Scope::new().grace(grace).run(async |group: &Group| {
                group.named("deaf").spawn(pending::<()>());
                yield_now().await;
                group.cancel();
                Ok(())
            });
            assert!(run.await.is_err());
            let mut dropped = Box::pin(scope(async |group: &Group| {
                group.spawn(async {
                    let _throws = PanicOnDrop("on the way out");
                    pending::<()>().await;
                });
                pending::<Result<(), String>>().await
            }));
            assert!(futures::poll!(&mut dropped).is_pending());
            yield_now().await;
            drop(dropped);
            root().wait(grace).await.expect("all are gone");
        });
        paused(async || {
            let limiter = Limiter::new(1);
            let held = limiter.try_acquire();
            let mut wait = pin!(limiter.acquire());
            let bomb = Waker::from(Arc::new(Bomb));
            let polled = wait.as_mut().poll(&mut Context::from_waker(&bomb));
            assert!(polled.is_pending());
            drop(held);
        });
        paused(async || {
            let child = |throws| {
                let bad = PanicOnDrop(throws);
                Child::temporary("t", move |_| {
                    let _inside = &bad;
                    async {}
                })
            };
            let over = Supervisor::new().child(child("a closure that is done with"));
            assert!(over.run().await.is_ok());
            drop(Supervisor::new().child(child("a closure of no use")));
        });
        single_thread(async || {
            let (release, gate) = mpsc::channel::<()>();
            let (begin, begun) = oneshot::channel::<()>();
            let run = Scope::new().give_up_blocking_after(Duration::ZERO);
            let run = run.run(async |group: &Group| {
                group.named("blocked").spawn_blocking(move || {
                    drop(begin);
                    assert!(gate.recv().is_err());
                });
                assert!(begun.await.is_err(), "it runs");
                group.cancel();
                Ok(())
            });
            assert!(run.await.is_err());
            drop(release);
        });
    });
    let heard = |level, part| {
        let is_it = |text: &String| text.starts_with(level) && text.contains(part);
        ear.told().iter().filter(|text| is_it(text)).count()
    };
    assert_eq!(heard("ERROR", "on the way out"), 1);
    assert_eq!(heard("ERROR", "thrown by a waker"), 1);
    assert_eq!(heard("ERROR", "a closure that is done with"), 1);
    assert_eq!(heard("ERROR", "a closure of no use"), 1);
    assert_eq!(heard("WARN", "deaf"), 1);
    assert_eq!(heard("WARN", "blocked"), 1);
    assert_eq!(heard("WARN", "given up"), 1);
}

#[test]
fn what_does_not_matter_is_an_event_for_debugging() {
    let ear = Ear::default();
    hearing(&ear, || {
        paused(async || {
            let first = fan_out(0..2).first_success(|number| async move {
                match number {
                    0 => Err("the loser".to_owned()),
                    other => Ok(other),
                }
            });
            assert_eq!(first.await.expect("one is good"), Some(1));
        });
    });
    let told = ear.told();
    let is_it = |text: &&String| text.starts_with("DEBUG") && text.contains("was overlooked");
    assert_eq!(told.iter().filter(is_it).count(), 1, "{told:?}");
}

#[test]
fn a_subscriber_that_throws_harms_no_group() {
    let ear = Ear {
        throws: true,
        ..Ear::default()
    };
    hearing(&ear, || {
        paused(async || {
            let run = Scope::new()
                .observer(Arc::new(Traced))
                .run(async |group: &Group| Ok(group.spawn(async { Ok(7) }).await));
            assert_eq!(run.await.expect("nobody fails"), 7);
        });
    });
    assert_eq!(ear.told().len(), 2);
}

#[test]
fn children_are_polled_in_the_span_of_their_scope_if_that_is_wished() {
    let ear = Ear::default();
    hearing(&ear, || {
        paused(async || {
            let span = tracing::info_span!("request");
            let plain = {
                let _inside = span.enter();
                Scope::new()
            };
            let scoped = {
                let _inside = span.enter();
                Scope::new().in_current_span()
            };
            ear.heard.lock().expect("nobody panics").clear();
            let run = plain.run(async |group: &Group| {
                group.spawn(yield_now()).await;
                Ok(())
            });
            run.await.expect("nobody fails");
            assert!(ear.told().is_empty(), "only if it is wished");
            let run = scoped.run(async |group: &Group| {
                group.spawn(yield_now()).await;
                let inner = scope(async |group: &Group| {
                    group.spawn(async {});
                    Ok(())
                });
                inner.await.map_err(|error| error.to_string())?;
                group.spawn_eager(async {}).await;
                let started = group.start(|it: Ready<()>| async { it.set(()) });
                started.await.expect("it is ready").1.await;
                Ok(())
            });
            run.await.expect("nobody fails");
            // Two polls of the first child, one of the one in the scope inside, one of the eager one, one of the one that is started.
            assert_eq!(ear.told(), ["in", "out"].repeat(5));
        });
    });
}
