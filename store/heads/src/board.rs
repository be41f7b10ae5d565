//! The server's side.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::file::{Place, open_or_make};
use crate::layout::Layout;
use crate::map::{Access, Words};

/// Where a server shows the heads of its branches. One process has it at a time: the one
/// that holds the directory's lock.
#[derive(Debug)]
pub struct Board {
    layout: Layout,
    place: Place,
    /// Chooses whom to hide where a set is full.
    turn: usize,
}

impl Board {
    /// Takes over the board in `dir`, with nothing on it, for the store `store` whose newest
    /// version is `newest`. `mode`: who may read it.
    ///
    /// # Errors
    /// Where the file cannot be made or mapped.
    pub fn take(dir: &Path, store: [u8; 16], newest: u64, mode: u32) -> io::Result<Self> {
        let (file, path) = open_or_make(dir, mode)?;
        let layout = Layout(Words::map(&file, Access::Write)?);
        // Whatever is read from here on is of no generation that anybody was told.
        let generation = layout.generation().fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        for slot in layout.slots() {
            slot.write(0, 0);
        }
        layout.set_store(halves(store));
        layout.newest().store(newest, Ordering::Release);
        let place = Place::of(&file, path, generation)?;
        Ok(Self { layout, place, turn: 0 })
    }

    /// What clients must be told to find it.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Whether a branch is on the board.
    #[must_use]
    pub fn shows(&self, branch: u64) -> bool {
        branch != 0 && self.layout.set_of(branch).iter().any(|slot| slot.branch() == branch)
    }

    /// Shows a branch's head, in place of the one before or, where its set is full, of
    /// another branch. The branch 0 is never shown.
    pub fn show(&mut self, branch: u64, head: u64) {
        if branch == 0 {
            return;
        }
        let set = self.layout.set_of(branch);
        let place = |wanted| set.iter().find(|slot| slot.branch() == wanted);
        let slot = place(branch).or_else(|| place(0)).or_else(|| {
            self.turn = self.turn.wrapping_add(1);
            set.get(self.turn % set.len())
        });
        if let Some(slot) = slot {
            slot.write(branch, head);
        }
    }

    /// Takes a branch off the board (H3).
    pub fn hide(&mut self, branch: u64) {
        if branch == 0 {
            return;
        }
        for slot in self.layout.set_of(branch).iter().filter(|slot| slot.branch() == branch) {
            slot.write(0, 0);
        }
    }

    /// Shows the store's newest version, after the heads of the commit that made it (H2).
    pub fn show_newest(&mut self, newest: u64) {
        self.layout.newest().store(newest, Ordering::Release);
    }
}

/// A store's id as two words.
pub(crate) fn halves(store: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = store;
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(rest)]
}
