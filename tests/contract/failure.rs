//! Failure: what comes out of a scope, and who is cancelled by it.
