//! What is measured, one file a subject.

mod big;
mod single;
pub mod writers;

use anyhow::Result;

use crate::Context;
use crate::report::Report;

type Case = fn(&Context, &mut Report) -> Result<()>;

/// Every case by name.
pub const ALL: &[(&str, Case)] = &[
    ("point-select", single::point_select),
    ("update-full", single::update_full),
    ("update-normal", single::update_normal),
    ("writers-threads", writers::threads),
    ("writers-processes", writers::processes),
    ("bytes-per-update", big::bytes_per_update),
    ("import-export", big::import_export),
];
