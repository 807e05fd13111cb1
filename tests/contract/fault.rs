//! Fault and abuse: scenarios that break peers.
