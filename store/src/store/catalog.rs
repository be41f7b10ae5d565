//! Names, databases and branches.
//!
//! Everything here runs in [`Kv::transact`](crate::kv::Kv::transact), whose body may run
//! again after a run that took effect unseen: ids are therefore chosen before, and a run
//! that finds its own work done is content.

use std::cell::Cell;
use std::sync::Arc;

use super::Store;
use super::published::Event;
use super::view::{View, check_watermark, no_branch};
use crate::api::{CreateState, DatabaseInfo, OpenReply, OpenRequest};
use crate::env::Deadline;
use crate::error::{Error, Result};
use crate::format::keys::{self, Subspace};
use crate::format::records::{self, BranchRow, DatabaseRow, Parent};
use crate::kv::{KvError, Mutation, OnPublish, Reads, Scan, Txn, TxnError};
use crate::types::{BranchId, DatabaseId, DatabaseName, DomainId, Version};
use crate::when::FORMS;

/// Names that one step of a listing takes.
const STEP: usize = 512;

fn no_database(name: &DatabaseName) -> Error {
    // A name may have an `@`, so that a WHEN with a slip in it is taken for a part of the name.
    let what = match name.as_str().rsplit_once('@') {
        Some((_, rest)) => format!("database {name:?} ({rest:?} is no point in time: {FORMS})"),
        None => format!("database {name:?}"),
    };
    Error::NotFound { what }
}

fn exists(name: &DatabaseName) -> Error {
    Error::AlreadyExists { what: format!("database {name:?}") }
}

/// A database that is about to be created.
struct Fresh {
    database: DatabaseId,
    row: DatabaseRow,
}

impl Fresh {
    fn reply(&self, created: bool) -> OpenReply {
        reply(self.database, &self.row, created)
    }
}

fn reply(database: DatabaseId, row: &DatabaseRow, created: bool) -> OpenReply {
    OpenReply { database, branch: row.branch, domain: row.domain, snapshot: None, created }
}

fn importing(row: &DatabaseRow) -> Result<()> {
    if row.importing { Err(Error::Importing { name: row.name.to_string() }) } else { Ok(()) }
}

impl<R: Reads + ?Sized> View<'_, R> {
    fn name(&self, name: &DatabaseName) -> Result<Option<DatabaseId>> {
        self.0.get(&keys::name(name))?.map(|bytes| records::decode_name(&bytes)).transpose()
    }

    fn database(&self, database: DatabaseId) -> Result<Option<DatabaseRow>> {
        let bytes = self.0.get(&keys::database(database))?;
        bytes.map(|bytes| DatabaseRow::decode(&bytes)).transpose()
    }

    fn named(&self, name: &DatabaseName) -> Result<Option<(DatabaseId, DatabaseRow)>> {
        let Some(database) = self.name(name)? else { return Ok(None) };
        let row = self.database(database)?.ok_or_else(|| Error::Corrupt {
            what: format!("database {name:?}: its record {database} is missing"),
        })?;
        Ok(Some((database, row)))
    }

    /// Whether there is, or ever was, a branch of that id.
    fn has_branch(&self, branch: BranchId) -> Result<bool> {
        Ok(self.0.get(&keys::branch(branch))?.is_some())
    }

    fn describe(&self, database: DatabaseId, row: &DatabaseRow) -> Result<DatabaseInfo> {
        let found = self.branch(row.branch)?;
        let head = self.head_at(&found.lineage, Version::MAX)?;
        let (_, allocation) = self.allocation_at(&found.lineage, Version::MAX)?;
        Ok(DatabaseInfo {
            name: row.name.clone(),
            database,
            branch: row.branch,
            domain: row.domain,
            created_micros: row.created_micros,
            importing: row.importing,
            head,
            allocation,
        })
    }
}

impl Store {
    /// What an embedded engine calls after a transaction that changes no branch.
    pub(super) fn on_version(&self) -> Option<OnPublish> {
        self.on_events(Vec::new())
    }

    fn on_events(&self, events: Vec<(BranchId, Event)>) -> Option<OnPublish> {
        let published = Arc::clone(self.published.as_ref()?);
        Some(Box::new(move |version| {
            published.publish(version, events);
        }))
    }

    /// Runs a catalog transaction; `events` tells what it does to branches in memory.
    fn catalog(
        &self,
        deadline: Deadline,
        mut body: impl FnMut(&mut dyn Txn) -> Result<Vec<(BranchId, Event)>, TxnError>,
    ) -> Result<Option<Version>> {
        self.refresh_sampler(deadline)?;
        self.kv.transact(deadline, &mut |txn| {
            let events = body(txn).map_err(engine_failed)?;
            if self.published.is_none() {
                txn.mutate(self.sampler.stamped());
            }
            if let Some(call) = self.on_events(events) {
                txn.on_publish(call);
            }
            Ok(())
        })
    }

