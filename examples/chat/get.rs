//! The least that gets a page: one request, and all that comes back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ringfence::timeout;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Returns the page at `path`.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let answer = timeout(Duration::from_secs(10), async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    });
    let answer = answer.await.map_err(io::Error::other)??;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.0 200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(answer)),
    }
}
