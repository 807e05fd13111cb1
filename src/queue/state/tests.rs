//! What only the state itself can show.

use std::collections::VecDeque;
use std::task::Waker;

use super::{Capacity, Discarded, Effects, Overflow, State, Turn};
use crate::queue::store::Store;

const PLAIN: (i64, usize) = (0, 1);

fn rendezvous(overflow: Overflow) -> State<u32> {
    State::new(Store::sorted(), Capacity::Rendezvous, overflow, false)
}

/// N10.
#[test]
fn a_ring_where_nobody_waits_goes_the_short_way() {
    let store = Store::Fifo(VecDeque::new());
    let mut state = State::new(store, Capacity::Limit(2), Overflow::Wait, false);
    assert!(state.is_ring());
    assert!(state.put_alone(&mut Some(1)));
    assert!(state.put_alone(&mut Some(2)));
    assert!(!state.put_alone(&mut Some(3)), "there is no room");
    assert_eq!(state.take_alone(true), Some(1));
    assert!(!state.put_alone(&mut Some(3)), "a delivery keeps its room");
    assert!(state.finish_alone());
    assert!(state.put_alone(&mut Some(3)));
    assert_eq!(state.take_alone(false), Some(2));
    assert_eq!(state.take_alone(false), Some(3));
    assert_eq!(state.take_alone(false), None);

    let (mut key, mut effects) = (None, Effects::new());
    state.park_receiver(&mut key, 1, Waker::noop().clone(), &mut effects);
    state.refresh();
    assert!(!state.put_alone(&mut Some(4)), "somebody waits for it");
    assert!(!state.finish_alone());
    assert!(effects.is_empty());
}

/// N2: all three are set aside for it, so who comes later waits.
#[test]
fn a_batch_on_a_rendezvous_is_promised_all_that_is_there() {
    let (mut state, mut effects) = (rendezvous(Overflow::Wait), Effects::new());
    for item in 1..=3 {
        let waker = Waker::noop().clone();
        state.park_sender(&mut None, &mut Some(item), PLAIN, waker, &mut effects);
    }
    let mut batch = None;
    state.park_receiver(&mut batch, 5, Waker::noop().clone(), &mut effects);
    assert_eq!(state.batch_turn(batch, 5), (true, true));
    let late = state.receive_turn(&mut None, true, &mut effects);
    assert_eq!(late, Turn::Wait);
}

/// One fewer would make no room, as nobody is there to take the new one.
#[test]
fn on_a_rendezvous_nothing_gives_way_to_an_item_that_nobody_waits_for() {
    let (mut state, mut effects) = (rendezvous(Overflow::DropOldest), Effects::new());
    assert_eq!(state.feed(&mut Some(1), PLAIN, &mut effects), Ok(()));
    assert_eq!(state.offer(&mut Some(2), PLAIN, &mut effects), Ok(()));
    assert_eq!(effects.discards, [(2, Discarded::Overflow)]);
}
