//! A detached handle goes anywhere, and yields the outcome.

use ringfence::{BorrowGroup, GroupError, OutcomeHandle, borrow_scope};

async fn late(words: &[String]) -> Result<Option<usize>, GroupError<String>> {
    let handle: OutcomeHandle<usize> =
        borrow_scope(async |group: BorrowGroup<'_, String>| {
            Ok(group.spawn(async { Ok(words.len()) }).detached())
        })
        .await?;
    Ok(handle.await.completed())
}

fn main() {
    drop(late(&[]));
}
