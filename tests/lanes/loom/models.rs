//! Models under loom. `src/lib.rs` includes this file in the loom lane, so models see what is private.
//!
//! Each model is a test of its own, prints how many interleavings it ran, and shows that both outcomes of its race
//! were reached.
