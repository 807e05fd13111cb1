//! Somebody who talks, over a real socket.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

#[derive(Debug)]
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
}

/// What a client hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message was accepted, under this number.
    Accepted(i64),
    /// Somebody else has said something.
    Said,
    /// The server took leave, with this code: see RFC 6455, section 7.4.1.
    Farewell(u16),
    /// The connection ended without that.
    Lost,
}

impl Client {
    pub(crate) async fn join(address: SocketAddr, room: &str, who: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{address}/chat/{room}?name={who}");
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await?;
        Ok(Self { socket })
    }

    /// Waits for what comes next. Cancel safe.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            return match self.socket.next().await {
                Some(Ok(Message::Text(line))) => {
                    let number = line
                        .strip_prefix("ok ")
                        .and_then(|number| number.parse().ok());
                    number.map_or(Heard::Said, Heard::Accepted)
                }
                Some(Ok(Message::Close(Some(frame)))) => Heard::Farewell(frame.code.into()),
                Some(Ok(Message::Close(None)) | Err(_)) | None => Heard::Lost,
                Some(Ok(_)) => continue,
            };
        }
    }

    /// Says something, and waits until it was accepted, or never will be.
    pub(crate) async fn say(&mut self, text: &str) -> Result<i64, Heard> {
        // An error here is told better by what is heard next.
        drop(self.socket.send(Message::text(text)).await);
        loop {
            match self.hear().await {
                Heard::Accepted(number) => return Ok(number),
                Heard::Said => {}
                ended => return Err(ended),
            }
        }
    }

    /// Says something, and is gone before anybody can answer: without a close, and with a reset in place of an end.
    pub(crate) async fn vanish(mut self, text: &str) {
        drop(self.socket.send(Message::text(text)).await);
        let socket = socket2::SockRef::from(self.socket.get_ref());
        drop(socket.set_linger(Some(Duration::ZERO)));
    }

    /// Leaves, in the way one should.
    pub(crate) async fn leave(mut self) {
        drop(self.socket.close(None).await);
        while !matches!(self.hear().await, Heard::Lost | Heard::Farewell(_)) {}
    }
}
