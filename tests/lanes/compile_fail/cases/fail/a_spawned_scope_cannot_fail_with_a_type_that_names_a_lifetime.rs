//! In what is spawned, the compiler forgets the lifetimes that types name, and then cannot find the body again. If this
//! one day compiles, `BoxError` may be an alias.

use ringfence::{TaskGroup, scope};

fn send<F: Future + Send>(future: F) -> F {
    future
}

fn main() {
    drop(send(async {
        scope(async |group: &TaskGroup<&'static str>| {
            group.spawn(async { Err::<(), _>("no lifetime, please") });
            Ok(())
        })
        .await
    }));
}
