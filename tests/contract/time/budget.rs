//! Time and the budget of a task: who spends it all hides no clock, and who waits for no time lets others run.

use std::future::pending;

use ringfence::{Scope, scope, timeout};
use tokio::{
    task::{coop::consume_budget, yield_now},
    time::advance,
};

use super::{Done, Group, ms};
use crate::support::{Count, paused};

#[test]
fn a_body_that_spends_its_budget_does_not_hide_the_deadline() {
    for grace in [0, 5] {
        paused(async || {
            let spent = Count::new();
            let options = Scope::new().deadline(ms(10)).grace(ms(grace));
            let ended = options.run(async |_: &Group| -> Done {
                yield_now().await; // the clock runs
                advance(ms(20)).await;
                for _ in 0..100_000 {
                    spent.add();
                    consume_budget().await;
                    if grace > 0 && ringfence::token().is_cancelled() {
                        break;
                    }
                }
                Ok(())
            });
            let error = ended.await.expect_err("it was too late");
            assert!(error.is_deadline_exceeded());
            assert!(spent.get() < 10_000, "{}", spent.get());
        });
    }
}

#[test]
fn a_loop_of_timeouts_of_zero_lets_the_others_run() {
    paused(async || {
        let ran = Count::new();
        let ended = scope(async |group: &Group| -> Done {
            let seen = ran.clone();
            group.spawn(async move {
                seen.add();
            });
            for _ in 0..100_000 {
                assert!(timeout(ms(0), pending::<()>()).await.is_err());
                if ran.get() > 0 {
                    return Ok(());
                }
            }
            Err("nobody else had a turn".to_owned())
        });
        ended.await.unwrap();
    });
}
