//! The file: where it is, taking it over, telling it from others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::layout::{FILE_BYTES, Layout, MAGIC, WORD};
use crate::map::{Access, Words};

/// Name of the file in a store's directory.
pub const FILE_NAME: &str = "heads.shm";

/// Its name while it is being made.
pub(crate) const DRAFT_NAME: &str = "heads.shm.new";

/// Names one file of one run of one machine, and the server that writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it is, as the server sees it.
    pub path: PathBuf,
    /// The file system's device number and the file's own: another file at that path (in a
    /// container, a copy of the directory) is not this one.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// The generation in which the server writes it.
    pub generation: u64,
    /// The machine's run, by `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

/// Makes every client ask again that has read heads in `dir`: to be called by whoever takes
/// the directory over, under its lock, before any commit (H1).
///
/// # Errors
/// Where the file is there and cannot be written.
pub fn raise(dir: &Path) -> io::Result<()> {
    let path = dir.join(FILE_NAME);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // Too short to be mapped by anybody.
    if file.metadata()?.len() < FILE_BYTES as u64 {
        return Ok(());
    }
    Layout(Words::map(&file, Access::Write)?).generation().fetch_add(1, Ordering::SeqCst);
    Ok(())
}

/// The file in `dir`, made where there is none that can be used.
pub(crate) fn open_or_make(dir: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    let path = dir.join(FILE_NAME);
    if let Some(file) = usable(&path)? {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        return Ok((file, path));
    }
    // Of one name, under the directory's lock: what a full disk or a crash leaves of it is
    // written over by the next one.
    let draft = dir.join(DRAFT_NAME);
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(true).mode(mode).open(&draft)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    // Written, not left as a hole: a store to a mapped hole of a full disk kills the process.
    let mut bytes = vec![0; FILE_BYTES];
    bytes.splice(..WORD, MAGIC.to_ne_bytes());
    file.write_all(&bytes)?;
    // Of another kind or version, or cut short: nobody reads that one with this layout.
    fs::rename(&draft, &path)?;
    Ok((file, path))
}

fn usable(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut magic = [0; WORD];
    let whole = file.metadata()?.len() == FILE_BYTES as u64;
    Ok((whole && file.read_exact_at(&mut magic, 0).is_ok() && magic == MAGIC.to_ne_bytes())
        .then_some(file))
}

impl Place {
    pub(crate) fn of(file: &File, path: PathBuf, generation: u64) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { path, device: found.dev(), inode: found.ino(), generation, boot: boot_id()? })
    }

    /// Whether both name the same file, in whatever generation.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode, &self.boot) == (other.device, other.inode, &other.boot)
    }
}

/// Which run of the machine this is.
pub(crate) fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}
