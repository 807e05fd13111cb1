//! Nothing here: the cases are the package.
