use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::poll;

/// Polls a future once, which has to wait, does something, and drops it.
fn cut<R>(future: impl Future, meanwhile: impl FnOnce() -> R) -> R {
    let mut future = Box::pin(future);
    assert!(poll(future.as_mut()).is_pending());
    meanwhile()
}

/// Full with one item, a second one waits to be sent; the first is taken, the send dropped. Is the second in?
#[test]
fn flume_and_kanal_deliver_what_a_dropped_send_had() {
    let (flume, from_flume) = flume::bounded(1);
    flume.try_send(1).expect("room");
    cut(flume.send_async(2), || {
        from_flume.try_recv().expect("the first")
    });
    assert_eq!(from_flume.try_recv(), Ok(2));

    let (kanal, from_kanal) = kanal::bounded_async(1);
    assert_eq!(kanal.try_send(1), Ok(true));
    cut(kanal.send(2), || from_kanal.try_recv().expect("the first"));
    assert_eq!(from_kanal.try_recv(), Ok(Some(2)));

    let (channel, from_channel) = async_channel::bounded(1);
    channel.try_send(1).expect("room");
    cut(channel.send(2), || {
        from_channel.try_recv().expect("the first")
    });
    assert!(from_channel.try_recv().is_err());

    let (crossfire, from_crossfire) = crossfire::mpmc::bounded_async::<u32>(1);
    crossfire.try_send(1).expect("room");
    cut(crossfire.send(2), || {
        from_crossfire.try_recv().expect("the first")
    });
    assert!(from_crossfire.try_recv().is_err());

    let (tokio, mut from_tokio) = tokio::sync::mpsc::channel(1);
    tokio.try_send(1).expect("room");
    cut(tokio.send(2), || from_tokio.try_recv().expect("the first"));
    assert!(from_tokio.try_recv().is_err());

    let (ours, mut from_ours) = ringfence::queue::bounded(1);
    ours.try_send(1).expect("room");
    cut(ours.send(2), || from_ours.try_recv().expect("the first"));
    assert!(from_ours.try_recv().is_err());
}

/// A receive waits, an item comes, the receive is dropped. Is the item still there?
#[test]
fn kanal_loses_the_item_of_a_dropped_receive() {
    let (kanal, from_kanal) = kanal::bounded_async(4);
    assert_eq!(cut(from_kanal.recv(), || kanal.try_send(7)), Ok(true));
    assert_eq!(
        from_kanal.try_recv(),
        Ok(None),
        "it is in no place any more"
    );

    let (flume, from_flume) = flume::bounded(4);
    cut(from_flume.recv_async(), || flume.try_send(7).expect("room"));
    assert_eq!(from_flume.try_recv(), Ok(7));

    let (channel, from_channel) = async_channel::bounded(4);
    cut(from_channel.recv(), || channel.try_send(7).expect("room"));
    assert_eq!(from_channel.try_recv(), Ok(7));

    let (crossfire, from_crossfire) = crossfire::mpmc::bounded_async::<u32>(4);
    cut(from_crossfire.recv(), || {
        crossfire.try_send(7).expect("room")
    });
    assert_eq!(from_crossfire.try_recv(), Ok(7));

    let (tokio, mut from_tokio) = tokio::sync::mpsc::channel(4);
    cut(from_tokio.recv(), || tokio.try_send(7).expect("room"));
    assert_eq!(from_tokio.try_recv(), Ok(7));

    let (ours, mut from_ours) = ringfence::queue::bounded(4);
    cut(from_ours.recv(), || ours.try_send(7).expect("room"));
    assert_eq!(from_ours.try_recv(), Ok(7));
}

#[test]
fn async_channel_and_crossfire_let_a_newcomer_send_before_who_waits() {
    let (channel, from_channel) = async_channel::bounded(1);
    channel.try_send(1).expect("room");
    cut(channel.send(2), || {
        from_channel.try_recv().expect("the first");
        channel.try_send(3).expect("overtaken");
    });

    let (crossfire, from_crossfire) = crossfire::mpmc::bounded_async::<u32>(1);
    crossfire.try_send(1).expect("room");
    cut(crossfire.send(2), || {
        from_crossfire.try_recv().expect("the first");
        crossfire.try_send(3).expect("overtaken");
    });

    let (flume, from_flume) = flume::bounded(1);
    flume.try_send(1).expect("room");
    cut(flume.send_async(2), || {
        from_flume.try_recv().expect("the first");
        flume.try_send(3).expect_err("in line");
    });

    let (kanal, from_kanal) = kanal::bounded_async(1);
    assert_eq!(kanal.try_send(1), Ok(true));
    cut(kanal.send(2), || {
        from_kanal.try_recv().expect("the first");
        assert_eq!(kanal.try_send(3), Ok(false));
    });

    let (tokio, mut from_tokio) = tokio::sync::mpsc::channel(1);
    tokio.try_send(1).expect("room");
    cut(tokio.send(2), || {
        from_tokio.try_recv().expect("the first");
        tokio.try_send(3).expect_err("in line");
    });

    let (ours, mut from_ours) = ringfence::queue::bounded(1);
    ours.try_send(1).expect("room");
    cut(ours.send(2), || {
        from_ours.try_recv().expect("the first");
        ours.try_send(3).expect_err("in line");
    });
}

