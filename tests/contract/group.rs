//! Group: spawning and waiting, spawners, background children, closed groups.
