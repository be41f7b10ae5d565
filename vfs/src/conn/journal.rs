//! Rollback journals: in memory, spilled to a file of the base VFS when they grow.
//!
//! A journal serves one transaction of this connection and nobody else: no other process
//! could need it, since nothing is in the store before the commit. Two things are learnt
//! from how SQLite uses it: how durable the commit is to be, and that a rollback is being
//! played back.

use interleaf_store::kv::Durability;

use crate::code::Outcome;

/// Bytes of a journal that are kept in memory.
pub const MAX_MEMORY: usize = 8 << 20;

/// Bytes of a journal's memory that its file keeps for the next one.
const KEPT_MEMORY: usize = 64 << 10;

/// What a journal's header begins with.
const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// How much of the header SQLite rewrites before a commit: the magic and the record count.
const REWRITE_LEN: usize = 12;

/// How far before a journal's end the length of a super-journal's name stands. A playback
/// of the whole transaction begins by reading these four bytes, and nothing else reads them:
/// `ROLLBACK TO` the outermost savepoint reads the first header and all records, but not this.
const SUPER_NAME_LEN_FROM_END: u64 = 16;

/// A file of the base VFS that is gone once it is closed.
pub trait TempFile: Send {
    /// Fills `out` from `offset`; the bytes are there.
    ///
    /// # Errors
    /// The base VFS's; likewise below.
    fn read(&mut self, offset: u64, out: &mut [u8]) -> Outcome<()>;
    /// Writes.
    fn write(&mut self, offset: u64, data: &[u8]) -> Outcome<()>;
    /// Cuts off.
    fn truncate(&mut self, size: u64) -> Outcome<()>;
}

/// Opens a [`TempFile`].
pub trait Temp: Send + Sync {
    /// A new one.
    ///
    /// # Errors
    /// The base VFS's.
    fn open(&self) -> Outcome<Box<dyn TempFile>>;
}

enum Place {
    Memory(Vec<u8>),
    File(Box<dyn TempFile>, u64),
}

/// What the syncs around the last rewrite of the header said (rule 13).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Syncs {
    /// The last operation was a sync.
    just_synced: bool,
    /// A sync stood directly before the last rewrite of the header.
    before: bool,
    /// A sync stands behind it.
    after: bool,
}

/// An open journal.
pub struct Journal {
    place: Place,
    syncs: Syncs,
    played_back: bool,
    /// Whether the transaction in progress has written to it.
    written: bool,
}

impl Default for Journal {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Journal {
    /// An empty one, in the memory that another one left.
    pub fn new(mut memory: Vec<u8>) -> Self {
        memory.clear();
        Self {
            place: Place::Memory(memory),
            syncs: Syncs::default(),
            played_back: false,
            written: false,
        }
    }

    /// What memory it leaves to the next one: grown to what a transaction needs, it need not
    /// grow again, page by page, in each.
    pub fn into_memory(self) -> Vec<u8> {
        match self.place {
            Place::Memory(memory) if memory.capacity() <= KEPT_MEMORY => memory,
            Place::Memory(_) | Place::File(..) => Vec::new(),
        }
    }

    /// A transaction begins to write. `PRAGMA journal_mode=TRUNCATE` or `PERSIST` behind the
    /// VFS's back (an attached database under a `:memory:` main one) leaves a journal open
    /// from one transaction to the next: what was learnt of the last one is not the next's.
    pub fn restart(&mut self) {
        self.syncs = Syncs::default();
        self.played_back = false;
        self.written = false;
    }

    /// Whether the transaction in progress has written to it.
    pub const fn is_written(&self) -> bool {
        self.written
    }

    /// Bytes in it.
    pub fn size(&self) -> u64 {
        match &self.place {
            Place::Memory(bytes) => bytes.len() as u64,
            Place::File(_, size) => *size,
        }
    }

    /// Whether the rollback of the whole transaction has begun to play it back: what comes
    /// to the database from then on undoes, and commits nothing.
    pub const fn is_played_back(&self) -> bool {
        self.played_back
    }

    /// The durability asked for.
    pub const fn durability(&self) -> Durability {
        if self.syncs.before && self.syncs.after {
            Durability::Synced
        } else {
            Durability::Buffered
        }
    }

    /// Reads; `false` where the journal ends before `out` does, the rest being zeros.
    ///
    /// # Errors
    /// Those of the spilled file; likewise below.
    pub fn read(&mut self, offset: u64, out: &mut [u8]) -> Outcome<bool> {
        if out.len() == 4 && offset.checked_add(SUPER_NAME_LEN_FROM_END) == Some(self.size()) {
            self.played_back = true;
        }
        let there = self.size().saturating_sub(offset).min(out.len() as u64);
        let there = usize::try_from(there).unwrap_or(usize::MAX);
        let Some((head, tail)) = out.split_at_mut_checked(there) else { return Ok(false) };
        tail.fill(0);
        match &mut self.place {
            Place::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let from = bytes.get(start..).and_then(|b| b.get(..there)).unwrap_or_default();
                if from.len() == head.len() {
                    head.copy_from_slice(from);
                }
            }
            Place::File(file, _) if there > 0 => file.read(offset, head)?,
            Place::File(..) => {}
        }
        Ok(tail.is_empty())
    }

