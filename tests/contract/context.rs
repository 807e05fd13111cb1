//! Context: what a task inherits and what it cannot leak.
