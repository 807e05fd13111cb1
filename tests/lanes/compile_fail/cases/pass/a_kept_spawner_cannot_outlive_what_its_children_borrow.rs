//! As long as that lives, it may be kept.

use ringfence::{BorrowGroup, GroupError, borrow_scope};

async fn keep() -> Result<bool, GroupError<String>> {
    let words = vec!["local".to_owned()];
    let spawner = borrow_scope(async |group: BorrowGroup<'_, String>| {
        group.spawn(async { Ok(words.len()) }).await;
        Ok(group.spawner())
    })
    .await?;
    Ok(spawner.is_open())
}

fn main() {
    drop(keep());
}
