//! Append-only files: a first line, then records, each with its length and checksums.
//!
//! ```text
//! knockplane lists 2 log                   kind and version of the format
//! length   bytes of the content            4 bytes, big-endian
//! number   of the record, from 0           4 bytes, big-endian
//! sum      of number and content           16 bytes: the first half of their BLAKE3 hash
//! check    of the 24 bytes before it       8 bytes: the beginning of their BLAKE3 hash
//! content
//! …                                        the next record
//! ```
//! Promises:
//! - A record counts as a whole or not at all. It is on the disk when [`ChangeLog::append`] returns.
//! - A file with an incomplete last record is valid up to that record: an append was interrupted before its
//!   acknowledgement.
//! - Other damage is distinguished from an interrupted append. The records before the damage are valid; those behind it
//!   are reported separately.
//! - A whole new file ([`ChangeLog::replace`]) replaces the old one in one step.

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use super::{FileFormat, StateDir};

/// Bytes in front of a content.
const HEADER: usize = 32;

/// Maximum number of bytes of a content: the longest import is a quarter of it.
const MAX_CONTENT: usize = 1 << 30;

/// The records of a file.
#[derive(Debug, Default)]
pub(crate) struct LogRecords {
    file: Vec<u8>,
    contents: Vec<Range<usize>>,
    /// Intact records behind the damage, as far as the reader can find them.
    behind: Vec<Range<usize>>,
    pub(crate) end: LogEnd,
    /// The bytes up to the last intact record.
    length: usize,
}

/// The end of the records of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogEnd {
    /// The records end with the file.
    #[default]
    Whole,
    /// The last record is incomplete, with this number of bytes.
    Torn(usize),
    /// A record is damaged.
    Damaged {
        /// The first byte of the record, counted from 0.
        place: usize,
        /// The number of bytes from there to the end of the file.
        bytes: usize,
    },
}

impl LogRecords {
    /// Reads the records behind the first line, which ends at `begin`.
    pub(super) fn read(file: Vec<u8>, begin: usize) -> LogRecords {
        let (contents, mut end) = scan(&file, begin, 0);
        let length = contents.last().map_or(begin, |content: &Range<usize>| content.end);
        let mut behind = Vec::new();
        if let LogEnd::Damaged { place, .. } = end {
            match header(&file[place..], contents.len() as u32) {
                // Only the content is damaged, so the reader can find the next record.
                Some(header) => behind = scan(&file, place + HEADER + header.length, contents.len() as u32 + 1).0,
                // If the file grew before its content was written, it ends in zeros.
                None if file[place..].iter().all(|byte| *byte == 0) => end = LogEnd::Torn(file.len() - place),
                None => {}
            }
        }
        LogRecords { file, contents, behind, end, length }
    }

    /// The contents in order, up to the end or the damage.
    pub(crate) fn contents(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.contents.iter().map(|content| &self.file[content.clone()])
    }

    /// The contents that are readable behind the damage.
    pub(crate) fn behind(&self) -> impl Iterator<Item = &[u8]> {
        self.behind.iter().map(|content| &self.file[content.clone()])
    }
}

/// An intact header.
struct LogHeader {
    length: usize,
    sum: [u8; 16],
}

/// Reads the header at the start of these bytes; `None` if the header is damaged or belongs to another record.
fn header(bytes: &[u8], number: u32) -> Option<LogHeader> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let (head, check) = header.split_at(HEADER - 8);
    if blake3::hash(head).as_bytes()[..8] != *check || head[4..8] != number.to_be_bytes() {
        return None;
    }
    let length = u32::from_be_bytes(*head.first_chunk()?) as usize;
    Some(LogHeader { length, sum: *head[8..].first_chunk()? })
}

fn sum(number: u32, content: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_be_bytes()).update(content);
    *hasher.finalize().as_bytes().first_chunk().expect("32 bytes")
}

fn encode_header(number: u32, content: &[u8]) -> io::Result<[u8; HEADER]> {
    let length = u32::try_from(content.len()).ok().filter(|length| *length as usize <= MAX_CONTENT);
    let length = length.ok_or_else(|| io::Error::other("the change is too large: split it"))?;
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4..8].copy_from_slice(&number.to_be_bytes());
    header[8..24].copy_from_slice(&sum(number, content));
    let check = blake3::hash(&header[..24]);
    header[24..].copy_from_slice(&check.as_bytes()[..8]);
    Ok(header)
}

