//! Cancel: of one child, of all, of the group; signal, grace, force; reasons.
