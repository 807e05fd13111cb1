//! Observers that misbehave.

use std::sync::{Arc, OnceLock};

use ringfence::{
    Displaced, Ended, Observer, Scope, Spawner, Straggler, TaskGroup, TaskInfo, token,
};
use tokio::{task::yield_now, time::sleep};

use super::ms;
use crate::support::{Count, paused};

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
