//! Every way in, of both kinds of scopes in the caller's task.

use std::future::pending;

use ringfence::{
    BorrowGroup, BoxError, CancelReason, Cause, LocalGroup, borrow_scope, local_scope,
};

use super::paused;

macro_rules! every_way_in {
    ($scope:ident $Group:ident) => {
        let (count, name) = (std::cell::Cell::new(0), stringify!($Group));
        let done = $scope(async |group: $Group<'_, BoxError>| {
            let spawner = group.spawner();
            for (shown, name) in [
                (format!("{group:?}"), name.to_owned()),
                (format!("{spawner:?}"), name.replace("Group", "Spawner")),
                (
                    format!("{:?}", group.named("a")),
                    name.replace("Group", "Named { name: \"a\""),
                ),
            ] {
                assert!(shown.starts_with(&name), "{shown}");
            }
            let background = spawner.spawn_background(pending::<()>());
            let named = group.named("b").spawn_background(pending::<()>());
            assert_eq!(group.len(), 2);
            group.try_spawn(async {}).expect("it is open").await;
            group
                .named("c")
                .try_spawn(async {})
                .expect("it is open")
                .await;
            count.set(group.len());
            drop((background, named));
            Ok((group.token(), spawner.token()))
        });
        let tokens = done.await.expect("nobody fails");
        assert!(count.get() == 2 && tokens.0.is_cancelled() && tokens.1.is_cancelled());

        let done = $scope(async |group: $Group<'_, BoxError>| {
            group.cancel_with("enough");
            for refused in [
                group
                    .try_spawn(async {})
                    .err()
                    .map(|error| error.reason().clone()),
                group
                    .named("d")
                    .try_spawn(async {})
                    .err()
                    .map(|error| error.reason().clone()),
                group.token().reason(),
            ] {
                let Some(CancelReason::Requested { note, .. }) = refused else {
                    panic!("{refused:?}");
                };
                assert_eq!(note.as_deref(), Some("enough"));
            }
            pending::<Result<(), _>>().await
        });
        let error = done.await.expect_err("it was cancelled");
        assert!(matches!(
            error.cause(),
            Cause::Cancelled(CancelReason::Requested { .. })
        ));
    };
}

#[test]
fn every_way_in_and_out_is_there_for_borrowing_and_for_local_children() {
    paused(async || {
        every_way_in!(borrow_scope BorrowGroup);
        every_way_in!(local_scope LocalGroup);
    });
}
