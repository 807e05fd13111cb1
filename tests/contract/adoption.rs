//! Adoption: what becomes of the children when the scope itself is dropped.
