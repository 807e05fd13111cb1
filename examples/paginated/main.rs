//! A paginated API as a stream: pages come ahead of whoever reads, and the details of what is on them many at once.
//!
//! ```sh
//! cargo run --example paginated
//! ```
//!
//! The program makes its own server, which is slow or refuses now and then. It reads all orders; then the first hundred of them, then as
//! many as there is time for, from a server that answers no more than that. It proves that each comes once and in order, that a
//! refused request comes back when it was told to, and that nothing of a reader who stops is left at the server. It ends by itself.

#![expect(clippy::print_stdout, reason = "it is a program")]

mod client;
mod server;

use std::time::{Duration, Instant};

use ringfence::{BoxError, Deadline, GroupError, Scope, TaskGroup, fan_out, scope, timeout};
use tokio::net::TcpListener;
use tokio::sync::watch;

use client::{AHEAD, Api};
use server::{ORDERS, PAGE, Seen, serve};

/// Orders whose details are fetched at once.
const AT_ONCE: usize = 8;
/// As many as somebody wants who does not want all.
const SOME: usize = 100;

/// Reads orders with their details into `read`: so many, or all, or as many as there is time for.
async fn read_into(
    read: &mut Vec<usize>,
    api: &Api,
    enough: usize,
    time: Duration,
) -> Result<(), GroupError<BoxError>> {
    let run = Scope::new().deadline(Deadline::after(time));
    let reading = run.run(async |group: &TaskGroup| {
        let (orders, api) = (api.orders(group), api.clone());
        let mut details = fan_out(orders)
            .limit(AT_ONCE)
            .results(move |order| api.clone().details(order));
        while let Some(order) = details.next().await {
            read.push(order?);
            if read.len() == enough {
                break; // the stream is dropped, and with it all that was fetched ahead
            }
        }
        Ok(())
    });
    reading.await
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let all = scope(async |group: &TaskGroup| {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let api = Api::new(group.spawner(), listener.local_addr()?);
        let seen = watch::Sender::new(Seen::default());
        let server = group.named("server");
        server.spawn_background(serve(listener, seen.clone()));

        let (plenty, little) = (Duration::from_secs(60), Duration::from_millis(600));
        for (enough, time, answers) in [
            (ORDERS, plenty, ORDERS),
            (SOME, plenty, SOME),
            (ORDERS, little, SOME),
        ] {
            seen.send_modify(|seen| seen.answers = answers);
            let (began, mut read) = (Instant::now(), Vec::new());
            let ended = read_into(&mut read, &api, enough, time).await;
            let took = began.elapsed();
            // The server learns from its sockets that nobody waits for an answer any more.
            let mut idle = seen.subscribe();
            let is_idle = idle.wait_for(|seen| seen.alive == 0);
            drop(timeout(Duration::from_secs(1), is_idle).await);
            let seen = seen.send_replace(Seen::default());

            println!("{} of {ORDERS} orders in {took:.1?}: {seen}", read.len());
            assert!(read.iter().copied().eq(0..read.len()), "once, in order");
            assert!(seen.most <= AT_ONCE + 1, "the details, and a page");
            // What is in flight or ready, what waits to be read, and what is left of the last page.
            let ahead = 2 * AT_ONCE + AHEAD + PAGE;
            let pages = (read.len() + ahead).div_ceil(PAGE) + seen.refused.len();
            assert!(seen.pages <= pages, "no further ahead than that");
            assert_eq!(seen.hasty, 0, "they come back when they were told to");
            assert_eq!(seen.alive, 0, "no request outlives its reader");
            assert_eq!(seen.cut > 0, answers < ORDERS, "nor is it answered");
            match ended {
                Ok(()) => assert_eq!(read.len(), enough),
                Err(error) => assert!(error.is_deadline_exceeded() && time == little, "{error}"),
            }
        }
        Ok(())
    });
    Ok(all.await?)
}
