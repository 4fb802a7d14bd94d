//! Append-only files: a first line, then records, each with its length and checksums.
//!
//! ```text
//! knockplane lists 2 log                   kind and version of the format
//! length   bytes of the content            31 bits behind a bit that is set if the content only adds, big-endian
//! number   of the record, from 0           4 bytes, big-endian
//! sum      of number and content           16 bytes: the first half of their BLAKE3 hash
//! check    of the 24 bytes before it       8 bytes: the beginning of their BLAKE3 hash
//! content
//! …                                        the next record
//! ```
//! Promises:
//! - A record counts as a whole or not at all. It is on the disk when [`ChangeLog::append`] returns.
//! - A file with an incomplete last record is valid up to that record: an append was interrupted before its
//!   acknowledgement. The record ends early, or in zeros from the begin of a sector on.
//! - Other damage is distinguished from an interrupted append. The reader finds the intact records behind the damage.
//!   Records before damage that may have contained a removal are not valid any more ([`LogRecords::valid`]).
//! - A whole new file ([`ChangeLog::replace`]) replaces the old one in one step.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::{FileFormat, StateDir};

/// Bytes in front of a content.
pub(crate) const RECORD_HEADER: usize = 32;

/// Maximum number of bytes of a content: the longest import is a quarter of it.
const MAX_CONTENT: usize = 1 << 30;

/// The number of bytes that a disk writes as a whole.
const SECTOR: usize = 512;

/// The bit of a length whose record only adds.
const ONLY_ADDS: u32 = 1 << 31;

/// The content of a record, whose last byte is not 0, so that a content that is not completely written is recognized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record<B = Vec<u8>> {
    pub(crate) content: B,
    /// Whether the content removes nothing. If such a record is damaged, only its own additions are lost.
    pub(crate) only_adds: bool,
}

/// The records of a file.
#[derive(Debug, Default)]
pub(crate) struct LogRecords {
    file: Vec<u8>,
    /// The intact records in order, before and behind damage.
    intact: Vec<Record<Range<usize>>>,
    /// The first of the intact records that is valid. A damaged record may have removed the additions before it.
    first_valid: usize,
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
    /// Records are damaged.
    Damaged(Damage),
}

/// The damaged parts of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The first damaged byte, counted from 0.
    pub(crate) place: usize,
    /// The number of bytes in damaged records.
    pub(crate) bytes: usize,
    /// Whether all damaged records only added.
    pub(crate) only_adds: bool,
}

impl LogRecords {
    /// Reads the records behind the first line, which ends at `begin`.
    pub(super) fn read(file: Vec<u8>, begin: usize) -> LogRecords {
        let mut records = LogRecords { length: begin, ..LogRecords::default() };
        let (mut place, mut next) = (begin, 0);
        while place < file.len() {
            let rest = &file[place..];
            let lost = match header(rest).filter(|header| header.number == next) {
                Some(header) if rest.len() < header.end() => {
                    records.cut_off(place, rest.len());
                    break;
                }
                Some(header) if header.is_of(rest) => {
                    records.intact.push(header.record_at(place));
                    place += header.end();
                    records.length = place;
                    next += 1;
                    continue;
                }
                Some(header) if rest.len() == header.end() && is_unwritten(&file, place, header.end()) => {
                    records.cut_off(place, rest.len());
                    break;
                }
                // The content is damaged, and the header tells where the next record begins.
                Some(header) => Lost { bytes: header.end(), next: next + 1, only_adds: header.only_adds },
                None if rest.len() < RECORD_HEADER || is_unwritten(&file, place, RECORD_HEADER) => {
                    records.cut_off(place, rest.len());
                    break;
                }
                None => find_record(rest, next),
            };
            records.lose(place, &lost);
            place += lost.bytes;
            next = lost.next;
        }
        LogRecords { file, ..records }
    }

    /// The rest of the file is an incomplete record. Behind damage it may also be the rest of a removal.
    fn cut_off(&mut self, place: usize, bytes: usize) {
        match self.end {
            LogEnd::Damaged(_) => self.lose(place, &Lost { bytes, next: 0, only_adds: false }),
            _ => self.end = LogEnd::Torn(bytes),
        }
    }

