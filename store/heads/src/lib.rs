//! The newest version of each branch, in memory that a server shares with its local clients.
//!
//! One file in an embedded store's directory, mapped by the server that writes it and by
//! every client that reads it, so that a transaction can begin without asking the server.
//! `docs/protocol.md` ("Heads in shared memory") has its layout and says who does what.
//!
//! # Invariants
//! * **H1** The generation grows whenever a process takes the directory over, under the
//!   directory's lock and before it commits anything ([`raise`]). While the generation is
//!   the one that a server told its client, nobody but that server has committed.
//! * **H2** A branch's head is written before the store's newest version, and both before
//!   the commit is acknowledged. So who reads the newest version N and after it a head H
//!   knows that the branch has no commit in (H, N].
//! * **H3** A slot names a branch only while its head is kept up: a branch that is forgotten
//!   or dropped is hidden first.
//! * **H4** The file is never made shorter and never replaced while it is whole: a mapping
//!   stays good for as long as its process likes.

mod board;
mod file;
mod layout;
mod map;
mod reader;

pub use board::Board;
pub use file::{FILE_NAME, Place, raise};
pub use reader::{Look, Reader};

#[cfg(test)]
mod tests;
