//! The six exported functions.
//!
//! Each is a few instructions that hand the return address (where in the process the call
//! came from) to the function of the same name in [`crate::open`] or [`crate::retry`] as
//! one more argument, and jump there: Rust has no other way to learn its caller, and the
//! caller decides which copy of SQLite is meant ([`crate::copies`]).
#![allow(unsafe_code, reason = "symbols that C code links against, and the jump behind them")]

use std::ffi::{c_char, c_int, c_void};

use crate::copies::{Callback, Db, Stmt};
use crate::{open, retry};

/// Defines an exported function that passes its arguments on, followed by its caller's
/// address in the register that the calling convention has for that argument.
macro_rules! interpose {
    ($name:ident ( $($arg:ident : $type:ty),* ) => $to:path, $x86_64:literal, $aarch64:literal) => {
        #[doc = concat!("Stands in front of SQLite's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As for SQLite's function of this name.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name($($arg: $type),*) -> c_int {
            // At the entry the return address is on top of the stack (x86_64) or in the
            // link register (aarch64).
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!(
                concat!("mov ", $x86_64, ", qword ptr [rsp]"),
                "jmp {}",
                sym $to,
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!(
                concat!("mov ", $aarch64, ", x30"),
                "b {}",
                sym $to,
            );
        }
    };
}

interpose!(sqlite3_open(name: *const c_char, out: *mut *mut Db) => open::open, "rdx", "x2");
interpose!(sqlite3_open16(name: *const c_void, out: *mut *mut Db) => open::open16, "rdx", "x2");
interpose!(
    sqlite3_open_v2(name: *const c_char, out: *mut *mut Db, flags: c_int, vfs: *const c_char)
        => open::open_v2, "r8", "x4"
);
interpose!(sqlite3_step(stmt: *mut Stmt) => retry::step, "rsi", "x1");
interpose!(
    sqlite3_exec(
        db: *mut Db,
        sql: *const c_char,
        callback: Option<Callback>,
        context: *mut c_void,
        message: *mut *mut c_char
    ) => retry::exec, "r9", "x5"
);

/// Stands in front of SQLite's `sqlite3_get_table`. It has six arguments: on x86_64 the
/// seventh goes over the stack.
///
/// # Safety
/// As for SQLite's function of this name.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sqlite3_get_table(
    db: *mut Db,
    sql: *const c_char,
    table: *mut *mut *mut c_char,
    rows: *mut c_int,
    columns: *mut c_int,
    message: *mut *mut c_char,
) -> c_int {
    // The push also brings the stack to the alignment that a call needs. This is the only
    // one of the six that leaves a frame, which unwinding has to find described.
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!(
        ".cfi_startproc",
        "push qword ptr [rsp]",
        ".cfi_adjust_cfa_offset 8",
        "call {}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
        sym retry::get_table,
    );
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!("mov x6, x30", "b {}", sym retry::get_table);
}

/// Addresses of the six, to tell them from SQLite's own.
pub fn own() -> [*const c_void; 6] {
    [
        sqlite3_open as *const c_void,
        sqlite3_open16 as *const c_void,
        sqlite3_open_v2 as *const c_void,
        sqlite3_step as *const c_void,
        sqlite3_exec as *const c_void,
        sqlite3_get_table as *const c_void,
    ]
}
