//! Super-journals: the common commit point of several attached databases (rule 5).
//!
//! SQLite opens one through the VFS of the connection's main database, writes the names of
//! the journals into it, names it in SQLITE_FCNTL_SYNC of each database, and deletes it with
//! a directory sync: that is the commit. Until then it must exist, also after the commit
//! failed there: a rollback that finds its super-journal gone plays nothing back.
//!
//! # Invariants
//! - **J1** A super-journal exists while any database holds a journal that names it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::session::Session;
use crate::code::{CANTOPEN, Failure, IOERR, Outcome};

/// Most super-journals that may be left over from commits that failed before any database
/// was asked to commit; older ones are forgotten.
const MAX_ORPHANS: usize = 256;

/// One super-journal.
#[derive(Default)]
struct Entry {
    content: Vec<u8>,
    session: Option<Arc<Session>>,
    /// Databases whose journals name it, by their place in the session.
    members: HashSet<u32>,
    /// Also a file on disk: a plain database takes part, and its pager looks for it there.
    on_disk: Option<PathBuf>,
    /// For the order of orphans.
    number: u64,
}

#[derive(Default)]
struct All {
    entries: HashMap<Vec<u8>, Entry>,
    next: u64,
}

static ALL: OnceLock<Mutex<All>> = OnceLock::new();

fn all() -> MutexGuard<'static, All> {
    // Whole at any moment: entries are put in and taken out in one step.
    ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the name has the form that SQLite gives its super-journals: `-mjXXXXXX9XX`.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    let Some(tail) = name.len().checked_sub(12).and_then(|at| name.get(at..)) else { return false };
    let hex = |range: std::ops::Range<usize>| {
        tail.get(range).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    tail.starts_with(b"-mj") && hex(3..9) && tail.get(9) == Some(&b'9') && hex(10..12)
}

/// xOpen. `create`: SQLite begins a commit; else it reads one back.
///
/// # Errors
/// CANTOPEN where it exists already, or does not.
pub fn open(name: &[u8], create: bool) -> Outcome<()> {
    let mut all = all();
    match (all.entries.contains_key(name), create) {
        (false, false) => Err(missing(name)),
        (true, true) => Err(Failure::new(CANTOPEN, "a super-journal of that name exists")),
        (true, false) => Ok(()),
        (false, true) => {
            all.next += 1;
            let number = all.next;
            all.entries.insert(name.to_vec(), Entry { number, ..Entry::default() });
            forget_orphans(&mut all.entries);
            Ok(())
        }
    }
}

fn forget_orphans(entries: &mut HashMap<Vec<u8>, Entry>) {
    if entries.len() <= MAX_ORPHANS {
        return;
    }
    // What a journal names is no orphan, however much of that there is (J1).
    let orphans = entries.iter().filter(|(_, entry)| entry.members.is_empty());
    if orphans.clone().count() <= MAX_ORPHANS {
        return;
    }
    let oldest = orphans.min_by_key(|(_, entry)| entry.number).map(|(name, _)| name.clone());
    if let Some(name) = oldest {
        entries.remove(&name);
    }
}

fn missing(name: &[u8]) -> Failure {
    Failure::new(CANTOPEN, format!("no super-journal {}", String::from_utf8_lossy(name)))
}

/// xAccess.
#[must_use]
pub fn exists(name: &[u8]) -> bool {
    all().entries.contains_key(name)
}

/// xWrite.
///
/// # Errors
/// CANTOPEN where it does not exist; likewise below.
pub fn write(name: &[u8], offset: u64, data: &[u8]) -> Outcome<()> {
    let mut all = all();
    let entry = all.entries.get_mut(name).ok_or_else(|| missing(name))?;
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(data.len());
    if entry.content.len() < end {
        entry.content.resize(end, 0);
    }
    if let Some(to) = entry.content.get_mut(start..end) {
        to.copy_from_slice(data);
    }
    Ok(())
}

/// What is in it.
///
/// # Errors
/// As [`write`].
pub fn content(name: &[u8]) -> Outcome<Vec<u8>> {
    all().entries.get(name).map(|entry| entry.content.clone()).ok_or_else(|| missing(name))
}

/// Puts it on disk as well where a plain database takes part: its pager looks for the file
/// before it plays its own journal back. `is_ours` knows the open databases of this VFS.
///
/// # Errors
/// CANTOPEN where the file cannot be written.
pub fn put_on_disk_for(name: &[u8], is_ours: &dyn Fn(&[u8]) -> bool) -> Outcome<()> {
    let mut all = all();
    let entry = all.entries.get_mut(name).ok_or_else(|| missing(name))?;
    let mut journals = entry.content.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let plain = journals.any(|journal| !journal.strip_suffix(b"-journal").is_some_and(is_ours));
    if !plain || entry.on_disk.is_some() {
        return Ok(());
    }
    let path = PathBuf::from(OsStr::from_bytes(name));
    std::fs::write(&path, &entry.content).map_err(|e| {
        Failure::new(
            CANTOPEN,
            format!(
                "a transaction over this database and a plain file needs the file {}: {e}",
                path.display()
            ),
        )
    })?;
    entry.on_disk = Some(path);
    Ok(())
}