    /// Writes, and spills where memory would hold too much.
    pub fn write(&mut self, offset: u64, data: &[u8], temp: &dyn Temp) -> Outcome<()> {
        let rewrite = data.len() == REWRITE_LEN && data.starts_with(&MAGIC);
        if rewrite {
            self.syncs.before = self.syncs.just_synced;
            self.syncs.after = false;
        }
        self.syncs.just_synced = false;
        self.written = true;
        let end = offset.saturating_add(data.len() as u64);
        if let Place::Memory(bytes) = &self.place
            && end > MAX_MEMORY as u64
        {
            let mut file = temp.open()?;
            file.write(0, bytes)?;
            self.place = Place::File(file, bytes.len() as u64);
        }
        match &mut self.place {
            Place::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                if bytes.len() < start {
                    bytes.resize(start, 0);
                }
                // As a rule all of it lies behind the end.
                let (over, behind) = data.split_at(data.len().min(bytes.len() - start));
                if let Some(to) = bytes.get_mut(start..start + over.len()) {
                    to.copy_from_slice(over);
                }
                bytes.extend_from_slice(behind);
            }
            Place::File(file, size) => {
                file.write(offset, data)?;
                *size = (*size).max(end);
            }
        }
        Ok(())
    }

    /// Cuts off.
    pub fn truncate(&mut self, size: u64) -> Outcome<()> {
        match &mut self.place {
            Place::Memory(bytes) => bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX)),
            Place::File(file, have) => {
                file.truncate(size)?;
                *have = (*have).min(size);
            }
        }
        Ok(())
    }

    /// Nothing to make durable; that SQLite asks is what matters.
    pub const fn sync(&mut self) {
        self.syncs.just_synced = true;
        self.syncs.after = true;
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Temp files for tests.
    pub struct TestTemp;

    struct Bytes(Vec<u8>);

    impl Temp for TestTemp {
        fn open(&self) -> Outcome<Box<dyn TempFile>> {
            Ok(Box::new(Bytes(Vec::new())))
        }
    }

    impl TempFile for Bytes {
        fn read(&mut self, offset: u64, out: &mut [u8]) -> Outcome<()> {
            let at = usize::try_from(offset).unwrap();
            out.copy_from_slice(&self.0[at..at + out.len()]);
            Ok(())
        }
        fn write(&mut self, offset: u64, data: &[u8]) -> Outcome<()> {
            let at = usize::try_from(offset).unwrap();
            self.0.resize(self.0.len().max(at + data.len()), 0);
            self.0[at..at + data.len()].copy_from_slice(data);
            Ok(())
        }
        fn truncate(&mut self, size: u64) -> Outcome<()> {
            self.0.truncate(usize::try_from(size).unwrap());
            Ok(())
        }
    }

    fn header() -> [u8; 12] {
        let mut header = [0; 12];
        header[..8].copy_from_slice(&MAGIC);
        header
    }

    #[test]
    fn a_journal_that_outgrows_memory_goes_on_in_a_file() {
        let mut journal = Journal::default();
        let chunk = vec![7; 1 << 20];
        for n in 0..20u64 {
            journal.write(n << 20, &chunk, &TestTemp).unwrap();
            journal.write((n << 20) + 5, &[1, 2, 3], &TestTemp).unwrap();
        }
        assert_eq!(journal.size(), 20 << 20);
        for n in [0u64, 15, 16, 19] {
            let mut out = [0; 6];
            assert!(journal.read((n << 20) + 4, &mut out).unwrap());
            assert_eq!(out, [7, 1, 2, 3, 7, 7], "{n}");
        }
        let mut out = [9; 4];
        assert!(!journal.read((20 << 20) - 2, &mut out).unwrap(), "cut short");
        assert_eq!(out, [7, 7, 0, 0]);
        journal.truncate(3).unwrap();
        assert_eq!(journal.size(), 3);
    }

    #[test]
    fn the_level_is_told_by_the_last_rewrite_of_the_header() {
        let level = |steps: &str| {
            let mut journal = Journal::default();
            for step in steps.chars() {
                match step {
                    's' => journal.sync(),
                    'h' => journal.write(0, &header(), &TestTemp).unwrap(),
                    _ => journal.write(512, &[1; 4], &TestTemp).unwrap(),
                }
            }
            journal.durability()
        };
        assert_eq!(level("www"), Durability::Buffered, "OFF");
        assert_eq!(level("wwhs"), Durability::Buffered, "NORMAL");
        assert_eq!(level("wwshs"), Durability::Synced, "FULL");
        assert_eq!(level("wwhswwhswwhs"), Durability::Buffered, "NORMAL, spilled");
        assert_eq!(level("wwshswwshswwshs"), Durability::Synced, "FULL, spilled");
        assert_eq!(level("wwshswwhs"), Durability::Buffered, "changed in between");
    }

    #[test]
    fn only_a_playback_looks_for_a_super_journal() {
        let mut journal = Journal::default();
        journal.write(0, &[0; 1100], &TestTemp).unwrap();
        let mut four = [0; 4];
        journal.read(8, &mut four).unwrap();
        journal.read(512, &mut four).unwrap();
        journal.read(1100 - 16, &mut [0; 8]).unwrap();
        assert!(!journal.is_played_back(), "ROLLBACK TO the outermost savepoint");
        journal.read(1100 - 16, &mut four).unwrap();
        assert!(journal.is_played_back());
    }
}
