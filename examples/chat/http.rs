//! As much of a web server as is needed: connections in, answers out, and an end in order.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ringfence::{move_on_after, token};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

pub(crate) type Answer = Response<Full<Bytes>>;

/// Hands each connection to `serve`, until the task is asked to end.
pub(crate) async fn accept(listener: &TcpListener, serve: impl Fn(TcpStream)) {
    let stop = token();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => serve(stream),
            // Out of file descriptors, most likely: wait for some to come back.
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Serves one connection until it ends, or becomes another one. What goes wrong with it is for the client to notice.
///
/// When its task is asked to end, the request that has begun is answered, for as long as the farewell lasts.
pub(crate) async fn serve<S>(stream: TcpStream, farewell: Duration, service: S)
where
    S: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
{
    stream.set_nodelay(true).ok();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection.with_upgrades());
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = token().cancelled() => connection.as_mut().graceful_shutdown(),
    }
    drop(move_on_after(farewell, connection).await);
}

pub(crate) fn page(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut page = Response::new(Full::new(body.into()));
    let kind = HeaderValue::from_static(kind);
    page.headers_mut().insert(CONTENT_TYPE, kind);
    page
}

pub(crate) fn status(code: StatusCode) -> Answer {
    let mut answer = page("text/plain", code.to_string());
    *answer.status_mut() = code;
    answer
}
