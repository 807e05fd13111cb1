//! Whether everybody who joins a flight hears of its end, and of no other one's.

use loom::thread;

use super::{explore, run};
use crate::single_flight::{FlightError, Flights, Pilot};
use crate::sync::PlainArc;

type All = Flights<u8, u32, &'static str>;

const KEY: u8 = 7;

/// Asks for the key, and flies with `value` if it has to. Returns what it got. `is_forgotten` says whether anybody may still
/// forget the key.
fn ask(flights: &PlainArc<All>, value: u32, is_forgotten: bool) -> u32 {
    let (flight, pilot) = Flights::join(flights, KEY);
    if let Some(pilot) = pilot {
        if !is_forgotten {
            let (other, second) = Flights::join(flights, KEY);
            let is_same = PlainArc::ptr_eq(&flight, &other) && second.is_none();
            assert!(is_same, "what flies can be joined");
        }
        pilot.land(Ok(value));
    }
    let (landing, _) = run(flight.landed());
    match &*landing {
        Ok(value) => *value,
        Err(_) => unreachable!("it has landed well"),
    }
}

#[test]
fn join_x_land() {
    explore(&["joined", "flew again"], |seen| {
        let flights = All::new();
        let (first, pilot) = Flights::join(&flights, KEY);
        let pilot = pilot.unwrap();
        let other = thread::spawn({
            let flights = flights.clone();
            move || ask(&flights, 2, false)
        });
        pilot.land(Ok(1));
        let got = other.join().unwrap();
        let (landing, polls) = run(first.landed());
        assert!(matches!(&*landing, Ok(1)) && polls == 1);
        let (_, last) = Flights::join(&flights, KEY);
        assert!(last.is_some(), "nothing is left on the map");
        seen.note(if got == 1 { "joined" } else { "flew again" });
    });
}

#[test]
fn join_x_loss_of_the_pilot() {
    explore(&["lost", "flew again"], |seen| {
        let flights = All::new();
        let (_, pilot) = Flights::join(&flights, KEY);
        let other = thread::spawn({
            let flights = flights.clone();
            move || {
                let (flight, pilot) = Flights::join(&flights, KEY);
                let is_own = pilot.is_some();
                pilot
                    .into_iter()
                    .for_each(|pilot: Pilot<_, _, _>| pilot.land(Ok(2)));
                let (landing, _) = run(flight.landed());
                match &*landing {
                    Ok(2) if is_own => "flew again",
                    Err(FlightError::Cancelled(_)) if !is_own => "lost",
                    _ => unreachable!("that of another flight"),
                }
            }
        });
        drop(pilot);
        seen.note(other.join().unwrap());
    });
}

#[test]
fn forget_x_land_x_join() {
    explore(&["joined", "flew again"], |seen| {
        let flights = All::new();
        let (first, pilot) = Flights::join(&flights, KEY);
        let forgetter = thread::spawn({
            let flights = flights.clone();
            move || {
                flights.forget(&KEY);
                ask(&flights, 2, false)
            }
        });
        let lander = thread::spawn(move || pilot.unwrap().land(Ok(1)));
        // Whoever comes now joins the first one, or one that began after it was forgotten or had landed.
        let got = ask(&flights, 3, true);
        let forgotten = forgetter.join().unwrap();
        lander.join().unwrap();
        assert!(forgotten != 1, "what is forgotten is joined no more");
        assert!(matches!(&*run(first.landed()).0, Ok(1)));
        assert!(
            Flights::join(&flights, KEY).1.is_some(),
            "nothing is left on the map"
        );
        seen.note(if got == 1 { "joined" } else { "flew again" });
    });
}
