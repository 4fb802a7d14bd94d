//! Files with checksums: a header, the content, and a checksum for each block of it.
//!
//! ```text
//! knockplane lists 1 123456        kind, version of the format, bytes of the content
//! …                                the content
//! 5feceb66ffc86f38d952786c6d696c79 a line for each 4,096 bytes of it: the first half of their BLAKE3 hash
//! …
//! ```
//! Header and checksums follow from the content. A reader computes them again and compares them byte for byte. Every
//! changed, missing or appended bit of the file therefore causes a mismatch, and there is exactly one encoding of a
//! content. The blocks show where a file is damaged.

use std::fmt::Write as _;

/// The number of bytes of content with one checksum.
const BLOCK: usize = 4_096;

/// The number of bytes of a checksum's line: 16 bytes in hexadecimal digits, and the end of the line.
const SUM_LINE: usize = 33;

/// Maximum length of a header: two names, and two numbers of at most 20 digits.
pub(super) const MAX_HEADER: usize = 96;

/// The kind and the format version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// The kind of content, a word.
    pub(crate) kind: &'static str,
    /// Increases with every change of the format.
    pub(crate) version: u32,
}

/// The damage of a file, and its place. Bytes are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DamageError {
    /// The first line is not the expected one.
    #[error("line 1 does not begin with `{expected}` (byte {place} differs)")]
    Header {
        /// The expected start of the line.
        expected: String,
        /// The first byte that differs.
        place: usize,
    },
    /// The file has another version of the format.
    #[error(
        "line 1 has format {found}, and this program reads format {expected}: a newer version wrote the file, or it is \
         damaged"
    )]
    Version {
        /// The version of the file.
        found: u64,
        /// The version that this program can read.
        expected: u32,
    },
    /// The file does not have the length in its first line.
    #[error("it has {found} bytes, and by line 1 it should have {expected}: {what} behind byte {place}")]
    Length {
        /// The present length in bytes.
        found: u64,
        /// The expected length in bytes.
        expected: u64,
        /// Whether bytes are missing or were appended.
        what: &'static str,
        /// The end of the present bytes, or of the expected bytes.
        place: u64,
    },
    /// A block and its checksum do not match.
    #[error("bytes {first} to {last} do not match their checksum at byte {sum}")]
    Checksum {
        /// First byte of the block.
        first: usize,
        /// Last byte of the block.
        last: usize,
        /// First byte of its checksum.
        sum: usize,
    },
}

impl Format {
    /// The first bytes of every file of this kind.
    pub(super) fn begin(self) -> String {
        format!("knockplane {} {} ", self.kind, self.version)
    }

    /// The first line of a file of records.
    pub(super) fn log_line(self) -> String {
        format!("{}log\n", self.begin())
    }

    /// The reason that a file with these first bytes is not a file of records.
    pub(super) fn other_log(self, start: &[u8]) -> DamageError {
        let expected = self.log_line();
        self.other_version(start).unwrap_or_else(|| DamageError::Header {
            expected: expected.trim_end().to_owned(),
            place: differs(start, expected.as_bytes()),
        })
    }

    fn header(self, content_bytes: usize) -> String {
        format!("{}{content_bytes}\n", self.begin())
    }

    /// The bytes of a file in front of the content and behind it.
    pub(super) fn around(self, content: &[u8]) -> (String, String) {
        (self.header(content.len()), sums(content))
    }

    /// The start and the end of the content, from the file's first bytes (at most [`MAX_HEADER`]) and its length.
    ///
    /// # Errors
    /// If the header does not match a content of this length.
    pub(super) fn content(self, start: &[u8], file_bytes: u64) -> Result<std::ops::Range<usize>, DamageError> {
        let begin = self.begin();
        let wrong = |place| DamageError::Header { expected: begin.trim_end().to_owned(), place };
        let end =
            start.iter().position(|byte| *byte == b'\n').ok_or_else(|| match differs(start, begin.as_bytes()) {
                place if place == start.len() => DamageError::Length {
                    found: file_bytes,
                    expected: (begin.len() + 2) as u64,
                    what: "it was cut off",
                    place: file_bytes,
                },
                place => wrong(place),
            })?;
        let line = &start[..=end];
        if !line.starts_with(begin.as_bytes()) {
            return Err(self.other_version(line).unwrap_or_else(|| wrong(differs(line, begin.as_bytes()))));
        }
        let digits = std::str::from_utf8(&line[begin.len()..end]).ok();
        let content_bytes: usize = digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| wrong(begin.len()))?;
        // The parser also accepts a `+` or zeros in front of a number, and numbers that no file can have.
        let header = self.header(content_bytes);
        let expected = content_bytes.checked_add(content_bytes.div_ceil(BLOCK).saturating_mul(SUM_LINE));
        let expected = expected.and_then(|bytes| bytes.checked_add(header.len()));
        let Some(expected) = expected.filter(|_| header.as_bytes() == line) else {
            return Err(wrong(begin.len()));
        };
        let expected = expected as u64;
        if file_bytes != expected {
            let what = if file_bytes < expected { "it was cut off" } else { "something was appended" };
            return Err(DamageError::Length { found: file_bytes, expected, what, place: file_bytes.min(expected) });
        }
        Ok(header.len()..header.len() + content_bytes)
    }

    /// Verifies the checksums of a file that contains its content.
    ///
    /// # Errors
    /// The first block that is damaged.
    pub(super) fn verify(self, file: &[u8], content: std::ops::Range<usize>) -> Result<(), DamageError> {
        let (stored, actual) = (&file[content.end..], sums(&file[content.clone()]));
        if stored == actual.as_bytes() {
            return Ok(());
        }
        let block = differs(stored, actual.as_bytes()) / SUM_LINE;
        let first = content.start + block * BLOCK;
        let last = (first + BLOCK).min(content.end) - 1;
        Err(DamageError::Checksum { first, last, sum: content.end + block * SUM_LINE })
    }

    fn other_version(self, line: &[u8]) -> Option<DamageError> {
        let rest = line.strip_prefix(format!("knockplane {} ", self.kind).as_bytes())?;
        let found = std::str::from_utf8(rest).ok()?.split_once(' ')?.0.parse().ok()?;
        Some(DamageError::Version { found, expected: self.version })
    }
}

