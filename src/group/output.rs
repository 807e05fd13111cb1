//! What a child may return.

/// Names `!` on stable.
pub trait FnReturn {
    /// What the function returns.
    type Output;
}

impl<R> FnReturn for fn() -> R {
    type Output = R;
}

/// The type of what never returns, such as `async { loop { … } }`.
pub type Never = <fn() -> ! as FnReturn>::Output;

/// What a child of a group with errors of type `E` may return: `()`, `Result<T, E>`, or nothing ever.
///
/// The error is exactly the group's, so that it can be inferred from the children. Convert where it differs:
/// `group.spawn(async { Ok(fetch().await?) })`.
#[diagnostic::on_unimplemented(
    message = "a child of this group must return `()` or `Result<_, {E}>`, not `{Self}`",
    label = "this future's output is `{Self}`",
    note = "wrap a plain value: `async {{ Ok(value) }}`; convert another error: `async {{ Ok(fallible().await?) }}`"
)]
// No other crate can implement it: to the compiler, every other type may be `Never`. So `into_result` does not throw.
pub trait TaskOutput<E> {
    /// What the child's handle yields.
    type Value;

    /// Tells success from failure.
    ///
    /// # Errors
    ///
    /// The child's own.
    fn into_result(self) -> Result<Self::Value, E>;
}

impl<E> TaskOutput<E> for () {
    type Value = ();

    fn into_result(self) -> Result<(), E> {
        Ok(())
    }
}

impl<T, E> TaskOutput<E> for Result<T, E> {
    type Value = T;

    fn into_result(self) -> Self {
        self
    }
}

impl<E> TaskOutput<E> for Never {
    type Value = std::convert::Infallible;

    fn into_result(self) -> Result<std::convert::Infallible, E> {
        self
    }
}
