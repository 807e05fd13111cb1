//! Nothing: the facts are in `tests`.