/// A database of `session` is asked to commit under it. `false` where it is not ours.
///
/// # Errors
/// IOERR where a database of another session was: SQLite's shared cache says to one of its
/// connections only that a file is its own, and the two could not be committed as one.
pub fn join(name: &[u8], session: &Arc<Session>, member: u32) -> Outcome<bool> {
    let mut all = all();
    let Some(entry) = all.entries.get_mut(name) else { return Ok(false) };
    if entry.session.as_ref().is_some_and(|other| !Arc::ptr_eq(other, session)) {
        return Err(Failure::new(
            IOERR,
            "one transaction over several databases is not supported with cache=shared",
        ));
    }
    entry.session = Some(Arc::clone(session));
    entry.members.insert(member);
    Ok(true)
}

/// A database's journal is gone, and with it what named the super-journal.
pub fn leave(session: &Arc<Session>, member: u32) {
    for entry in all().entries.values_mut() {
        if entry.session.as_ref().is_some_and(|s| Arc::ptr_eq(s, session)) {
            entry.members.remove(&member);
            if entry.members.is_empty() {
                // An entry must not keep the session of a closed connection alive.
                entry.session = None;
            }
        }
    }
}

/// The session that commits under it, with its databases; `None` where none was asked to.
#[must_use]
pub fn members(name: &[u8]) -> Option<(Arc<Session>, Vec<u32>)> {
    let all = all();
    let entry = all.entries.get(name)?;
    let session = entry.session.clone()?;
    Some((session, entry.members.iter().copied().collect()))
}

/// xDelete after the commit, or where nothing names it any more.
///
/// # Errors
/// Where its file on disk cannot be removed.
pub fn remove(name: &[u8]) -> Outcome<()> {
    let Some(entry) = all().entries.remove(name) else { return Ok(()) };
    entry.on_disk.map_or(Ok(()), |path| match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(CANTOPEN, format!("{}: {e}", path.display())))
        }
        _ => Ok(()),
    })
}

/// xDelete of a rollback: only when nothing names it any more (J1).
///
/// # Errors
/// As [`remove`].
pub fn forget(name: &[u8]) -> Outcome<()> {
    let named = all().entries.get(name).is_some_and(|entry| !entry.members.is_empty());
    if named { Ok(()) } else { remove(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlites_names_are_known() {
        assert!(is_name(b"app.db-mj0A1B2C9F0"));
        assert!(is_name(b"-mj0A1B2C9F0"));
        for other in
            [&b"app.db"[..], b"", b"app.db-mj0A1B2C8F0", b"app.db-mj0A1B2C9F", b"x-mjZZZZZZ9F0"]
        {
            assert!(!is_name(other));
        }
    }

    #[test]
    fn it_exists_until_no_journal_names_it() {
        let session = Arc::new(Session::default());
        let name = b"unit-mj0000009AA";
        assert!(!join(name, &session, 1).unwrap(), "not ours");
        open(name, true).unwrap();
        assert!(open(name, true).is_err() && open(name, false).is_ok());
        write(name, 0, b"a-journal\0").unwrap();
        write(name, 10, b"b-journal\0").unwrap();
        assert!(join(name, &session, 1).unwrap() && join(name, &session, 2).unwrap());
        assert!(join(name, &Arc::new(Session::default()), 1).is_err(), "of another connection");
        assert_eq!(members(name).unwrap().1.len(), 2);
        leave(&session, 1);
        forget(name).unwrap();
        assert!(exists(name), "the second database's journal still names it");
        assert_eq!(content(name).unwrap(), b"a-journal\0b-journal\0");
        leave(&session, 2);
        assert!(exists(name), "its rollback will still read it");
        forget(name).unwrap();
        assert!(!exists(name));
    }

    #[test]
    fn many_that_are_named_push_no_new_one_out() {
        // By itself: the other tests share the one collection.
        let mut entries = HashMap::new();
        let entry = |number, members: &[u32]| Entry {
            number,
            members: members.iter().copied().collect(),
            ..Entry::default()
        };
        for number in 0..MAX_ORPHANS as u64 + 9 {
            entries.insert(number.to_be_bytes().to_vec(), entry(number, &[1]));
        }
        entries.insert(b"new".to_vec(), entry(u64::MAX, &[]));
        let before = entries.len();
        forget_orphans(&mut entries);
        assert_eq!(entries.len(), before);
        for number in 0..MAX_ORPHANS as u64 {
            entries.insert(format!("left {number}").into_bytes(), entry(1000 + number, &[]));
        }
        forget_orphans(&mut entries);
        assert!(!entries.contains_key(&b"left 0"[..]) && entries.contains_key(&b"new"[..]));
    }

    #[test]
    fn orphans_are_bounded() {
        for n in 0..MAX_ORPHANS + 20 {
            open(format!("orphan-mj{n:06X}9AA").as_bytes(), true).unwrap();
        }
        assert!(all().entries.len() <= MAX_ORPHANS + 2);
        assert!(!exists(b"orphan-mj0000009AA"));
    }
}
