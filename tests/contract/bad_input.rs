//! Bad input: refused where it is given, never a hang or a wrap-around.
