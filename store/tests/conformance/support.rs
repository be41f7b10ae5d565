//! What the cases are written with.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interleaf_store::env::{Deadline, Env};
use interleaf_store::kv::{Commit, Entry, Key, KeyRange, Kv, KvResult, Mutation, Reads, Scan};
use interleaf_store::types::Version;
use tempfile::TempDir;

use crate::engines::Engine;

/// Who can run a case.
#[derive(Clone, Copy)]
pub enum Needs {
    Nothing,
    /// Hooks, publications, a window of its own.
    Exclusive,
    /// A store that can be opened again.
    Persistent,
    /// The engine on disk and no other.
    Fjall,
}

impl Needs {
    pub fn met_by(self, engine: &Engine) -> bool {
        match self {
            Self::Nothing => true,
            Self::Exclusive => engine.exclusive,
            Self::Persistent => engine.persistent,
            Self::Fjall => engine.name == "fjall",
        }
    }
}

/// A case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub needs: Needs,
    pub ignored: bool,
    pub run: fn(&Ctx),
}

/// A case by the name of its function.
macro_rules! case {
    ($needs:ident, $run:ident) => {
        $crate::support::Case {
            name: stringify!($run),
            needs: $crate::support::Needs::$needs,
            ignored: false,
            run: $run,
        }
    };
}
pub(crate) use case;

/// Where a case has its store: a directory, and a name for what a directory cannot hold.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// What a case is given.
pub struct Ctx {
    pub engine: Engine,
    pub place: Place,
}

impl Ctx {
    pub fn new(engine: Engine) -> Self {
        Self { engine, place: Place { dir: tempfile::tempdir().unwrap() } }
    }

    pub fn open(&self) -> Open {
        let (kv, env) = (self.engine.open)(&self.place);
        Open { kv, env }
    }
}

/// An open store.
#[derive(Clone)]
pub struct Open {
    pub kv: Arc<dyn Kv>,
    pub env: Env,
}

impl Deref for Open {
    type Target = dyn Kv;

    fn deref(&self) -> &Self::Target {
        &*self.kv
    }
}

impl Open {
    /// A deadline that only a hanging test reaches.
    pub fn soon(&self) -> Deadline {
        self.within(60_000)
    }

    pub fn within(&self, ms: u64) -> Deadline {
        self.env.deadline(Duration::from_millis(ms))
    }

    /// Commits without conflicts.
    pub fn write(&self, mutations: Vec<Mutation>) -> Version {
        let commit = Commit { mutations, ..Commit::default() };
        self.commit_at(commit, self.soon()).unwrap()
    }

    pub fn put(&self, key: &str, value: &str) -> Version {
        self.write(vec![put(key, value)])
    }

    pub fn value(&self, key: &str) -> Option<Bytes> {
        self.snapshot(self.soon()).unwrap().get(key.as_bytes()).unwrap()
    }

    /// The whole store.
    pub fn all(&self) -> Vec<Entry> {
        let snapshot = self.snapshot(self.soon()).unwrap();
        scan(&*snapshot, b"", b"\xff\xff", false, usize::MAX)
    }

    pub fn now(&self) -> Version {
        self.snapshot(self.soon()).unwrap().version()
    }

    /// Commits at `snapshot` what read `reads` and writes `writes`, both as logical keys.
    pub fn at(
        &self,
        snapshot: Version,
        reads: &[KeyRange],
        writes: &[KeyRange],
    ) -> KvResult<Version> {
        let commit = Commit {
            snapshot,
            read_conflicts: reads.to_vec().into(),
            write_conflicts: writes.to_vec(),
            mutations: vec![put("at", "x")],
            ..Commit::default()
        };
        self.commit_at(commit, self.soon())
    }
}

pub fn put(key: &str, value: &str) -> Mutation {
    Mutation::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

pub fn delete(key: &str) -> Mutation {
    Mutation::Delete { key: key.into() }
}

pub fn range(start: &str, end: &str) -> KeyRange {
    start.into()..end.into()
}

/// The range of one key.
pub fn point(key: &str) -> KeyRange {
    let end: Key = [key.as_bytes(), b"\0"].concat();
    key.into()..end
}

pub fn scan(
    reads: &(impl Reads + ?Sized),
    start: &[u8],
    end: &[u8],
    reverse: bool,
    limit: usize,
) -> Vec<Entry> {
    reads.scan(&Scan { range: start.to_vec()..end.to_vec(), reverse, limit }).unwrap()
}

/// Entries as text, `key=value`.
pub fn text(entries: &[Entry]) -> String {
    let one = |(key, value): &Entry| {
        format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
    };
    entries.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Runs `work` in so many threads at once.
pub fn threads(count: usize, work: impl Fn(usize) + Sync) {
    let begin = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        for n in 0..count {
            let (begin, work) = (&begin, &work);
            scope.spawn(move || {
                begin.wait();
                work(n);
            });
        }
    });
}

/// A small generator for cases that print their seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % bound
    }
}
