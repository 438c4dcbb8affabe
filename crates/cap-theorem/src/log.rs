//! What does a node still know after it was killed? Everything that it had acknowledged: that is in its log.
//!
//! The log is a file of frames: the length of a record, its CRC-32, and the record. The first one says whose log it is. A
//! process that is killed while it writes leaves a torn last frame, which was not acknowledged and is cut off. Damage
//! before the last frame means that acknowledged writes are gone, so the node does not start.
//!
//! Invariant: a file is changed only after its first frame has said that it is ours, or if it holds no more than the
//! beginning of that frame.

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
    /// The folder has another node's data, or that of another cluster, or of a cluster of another size.
    #[error(
        "this is the log of {0}: give each node, and each size of the cluster, a folder of its own"
    )]
    NotOurs(String),
    /// A file that somebody else has put there.
    #[error("its file named log is not one of ours: choose another folder")]
    NoLog,
    /// A frame before the last one is damaged.
    #[error(
        "the log is damaged at byte {0}, so acknowledged writes are missing: keep the folder, and put a complete copy \
         of the log there; with an empty or an older log, a quorum would miss them"
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
    /// How many nodes the cluster has. A majority of three and a majority of five need not have a node in common.
    pub nodes: usize,
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
        let ours = serde_json::to_vec(owner).map_err(io::Error::from)?;
        match records.first() {
            // A new file, or one whose first frame was torn: only we write what begins like this frame.
            None if is_torn(&bytes, &frame(&ours)?) => {}
            None => return Err(OpenError::NoLog),
            Some(first) if *first == ours => drop(records.remove(0)),
            Some(first) => {
                return Err(OpenError::NotOurs(String::from_utf8_lossy(first).into_owned()));
            }
        }
        let mut log = Self { file, end: end as u64 };
        log.cut_off()?;
        if end == 0 {
            log.append(&ours)?;
        }
        // A process that was killed may have written a frame, or made the file, without a flush. If a power cut then took
        // what this node goes on from, it would give its dots twice.
        log.file.sync_all()?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        for folder in [Some(folder), parent].into_iter().flatten() {
            File::open(folder)?.sync_all()?;
        }
        Ok((log, records))
    }

    // ANCHOR: append
    /// Adds a record. When this returns, the record survives a kill and a power cut. After an error it is cut off, because a
    /// part of it would make the next record unreadable. If that fails too, the next append tries again; after a restart
    /// the record may be there.
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

/// Whether a kill or a power cut while this frame was written can have left these bytes. After a power cut, the end of a
/// file may be zeros.
fn is_torn(bytes: &[u8], frame: &[u8]) -> bool {
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.len() <= frame.len() && frame.starts_with(&bytes[..written])
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
        Owner { cluster: "tea".to_owned(), node, nodes: 3 }
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
        let path = folder.path().join("log");
        // With a torn record, which only its own node may cut off.
        File::options().append(true).open(&path).unwrap().write_all(b"torn").unwrap();
        let before = fs::read(&path).unwrap();
        let other_cluster = Owner { cluster: "coffee".to_owned(), ..owner(1) };
        let other_size = Owner { nodes: 5, ..owner(1) };
        for other in [owner(2), other_cluster, other_size] {
            let error = Log::open(folder.path(), &other).unwrap_err();
            assert!(matches!(error, OpenError::NotOurs(_)), "{error}");
            assert_eq!(fs::read(&path).unwrap(), before, "{other:?}");
        }
        assert!(Log::open(folder.path(), &owner(1)).is_ok());
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_and_left_alone() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("log");
        for foreign in [b"Dear diary, ".repeat(100), b"short".to_vec(), vec![0; 1_000]] {
            fs::write(&path, &foreign).unwrap();
            let error = Log::open(folder.path(), &owner(1)).unwrap_err();
            assert!(matches!(error, OpenError::NoLog), "{error}");
            assert_eq!(fs::read(&path).unwrap(), foreign);
        }
    }

    #[test]
    fn a_log_whose_first_frame_was_torn_begins_again() {
        let first = frame(&serde_json::to_vec(&owner(1)).unwrap()).unwrap();
        for written in 0..first.len() {
            for zeros in [0, first.len() - written] {
                let folder = tempdir().unwrap();
                let torn = [&first[..written], &vec![0; zeros]].concat();
                fs::write(folder.path().join("log"), torn).unwrap();
                let (_, records) = Log::open(folder.path(), &owner(1)).unwrap();
                assert!(records.is_empty(), "{written} and {zeros}");
                assert_eq!(fs::read(folder.path().join("log")).unwrap(), first);
            }
        }
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