/// The contents from this byte on, of records with consecutive numbers from `first` on.
fn scan(file: &[u8], begin: usize, first: u32) -> (Vec<Range<usize>>, LogEnd) {
    let (mut contents, mut place) = (Vec::new(), begin);
    for number in first.. {
        let rest = &file[place..];
        if rest.is_empty() {
            break;
        }
        if rest.len() < HEADER {
            return (contents, LogEnd::Torn(rest.len()));
        }
        let damaged = LogEnd::Damaged { place, bytes: rest.len() };
        let Some(LogHeader { length, sum: expected }) = header(rest, number) else { return (contents, damaged) };
        let Some(content) = rest.get(HEADER..HEADER + length) else { return (contents, LogEnd::Torn(rest.len())) };
        if sum(number, content) != expected {
            return (contents, damaged);
        }
        contents.push(place + HEADER..place + HEADER + length);
        place += HEADER + length;
    }
    (contents, LogEnd::Whole)
}

/// A file that grows by records.
#[derive(Debug)]
pub(crate) struct ChangeLog {
    state: Arc<StateDir>,
    name: &'static str,
    format: FileFormat,
    /// `None` if there is no file, or if its content is not known.
    file: Option<File>,
    length: u64,
    next: u32,
}

impl ChangeLog {
    /// Creates a log whose first record creates the file, and replaces an existing file.
    pub(crate) fn new(state: Arc<StateDir>, name: &'static str, format: FileFormat) -> ChangeLog {
        ChangeLog { state, name, format, file: None, length: 0, next: 0 }
    }

    /// Continues behind these records, which were read from the file. Truncates the file after the last intact record.
    ///
    /// # Errors
    /// If the file system refuses.
    pub(crate) fn resume(&mut self, records: &LogRecords) -> io::Result<()> {
        let file = self.state.open_to_write(self.name)?;
        if records.end != LogEnd::Whole {
            file.set_len(records.length as u64)?;
            file.sync_all()?;
        }
        (self.file, self.length, self.next) = (Some(file), records.length as u64, records.contents.len() as u32);
        Ok(())
    }

    /// Whether the next record needs a new file: there is no file, it was removed, or its content is not known.
    pub(crate) fn is_broken(&self) -> bool {
        let is_there = |file: &File| file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        !self.file.as_ref().is_some_and(is_there)
    }

    /// The path of the file, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.state.file(self.name)
    }

    /// The number of bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends a record, and returns when the record is on the disk.
    ///
    /// # Errors
    /// If the disk refuses; then the file does not contain the record. If this cannot be ensured,
    /// [`ChangeLog::is_broken`] is true.
    pub(crate) fn append(&mut self, content: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::Error::other("there is no file to append to")) };
        let header = encode_header(self.next, content)?;
        let record = [&header, content].concat();
        let written = file.write_all_at(&record, self.length);
        let is_written = written.is_ok();
        if let Err(error) = written.and_then(|()| file.sync_data()) {
            // After a failed sync, the content of the disk is not known.
            let is_cut = file.set_len(self.length).and_then(|()| file.sync_data()).is_ok();
            if is_written || !is_cut {
                self.file = None;
            }
            return Err(error);
        }
        self.length += record.len() as u64;
        self.next += 1;
        Ok(())
    }

    /// Replaces the file by one with these records, and returns when it is on the disk.
    ///
    /// # Errors
    /// If the disk refuses; then the file is unchanged. If only the sync of the directory fails, either file may be
    /// present after a power failure, as the error states.
    pub(crate) fn replace(&mut self, contents: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
        let (mut length, mut next) = (0, 0);
        let line = self.format.log_line();
        let file = self.state.replace(self.name, |file| {
            let mut put = |bytes: &[u8]| {
                length += bytes.len() as u64;
                file.write_all(bytes)
            };
            put(line.as_bytes())?;
            for content in contents {
                put(&encode_header(next, &content)?)?;
                put(&content)?;
                next += 1;
            }
            Ok(())
        })?;
        (self.file, self.length, self.next) = (Some(file), length, next);
        Ok(())
    }
}
