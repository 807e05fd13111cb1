//! What the function of an item may return.

use std::convert::Infallible;

use crate::group::output::Never;

/// What the function of a fan-out may return for an item: `()`, or a `Result`.
///
/// The error is part of the type, so it never has to be named.
#[diagnostic::on_unimplemented(
    message = "the function of an item must return `()` or a `Result`, not `{Self}`",
    label = "this future's output is `{Self}`",
    note = "wrap a plain value: `Ok::<_, std::convert::Infallible>(value)`"
)]
pub trait ItemOutput {
    /// What a success yields.
    type Value;
    /// What a failure yields.
    type Error;

    /// Tells success from failure.
    ///
    /// # Errors
    ///
    /// The item's own.
    fn into_item(self) -> Result<Self::Value, Self::Error>;
}

impl ItemOutput for () {
    type Value = ();
    type Error = Infallible;

    fn into_item(self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<T, E> ItemOutput for Result<T, E> {
    type Value = T;
    type Error = E;

    fn into_item(self) -> Self {
        self
    }
}

// As `()` is, so that a function without end is one for `for_each`.
impl ItemOutput for Never {
    type Value = ();
    type Error = Infallible;

    fn into_item(self) -> Result<(), Infallible> {
        self
    }
}
