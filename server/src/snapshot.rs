//! A database at one version, read page by page.

use std::sync::mpsc;
use std::thread;

use interleaf_store::api::{Allocation, Backend, BeginRequest, OpenRequest, PageRead, ReadRequest};
use interleaf_store::types::{BranchId, PageNumber, Version};
use interleaf_store::{Error, api};

use crate::context::{Context, Target};
use crate::nearest::or_nearest;

/// Bytes of pages asked for at a time: well below a frame's limit.
const BATCH_BYTES: usize = 4 << 20;

/// Batches read ahead of what was taken.
const BATCHES_AHEAD: usize = 2;

/// A database at one version.
pub struct Snapshot<'a> {
    backend: &'a dyn Backend,
    branch: BranchId,
    snapshot: Version,
    /// The newest commit in it.
    pub version: Version,
    /// The size at that version.
    pub allocation: Allocation,
}

impl<'a> Snapshot<'a> {
    /// Opens NAME or NAME@WHEN.
    ///
    /// # Errors
    /// `NotFound`, `Pruned`, `Importing` and those of reaching the store.
    pub fn open(
        context: &Context,
        backend: &'a dyn Backend,
        target: &Target,
    ) -> anyhow::Result<Self> {
        let request =
            OpenRequest { name: target.name.clone(), create: false, at: target.when.clone() };
        let opened = backend.open(&request, context.deadline());
        let opened = or_nearest(context, backend, &target.name, opened)?;
        let begin = BeginRequest { branch: opened.branch, at: opened.snapshot, known: None };
        let begun = backend.begin(&begin, context.deadline())?;
        Ok(Self {
            backend,
            branch: opened.branch,
            snapshot: begun.snapshot,
            version: begun.head,
            allocation: begun.allocation,
        })
    }

    /// Bytes of all pages.
    pub fn bytes(&self) -> u64 {
        u64::from(self.allocation.pages.0) * u64::from(self.allocation.page_size.get())
    }

    /// Hands all pages to `take`, in ascending order, a batch at a time; the next ones are
    /// read meanwhile.
    ///
    /// # Errors
    /// Those of `take` and of the store; `Corrupt` for a damaged page.
    pub fn each_batch(
        &self,
        context: &Context,
        mut take: impl FnMut(&[PageNumber], &[PageRead]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (sender, receiver) = mpsc::sync_channel(BATCHES_AHEAD);
        thread::scope(|scope| {
            scope.spawn(move || {
                for numbers in self.batches() {
                    let read = self.read(context, &numbers);
                    let failed = read.is_err();
                    // Nobody takes it any more where `take` failed.
                    if sender.send((numbers, read)).is_err() || failed {
                        break;
                    }
                }
            });
            receiver.into_iter().try_for_each(|(numbers, pages)| take(&numbers, &pages?))
        })
    }

    /// The page numbers, in batches of a size that one request takes.
    pub fn batches(&self) -> impl Iterator<Item = Vec<PageNumber>> + use<> {
        let size = (BATCH_BYTES / self.allocation.page_size.len()).clamp(1, api::MAX_READ_PAGES);
        let step = u32::try_from(size).unwrap_or(1);
        let last = self.allocation.pages.0;
        (1..=last).step_by(size).map(move |first| {
            let end = first.saturating_add(step - 1).min(last);
            (first..=end).filter_map(PageNumber::new).collect()
        })
    }

    /// Reads some pages.
    ///
    /// # Errors
    /// Those of the store; `Corrupt` for a damaged page, or where it gave fewer than asked.
    pub fn read(&self, context: &Context, numbers: &[PageNumber]) -> Result<Vec<PageRead>, Error> {
        let request = ReadRequest {
            branch: self.branch,
            snapshot: self.snapshot,
            incarnation: None,
            pages: numbers.to_vec(),
        };
        let pages = self.backend.read(&request, context.deadline())?;
        if pages.len() != numbers.len() {
            let (got, asked) = (pages.len(), numbers.len());
            return Err(Error::Corrupt { what: format!("{got} pages instead of {asked}") });
        }
        let size = self.allocation.page_size.len();
        match numbers.iter().zip(&pages).find(|(_, page)| page.bytes.len() != size) {
            None => Ok(pages),
            Some((number, page)) => Err(Error::Corrupt {
                what: format!("page {number} has {} bytes of {size}", page.bytes.len()),
            }),
        }
    }
}
