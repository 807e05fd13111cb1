//! Handle: values and outcomes.
