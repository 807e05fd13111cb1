//! A hash that is the same on every machine and with every compiler: what a seed decides must not
//! change with the standard library.

/// Hashes text (FNV-1a, then the finaliser of splitmix64, which FNV needs for its upper bits).
pub(crate) fn hash(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// Spreads the bits of a number: neighbours come out unrelated.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn a_hash_never_changes() {
        assert_eq!(hash(""), 0xc381_7c01_6ba4_ff30);
        assert_ne!(hash("/a.html"), hash("/b.html"));
    }
}
