//! A retry budget's purse: who takes, who puts in, and whose time it is.

use loom::thread;

use super::explore;
use crate::retry::budget::Bucket;
use crate::sync::Arc;

const SECOND: u64 = 1_000_000_000;

/// A purse from which so much is gone.
fn spent(amount: u64) -> Arc<Bucket> {
    let bucket = Bucket::new();
    assert!(bucket.take(amount, amount));
    Arc::new(bucket)
}

#[test]
fn take_x_take_of_the_last() {
    explore(&["here", "there"], |seen| {
        let bucket = Arc::new(Bucket::new());
        let other = thread::spawn({
            let bucket = bucket.clone();
            move || bucket.take(1, 1)
        });
        let (here, there) = (bucket.take(1, 1), other.join().unwrap());
        assert!(here != there, "one token, {here} and {there}");
        assert_eq!(bucket.spent(), 1);
        seen.note(if here { "here" } else { "there" });
    });
}

#[test]
fn put_x_take() {
    explore(&["paid", "refused"], |seen| {
        let bucket = spent(1);
        // This way round: that a store comes after a load alone is no reason for loom to try the other order.
        let other = thread::spawn({
            let bucket = bucket.clone();
            move || bucket.take(1, 1)
        });
        bucket.put(1);
        let is_paid = other.join().unwrap();
        assert_eq!(bucket.spent(), u64::from(is_paid));
        seen.note(if is_paid { "paid" } else { "refused" });
    });
}

/// What comes in at the brim runs over; what was taken before it does not.
#[test]
fn put_at_the_brim_x_take() {
    explore(&["ran over", "went in"], |seen| {
        let bucket = spent(1);
        let other = thread::spawn({
            let bucket = bucket.clone();
            move || bucket.put(2)
        });
        assert!(bucket.take(1, 2));
        other.join().unwrap();
        seen.note(match bucket.spent() {
            0 => "went in",
            1 => "ran over",
            spent => panic!("{spent} spent"),
        });
    });
}

/// Each slice of time is credited once, by whoever moves the mark past it.
#[test]
fn refill_x_refill() {
    let outcomes = ["all of it here", "its own here", "there, and seen", "there"];
    explore(&outcomes, |seen| {
        let bucket = spent(10);
        let other = thread::spawn({
            let bucket = bucket.clone();
            move || {
                bucket.refill(3 * SECOND, 1);
                bucket.spent()
            }
        });
        bucket.refill(5 * SECOND, 1);
        let here = bucket.spent();
        let there = other.join().unwrap();
        assert_eq!(bucket.spent(), 5, "five seconds have passed, not eight");
        seen.note(match (here, there) {
            (5, 10) => "all of it here",
            (8, _) => "its own here",
            (_, 7) => "there",
            (_, 5) => "there, and seen",
            sums => panic!("{sums:?}"),
        });
    });
}

/// A token that is due may be refused as long as somebody else is about to put it in; it is not lost.
#[test]
fn refill_x_take() {
    explore(&["paid", "refused"], |seen| {
        let bucket = spent(1);
        let other = thread::spawn({
            let bucket = bucket.clone();
            move || bucket.refill(SECOND, 1)
        });
        bucket.refill(SECOND, 1);
        let is_paid = bucket.take(1, 1);
        other.join().unwrap();
        assert!(is_paid || bucket.take(1, 1), "the token is gone");
        assert!(!bucket.take(1, 1), "there are two tokens");
        seen.note(if is_paid { "paid" } else { "refused" });
    });
}