#[test]
fn async_channel_crossfire_and_flume_let_a_newcomer_receive_before_who_waits() {
    let (channel, from_channel) = async_channel::bounded(4);
    cut(from_channel.recv(), || {
        channel.try_send(7).expect("room");
        from_channel.try_recv().expect("overtaken");
    });

    let (crossfire, from_crossfire) = crossfire::mpmc::bounded_async::<u32>(4);
    cut(from_crossfire.recv(), || {
        crossfire.try_send(7).expect("room");
        from_crossfire.try_recv().expect("overtaken");
    });

    let (flume, from_flume) = flume::bounded(4);
    cut(from_flume.recv_async(), || {
        flume.try_send(7).expect("room");
        from_flume.try_recv().expect("overtaken");
    });

    let (kanal, from_kanal) = kanal::bounded_async(4);
    cut(from_kanal.recv(), || {
        assert_eq!(kanal.try_send(7), Ok(true));
        assert_eq!(from_kanal.try_recv(), Ok(None));
    });

    let (ours, mut from_ours) = ringfence::queue::bounded(4);
    let mut other = from_ours.clone();
    cut(from_ours.recv(), || {
        ours.try_send(7).expect("room");
        other.try_recv().expect_err("in line");
    });
}

#[test]
fn kanal_drops_what_is_in_it_when_it_is_closed() {
    let (kanal, from_kanal) = kanal::bounded_async(4);
    assert_eq!(kanal.try_send(7), Ok(true));
    kanal.close().expect("open");
    from_kanal.try_recv().expect_err("gone");

    let (channel, from_channel) = async_channel::bounded(4);
    channel.try_send(7).expect("room");
    channel.close();
    assert_eq!(from_channel.try_recv(), Ok(7));

    let (tokio, mut from_tokio) = tokio::sync::mpsc::channel(4);
    tokio.try_send(7).expect("room");
    from_tokio.close();
    assert_eq!(from_tokio.try_recv(), Ok(7));

    let (ours, mut from_ours) = ringfence::queue::bounded(4);
    ours.try_send(7).expect("room");
    ours.close();
    assert_eq!(from_ours.try_recv(), Ok(7));
}

const ITEMS: u32 = 5_000;

/// How many turns another task of the same thread had while one task received all items.
fn turns_of_others<F: Future<Output = ()> + Send + 'static>(receive_all: F) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let turns = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
        tokio::spawn(receive_all).await.expect("no panic");
        other.abort();
        turns.load(Ordering::SeqCst)
    })
}

#[test]
fn all_but_tokio_and_ours_receive_what_is_there_in_one_turn() {
    macro_rules! turns {
        ($pair:expr, $recv:ident $(, $mut:tt)?) => {{
            let (sender, $($mut)? receiver) = $pair;
            for n in 0..ITEMS {
                let _ = sender.try_send(n);
            }
            turns_of_others(async move {
                for _ in 0..ITEMS {
                    assert!(receiver.$recv().await.is_ok_or_some());
                }
                drop(sender);
            })
        }};
    }
    const ALL: usize = ITEMS as usize;
    assert_eq!(turns!(async_channel::bounded(ALL), recv), 1);
    assert_eq!(turns!(flume::bounded(ALL), recv_async), 1);
    assert_eq!(turns!(kanal::bounded_async(ALL), recv), 1);
    assert_eq!(turns!(crossfire::mpmc::bounded_async::<u32>(ALL), recv), 1);
    assert!(turns!(tokio::sync::mpsc::channel(ALL), recv, mut) > 30);
    assert!(turns!(ringfence::queue::bounded(ALL), recv, mut) > 30);
}

trait IsOkOrSome {
    fn is_ok_or_some(&self) -> bool;
}

impl<T, E> IsOkOrSome for Result<T, E> {
    fn is_ok_or_some(&self) -> bool {
        self.is_ok()
    }
}

impl<T> IsOkOrSome for Option<T> {
    fn is_ok_or_some(&self) -> bool {
        self.is_some()
    }
}
