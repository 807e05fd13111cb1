//! Happy eyeballs (RFC 8305), over real sockets: try the addresses of a host one after another, each a little after the one
//! before it or as soon as one fails, and keep the first connection that stands.
//!
//! ```sh
//! cargo run --example happy_eyeballs
//! ```
//!
//! The program makes its own host on loopback: an address that refuses, one that accepts and never speaks, and one that
//! answers. It checks what it prints, and ends by itself.

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringfence::{BorrowGroup, borrow_scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// RFC 8305 recommends 250 ms; on loopback less will do.
const DELAY: Duration = Duration::from_millis(50);

/// An attempt succeeds when the server has said who it is: a connection alone says little behind a load balancer.
async fn attempt(address: SocketAddr, start: Instant) -> io::Result<(TcpStream, String)> {
    println!("{:>4} ms  trying {address}", start.elapsed().as_millis());
    let mut stream = TcpStream::connect(address).await?;
    let mut banner = [0; 5];
    stream.read_exact(&mut banner).await?;
    Ok((stream, String::from_utf8_lossy(&banner).into_owned()))
}

/// Connects to the first of the addresses that answers. Whoever lost is gone when this returns: no socket is left open.
async fn connect(addresses: &[SocketAddr]) -> Result<(TcpStream, String), Vec<io::Error>> {
    let start = Instant::now();
    let answer = borrow_scope(async |group: BorrowGroup<'_, io::Error>| {
        let attempts = addresses.iter().map(|address| attempt(*address, start));
        Ok(group.staggered(DELAY, attempts).await)
    });
    answer.await.expect("the race itself does not fail")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    // A port that was just closed refuses.
    let refuses = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let mute = TcpListener::bind("127.0.0.1:0").await?;
    let answers = TcpListener::bind("127.0.0.1:0").await?;
    let (silent, speaks) = (mute.local_addr()?, answers.local_addr()?);

    borrow_scope(async |group: BorrowGroup<'_, io::Error>| {
        group.spawn_background(async {
            loop {
                let (mut stream, _) = answers.accept().await?;
                stream.write_all(b"hello").await?;
            }
            #[expect(unreachable_code, reason = "it says what the errors are")]
            Ok(())
        });
        let silence = group.spawn(async {
            let (mut stream, _) = mute.accept().await?;
            // Ends when the loser is gone, which has to be before the winner is given.
            stream.read(&mut [0; 1]).await
        });

        let (_stream, banner) = match connect(&[refuses, silent, speaks]).await {
            Ok(connected) => connected,
            Err(mut errors) => return Err(errors.remove(0)),
        };
        println!("         connected: {banner}");
        assert_eq!(banner, "hello");
        assert_eq!(silence.await, 0, "the connection that lost was closed");

        let errors = connect(&[refuses, refuses])
            .await
            .expect_err("nobody is there");
        println!(
            "         nobody there: {} errors, {}",
            errors.len(),
            errors[0]
        );
        assert_eq!(errors.len(), 2);
        Ok(())
    })
    .await
    .map_err(|error| {
        error
            .into_first()
            .unwrap_or_else(|error| io::Error::other(error.to_string()))
    })
}