    pub(super) fn open_now(&self, request: &OpenRequest, deadline: Deadline) -> Result<OpenReply> {
        let mut opened = loop {
            let found = self
                .retrying(deadline, || View(&*self.kv.snapshot(deadline)?).named(&request.name))?;
            match found {
                Some((database, row)) => {
                    importing(&row)?;
                    break reply(database, &row, false);
                }
                None if !request.create => return Err(no_database(&request.name)),
                None => match self.create_now(&request.name, CreateState::Ready, deadline) {
                    Ok(created) => break created,
                    // Another was first: open what it made.
                    Err(Error::AlreadyExists { .. }) => self.env.remaining(deadline).map(drop)?,
                    Err(error) => return Err(error),
                },
            }
        };
        if let Some(when) = &request.at {
            opened.snapshot = Some(self.resolve_now(opened.branch, when, deadline)?);
        }
        Ok(opened)
    }

    fn fresh(&self, name: &DatabaseName, state: CreateState) -> Result<Fresh> {
        let row = DatabaseRow {
            name: name.clone(),
            branch: BranchId::from_bytes(self.env.random()?),
            domain: DomainId::from_bytes(self.env.random()?),
            importing: state == CreateState::Importing,
            created_micros: self.env.clock.unix_micros(),
            retention_seconds: 0,
            least_versions: 0,
        };
        Ok(Fresh { database: DatabaseId::from_bytes(self.env.random()?), row })
    }

    pub(super) fn create_now(
        &self,
        name: &DatabaseName,
        state: CreateState,
        deadline: Deadline,
    ) -> Result<OpenReply> {
        let fresh = self.fresh(name, state)?;
        let branch = BranchRow {
            created: Version::ZERO,
            database: fresh.database,
            domain: fresh.row.domain,
            dropped: false,
            parent: None,
        };
        let ran = Cell::new(false);
        self.catalog(deadline, |txn| {
            // The branch stays whatever became of the database since an earlier run.
            if ran.replace(true) && View(txn).has_branch(fresh.row.branch)? {
                return Ok(Vec::new());
            }
            if View(txn).name(name)?.is_some() {
                return Err(exists(name).into());
            }
            txn.put(keys::name(name), records::encode_name(fresh.database));
            txn.put(keys::database(fresh.database), fresh.row.encode());
            txn.mutate(put_branch(fresh.row.branch, &branch));
            Ok(Vec::new())
        })?;
        Ok(fresh.reply(true))
    }

    pub(super) fn finish_import_now(&self, database: DatabaseId, deadline: Deadline) -> Result<()> {
        self.catalog(deadline, |txn| {
            let mut row = View(txn)
                .database(database)?
                .ok_or_else(|| Error::NotFound { what: format!("database {database}") })?;
            if row.importing {
                row.importing = false;
                txn.put(keys::database(database), row.encode());
            }
            Ok(Vec::new())
        })?;
        Ok(())
    }

    pub(super) fn describe_now(
        &self,
        name: &DatabaseName,
        deadline: Deadline,
    ) -> Result<DatabaseInfo> {
        self.retrying(deadline, || {
            let reads = self.kv.snapshot(deadline)?;
            let view = View(&*reads);
            let (database, row) = view.named(name)?.ok_or_else(|| no_database(name))?;
            view.describe(database, &row)
        })
    }

    pub(super) fn list_now(&self, deadline: Deadline) -> Result<Vec<DatabaseInfo>> {
        self.retrying(deadline, || {
            let reads = self.kv.snapshot(deadline)?;
            let view = View(&*reads);
            let mut range = Subspace::Names.range();
            let mut found = Vec::new();
            loop {
                let entries =
                    reads.scan(&Scan { range: range.clone(), reverse: false, limit: STEP })?;
                for (key, value) in &entries {
                    let name = keys::parse_name(key)?;
                    let database = records::decode_name(value)?;
                    let row = view.database(database)?.ok_or_else(|| Error::Corrupt {
                        what: format!("database {name:?}: its record {database} is missing"),
                    })?;
                    found.push(view.describe(database, &row)?);
                }
                match entries.last() {
                    Some((last, _)) if entries.len() == STEP => range.start = keys::after(last),
                    _ => return Ok(found),
                }
            }
        })
    }

