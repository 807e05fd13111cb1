//! Each has a place of its own, or they share a lock.

use std::sync::Mutex;

use ringfence::{BorrowGroup, GroupError, borrow_scope};

async fn log() -> Result<(), GroupError<String>> {
    let log = Mutex::new(Vec::new());
    borrow_scope(async |group: BorrowGroup<'_, String>| {
        group.spawn(async { log.lock().unwrap().push(1) });
        group.spawn(async { log.lock().unwrap().push(2) });
        Ok(())
    })
    .await
}

fn main() {
    drop(log());
}
