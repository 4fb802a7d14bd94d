//! Damaged copies of a file, for tests of its readers.

/// Copies of these bytes, with what is wrong: each with one changed bit, then each cut off at another length.
pub(crate) fn damages(bytes: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let changed = (0..8 * bytes.len()).map(|bit| {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {bit}"), damaged)
    });
    changed.chain((0..bytes.len()).map(|length| (format!("{length} bytes"), bytes[..length].to_vec())))
}
