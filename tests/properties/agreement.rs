//! Where the crate and a model part.

use std::fmt::Debug;

use proptest::test_runner::TestCaseError;

pub(crate) fn same<T: PartialEq + Debug>(
    what: &str,
    model: &T,
    real: &T,
) -> Result<(), TestCaseError> {
    if model == real {
        return Ok(());
    }
    let text = format!("{what}: the model says {model:?}, the crate {real:?}");
    Err(TestCaseError::fail(text))
}

/// The place in a list that a drawn number means.
pub(crate) fn at<T>(list: &[T], number: u8) -> Option<usize> {
    (!list.is_empty()).then(|| usize::from(number) % list.len())
}
