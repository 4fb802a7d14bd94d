//! The files of the audit: lines are appended, and the oldest file is removed.
//!
//! A write that fails is undone, so that a full disk leaves whole lines. A line that a kill has cut is removed at the next
//! start.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use knockplane_policy::event::EventId;
use serde::Deserialize;

use super::AuditSettings;

/// Mode of the files: the owner writes, and the group reads.
const MODE: u32 = 0o640;

/// Bytes at the end of a file in which its last id is looked for. Lines are much shorter.
const TAIL: u64 = 1 << 20;

/// The present file.
#[derive(Debug)]
pub(super) struct AuditFile {
    settings: AuditSettings,
    file: File,
    bytes: u64,
}

impl AuditFile {
    /// Opens the file, or creates it. Returns it with the last id of the files, if they have one.
    pub(super) fn open(settings: &AuditSettings) -> io::Result<(AuditFile, Option<EventId>)> {
        let mut file = open(&settings.path)?;
        let tail = tail(&mut file)?;
        let end = file.seek(SeekFrom::End(0))?;
        // A kill may have cut the last line.
        let cut = tail.iter().rposition(|byte| *byte == b'\n').map_or(tail.len(), |end| tail.len() - end - 1);
        let bytes = end - cut as u64;
        if cut > 0 {
            file.set_len(bytes)?;
        }
        let last = match last_id(&tail[..tail.len() - cut]) {
            None => File::open(numbered(&settings.path, 1)).and_then(|mut file| tail_id(&mut file)).unwrap_or_default(),
            last => last,
        };
        Ok((AuditFile { settings: settings.clone(), file, bytes }, last))
    }

    /// Appends whole lines, all or none, and waits until the disk has them.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        // Another program may have moved the file, to keep it elsewhere.
        if !self.is_there() {
            self.file = open(&self.settings.path)?;
            self.bytes = self.file.metadata()?.len();
        }
        // A write that could not be undone leaves a longer file. A program that empties the file leaves a shorter one.
        let length = self.file.metadata()?.len();
        if length > self.bytes {
            self.file.set_len(self.bytes)?;
        }
        self.bytes = self.bytes.min(length);
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.settings.file_bytes {
            self.rotate()?;
        }
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.bytes += lines.len() as u64,
            Err(_) => {
                // If this fails too, the next call repeats it.
                let _ = self.file.set_len(self.bytes);
            }
        }
        written
    }

    /// Renames the files, so that each gets the next number, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        for number in (1..self.settings.files - 1).rev() {
            match fs::rename(numbered(path, number), numbered(path, number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.settings.files > 1 {
            fs::rename(path, numbered(path, 1))?;
        } else {
            fs::remove_file(path)?;
        }
        self.file = open(path)?;
        self.bytes = 0;
        Ok(())
    }

    /// Whether the name still leads to this file: an operator or another program may have moved it.
    fn is_there(&self) -> bool {
        use std::os::unix::fs::MetadataExt as _;

        let own = self.file.metadata().map(|own| (own.dev(), own.ino()));
        let there = fs::symlink_metadata(&self.settings.path).map(|there| (there.dev(), there.ino()));
        matches!((own, there), (Ok(own), Ok(there)) if own == there)
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(MODE).custom_flags(libc_nofollow());
    let file = options.open(path)?;
    // The umask does not count.
    if file.metadata()?.permissions().mode() & 0o777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

/// The flag that refuses a symbolic link as the last part of a path: open(2).
fn libc_nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

/// The name of an earlier file.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn tail(file: &mut File) -> io::Result<Vec<u8>> {
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(tail)
}

fn tail_id(file: &mut File) -> io::Result<Option<EventId>> {
    tail(file).map(|tail| last_id(&tail))
}

/// The id of the last line that has one.
fn last_id(text: &[u8]) -> Option<EventId> {
    #[derive(Deserialize)]
    struct Line {
        id: Option<EventId>,
    }
    text.split(|byte| *byte == b'\n').rev().find_map(|line| serde_json::from_slice::<Line>(line).ok()?.id)
}

#[cfg(test)]
mod tests {
    use knockplane_policy::event::StartId;

    use super::*;

    fn settings(folder: &Path) -> AuditSettings {
        AuditSettings { file_bytes: 100, files: 3, ..AuditSettings::at(folder.join("audit.jsonl")) }
    }

    fn line(number: u64) -> String {
        format!("{{\"id\":\"{}\",\"kind\":\"granted\"}}\n", EventId::of(StartId(7), number))
    }

    #[test]
    fn files_are_bounded_and_private_and_the_last_id_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let (mut file, last) = AuditFile::open(&settings).unwrap();
        assert_eq!(last, None);
        for number in 1..=9 {
            file.append(line(number).as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("audit.jsonl"), line(9));
        assert_eq!(read("audit.jsonl.1"), line(7) + &line(8));
        assert_eq!(read("audit.jsonl.2"), line(5) + &line(6));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        for entry in fs::read_dir(folder.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o640);
        }
        assert_eq!(AuditFile::open(&settings).unwrap().1, Some(EventId::of(StartId(7), 9)));
        fs::write(folder.path().join("audit.jsonl"), "").unwrap();
        assert_eq!(AuditFile::open(&settings).unwrap().1, Some(EventId::of(StartId(7), 8)), "of the file before");
    }

    #[test]
    fn a_line_that_was_cut_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        fs::write(&settings.path, line(1) + "{\"id\":\"00000000000").unwrap();
        let (mut file, last) = AuditFile::open(&settings).unwrap();
        assert_eq!(last, Some(EventId::of(StartId(7), 1)));
        file.append(line(2).as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&settings.path).unwrap(), line(1) + &line(2));
    }

    #[test]
    fn a_symbolic_link_is_refused_and_a_file_that_was_moved_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let (file, _) = AuditFile::open(&settings).unwrap();
        assert!(file.is_there());
        fs::rename(&settings.path, folder.path().join("other")).unwrap();
        assert!(!file.is_there());
        std::os::unix::fs::symlink(folder.path().join("other"), &settings.path).unwrap();
        assert!(AuditFile::open(&settings).is_err());
    }
}
