//! Time: timeouts and deadlines, on the paused clock.
