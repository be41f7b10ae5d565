//! [`Backend`] for [`Store`]: each call goes to the module that does it.

use super::Store;
use crate::api::{
    Backend, BeginReply, BeginRequest, CommitReply, CommitRequest, CreateState, DatabaseInfo,
    LogEntry, LogRequest, OpenReply, OpenRequest, PageRead, ReadRequest, RecordCounts,
    StageRequest, StoreInfo, StoreStatus,
};
use crate::env::Deadline;
use crate::error::Result;
use crate::types::{BranchId, CommitId, DatabaseId, DatabaseName, Version};
use crate::when::When;

impl Backend for Store {
    fn info(&self, _deadline: Deadline) -> Result<StoreInfo> {
        Ok(StoreInfo {
            store: self.id,
            incarnation: self.incarnation,
            engine: self.kv.name().to_owned(),
            software: concat!("interleaf ", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }

    fn open(&self, request: &OpenRequest, deadline: Deadline) -> Result<OpenReply> {
        self.open_now(request, deadline)
    }

    fn resolve(&self, branch: BranchId, when: &When, deadline: Deadline) -> Result<Version> {
        self.retrying(deadline, || self.resolve_now(branch, when, deadline))
    }

    fn begin(&self, request: &BeginRequest, deadline: Deadline) -> Result<BeginReply> {
        self.counters.begin();
        self.retrying(deadline, || self.begin_now(request, deadline))
    }

    fn read(&self, request: &ReadRequest, deadline: Deadline) -> Result<Vec<PageRead>> {
        self.retrying(deadline, || self.read_now(request, deadline))
    }

    fn stage(&self, request: &StageRequest, deadline: Deadline) -> Result<()> {
        self.stage_now(request, deadline)
    }

    fn unstage(&self, id: CommitId, deadline: Deadline) -> Result<()> {
        self.unstage_now(id, deadline)
    }

    fn commit(&self, request: &CommitRequest, deadline: Deadline) -> Result<CommitReply> {
        self.commit_now(request, deadline)
    }

    fn find_commit(&self, id: CommitId, deadline: Deadline) -> Result<Option<Version>> {
        self.find_commit_now(id, deadline)
    }

    fn create(
        &self,
        name: &DatabaseName,
        state: CreateState,
        deadline: Deadline,
    ) -> Result<OpenReply> {
        self.create_now(name, state, deadline)
    }

    fn finish_import(&self, database: DatabaseId, deadline: Deadline) -> Result<()> {
        self.finish_import_now(database, deadline)
    }

    fn list(&self, deadline: Deadline) -> Result<Vec<DatabaseInfo>> {
        self.list_now(deadline)
    }

    fn describe(&self, name: &DatabaseName, deadline: Deadline) -> Result<DatabaseInfo> {
        self.describe_now(name, deadline)
    }

    fn rename(&self, from: &DatabaseName, to: &DatabaseName, deadline: Deadline) -> Result<()> {
        self.rename_now(from, to, deadline)
    }

    fn drop_database(&self, name: &DatabaseName, deadline: Deadline) -> Result<()> {
        self.drop_now(name, deadline)
    }

    fn log(&self, request: &LogRequest, deadline: Deadline) -> Result<Vec<LogEntry>> {
        self.retrying(deadline, || self.log_now(request, deadline))
    }

    fn time_of(&self, version: Version, deadline: Deadline) -> Result<Option<i64>> {
        self.retrying(deadline, || self.time_of_now(version, deadline))
    }

    fn status(&self, _deadline: Deadline) -> Result<StoreStatus> {
        Ok(self.status_now())
    }

    fn count_records(&self, deadline: Deadline) -> Result<RecordCounts> {
        self.retrying(deadline, || self.count_now(deadline))
    }

    fn round_trips(&self) -> u64 {
        // The store is in this process; an engine outside of it counts for itself.
        self.kv.round_trips()
    }
}
