//! A look inside, while it runs and while it stops: the tree of its tasks, and figures for Prometheus.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::service::service_fn;
use ringfence::inspect::Counters;
use ringfence::supervise::SupervisorHandle;
use ringfence::{BoxError, Scope, TaskGroup, snapshot};
use tokio::net::TcpListener;

use crate::http::{self, Answer};
use crate::service::Chat;

/// What there is to look at, beside the tree.
pub(crate) struct Look {
    pub(crate) chat: Arc<Chat>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) parts: SupervisorHandle,
}

/// Answers until it is asked to end.
pub(crate) async fn serve(listener: Arc<TcpListener>, look: Arc<Look>) -> Result<(), BoxError> {
    let connections = Scope::new().name("connections");
    let served = connections.run(async |group: &TaskGroup| {
        let serve = |stream| {
            let look = look.clone();
            let connection = async move {
                let answer = service_fn(|request: hyper::Request<_>| {
                    let answer = answer(request.uri().path(), &look);
                    async { Ok::<_, Infallible>(answer) }
                });
                http::serve(stream, look.chat.farewell, answer).await;
            };
            group.spawn(connection);
        };
        http::accept(&listener, serve).await;
        Ok(())
    });
    Ok(served.await?)
}

fn answer(path: &str, look: &Look) -> Answer {
    match path {
        "/tree" => http::page("text/plain; charset=utf-8", snapshot().to_string()),
        "/tree.json" => http::page("application/json", snapshot().to_json()),
        "/tree.mmd" => http::page("text/plain; charset=utf-8", snapshot().to_mermaid()),
        "/metrics" => http::page("text/plain; version=0.0.4", metrics(look)),
        _ => http::status(StatusCode::NOT_FOUND),
    }
}

/// Prometheus's text format. The paths of our groups need no escapes.
fn metrics(look: &Look) -> String {
    let Look {
        chat,
        counters,
        parts,
    } = look;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, lines: &[(String, u64)]| {
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let groups = counters.groups();
    let paths = groups
        .iter()
        .map(|(path, counts)| (path.as_deref().unwrap_or_default(), counts));
    let (mut alive, mut ended) = (Vec::new(), Vec::new());
    for (path, counts) in paths {
        alive.push((format!("{{group=\"{path}\"}}"), counts.live()));
        for (how, count) in [
            ("completed", counts.completed),
            ("failed", counts.failed),
            ("panicked", counts.panicked),
            ("cancelled", counts.cancelled),
        ] {
            ended.push((format!("{{group=\"{path}\",how=\"{how}\"}}"), count));
        }
    }
    family("tasks_alive", "gauge", &alive);
    family("tasks_ended_total", "counter", &ended);
    let (rooms, people) = chat.rooms.len();
    let gauges = [
        ("chat_rooms", rooms),
        ("chat_people", people),
        ("chat_messages_waiting", chat.store.waiting()),
    ];
    for (name, value) in gauges {
        family(name, "gauge", &[(String::new(), value as u64)]);
    }
    let totals = [
        ("chat_part_restarts_total", parts.restarts()),
        ("chat_messages_accepted_total", chat.store.accepted()),
        ("chat_messages_stored_total", chat.store.stored()),
        ("chat_lines_missed_total", chat.rooms.missed()),
    ];
    for (name, value) in totals {
        family(name, "counter", &[(String::new(), value)]);
    }
    text
}
