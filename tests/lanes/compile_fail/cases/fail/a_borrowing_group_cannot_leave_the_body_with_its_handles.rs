//! A handle borrows the group, and stays in the body with it.

use ringfence::{BorrowGroup, GroupError, TaskHandle, borrow_scope};

async fn late(words: &[String]) -> Result<usize, GroupError<String>> {
    let handle: TaskHandle<'_, usize> =
        borrow_scope(async |group: BorrowGroup<'_, String>| {
            Ok(group.spawn(async { Ok(words.len()) }))
        })
        .await?;
    Ok(handle.await)
}

fn main() {
    drop(late(&[]));
}