    /// Records at this place are damaged.
    fn lose(&mut self, place: usize, lost: &Lost) {
        let mut damage = match &self.end {
            LogEnd::Damaged(damage) => damage.clone(),
            _ => Damage { place, bytes: 0, only_adds: true },
        };
        damage.bytes += lost.bytes;
        damage.only_adds &= lost.only_adds;
        self.end = LogEnd::Damaged(damage);
        if !lost.only_adds {
            self.first_valid = self.intact.len();
        }
    }

    /// The intact records in front of all damage, in order.
    pub(crate) fn before_damage(&self) -> impl Iterator<Item = Record<&[u8]>> + Clone {
        self.intact_where(|place| self.first_damage().is_none_or(|damage| place < damage))
    }

    /// The intact records behind the first damage, in order.
    pub(crate) fn behind_damage(&self) -> impl Iterator<Item = Record<&[u8]>> + Clone {
        self.intact_where(|place| self.first_damage().is_some_and(|damage| place > damage))
    }

    fn first_damage(&self) -> Option<usize> {
        match &self.end {
            LogEnd::Damaged(damage) => Some(damage.place),
            LogEnd::Whole | LogEnd::Torn(_) => None,
        }
    }

    fn intact_where(&self, is_wanted: impl Fn(usize) -> bool + Clone) -> impl Iterator<Item = Record<&[u8]>> + Clone {
        self.intact.iter().filter(move |record| is_wanted(record.content.start)).map(|record| self.at(record))
    }

    fn at(&self, record: &Record<Range<usize>>) -> Record<&[u8]> {
        Record { content: &self.file[record.content.clone()], only_adds: record.only_adds }
    }

    /// The valid records in order: the intact records, without those before damage that may have contained a removal.
    /// No damage therefore brings back an addition that was removed.
    pub(crate) fn valid(&self) -> impl Iterator<Item = Record<&[u8]>> + Clone {
        self.intact[self.first_valid..].iter().map(|record| self.at(record))
    }
}

/// Damaged bytes, and the number of the record behind them.
struct Lost {
    bytes: usize,
    next: u32,
    only_adds: bool,
}

/// An intact header.
struct LogHeader {
    length: usize,
    only_adds: bool,
    number: u32,
    sum: [u8; 16],
}

impl LogHeader {
    /// The number of bytes of the record.
    fn end(&self) -> usize {
        RECORD_HEADER + self.length
    }

    /// Whether these bytes begin with the header and its intact content.
    fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.get(RECORD_HEADER..self.end()).is_some_and(|content| sum(self.number, content) == self.sum)
    }

    fn record_at(&self, place: usize) -> Record<Range<usize>> {
        Record { content: place + RECORD_HEADER..place + self.end(), only_adds: self.only_adds }
    }
}

/// Reads the header at the start of these bytes; `None` if it is damaged.
fn header(bytes: &[u8]) -> Option<LogHeader> {
    let (header, _) = bytes.split_first_chunk::<RECORD_HEADER>()?;
    let (head, check) = header.split_at(RECORD_HEADER - 8);
    if blake3::hash(head).as_bytes()[..8] != *check {
        return None;
    }
    let [length, number] = [0, 4].map(|place| head[place..].first_chunk().map(|bytes| u32::from_be_bytes(*bytes)));
    let (length, number) = (length?, number?);
    let sum = *head[8..].first_chunk()?;
    Some(LogHeader { length: (length & !ONLY_ADDS) as usize, only_adds: length & ONLY_ADDS != 0, number, sum })
}

/// Whether the file ends in zeros from a sector within these bytes on, or from their begin: the file grew before its
/// last sectors were written. No content ends in zero.
fn is_unwritten(file: &[u8], place: usize, bytes: usize) -> bool {
    let sectors = (place / SECTOR + 1..).map(|sector| sector * SECTOR).take_while(|sector| *sector < place + bytes);
    let is_zero = |begin: usize| file.get(begin..).is_some_and(|tail| tail.iter().all(|byte| *byte == 0));
    std::iter::once(place).chain(sectors).filter(|begin| *begin < file.len()).any(is_zero)
}

