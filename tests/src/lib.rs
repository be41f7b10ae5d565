//! Helpers shared by the integration tests: guards for processes, stores of each kind,
//! connections through the rlib VFS, seeded randomness, bounded waits.
//!
//! Everything here panics where its assumption fails: it is the test that fails then.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test helpers: a panic is how a test fails"
)]

pub mod artefacts;
#[cfg(feature = "fdb")]
pub mod fdb;
pub mod network;
pub mod npm;
pub mod process;
pub mod rng;
pub mod server;
pub mod sql;
pub mod store;
pub mod transfers;
pub mod wait;
pub mod worker;

/// A case of a test, by its name.
pub type Case = (&'static str, fn(&store::TestStore));

/// One `#[test]` for each case and kind of store: `mem::CASE`, `dir::CASE`, `server::CASE`.
/// A case is a `fn(&TestStore)`.
#[macro_export]
macro_rules! on_each_store {
    ($($case:ident),+ $(,)?) => {
        $crate::on_store!(mem, Mem, $($case),+);
        $crate::on_store!(dir, Dir, $($case),+);
        $crate::on_store!(server, Server, $($case),+);
        $crate::cases!($($case),+);
    };
}

/// As [`on_each_store!`], for cases that need a store of their own: `mem:` is one for all
/// tests of a process.
#[macro_export]
macro_rules! on_each_own_store {
    ($($case:ident),+ $(,)?) => {
        $crate::on_store!(dir, Dir, $($case),+);
        $crate::on_store!(server, Server, $($case),+);
        $crate::cases!($($case),+);
    };
}

/// The same cases as a constant `CASES`, for the test program that runs them on FoundationDB.
#[macro_export]
macro_rules! cases {
    ($($case:ident),+) => {
        /// The cases of this file, for other kinds of store.
        #[allow(dead_code, reason = "used where this file is a module of another program")]
        pub const CASES: &[$crate::Case] = &[$((stringify!($case), $case)),+];
    };
}

/// One `#[test]` for each case on one kind of store.
#[macro_export]
macro_rules! on_store {
    ($module:ident, $kind:ident, $($case:ident),+) => {
        mod $module {
            $(
                #[test]
                fn $case() {
                    super::$case(&$crate::store::TestStore::new($crate::store::Kind::$kind));
                }
            )+
        }
    };
}