    pub(super) fn rename_now(
        &self,
        from: &DatabaseName,
        to: &DatabaseName,
        deadline: Deadline,
    ) -> Result<()> {
        // What an earlier run of the body moved, if it took effect.
        let moved: Cell<Option<DatabaseId>> = Cell::new(None);
        self.catalog(deadline, |txn| {
            let target = View(txn).name(to)?;
            if target.is_some() && target == moved.get() {
                return Ok(Vec::new());
            }
            let (database, mut row) = View(txn).named(from)?.ok_or_else(|| no_database(from))?;
            if from == to {
                return Ok(Vec::new());
            }
            if target.is_some() {
                return Err(exists(to).into());
            }
            row.name = to.clone();
            txn.delete(keys::name(from));
            txn.put(keys::name(to), records::encode_name(database));
            txn.put(keys::database(database), row.encode());
            moved.set(Some(database));
            Ok(Vec::new())
        })?;
        Ok(())
    }

    pub(super) fn drop_now(&self, name: &DatabaseName, deadline: Deadline) -> Result<()> {
        // What an earlier run of the body dropped, if it took effect.
        let dropped: Cell<Option<DatabaseId>> = Cell::new(None);
        self.catalog(deadline, |txn| {
            // Looked at first: the name may be another database's by now.
            if let Some(database) = dropped.get()
                && View(txn).database(database)?.is_none()
            {
                return Ok(Vec::new());
            }
            let (database, row) = View(txn).named(name)?.ok_or_else(|| no_database(name))?;
            txn.delete(keys::name(name));
            txn.delete(keys::database(database));
            // The row stays for branches that read through it; commits conflict on it.
            let mut branch = View(txn).branch_row(row.branch)?;
            branch.dropped = true;
            txn.put(keys::branch(row.branch), branch.encode());
            dropped.set(Some(database));
            Ok(vec![(row.branch, Event::Dropped)])
        })?;
        Ok(())
    }

    /// Creates a branch of `parent` as it was at `version`, in the same content domain.
    /// O(1): its reads fall through to the parent.
    ///
    /// # Errors
    /// `NotFound` for a dropped parent, `Pruned` and `InvalidRequest` for a version that
    /// the parent does not have.
    pub fn create_branch(
        &self,
        parent: BranchId,
        version: Version,
        deadline: Deadline,
    ) -> Result<BranchId> {
        let branch = BranchId::from_bytes(self.env.random()?);
        // Checks that the version is one that the parent has, too.
        self.retrying(deadline, || self.basis(parent, version, None, deadline))?;
        self.catalog(deadline, |txn| {
            let view = View(txn);
            if view.has_branch(branch)? {
                return Ok(Vec::new());
            }
            let row = view.branch_row(parent)?;
            if row.dropped {
                return Err(no_branch(parent).into());
            }
            // Read in the transaction: a pruning that raises it meanwhile conflicts.
            check_watermark(version, view.watermark(parent)?)?;
            let child = BranchRow {
                created: Version::ZERO,
                parent: Some(Parent { branch: parent, version }),
                ..row
            };
            txn.mutate(put_branch(branch, &child));
            Ok(Vec::new())
        })?;
        Ok(branch)
    }

    /// Raises a branch's watermark: snapshots below it are refused from now on, and what
    /// only they can see may then be deleted (rule 8 of the protocol). Never lowers it.
    ///
    /// # Errors
    /// `NotFound` for a branch that does not exist.
    pub fn raise_watermark(
        &self,
        branch: BranchId,
        version: Version,
        deadline: Deadline,
    ) -> Result<()> {
        self.catalog(deadline, |txn| {
            let view = View(txn);
            view.branch_row(branch)?;
            if view.watermark(branch)? < version {
                txn.put(keys::watermark(branch), records::encode_version(version));
            }
            Ok(vec![(branch, Event::Watermark(version))])
        })?;
        Ok(())
    }
}

/// What a body's reads could not get from the engine now is to be tried again.
fn engine_failed(error: TxnError) -> TxnError {
    match error {
        TxnError::Abort(Error::Unavailable { what }) => {
            TxnError::Engine(KvError::Unavailable { what })
        }
        other => other,
    }
}

/// Writes a new branch's row, its creation being the version of this transaction. The put
/// also makes two transactions that write the same row conflict.
fn put_branch(branch: BranchId, row: &BranchRow) -> Mutation {
    let (prefix, suffix) = row.encode_around();
    Mutation::PutVersionedValue { key: keys::branch(branch), prefix, suffix }
}
