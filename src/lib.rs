//! Structured concurrency on tokio.