/// The position of the first byte that differs; the length of the shorter one if none does.
fn differs(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).position(|(one, other)| one != other).unwrap_or_else(|| one.len().min(other.len()))
}

/// The lines of checksums, one for each block.
fn sums(content: &[u8]) -> String {
    let mut sums = String::with_capacity(content.len().div_ceil(BLOCK) * SUM_LINE);
    for block in content.chunks(BLOCK) {
        let hash = blake3::hash(block);
        let _ = writeln!(sums, "{}", &hash.to_hex()[..SUM_LINE - 1]);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { kind: "lists", version: 1 };

    fn write(content: &[u8]) -> Vec<u8> {
        let (header, sums) = FORMAT.around(content);
        [header.as_bytes(), content, sums.as_bytes()].concat()
    }

    fn read(file: &[u8]) -> Result<&[u8], DamageError> {
        let start = &file[..file.len().min(MAX_HEADER)];
        let content = FORMAT.content(start, file.len() as u64)?;
        FORMAT.verify(file, content.clone())?;
        Ok(&file[content])
    }

    fn contents() -> [Vec<u8>; 4] {
        [0, 1, BLOCK, 2 * BLOCK + 9].map(|bytes| (0..bytes).map(|place| (place * 7 / 3) as u8).collect())
    }

    #[test]
    fn what_is_written_is_read() {
        for content in contents() {
            assert_eq!(read(&write(&content)), Ok(&content[..]));
        }
    }

    #[test]
    fn every_bit_counts() {
        for content in contents() {
            let mut file = write(&content);
            for bit in 0..8 * file.len() {
                file[bit / 8] ^= 1 << (bit % 8);
                assert!(read(&file).is_err(), "bit {bit} of {} bytes", file.len());
                file[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn nothing_may_be_missing_or_appended() {
        for content in contents() {
            let file = write(&content);
            for length in 0..file.len() {
                assert!(read(&file[..length]).is_err(), "{length} of {} bytes", file.len());
            }
            for more in [&b"\n"[..], b"0", b"\0", &file, &[0; BLOCK]] {
                assert!(read(&[&file, more].concat()).is_err(), "{} bytes more", more.len());
            }
        }
    }

    #[test]
    fn the_place_is_told() {
        let content = contents()[3].clone();
        let file = write(&content);
        let header = file.len() - content.len() - 3 * SUM_LINE;
        let told = |file: &[u8]| read(file).unwrap_err().to_string();
        let damaged = |place: usize| {
            let mut file = file.clone();
            file[place] ^= 1;
            told(&file)
        };
        let second = format!("bytes {} to {} do not match", header + BLOCK, header + 2 * BLOCK - 1);
        assert!(damaged(header + BLOCK + 5).starts_with(&second));
        assert!(damaged(file.len() - 1).contains(&format!("checksum at byte {}", file.len() - SUM_LINE)));
        assert!(
            damaged(3).starts_with("line 1 does not begin with `knockplane lists 1`")
                && damaged(3).contains("byte 3 differs")
        );
        assert!(damaged(17).contains("format 0, and this program reads format 1"), "{}", damaged(17));
        assert!(told(&file[..100]).contains("cut off behind byte 100"), "{}", told(&file[..100]));
        assert!(told(b"knockpl").contains("cut off behind byte 7"));
        assert!(told(&[&file[..], b"x"].concat()).contains("something was appended behind byte"));
        assert!(told(&write(b"")[..18]).contains("cut off"));
    }

    #[test]
    fn numbers_are_written_in_one_way() {
        for line in
            ["knockplane lists 1 +0\n", "knockplane lists 1 00\n", "knockplane lists 1 0\r\n", "knockplane lists 1 \n"]
        {
            assert!(matches!(read(line.as_bytes()), Err(DamageError::Header { .. })), "{line:?}");
        }
        let huge = format!("knockplane lists 1 {}\n", usize::MAX);
        assert!(matches!(read(huge.as_bytes()), Err(DamageError::Header { .. })));
    }
}
