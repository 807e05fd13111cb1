//! Resources: what is freed when, what a destructor may do, what grows with what.
