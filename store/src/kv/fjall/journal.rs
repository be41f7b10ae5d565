//! What fjall's journals must be, and repair of the newest one's end.
//!
//! fjall drops whatever does not decode, and all behind it, without a word. That is right
//! for the end of the newest journal after an unclean end, and nowhere else: a journal that
//! is no longer written to was made durable as a whole, and so was the newest one by a
//! clean end. Damage there is an error, found before fjall is let at it.
//!
//! # The end of the newest journal
//!
//! A power failure may leave the end of the newest journal written in part: pages of a
//! file reach the disk in any order. fjall drops an end that is cut short or does not
//! decode, but refuses to open where all lengths are right and some bytes are not, as
//! when a page in the middle of the last batch was never written. That batch was not
//! acknowledged as durable (its fsync would have written the page), nor was anything
//! behind it, so the journal is cut before it.
//!
//! Layout of a journal, little endian: batches of one start entry (tag 1, items (4),
//! sequence number (8)), items (tag 2, kind (1), compression (1), keyspace (8), key
//! length (2), value length (4), length on disk (4), key, value) or clears (tag 4,
//! keyspace (8)), and one end entry (tag 3, XXH3 of all between (8), `FJL` 3).

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Bytes of an item before its key, the tag included.
const ITEM_HEAD: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;

/// The first journal in `directory` that is damaged where it must be whole: all of them
/// after a clean end, else all but the newest.
pub(super) fn damaged(directory: &Path, clean: bool) -> std::io::Result<Option<PathBuf>> {
    let mut journals = journals(directory)?;
    if !clean {
        journals.pop();
    }
    for (_, path) in journals {
        let file = File::open(&path)?;
        let whole = whole_batches(&file)?;
        if !only_zeros(&file, whole)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Cuts the newest journal in `directory` behind its last whole batch. Gives the number
/// of bytes before the cut, or `None` where nothing had to be cut.
pub(super) fn cut_torn_end(directory: &Path) -> std::io::Result<Option<u64>> {
    let Some((_, path)) = journals(directory)?.pop() else { return Ok(None) };
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let whole = whole_batches(&file)?;
    if whole == file.metadata()?.len() {
        return Ok(None);
    }
    file.set_len(whole)?;
    file.sync_all()?;
    Ok(Some(whole))
}

/// The journals, oldest first.
pub(super) fn journals(directory: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jnl") {
            continue;
        }
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        journals.extend(number.map(|number| (number, path)));
    }
    journals.sort_unstable();
    Ok(journals)
}

/// Whether nothing was written behind `from`: journals are made longer than they are.
fn only_zeros(file: &File, from: u64) -> std::io::Result<bool> {
    let mut input = BufReader::with_capacity(1 << 16, file);
    input.seek(SeekFrom::Start(from))?;
    loop {
        let part = input.fill_buf()?;
        if part.is_empty() {
            return Ok(true);
        }
        if part.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        let length = part.len();
        input.consume(length);
    }
}

/// Bytes of `file` up to the end of the last batch before which all are whole.
fn whole_batches(file: &File) -> std::io::Result<u64> {
    let mut input = Counted { inner: BufReader::with_capacity(1 << 20, file), bytes: 0 };
    let mut whole = 0;
    loop {
        match batch(&mut input) {
            Ok(true) => whole = input.bytes,
            Ok(false) => return Ok(whole),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(whole),
            Err(e) => return Err(e),
        }
    }
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Counted<R> {
    fn array<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.bytes += N as u64;
        Ok(bytes)
    }

    /// Passes `count` bytes to `hash`.
    fn hash(&mut self, mut count: u64, hash: &mut Xxh3) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        while count > 0 {
            let part = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
            let Some(part) = buffer.get_mut(..part) else { break };
            self.inner.read_exact(part)?;
            hash.update(part);
            count -= part.len() as u64;
            self.bytes += part.len() as u64;
        }
        Ok(())
    }
}

/// Reads one batch; false where it is none, or not whole.
fn batch(input: &mut Counted<impl Read>) -> std::io::Result<bool> {
    if input.array()? != [TAG_START] {
        return Ok(false);
    }
    let items = u32::from_le_bytes(input.array()?);
    input.array::<8>()?;
    let mut hash = Xxh3::new();
    for _ in 0..items {
        let [tag] = input.array()?;
        hash.update(&[tag]);
        match tag {
            TAG_ITEM => {
                let head: [u8; ITEM_HEAD - 1] = input.array()?;
                hash.update(&head);
                let [.., k0, k1, _, _, _, _, d0, d1, d2, d3] = head;
                let key = u64::from(u16::from_le_bytes([k0, k1]));
                let value = u64::from(u32::from_le_bytes([d0, d1, d2, d3]));
                input.hash(key + value, &mut hash)?;
            }
            TAG_CLEAR => input.hash(8, &mut hash)?,
            _ => return Ok(false),
        }
    }
    let end = input.array()? == [TAG_END];
    let checksum = u64::from_le_bytes(input.array()?);
    Ok(end && checksum == hash.digest() && input.array()? == TRAILER)
}
