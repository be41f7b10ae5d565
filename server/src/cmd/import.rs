//! `interleaf import`: a SQLite file into the store.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use interleaf_store::Error;
use interleaf_store::api::{
    AllocationChange, Backend, BeginReply, BeginRequest, CommitPart, CommitReply, CommitRequest,
    CreateState, OpenReply, StageRequest,
};
use interleaf_store::kv::Durability;
use interleaf_store::types::{CommitId, DatabaseName, PageNumber, PageSet, Version};
use interleaf_vfs::names::{Asked, Names, Target};
use serde_json::json;

use crate::cli::Output;
use crate::context::{Context, out, out_json};
use crate::human;
use crate::progress::Progress;
use crate::source::Source;

/// Bytes of pages sent at a time: a quarter of what a frame may hold.
const CHUNK_BYTES: usize = 4 << 20;

/// Chunks read ahead of what the store has taken.
const CHUNKS_AHEAD: usize = 2;

/// Pages by number.
type Pages = Vec<(PageNumber, Bytes)>;

/// The commit that publishes what was staged may take so many times the usual wait.
const PUBLISH_FACTOR: u32 = 60;

/// `interleaf import`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file is read at one moment, through SQLite: other programs may go on using it, and\n\
        what its WAL holds is imported as well. Nothing is visible before all of it is.\n\
        Without NAME the database is named like the file: FILE as it stands where it has no\n\
        slash, else its absolute path, so that `interleaf exec` finds it under the path that\n\
        the program uses.\n\n\
        Examples:\n  interleaf import app.db\n  interleaf import /srv/app/db.sqlite3 app"
)]
pub struct Args {
    /// The SQLite file
    file: PathBuf,
    /// The database's name
    name: Option<DatabaseName>,
    /// The form of the output.
    #[command(flatten)]
    output: Output,
}

