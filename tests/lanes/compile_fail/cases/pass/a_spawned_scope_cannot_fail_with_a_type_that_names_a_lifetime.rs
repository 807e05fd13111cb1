//! A type of its own names none.

use ringfence::{TaskGroup, scope};

fn send<F: Future + Send>(future: F) -> F {
    future
}

fn main() {
    drop(send(async {
        scope(async |group: &TaskGroup| {
            group.spawn(async { Err::<(), _>("no lifetime, please".into()) });
            Ok(())
        })
        .await
    }));
}