/// The bytes in front of the next intact record, whose number is at least `next`. A removal may be among them.
fn find_record(bytes: &[u8], next: u32) -> Lost {
    // Each of the records in front of it has a header.
    let is_number = |place: usize| {
        let number = bytes[place..].get(4..8).and_then(|number| number.first_chunk().copied()).map(u32::from_be_bytes);
        number.is_some_and(|number| (next..=next.saturating_add((place / RECORD_HEADER) as u32 + 1)).contains(&number))
    };
    let found = (0..bytes.len()).filter(|place| is_number(*place)).find_map(|place| {
        let header = header(&bytes[place..]).filter(|header| header.is_of(&bytes[place..]))?;
        Some(Lost { bytes: place, next: header.number, only_adds: false })
    });
    found.unwrap_or(Lost { bytes: bytes.len(), next, only_adds: false })
}

fn sum(number: u32, content: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_be_bytes()).update(content);
    *hasher.finalize().as_bytes().first_chunk().expect("32 bytes")
}

fn encode_header(number: u32, record: &Record) -> io::Result<[u8; RECORD_HEADER]> {
    let length = u32::try_from(record.content.len()).ok().filter(|length| *length as usize <= MAX_CONTENT);
    let length = length.ok_or_else(|| io::Error::other("the change is too large: split it"))?;
    let mut header = [0; RECORD_HEADER];
    header[..4].copy_from_slice(&(length | if record.only_adds { ONLY_ADDS } else { 0 }).to_be_bytes());
    header[4..8].copy_from_slice(&number.to_be_bytes());
    header[8..24].copy_from_slice(&sum(number, &record.content));
    let check = blake3::hash(&header[..24]);
    header[24..].copy_from_slice(&check.as_bytes()[..8]);
    Ok(header)
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

    /// Continues behind these records, which were read from the file without damage. Truncates the file after the last
    /// intact record.
    ///
    /// # Errors
    /// If the file system refuses.
    pub(crate) fn resume(&mut self, records: &LogRecords) -> io::Result<()> {
        let file = self.state.open_to_write(self.name)?;
        if records.end != LogEnd::Whole {
            self.state.disk.cut(&file, records.length as u64)?;
            self.state.disk.sync(&file)?;
        }
        (self.file, self.length, self.next) = (Some(file), records.length as u64, records.intact.len() as u32);
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
    pub(crate) fn append(&mut self, record: &Record) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::Error::other("there is no file to append to")) };
        let header = encode_header(self.next, record)?;
        let record = [&header, &record.content[..]].concat();
        let disk = &self.state.disk;
        let written = disk.write_at(file, &record, self.length);
        let is_written = written.is_ok();
        if let Err(error) = written.and_then(|()| disk.sync(file)) {
            // After a failed sync, the content of the disk is not known.
            let is_cut = disk.cut(file, self.length).and_then(|()| disk.sync(file)).is_ok();
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
    pub(crate) fn replace(&mut self, records: impl Iterator<Item = Record>) -> io::Result<()> {
        let mut records = records;
        self.replace_with(|put| records.try_for_each(|record| put(&record)))
    }

    /// As [`ChangeLog::replace`], with the records that `write` puts.
    ///
    /// # Errors
    /// As [`ChangeLog::replace`], and those of `write`.
    pub(crate) fn replace_with(
        &mut self,
        write: impl FnOnce(&mut dyn FnMut(&Record) -> io::Result<()>) -> io::Result<()>,
    ) -> io::Result<()> {
        let line = self.format.log_line();
        let (mut length, mut next) = (line.len() as u64, 0);
        let file = self.state.replace(self.name, |put| {
            put(line.as_bytes())?;
            write(&mut |record| {
                let header = encode_header(next, record)?;
                put(&header)?;
                put(&record.content)?;
                length += (header.len() + record.content.len()) as u64;
                next += 1;
                Ok(())
            })
        })?;
        (self.file, self.length, self.next) = (Some(file), length, next);
        Ok(())
    }
}
