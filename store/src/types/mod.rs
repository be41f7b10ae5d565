//! Newtypes for everything that has a number or a name, one a file.

mod hash;
mod ids;
mod name;
mod page;
mod page_set;
mod version;

pub use hash::ContentHash;
pub use ids::{BranchId, CommitId, DatabaseId, DomainId, Incarnation, StoreId};
pub use name::DatabaseName;
pub use page::{PageCount, PageNumber, PageSize};
pub use page_set::PageSet;
pub(crate) use page_set::runs;
pub use version::Version;
