//! A connection: a group of its own, with one who reads and one who writes.
//!
//! It begins as HTTP, and goes on as a WebSocket if the client asks for one. Whatever ends it ends it whole: a client that leaves, a
//! handler that panics, a signal. And nothing that goes wrong in it concerns anybody else.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use ringfence::queue::Receiver;
use ringfence::{Scope, TaskGroup, move_on_after, token};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use crate::http::{self, Answer};
use crate::rooms::Seat;
use crate::service::Chat;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The longest message, in bytes.
const LONGEST: usize = 16 * 1024;

/// A client that wants to talk.
struct Visit {
    room: Arc<str>,
    who: Arc<str>,
    upgrade: OnUpgrade,
}

/// Serves one connection. When this comes back, nothing of it is left.
pub(crate) async fn connection(stream: TcpStream, chat: Arc<Chat>) {
    let ended = Scope::new()
        .grace(chat.farewell)
        .panics_as_errors()
        .run(async |group: &TaskGroup| {
            let visit = Mutex::new(None);
            let answer = service_fn(|request| {
                let answer = answer(request, &visit);
                async { Ok::<_, Infallible>(answer) }
            });
            http::serve(stream, chat.farewell, answer).await;
            let visit = visit.into_inner().unwrap_or_else(PoisonError::into_inner);
            let Some(Visit { room, who, upgrade }) = visit else {
                return Ok(());
            };
            let config = WebSocketConfig::default().max_message_size(Some(LONGEST));
            let Ok(stream) = upgrade.await.map(TokioIo::new) else {
                return Ok(()); // it is gone already
            };
            let socket = Socket::from_raw_socket(stream, Role::Server, Some(config)).await;
            let (outgoing, incoming) = socket.split();
            let (seat, outbox) = chat.rooms.join(room, who.clone());
            let writer = group.named(format!("to {who}"));
            writer.spawn(write(outgoing, outbox, chat.clone()));
            let reader = group.named(who);
            reader.spawn(read(incoming, seat, chat.clone()));
            Ok(())
        })
        .await;
    if let Err(error) = ended {
        eprintln!("a connection: {error}");
    }
}

/// Answers a request: with a page, or with the other protocol.
fn answer(mut request: Request<Incoming>, visit: &Mutex<Option<Visit>>) -> Answer {
    let path = request.uri().path();
    if path == "/" {
        return http::page("text/html; charset=utf-8", include_str!("page.html"));
    }
    let Some(room) = path.strip_prefix("/chat/").filter(|room| is_name(room)) else {
        return http::status(StatusCode::NOT_FOUND);
    };
    let who = request
        .uri()
        .query()
        .and_then(|query| query.strip_prefix("name="));
    let Some(who) = who.filter(|who| is_name(who)) else {
        return http::status(StatusCode::BAD_REQUEST);
    };
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return http::status(StatusCode::UPGRADE_REQUIRED);
    };
    let Ok(accept) = HeaderValue::try_from(derive_accept_key(key.as_bytes())) else {
        return http::status(StatusCode::BAD_REQUEST);
    };
    let (room, who) = (room.into(), who.into());
    let upgrade = hyper::upgrade::on(&mut request);
    *visit.lock().unwrap_or_else(PoisonError::into_inner) = Some(Visit { room, who, upgrade });
    let mut switch = http::status(StatusCode::SWITCHING_PROTOCOLS);
    switch.headers_mut().extend([
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ]);
    switch
}

fn is_name(name: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    (1..=32).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Takes in what the client says, until it leaves, or the task is asked to end.
async fn read(mut incoming: SplitStream<Socket>, seat: Seat, chat: Arc<Chat>) {
    let stop = token();
    loop {
        let message = tokio::select! {
            message = incoming.next() => message,
            () = stop.cancelled() => break,
        };
        match message {
            // Not in the `select!`: what has begun is finished.
            Some(Ok(Message::Text(text))) => handle(&text, &seat, &chat).await,
            Some(Ok(_)) => {} // pings, and a farewell: both are answered by the next read
            Some(Err(_)) => return seat.tell(farewell(CloseCode::Protocol, "no message")).await,
            None => return,
        }
    }
    seat.tell(farewell(CloseCode::Away, "the service stops"))
        .await;
    drop(seat);
    // What the client still says is not accepted; but if nobody took it in, it would cost the client what was said to it.
    let rest = async { while let Some(Ok(_)) = incoming.next().await {} };
    let _in_time = move_on_after(chat.farewell, rest).await;
}

/// Handles one message. It is accepted when this has acknowledged it.
async fn handle(text: &str, seat: &Seat, chat: &Chat) {
    match text {
        // Two handlers with a fault, for the tests.
        "/panic" => panic!("{} has found a bug", seat.who()),
        "/hang" => {
            seat.say(text);
            std::future::pending::<()>().await;
        }
        _ => {}
    }
    // Waits for room, and so does the client: it is not read from meanwhile.
    if let Some(number) = chat.store.accept(seat.room(), seat.who(), text).await {
        seat.say(text);
        seat.tell(Message::text(format!("ok {number}"))).await;
    }
}

/// Writes what is in the outbox, until the seat is free.
async fn write(
    mut outgoing: SplitSink<Socket, Message>,
    mut outbox: Receiver<Message>,
    chat: Arc<Chat>,
) {
    let all = async {
        while let Ok(message) = outbox.recv().await {
            outgoing.send(message).await?;
        }
        // Only the first farewell counts. Without one, the reader has thrown: this group is about to hear of it, too.
        outgoing
            .send(farewell(CloseCode::Error, "your message has found a bug"))
            .await
    };
    // A client that does not read holds up nobody.
    let patience = async {
        token().cancelled().await;
        sleep(chat.farewell).await;
    };
    tokio::select! {
        _written = all => {}
        () = patience => {}
    }
}

fn farewell(code: CloseCode, why: &'static str) -> Message {
    let reason = why.into();
    Message::Close(Some(CloseFrame { code, reason }))
}
