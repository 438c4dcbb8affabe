//! What does a node still know after it was killed? Everything that it had acknowledged: that is in its log.
//!
//! The log is a file of frames: the length of a record, its CRC-32, and the record. The first one says whose log it is. A
//! process that is killed while it writes leaves a torn last frame, which was not acknowledged and is cut off. Damage
//! before the last frame means that acknowledged writes are gone, so the node does not start.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::version::Node;

/// The length and the CRC-32.
const HEAD: usize = 8;
/// A process that was killed may hold its lock for a moment longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read or written.
    #[error("the log cannot be opened: {0}")]
    Io(#[from] io::Error),
    /// Two processes would be one node.
    #[error("another process is this node already: it holds the lock on its log")]
    InUse,
    /// The folder has another node's data, or that of another cluster.
    #[error("this is the log of {0}: give each node a folder of its own")]
    NotOurs(String),
    /// A frame before the last one is damaged.
    #[error(
        "the log is damaged at byte {0}: remove the folder, and let the node join under a new number"
    )]
    Damaged(usize),
}

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The cluster.
    pub cluster: String,
    /// The node.
    pub node: Node,
}

/// A log that only grows, in a file that this process alone has open.
#[derive(Debug)]
pub struct Log {
    file: File,
    /// Where the last complete frame ends.
    end: u64,
}

impl Log {
    /// Opens the log in this folder, or makes it. Returns its records.
    pub fn open(folder: &Path, owner: &Owner) -> Result<(Self, Vec<Vec<u8>>), OpenError> {
        fs::create_dir_all(folder)?;
        let path = folder.join("log");
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        lock(&file)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (mut records, end) = records(&bytes).map_err(OpenError::Damaged)?;
        let mut log = Self { file, end: end as u64 };
        log.cut_off()?;
        let ours = serde_json::to_vec(owner).map_err(io::Error::from)?;
        match records.first() {
            None => {
                log.append(&ours)?;
                // A power cut must not take the name of the new file: the node would begin again, and give its dots twice.
                File::open(folder)?.sync_all()?;
            }
            Some(first) if *first == ours => drop(records.remove(0)),
            Some(first) => {
                return Err(OpenError::NotOurs(String::from_utf8_lossy(first).into_owned()));
            }
        }
        Ok((log, records))
    }

    // ANCHOR: append
    /// Adds a record. When this returns, the record survives a kill and a power cut. After an error it is not there: a
    /// part of it would make the next record unreadable.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let frame = frame(record)?;
        // Removes nothing, unless an earlier append failed and could not be taken back.
        self.cut_off()?;
        let written = self.file.write_all(&frame).and_then(|()| self.file.sync_data());
        if written.is_err() {
            self.cut_off()?;
            return written;
        }
        self.end += frame.len() as u64;
        Ok(())
    }
    // ANCHOR_END: append

    /// Removes what is behind the last complete frame.
    fn cut_off(&mut self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::End(0)).map(drop)
    }
}

/// Waits a moment for the lock.
fn lock(file: &File) -> Result<(), OpenError> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) if begun.elapsed() > PATIENCE => {
                return Err(OpenError::InUse);
            }
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(20)),
        }
    }
}

fn frame(record: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(record.len()).map_err(io::Error::other)?;
    let crc = crc32fast::hash(record);
    Ok([&length.to_le_bytes()[..], &crc.to_le_bytes()[..], record].concat())
}

// ANCHOR: records
/// The records, and where the last complete frame ends. The error is where the log is damaged.
fn records(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, usize), usize> {
    let (mut records, mut end) = (Vec::new(), 0);
    while let Some(record) = first(&bytes[end..]) {
        records.push(record.to_vec());
        end += HEAD + record.len();
    }
    // A complete frame behind a damaged one: this was no torn write, and something acknowledged is gone.
    let mut behind = end + 1..bytes.len();
    if behind.any(|at| first(&bytes[at..]).is_some()) {
        return Err(end);
    }
    Ok((records, end))
}

/// The record of the frame at the beginning of these bytes, if it is complete and undamaged.
fn first(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let record = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    // A file that was made longer before a power cut ends with zeros, which look like an empty record.
    (!record.is_empty() && crc32fast::hash(record) == u32::from_le_bytes(*crc)).then_some(record)
}
// ANCHOR_END: records

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    fn owner(node: Node) -> Owner {
        Owner { cluster: "tea".to_owned(), node }
    }

    /// Three records, in frames.
    fn three() -> Vec<u8> {
        [&b"one"[..], b"two", b"three"].iter().flat_map(|it| frame(it).unwrap()).collect()
    }

    #[test]
    fn a_torn_last_record_is_cut_off_wherever_it_was_torn() {
        let whole = three();
        let last = whole.len() - HEAD - "three".len();
        for end in last..whole.len() {
            let (records, at) = records(&whole[..end]).unwrap();
            assert_eq!((records.len(), at), (2, last), "torn at {end}");
        }
        let with_zeros = [&whole[..], &[0; 100]].concat();
        assert_eq!(records(&with_zeros).unwrap().1, whole.len());
    }

    #[test]
    fn damage_before_the_last_record_is_never_taken_for_a_torn_write() {
        let whole = three();
        let last = whole.len() - HEAD - "three".len();
        for at in 0..last {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                assert!(records(&damaged).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn what_was_appended_is_there_when_the_log_is_opened_again() {
        let folder = tempdir().unwrap();
        for expected in 0..5 {
            let (mut log, records) = Log::open(folder.path(), &owner(1)).unwrap();
            assert_eq!(records.len(), expected);
            log.append(format!("record {expected}").as_bytes()).unwrap();
            // Half of a frame, as if the process had been killed.
            log.file.write_all(&frame(b"torn").unwrap()[..7]).unwrap();
        }
    }

    #[test]
    fn the_log_of_another_node_or_cluster_is_refused() {
        let folder = tempdir().unwrap();
        drop(Log::open(folder.path(), &owner(1)).unwrap());
        let other_cluster = Owner { cluster: "coffee".to_owned(), node: 1 };
        for other in [owner(2), other_cluster] {
            let error = Log::open(folder.path(), &other).unwrap_err();
            assert!(matches!(error, OpenError::NotOurs(_)), "{error}");
        }
        assert!(Log::open(folder.path(), &owner(1)).is_ok());
    }

    #[test]
    fn a_node_joins_once() {
        let folder = tempdir().unwrap();
        let first = Log::open(folder.path(), &owner(1)).unwrap();
        let error = Log::open(folder.path(), &owner(1)).unwrap_err();
        assert!(matches!(error, OpenError::InUse), "{error}");
        drop(first);
        assert!(Log::open(folder.path(), &owner(1)).is_ok());
    }
}
