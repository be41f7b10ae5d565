//! The client's side.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{Ordering, fence};

use crate::board::halves;
use crate::file::{Place, boot_id};
use crate::layout::Layout;
use crate::map::{Access, Words};

/// The heads that a server shows, mapped for reading. A process that forks keeps it.
#[derive(Debug)]
pub struct Reader {
    layout: Layout,
    place: Place,
}

/// A branch as it was at one moment of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// A version up to which the branch has no commit after `head`.
    pub newest: u64,
    /// The branch's newest commit.
    pub head: u64,
}

impl Reader {
    /// Maps the file at a place that a server of the store `store` told. `None` where that
    /// file cannot be seen from here: it is not there, not readable, or is another one.
    ///
    /// # Errors
    /// Where the file is the right one and cannot be mapped.
    pub fn open(place: &Place, store: [u8; 16]) -> io::Result<Option<Self>> {
        if boot_id()? != place.boot {
            return Ok(None);
        }
        let file = match File::open(&place.path) {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let found = file.metadata()?;
        if !found.is_file() || (found.dev(), found.ino()) != (place.device, place.inode) {
            return Ok(None);
        }
        let layout = Layout(Words::map(&file, Access::Read)?);
        let ours = layout.is_ours() && layout.store() == halves(store);
        Ok(ours.then(|| Self { layout, place: place.clone() }))
    }

    /// Where it is.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The branch's head, if the board is still of that generation and shows the branch.
    #[must_use]
    pub fn look(&self, generation: u64, branch: u64) -> Option<Look> {
        if branch == 0 {
            return None;
        }
        // H2: in this order.
        let newest = self.layout.newest().load(Ordering::Acquire);
        let set = self.layout.set_of(branch);
        let head = set.iter().find_map(|slot| match slot.read() {
            Some((found, head)) if found == branch => Some(head),
            _ => None,
        })?;
        // H1: read before this, so of this generation or of one before it; one before it was
        // cleared before this one was told to anybody.
        fence(Ordering::Acquire);
        (self.layout.generation().load(Ordering::Relaxed) == generation)
            .then_some(Look { newest, head })
    }
}
