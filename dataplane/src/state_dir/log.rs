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
//! - A record counts whole or not at all, and it is on the disk when [`Log::append`] returns.
//! - A file whose last record is incomplete is read up to that record: an append was interrupted. It was not acknowledged.
//! - Damage elsewhere is told from that. The records before it are read; those behind it are told apart.
//! - A whole new file ([`Log::replace`]) takes the place of the old one in one step.

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Format, StateDir};

/// Bytes in front of a content.
const HEADER: usize = 32;

/// Bytes of a content at most: an import of the longest is a quarter of it.
const MAX_CONTENT: usize = 1 << 30;

/// The records of a file.
#[derive(Debug, Default)]
pub(crate) struct Records {
    file: Vec<u8>,
    contents: Vec<Range<usize>>,
    /// Intact records behind the damage, as far as they can be told.
    behind: Vec<Range<usize>>,
    pub(crate) end: End,
    /// The bytes up to the last intact record.
    length: usize,
}

/// How the records of a file end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// With the file.
    #[default]
    Whole,
    /// In a record that was not written to its end, with so many bytes.
    Torn(usize),
    /// At a record that is not as it was written.
    Damaged {
        /// Its first byte, counted from 0.
        place: usize,
        /// Bytes from there to the end of the file.
        bytes: usize,
    },
}

impl Records {
    /// Reads the records behind the first line, which ends at `begin`.
    pub(super) fn read(file: Vec<u8>, begin: usize) -> Records {
        let (contents, mut end) = scan(&file, begin, 0);
        let length = contents.last().map_or(begin, |content: &Range<usize>| content.end);
        let mut behind = Vec::new();
        if let End::Damaged { place, .. } = end {
            match header(&file[place..], contents.len() as u32) {
                // The content alone is damaged, and the next record can be found.
                Some(header) => behind = scan(&file, place + HEADER + header.length, contents.len() as u32 + 1).0,
                // A file that grew before its content was written ends in zeros.
                None if file[place..].iter().all(|byte| *byte == 0) => end = End::Torn(file.len() - place),
                None => {}
            }
        }
        Records { file, contents, behind, end, length }
    }

    /// The contents in order, up to the end or the damage.
    pub(crate) fn contents(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.contents.iter().map(|content| &self.file[content.clone()])
    }

    /// Those that can be read behind the damage.
    pub(crate) fn behind(&self) -> impl Iterator<Item = &[u8]> {
        self.behind.iter().map(|content| &self.file[content.clone()])
    }
}

/// A header that is as it was written.
struct Header {
    length: usize,
    sum: [u8; 16],
}

/// Reads the header that these bytes begin with; `None` if it is damaged or of another record.
fn header(bytes: &[u8], number: u32) -> Option<Header> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let (head, check) = header.split_at(HEADER - 8);
    if blake3::hash(head).as_bytes()[..8] != *check || head[4..8] != number.to_be_bytes() {
        return None;
    }
    let length = u32::from_be_bytes(*head.first_chunk()?) as usize;
    Some(Header { length, sum: *head[8..].first_chunk()? })
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

/// The contents from this byte on, of records with these numbers.
fn scan(file: &[u8], begin: usize, first: u32) -> (Vec<Range<usize>>, End) {
    let (mut contents, mut place) = (Vec::new(), begin);
    for number in first.. {
        let rest = &file[place..];
        if rest.is_empty() {
            break;
        }
        if rest.len() < HEADER {
            return (contents, End::Torn(rest.len()));
        }
        let damaged = End::Damaged { place, bytes: rest.len() };
        let Some(Header { length, sum: expected }) = header(rest, number) else { return (contents, damaged) };
        let Some(content) = rest.get(HEADER..HEADER + length) else { return (contents, End::Torn(rest.len())) };
        if sum(number, content) != expected {
            return (contents, damaged);
        }
        contents.push(place + HEADER..place + HEADER + length);
        place += HEADER + length;
    }
    (contents, End::Whole)
}

/// A file that grows by records.
#[derive(Debug)]
pub(crate) struct Log {
    state: Arc<StateDir>,
    name: &'static str,
    format: Format,
    /// `None` if there is none, or it is not known what it holds.
    file: Option<File>,
    length: u64,
    next: u32,
}

impl Log {
    /// A log whose first record makes the file, in place of one that may be there.
    pub(crate) fn new(state: Arc<StateDir>, name: &'static str, format: Format) -> Log {
        Log { state, name, format, file: None, length: 0, next: 0 }
    }

    /// Goes on behind these records, which were read from the file. What is behind the last intact one is cut off.
    ///
    /// # Errors
    /// If the file system refuses.
    pub(crate) fn resume(&mut self, records: &Records) -> io::Result<()> {
        let file = self.state.open_to_write(self.name)?;
        if records.end != End::Whole {
            file.set_len(records.length as u64)?;
            file.sync_all()?;
        }
        (self.file, self.length, self.next) = (Some(file), records.length as u64, records.contents.len() as u32);
        Ok(())
    }

    /// Whether the next record needs a new file: there is none, it was removed, or it is not known what it holds.
    pub(crate) fn is_broken(&self) -> bool {
        let is_there = |file: &File| file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        !self.file.as_ref().is_some_and(is_there)
    }

    /// The path of the file, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.state.file(self.name)
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Adds a record, and returns when it is on the disk.
    ///
    /// # Errors
    /// If the disk refuses; then the record is not in the file. If that cannot be made sure of, [`Log::is_broken`].
    pub(crate) fn append(&mut self, content: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::Error::other("there is no file to append to")) };
        let header = encode_header(self.next, content)?;
        let record = [&header, content].concat();
        let written = file.write_all_at(&record, self.length);
        let is_written = written.is_ok();
        if let Err(error) = written.and_then(|()| file.sync_data()) {
            // After a failed sync it is not known what is on the disk.
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
    /// If the disk refuses; then the file is as it was. If only the directory cannot be synced, either file may be there
    /// after a power failure, which the error says.
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