/// Runs `interleaf import`.
///
/// # Errors
/// Where the file is no sound database, the name is taken, or the store fails.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.file, context)?,
    };
    let source = Source::open(&args.file)?;
    let backend = context.connect()?;
    let database = create(context, backend.as_ref(), &name)?;
    let import = Import { context, backend: backend.as_ref(), database, id: commit_id(context)? };
    let (version, bytes, elapsed) = match import.copy(&source) {
        Ok(done) => done,
        Err(error) => return Err(import.abandon(&name, error)),
    };
    let pages = source.allocation.pages;
    let rate = human::megabytes_per_second(bytes, elapsed);
    if args.output.json {
        out_json(&json!({
            "name": name.as_str(),
            "version": version.to_string(),
            "pages": pages.0,
            "page_size": source.allocation.page_size.get(),
            "bytes": bytes,
            "seconds": elapsed.as_secs_f64(),
            "mb_per_second": rate,
        }))?;
    } else {
        let size = human::bytes(bytes);
        let seconds = elapsed.as_secs_f64();
        out(format_args!(
            "imported {name}: {pages} pages, {size} in {seconds:.2} s ({rate:.1} MB/s), \
             version {version}\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The name that the file's path has under `interleaf exec`.
fn name_of(file: &Path, context: &Context) -> anyhow::Result<DatabaseName> {
    let path = file.as_os_str().as_encoded_bytes();
    match Names::new(Asked::ByDefault).target(path, &context.config.databases)? {
        Target::Interleaf { name, at: None, .. } => Ok(name),
        Target::Interleaf { at: Some(_), .. } => {
            bail!("{} ends in @WHEN, which names a snapshot: give a NAME", file.display())
        }
        Target::Base => bail!(
            "{} is left to plain SQLite under `interleaf exec` (by INTERLEAF_DATABASES, or as a path \
             of the system's own): give a NAME to import it all the same",
            file.display()
        ),
    }
}

fn create(
    context: &Context,
    backend: &dyn Backend,
    name: &DatabaseName,
) -> anyhow::Result<OpenReply> {
    match backend.create(name, CreateState::Importing, context.deadline()) {
        Ok(database) => Ok(database),
        Err(error @ Error::AlreadyExists { .. }) => {
            if backend.describe(name, context.deadline())?.importing {
                Err(Error::Importing { name: name.to_string() }.into())
            } else {
                bail!(
                    "{error}: to replace it, `interleaf db rename` or `interleaf db drop` it first"
                )
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn commit_id(context: &Context) -> anyhow::Result<CommitId> {
    Ok(CommitId::from_bytes(context.env.random()?))
}

/// One import under way.
struct Import<'a> {
    context: &'a Context,
    backend: &'a dyn Backend,
    database: OpenReply,
    id: CommitId,
}

impl Import<'_> {
    /// Sends all pages, commits them, makes the database visible.
    fn copy(&self, source: &Source) -> anyhow::Result<(Version, u64, Duration)> {
        let clock = &self.context.env.clock;
        let mut progress = Progress::new("importing", source.bytes(), clock.now());
        let begin = BeginRequest { branch: self.database.branch, at: None, known: None };
        let begun = self.backend.begin(&begin, self.context.deadline())?;
        let (writes, staged) = self.send(source, &mut progress)?;
        let reply = self.commit(source, &begun, writes, staged)?;
        self.backend.finish_import(self.database.database, self.context.deadline())?;
        let (bytes, elapsed) = progress.finish(clock.now());
        Ok((reply.version, bytes, elapsed))
    }

    /// Reads all pages and stages them, but for page 1 and the last few, which are given
    /// back for the commit itself; whether anything was staged. Reading and staging go on at
    /// the same time.
    fn send(&self, source: &Source, progress: &mut Progress) -> anyhow::Result<(Pages, bool)> {
        let chunk_pages = (CHUNK_BYTES / source.allocation.page_size.len()).max(1);
        let (sender, receiver) = mpsc::sync_channel::<Pages>(CHUNKS_AHEAD);
        let (mut first, mut chunk, mut staged) = (Vec::new(), Vec::new(), false);
        thread::scope(|scope| {
            let stager = scope.spawn(move || receiver.into_iter().try_for_each(|p| self.stage(p)));
            let read = source.each_page(|number, bytes| {
                progress.add(u64::try_from(bytes.len())?);
                if number == PageNumber::ONE {
                    // Kept for the commit itself, which then always writes something.
                    first.push((number, bytes));
                    return Ok(());
                }
                chunk.push((number, bytes));
                if chunk.len() >= chunk_pages {
                    staged = true;
                    sender
                        .send(std::mem::take(&mut chunk))
                        .context("the store stopped taking pages")?;
                }
                Ok(())
            });
            drop(sender);
            // Where the stager failed, its error is why the reader did.
            stager.join().map_err(|_| anyhow!("the thread that sends pages panicked"))??;
            read
        })?;
        first.append(&mut chunk);
        Ok((first, staged))
    }

    fn stage(&self, pages: Pages) -> anyhow::Result<()> {
        let request = StageRequest {
            id: self.id,
            branch: self.database.branch,
            domain: self.database.domain,
            pages,
        };
        Ok(self.backend.stage(&request, self.context.deadline())?)
    }

    fn commit(
        &self,
        source: &Source,
        begun: &BeginReply,
        writes: Pages,
        staged: bool,
    ) -> anyhow::Result<CommitReply> {
        let reads: PageSet = (1..=source.allocation.pages.0).filter_map(PageNumber::new).collect();
        let request = CommitRequest {
            id: self.id,
            incarnation: begun.incarnation,
            parts: vec![CommitPart {
                database: self.database.database,
                branch: self.database.branch,
                domain: self.database.domain,
                snapshot: begun.snapshot,
                reads,
                writes,
                hashes: Vec::new(),
                staged,
                allocation: Some(AllocationChange {
                    snapshot: begun.snapshot,
                    before: begun.allocation,
                    after: source.allocation,
                }),
            }],
            durability: Durability::Synced,
            client: "interleaf import".into(),
        };
        Ok(self.backend.commit(&request, self.context.long_deadline(PUBLISH_FACTOR))?)
    }

    /// Leaves nothing behind of an import that failed, or says what is left.
    fn abandon(&self, name: &DatabaseName, error: anyhow::Error) -> anyhow::Error {
        let dropped = self
            .backend
            .unstage(self.id, self.context.deadline())
            .and_then(|()| self.backend.drop_database(name, self.context.deadline()));
        match dropped {
            Ok(()) => error,
            Err(left) => error.context(format!(
                "the import failed, and so did its removal ({left}); \
                 run `interleaf db drop {name} --yes` later"
            )),
        }
    }
}
