//! Two children take turns, but either may be in the middle of its work.

use ringfence::{BorrowGroup, GroupError, borrow_scope};

async fn log() -> Result<(), GroupError<String>> {
    let mut log = Vec::new();
    borrow_scope(async |group: BorrowGroup<'_, String>| {
        group.spawn(async { log.push(1) });
        group.spawn(async { log.push(2) });
        Ok(())
    })
    .await
}

fn main() {
    drop(log());
}
