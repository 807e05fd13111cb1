//! A small HTTP server for a folder of files, on loopback.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use ringfence::{Scope, TaskGroup};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::faults::{Dice, Fault};

/// A server that listens, and answers once it [runs](Self::run).
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    files: Arc<Files>,
}

#[derive(Debug)]
struct Files {
    root: PathBuf,
    dice: Option<Dice>,
    /// How often each path was asked for; only with faults.
    visits: Mutex<HashMap<String, u32>>,
}

/// The way to tell hyper that a connection is to be dropped without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection dropped on purpose")]
struct Reset;

impl Server {
    pub(crate) async fn bind(root: PathBuf, dice: Option<Dice>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("no port to listen on")?;
        let address = listener.local_addr()?;
        let files = Arc::new(Files {
            root,
            dice,
            visits: Mutex::default(),
        });
        Ok(Self {
            listener,
            address,
            files,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until cancelled.
    ///
    /// Each connection is a child of a scope in here, so connections cannot outlive the server:
    /// whoever cancels it and waits knows that the last of them is gone.
    pub(crate) async fn run(self) -> anyhow::Result<Infallible> {
        let connections = Scope::new().name("connections");
        let served = connections.run(async |group: &TaskGroup<anyhow::Error>| {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        group.spawn(connection(stream, Arc::clone(&self.files)));
                    }
                    // Out of file descriptors, most likely: wait for some to come back.
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Ok(served.await?)
    }
}

/// Answers the requests of one connection. What goes wrong with it is for the client to notice.
async fn connection(stream: TcpStream, files: Arc<Files>) {
    if files.dice.is_some() {
        // Without lingering, closing is a reset and not a polite end.
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .ok();
    }
    stream.set_nodelay(true).ok();
    let service = service_fn(|request| answer(request, &files));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    server
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

async fn answer(request: Request<Incoming>, files: &Files) -> Result<Response<Full<Bytes>>, Reset> {
    let path = request.uri().path();
    match files.fault(path) {
        None => {}
        Some(Fault::Slow(delay)) => sleep(delay).await,
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Reset) => return Err(Reset),
        Some(Fault::Busy { retry_after }) => {
            let mut busy = status(StatusCode::SERVICE_UNAVAILABLE);
            busy.headers_mut().insert(RETRY_AFTER, retry_after.into());
            return Ok(busy);
        }
    }
    if request.method() != Method::GET {
        let mut refusal = status(StatusCode::METHOD_NOT_ALLOWED);
        refusal
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
        return Ok(refusal);
    }
    Ok(files
        .read(path)
        .await
        .unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => status(StatusCode::NOT_FOUND),
            io::ErrorKind::PermissionDenied => status(StatusCode::FORBIDDEN),
            _ => status(StatusCode::INTERNAL_SERVER_ERROR),
        }))
}

impl Files {
    /// Rolls the dice for one more request for this path.
    fn fault(&self, path: &str) -> Option<Fault> {
        let dice = self.dice?;
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        let visit = visits.entry(path.to_owned()).or_default();
        *visit += 1;
        dice.roll(path, *visit)
    }

    async fn read(&self, path: &str) -> io::Result<Response<Full<Bytes>>> {
        let mut file = self.root.join(inside(path).ok_or(io::ErrorKind::NotFound)?);
        if path.ends_with('/') {
            file.push("index.html");
        } else if tokio::fs::metadata(&file).await?.is_dir() {
            // Relative links only work below `folder/`.
            let mut moved = status(StatusCode::MOVED_PERMANENTLY);
            let to = format!("{path}/").try_into().map_err(io::Error::other)?;
            moved.headers_mut().insert(LOCATION, to);
            return Ok(moved);
        }
        let kind = hyper::header::HeaderValue::from_static(content_type(&file));
        let mut response = Response::new(Full::from(tokio::fs::read(&file).await?));
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }
}

/// The file that a URL path names below the root; `None` if it tries to leave it.
fn inside(path: &str) -> Option<PathBuf> {
    let path = percent_decode_str(path.trim_start_matches('/'))
        .decode_utf8()
        .ok()?;
    let path = Path::new(&*path);
    let normal = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (normal && !path.as_os_str().as_encoded_bytes().contains(&0)).then(|| path.to_owned())
}

fn content_type(file: &Path) -> &'static str {
    match file
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
    {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css",
        "js" => "text/javascript",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(code.to_string()));
    *response.status_mut() = code;
    response
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{content_type, inside};

    #[test]
    fn paths_stay_below_the_root() {
        assert_eq!(inside("/"), Some(PathBuf::new()));
        assert_eq!(inside("/a/b%20c.html"), Some(PathBuf::from("a/b c.html")));
        for path in [
            "/../x",
            "/a/../../x",
            "/%2e%2e/x",
            "/..%2fx",
            "/%00",
            "/%ff",
        ] {
            assert_eq!(inside(path), None, "{path}");
        }
        // However many slashes, never from the root of the file system.
        assert_eq!(inside("//etc/passwd"), Some(PathBuf::from("etc/passwd")));
        assert_eq!(inside("/%2fetc/passwd"), None);
    }

    #[test]
    fn html_is_known_by_its_name() {
        assert!(content_type("a/b.html".as_ref()).starts_with("text/html"));
        assert!(content_type("a/b".as_ref()).starts_with("application/"));
    }
}
