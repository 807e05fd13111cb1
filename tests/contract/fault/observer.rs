//! Observers that misbehave.

use std::{
    process::Command,
    sync::{Arc, OnceLock},
};

use ringfence::{
    Displaced, Ended, Observer, Scope, Spawner, Straggler, TaskGroup, TaskInfo, observe, scope,
    token,
};
use tokio::{task::yield_now, time::sleep};

use super::{Notes, ms};
use crate::support::{Count, PanicOnDrop, paused};

/// Uses the group in each hook, and then panics.
#[derive(Default)]
struct Rude {
    group: OnceLock<Spawner<String>>,
    spawned: Count,
    ended: Count,
    others: Count,
}

impl Rude {
    fn misbehave(&self, count: &Count) {
        let number = count.add();
        if let Some(group) = self.group.get() {
            let (is_open, _) = (group.is_open(), format!("{group:?}"));
            if number < 3 && is_open {
                group.spawn(yield_now());
            }
            drop(group.guard());
        }
        panic!("in the hook");
    }
}

impl Observer for Rude {
    fn spawned(&self, _: &TaskInfo) {
        self.misbehave(&self.spawned);
    }

    fn ended(&self, _: &TaskInfo, _: &Ended) {
        self.misbehave(&self.ended);
    }

    fn displaced(&self, _: &Displaced) {
        self.misbehave(&self.others);
    }

    fn forced(&self, _: &Straggler) {
        self.misbehave(&self.others);
    }
}

#[test]
fn an_observer_that_uses_the_group_and_panics_in_every_hook_harms_nobody() {
    paused(async || {
        let rude = Arc::new(Rude::default());
        let seen = rude.clone();
        let ended = Scope::new().grace(ms(10)).observer(rude.clone()).run(
            async |group: &TaskGroup<String>| {
                seen.group.set(group.spawner()).expect("once");
                assert_eq!(group.spawn(async { Ok(7) }).await, 7);
                group.named("deaf").spawn(std::future::pending::<()>());
                group.spawn(async {
                    token().cancelled().await;
                    Err::<(), _>("on the way out".to_owned())
                });
                sleep(ms(5)).await;
                group.cancel();
                std::future::pending::<Result<(), _>>().await
            },
        );
        let error = ended.await.expect_err("it was cancelled");
        assert!(error.is_cancelled());
        assert_eq!((error.len(), error.forced().len()), (1, 2));
        // Three of its own beside the three of the test, and each heard of once more.
        assert_eq!(rude.spawned.get(), rude.ended.get());
        assert!(rude.spawned.get() > 5, "{}", rude.spawned.get());
        assert_eq!(rude.others.get(), 2, "the deaf one, and the body");
    });
}

#[test]
fn of_two_observers_one_that_panics_keeps_nothing_from_the_other() {
    paused(async || {
        let (rude, notes) = (Arc::new(Rude::default()), Notes::default());
        for first in [true, false] {
            let options = Scope::new();
            let options = if first {
                options.observer(Arc::new((rude.clone(), notes.clone())))
            } else {
                options.observer(Arc::new((notes.clone(), rude.clone())))
            };
            let ended = options.run(async |group: &TaskGroup<String>| {
                drop(group.spawn(async { Ok(PanicOnDrop("value")) }));
                Ok(())
            });
            assert!(ended.await.is_ok());
        }
        assert_eq!((rude.spawned.get(), notes.spawned.get()), (2, 2));
        assert_eq!((rude.ended.get(), notes.ended.entries().len()), (2, 2));
        assert_eq!(notes.displaced.entries(), ["value", "value"]);
        assert_eq!(rude.others.get(), 2);
    });
}

#[test]
fn the_observer_of_the_process_hears_of_scopes_that_have_no_other() {
    const MARK: &str = "RINGFENCE_TEST_OBSERVES";
    const NAME: &str =
        "fault::observer::the_observer_of_the_process_hears_of_scopes_that_have_no_other";
    // It is there for good, so the test has a process of its own.
    if std::env::var_os(MARK).is_none() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([NAME, "--exact", "--test-threads=1"])
            .env(MARK, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    paused(async || {
        let (process, own) = (Notes::default(), Notes::default());
        let opened_before = scope(async |group: &TaskGroup<String>| {
            assert!(observe(Arc::new(process.clone())).is_ok());
            group.spawn(async { Ok(PanicOnDrop("early")) });
            Ok(())
        });
        assert!(opened_before.await.is_ok());
        assert!(observe(Arc::new(own.clone())).is_err(), "there is one");
        let dropped = scope(async |group: &TaskGroup<String>| {
            group.spawn(async { Ok(PanicOnDrop("value")) });
            Ok(())
        });
        assert!(dropped.await.is_ok());
        let inner = Scope::new().observer(Arc::new(own.clone()));
        let outer = scope(async |_: &TaskGroup<String>| {
            let spawns = async |group: &TaskGroup<String>| Ok(group.spawn(async { Ok(7) }).await);
            inner.run(spawns).await.map_err(|error| error.to_string())
        });
        assert!(outer.await.is_ok());
        assert_eq!((process.spawned.get(), own.spawned.get()), (1, 1));
        assert_eq!(process.displaced.entries(), ["early", "value"]);
    });
}
