//! A SQLite file to import, read at one moment through SQLite itself.
//!
//! A read transaction of SQLite stays open for as long as the pages are read, and each page
//! comes through it (`sqlite_dbpage`): what a WAL holds, a hot journal, and writers at work
//! meanwhile are SQLite's own business, and the file is only read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use interleaf_store::api::Allocation;
use interleaf_store::sqlite_file::{self, Header};
use interleaf_store::types::{PageCount, PageNumber};
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// How long another program's exclusive lock is waited for, in ms.
const BUSY_MS: u64 = 5_000;

/// A file held in a read transaction.
pub struct Source {
    path: PathBuf,
    connection: Connection,
    /// Size and freelist at that moment.
    pub allocation: Allocation,
}

impl Source {
    /// Opens a file and begins the transaction.
    ///
    /// # Errors
    /// Where the file is no SQLite database, is damaged or cut short, or cannot be read.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        check_header(path)?;
        let shown = path.display();
        let connection = begin_gently(path).map_err(|error| explain(&error, path))?;
        let mut source = Self { path: path.to_owned(), connection, allocation: Allocation::EMPTY };
        let pages = source.number("PRAGMA page_count")?;
        ensure!(pages > 0, "{shown} has no pages: there is nothing to import");
        let first = source.page_one()?;
        let header = Header::parse(&first).with_context(|| format!("{shown}"))?;
        // SQLite takes a last page that is cut short for one that ends in zeros. Where there
        // is a WAL, that page may be in it.
        let whole = u64::from(header.page_size.get());
        if !has_wal(path) && std::fs::metadata(path)?.len() % whole != 0 {
            bail!("{shown} is damaged or cut short: {}", lengths(path));
        }
        source.allocation = Allocation {
            pages: PageCount(u32::try_from(pages).context("too many pages")?),
            ..header.allocation()
        };
        Ok(source)
    }

    /// Bytes to come.
    pub fn bytes(&self) -> u64 {
        u64::from(self.allocation.pages.0) * u64::from(self.allocation.page_size.get())
    }

    /// Hands each page to `take`, in ascending order; page 1 as a store keeps it.
    ///
    /// # Errors
    /// Those of `take`, and where SQLite cannot read a page.
    pub fn each_page(
        &self,
        mut take: impl FnMut(PageNumber, Bytes) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let size = self.allocation.page_size.len();
        let mut statement =
            self.connection.prepare("SELECT pgno, data FROM sqlite_dbpage ORDER BY pgno")?;
        let mut rows = statement.query([])?;
        let mut last = 0;
        while let Some(row) = rows.next().map_err(|e| explain(&e, &self.path))? {
            let number: u32 = row.get(0)?;
            let mut data = row.get_ref(1)?.as_blob()?.to_vec();
            let shown = self.path.display();
            ensure!(number == last + 1, "{shown}: page {} cannot be read", last + 1);
            ensure!(data.len() == size, "{shown}: page {number} has {} bytes", data.len());
            last = number;
            let Some(number) = PageNumber::new(number) else { bail!("{shown}: page {number}") };
            if number == PageNumber::ONE {
                sqlite_file::strip_page_one(&mut data);
                sqlite_file::set_rollback_journal(&mut data);
            }
            take(number, Bytes::from(data))?;
        }
        let expected = self.allocation.pages;
        ensure!(last == expected.0, "{} ends at page {last} of {expected}", self.path.display());
        Ok(())
    }

    fn number(&self, sql: &str) -> anyhow::Result<i64> {
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(|e| explain(&e, &self.path))
    }

    fn page_one(&self) -> anyhow::Result<Vec<u8>> {
        let sql = "SELECT data FROM sqlite_dbpage WHERE pgno = 1";
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(|e| explain(&e, &self.path))
    }
}

/// Opens the file so that it and its folder are left as they were. A reader of a WAL file
/// without a WAL would leave an empty one behind, a writer removes it; a writer that leaves
/// last would move a WAL that is there into the file, a reader does not.
fn begin_gently(path: &Path) -> rusqlite::Result<Connection> {
    let (read, write) = (OpenFlags::SQLITE_OPEN_READ_ONLY, OpenFlags::SQLITE_OPEN_READ_WRITE);
    let (first, second) = if has_wal(path) { (read, write) } else { (write, read) };
    match begin(path, first) {
        // A hot journal, a WAL whose index is lost, a folder that is not ours.
        Err(error)
            if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)
            ) =>
        {
            begin(path, second).map_err(|_| error)
        }
        other => other,
    }
}

/// Whether a WAL that is not empty lies beside the file.
fn has_wal(path: &Path) -> bool {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(wal).is_ok_and(|meta| meta.len() > 0)
}

/// Opens the file and takes the snapshot: the first read of a transaction does.
fn begin(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // NO_MUTEX: one thread uses it. No URI flag: the path is a path, whatever it looks like.
    let connection = Connection::open_with_flags_and_vfs(
        path,
        access | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        c"unix",
    )?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
    connection.execute_batch("PRAGMA cache_size = -8192; BEGIN")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// Says what is wrong with a file that SQLite would only call "not a database".
fn check_header(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    // Looked at before it is opened: a pipe would wait for whoever writes to it.
    let meta = std::fs::metadata(path).with_context(|| format!("{shown}"))?;
    ensure!(meta.is_file(), "{shown} is no regular file");
    let mut file = File::open(path).with_context(|| format!("{shown}"))?;
    ensure!(meta.len() > 0, "{shown} is empty: no SQLite database");
    let mut header = Vec::with_capacity(sqlite_file::HEADER_LEN);
    let limit = u64::try_from(sqlite_file::HEADER_LEN)?;
    file.by_ref().take(limit).read_to_end(&mut header).with_context(|| format!("{shown}"))?;
    if !header.starts_with(&sqlite_file::MAGIC) {
        bail!("{shown} is no SQLite database: it does not begin with \"SQLite format 3\"");
    }
    if header.len() < sqlite_file::HEADER_LEN {
        bail!("{shown} is cut short: {} bytes; the header alone has {limit}", header.len());
    }
    Header::parse(&header).with_context(|| format!("{shown}"))?;
    Ok(())
}

/// SQLite's error with the file's name, and with what it means here.
fn explain(error: &rusqlite::Error, path: &Path) -> anyhow::Error {
    let shown = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => {
            anyhow::anyhow!("{shown} is damaged or cut short: {}", lengths(path))
        }
        Some(ErrorCode::NotADatabase) => {
            anyhow::anyhow!("{shown} is no SQLite database, or an encrypted one: {error}")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            anyhow::anyhow!("{shown} has been locked by another program for {BUSY_MS} ms")
        }
        _ => anyhow::anyhow!("{shown}: {error}"),
    }
}

/// How long the file is, and how long its header says it is.
fn lengths(path: &Path) -> String {
    let read = || -> Option<String> {
        let mut file = File::open(path).ok()?;
        let mut header = [0; sqlite_file::HEADER_LEN];
        file.read_exact(&mut header).ok()?;
        let header = Header::parse(&header).ok()?;
        let stated = u64::from(header.pages) * u64::from(header.page_size.get());
        let length = file.metadata().ok()?.len();
        Some(format!("it has {length} bytes, its header says {stated}"))
    };
    read().unwrap_or_else(|| "SQLite cannot read it".into())
}
