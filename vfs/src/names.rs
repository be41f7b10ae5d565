//! From what an application opens to a database's name.
//!
//! There are two ways to ask for Interleaf, and they name databases differently:
//!
//! * [`Asked::Explicitly`]: `file:NAME?vfs=interleaf` (or `interleaf` as the VFS of
//!   `sqlite3_open_v2`). NAME is the database's name as it stands; the rules do not apply.
//! * [`Asked::ByDefault`]: Interleaf is the process's default VFS (the preload library, or
//!   `INTERLEAF_DEFAULT_VFS=1`) and sees every path. A path without a slash is the name as
//!   it stands, any other becomes an absolute, cleaned path; `INTERLEAF_DATABASES`
//!   ([`Rules`]) says which of these names are Interleaf's, and may rename them. The others
//!   go to SQLite's own VFS as ever.
//!
//! Paths below `/proc`, `/sys` and `/dev` are the system's own and no databases: by default
//! they stay with SQLite's VFS, whatever the rules say. `/dev/shm` is a folder like others.
//!
//! In both, `NAME@WHEN` is a snapshot, split at the last `@` and only where what follows is
//! a WHEN; `:memory:` and the empty name are SQLite's.
//!
//! Paths are cleaned as text (`.`, `..` and double slashes go); symbolic links are **not**
//! resolved. The name must come out the same on every host, be the file there or not, and a
//! link is a fact of one host's disk: resolved, one path would name two databases on two
//! hosts, or another one after an upgrade that moved a directory. The price: two paths that
//! one host's links make equal are two databases, unless a rule renames one of them.

use std::path::{Path, PathBuf};

use interleaf_store::types::DatabaseName;
use interleaf_store::when::When;
use interleaf_store::{Error, Result};

use crate::config::invalid;
use crate::glob::Glob;

/// What `INTERLEAF_DATABASES` may be, for its errors.
const RULES_ALLOWED: &str = "a comma-separated list of globs, each GLOB or GLOB=NAME \
     (* is any text, ? one character, \\ takes the next character as it stands; there are no \
     classes [ ] and no braces { }: put \\ before them)";

/// How Interleaf came to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By its name: `vfs=interleaf`.
    Explicitly,
    /// As the process's default VFS, which sees every path.
    ByDefault,
}

/// Whose file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A database in the store.
    Interleaf {
        /// Its name.
        name: DatabaseName,
        /// The snapshot that the path asks for.
        at: Option<When>,
        /// The file on disk that plain SQLite would have opened: where it is there and not
        /// empty while the store has no such database, opening must fail. `None` where the
        /// application asked for Interleaf explicitly.
        file: Option<PathBuf>,
    },
    /// SQLite's own VFS opens the path as ever.
    Base,
}

/// Turns paths into names.
#[derive(Clone, Debug)]
pub struct Names {
    asked: Asked,
    cwd: Option<PathBuf>,
}

impl Names {
    /// Relative paths start at the process's current directory, looked up at each call.
    #[must_use]
    pub const fn new(asked: Asked) -> Self {
        Self { asked, cwd: None }
    }

    /// Relative paths start at `cwd`.
    #[must_use]
    pub const fn in_directory(asked: Asked, cwd: PathBuf) -> Self {
        Self { asked, cwd: Some(cwd) }
    }

    /// Whose file `path` is. The path is what SQLite hands to xFullPathname or xOpen: a
    /// `file:` URI is decoded already.
    ///
    /// # Errors
    /// [`Error::InvalidName`] for a name that is Interleaf's and is not UTF-8, longer than
    /// [`DatabaseName::MAX_LEN`], empty before its `@WHEN`, or a directory's;
    /// [`Error::Io`] where the current directory is needed and gone.
    pub fn target(&self, path: &[u8], rules: &Rules) -> Result<Target> {
        if path.is_empty() || path == b":memory:" {
            return Ok(Target::Base);
        }
        // What is not UTF-8 matches globs with U+FFFD in the place of each bad sequence,
        // so that a rule can still leave it to SQLite.
        let lossy = String::from_utf8_lossy(path);
        let (text, at) = When::split_name(&lossy);
        let (name, file) = match self.asked {
            Asked::Explicitly => (text.to_owned(), None),
            Asked::ByDefault => {
                let name = self.clean(text)?;
                if is_special(&name) {
                    return Ok(Target::Base);
                }
                match rules.find(&name) {
                    None => return Ok(Target::Base),
                    Some(rule) => {
                        let file = self.file(text)?;
                        (rule.rename.as_ref().map_or(name, ToString::to_string), Some(file))
                    }
                }
            }
        };
        if std::str::from_utf8(path).is_err() {
            return Err(bad_name(&name, "it is not UTF-8"));
        }
        if name == ":memory:" {
            return Err(bad_name(&name, "it means SQLite's own in-memory database"));
        }
        Ok(Target::Interleaf { name: DatabaseName::new(&name)?, at, file })
    }

    /// The path as SQLite is to remember it (xFullPathname): cleaned, with its `@WHEN`,
    /// before any rule renames it, so that asking again gives the same answer wherever the
    /// process then is.
    ///
    /// # Errors
    /// As [`Names::target`].
    pub fn full_path(&self, path: &str) -> Result<String> {
        if self.asked == Asked::Explicitly {
            return Ok(path.to_owned());
        }
        let (text, _) = When::split_name(path);
        let when = path.get(text.len()..).unwrap_or_default();
        Ok(self.clean(text)? + when)
    }

    /// A name without a slash as it stands, any other as an absolute path without `.`,
    /// `..` and empty components.
    fn clean(&self, text: &str) -> Result<String> {
        if !text.contains('/') {
            return Ok(text.to_owned());
        }
        if matches!(text.rsplit('/').next(), None | Some("" | "." | "..")) {
            return Err(bad_name(text, "it is a directory's"));
        }
        let mut whole = String::new();
        if !text.starts_with('/') {
            let cwd = self.directory()?;
            let Some(cwd) = cwd.to_str() else {
                return Err(bad_name(text, "the current directory is not UTF-8"));
            };
            whole.push_str(cwd);
            whole.push('/');
        }
        whole.push_str(text);
        let mut parts: Vec<&str> = Vec::new();
        for part in whole.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                other => parts.push(other),
            }
        }
        Ok(format!("/{}", parts.join("/")))
    }

    /// The file that the path would be on disk.
    fn file(&self, text: &str) -> Result<PathBuf> {
        if text.starts_with('/') {
            Ok(PathBuf::from(text))
        } else {
            Ok(self.directory()?.join(text))
        }
    }

    fn directory(&self) -> Result<PathBuf> {
        match &self.cwd {
            Some(cwd) => Ok(cwd.clone()),
            None => std::env::current_dir()
                .map_err(|e| Error::Io { what: format!("the current directory: {e}") }),
        }
    }
}

/// Whether a cleaned path is the system's own: what is there is made by this host's kernel.
fn is_special(name: &str) -> bool {
    let below = |folder: &str| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    below("/proc") || below("/sys") || (below("/dev") && !below("/dev/shm"))
}

/// Whether a non-empty regular file stands at `path`: the sign that the application had its
/// data there before Interleaf came.
///
/// # Errors
/// [`Error::Io`] where that cannot be found out: the answer "no" could hide somebody's data.
pub fn has_data(path: &Path) -> Result<bool> {
    use std::io::ErrorKind;
    match std::fs::metadata(path) {
        Ok(meta) => Ok(meta.is_file() && meta.len() > 0),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(Error::Io { what: format!("{}: {e}", path.display()) }),
    }
}

fn bad_name(name: &str, why: &str) -> Error {
    Error::InvalidName { name: name.chars().take(64).collect(), why: why.to_owned() }
}

/// `INTERLEAF_DATABASES`: which names are Interleaf's under the default VFS.
///
/// Entries are `GLOB` or `GLOB=NAME`, separated by commas; white space around an entry and
/// its parts is dropped; the first entry whose glob matches decides, and `=NAME` replaces the name. In a
/// glob `*` is any text, slashes included, `?` one character, and `\` takes the next
/// character as it stands, commas and equal signs too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    rename: Option<DatabaseName>,
}

impl Default for Rules {
    /// `*`: every name.
    fn default() -> Self {
        Self(vec![Rule { glob: Glob::any(), rename: None }])
    }
}

impl Rules {
    /// Parses the variable's value.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for an empty entry, a single `\` at an entry's end, a glob
    /// with the classes or braces of other globs (it would match nothing that was meant, and
    /// data would go to plain files unnoticed) and a NAME that no database can have.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse =
            |why: &str| invalid("INTERLEAF_DATABASES", text, format!("{RULES_ALLOWED}; {why}"));
        let mut rules = Vec::new();
        for entry in split_unescaped(text, ',') {
            let entry = entry.trim();
            let mut halves = split_unescaped(entry, '=').into_iter().map(str::trim);
            let pattern = halves.next().unwrap_or_default();
            if pattern.is_empty() {
                return Err(refuse("an entry is empty"));
            }
            let rename = match (halves.next(), halves.next()) {
                (None, _) => None,
                (Some(name), None) => {
                    Some(DatabaseName::new(&unescaped(name)).map_err(|e| refuse(&e.to_string()))?)
                }
                (Some(_), Some(_)) => return Err(refuse("an entry has two equal signs")),
            };
            let glob = Glob::parse(pattern).map_err(|why| refuse(&format!("{pattern:?} {why}")))?;
            rules.push(Rule { glob, rename });
        }
        Ok(Self(rules))
    }

    fn find(&self, name: &str) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.glob.matches(name))
    }
}

/// Splits at each `at` that has no `\` before it.
fn split_unescaped(text: &str, at: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, c) in text.char_indices() {
        if c == at && !escaped {
            parts.push(text.get(start..index).unwrap_or_default());
            start = index + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

/// The text without the `\` that protect a character.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn by_default(path: &str, rules: &str) -> Result<Target> {
        let names = Names::in_directory(Asked::ByDefault, "/data/dir".into());
        names.target(path.as_bytes(), &Rules::parse(rules).unwrap())
    }

    fn interleaf(target: Result<Target>) -> (String, Option<When>) {
        match target.unwrap() {
            Target::Interleaf { name, at, .. } => (name.to_string(), at),
            Target::Base => panic!("left to SQLite"),
        }
    }

    #[test]
    fn explicitly_a_name_is_taken_as_it_stands() {
        let names = Names::in_directory(Asked::Explicitly, "/data/dir".into());
        // The rules do not apply: whoever asks by name means it.
        let rules = Rules::parse("nothing").unwrap();
        for name in ["app.db", "a/../b", "./x", "/srv//x", "x/", "user@example.com", "naïve"] {
            assert_eq!(
                names.target(name.as_bytes(), &rules).unwrap(),
                Target::Interleaf { name: name.parse().unwrap(), at: None, file: None }
            );
            assert_eq!(names.full_path(name).unwrap(), name);
        }
    }

    #[test]
    fn by_default_a_name_with_a_slash_becomes_an_absolute_cleaned_path() {
        for (path, name) in [
            ("app.db", "app.db"),
            ("..db", "..db"),
            ("./app.db", "/data/dir/app.db"),
            ("sub/app.db", "/data/dir/sub/app.db"),
            ("../app.db", "/data/app.db"),
            ("../../../app.db", "/app.db"),
            ("/srv/app/db.sqlite3", "/srv/app/db.sqlite3"),
            ("//srv/./x/..//app.db", "/srv/app.db"),
            ("/app.db", "/app.db"),
        ] {
            assert_eq!(interleaf(by_default(path, "*")), (name.to_owned(), None), "{path}");
        }
        for directory in ["/srv/", "/", "./", "a/.", "a/.."] {
            let error = by_default(directory, "*").unwrap_err().to_string();
            assert!(error.contains("directory"), "{directory}: {error}");
        }
    }

    #[test]
    fn a_bare_name_is_one_database_from_every_directory_but_its_file_is_here() {
        for cwd in ["/a", "/b"] {
            let names = Names::in_directory(Asked::ByDefault, cwd.into());
            assert_eq!(
                names.target(b"app.db", &Rules::default()).unwrap(),
                Target::Interleaf {
                    name: "app.db".parse().unwrap(),
                    at: None,
                    file: Some(PathBuf::from(cwd).join("app.db")),
                }
            );
        }
    }

    #[test]
    fn memory_and_the_empty_name_are_left_to_sqlite() {
        for asked in [Asked::Explicitly, Asked::ByDefault] {
            for path in ["", ":memory:"] {
                let target = Names::new(asked).target(path.as_bytes(), &Rules::default());
                assert_eq!(target.unwrap(), Target::Base);
            }
            for path in ["@-2h", ":memory:@-2h"] {
                let target = Names::new(asked).target(path.as_bytes(), &Rules::default());
                assert!(matches!(target, Err(Error::InvalidName { .. })), "{path}");
            }
        }
    }

    #[test]
    fn a_snapshot_is_split_at_the_last_at_sign_and_only_before_a_when() {
        let two_hours = Some(When::Ago(Duration::from_secs(7200)));
        for (path, name, at) in [
            ("app.db@-2h", "app.db", two_hours.clone()),
            ("./a@b@-2h", "/data/dir/a@b", two_hours.clone()),
            ("me@example.com", "me@example.com", None),
            ("me@example.com@-2h", "me@example.com", two_hours),
            ("a@pin:x", "a", Some(When::Pin("x".into()))),
            ("a@yesterday", "a@yesterday", None),
        ] {
            assert_eq!(interleaf(by_default(path, "*")), (name.to_owned(), at), "{path}");
        }
        assert_eq!(interleaf(by_default("d@pin:x/a.db", "*")).0, "/data/dir/d@pin:x/a.db");
        // Rules look at the name alone.
        assert_eq!(interleaf(by_default("a.db@-2h", "*.db")).0, "a.db");
    }

    #[test]
    fn the_systems_own_paths_stay_with_sqlite_by_default() {
        for path in ["/proc/self/fd/3", "/dev/stdin", "/sys/x", "/srv/../dev/./null"] {
            assert_eq!(by_default(path, "*").unwrap(), Target::Base, "{path}");
        }
        for path in ["/dev/shm/a.db", "/devices/a.db", "/srv/proc/a.db", "/proc"] {
            assert_eq!(interleaf(by_default(path, "*")).0, path);
        }
        let names = Names::in_directory(Asked::ByDefault, "/dev".into());
        assert_eq!(names.target(b"./null", &Rules::default()).unwrap(), Target::Base);
        let explicit = Names::new(Asked::Explicitly).target(b"/dev/x", &Rules::default());
        assert_eq!(interleaf(explicit).0, "/dev/x");
    }

    #[test]
    fn rules_choose_and_rename() {
        assert_eq!(by_default("other.sqlite", "*.db").unwrap(), Target::Base);
        assert_eq!(by_default("sub/a.db", "*.sql, /srv/*").unwrap(), Target::Base);
        let rules = "/srv/old/* = app, *.db ,x\\,y\\=z=renamed\\=it";
        for (path, name) in [
            ("/srv/old/a.sqlite", "app"),
            ("/srv/old/a.db", "app"),
            ("b.db", "b.db"),
            ("x,y=z", "renamed=it"),
        ] {
            assert_eq!(interleaf(by_default(path, rules)).0, name, "{path}");
        }
        assert_eq!(
            interleaf(by_default("/srv/old/a.db@-1s", rules)),
            ("app".into(), Some(When::Ago(Duration::from_secs(1))))
        );
    }

    #[test]
    fn bad_rules_are_refused_with_what_is_allowed() {
        for bad in [
            "",
            ",",
            "a,",
            "a, ,b",
            "=x",
            "a=",
            "a=b=c",
            "a\\",
            "a=b@-2h",
            "[ab].db",
            "*.{db,sqlite}",
            "a]",
            "x}",
        ] {
            let error = Rules::parse(bad).unwrap_err();
            assert!(matches!(error, Error::InvalidSetting { .. }), "{bad}");
            assert!(error.to_string().contains("INTERLEAF_DATABASES"), "{error}");
        }
    }

    #[test]
    fn names_that_are_too_long_or_not_utf8_are_refused_only_where_they_are_ours() {
        let long = "a".repeat(256);
        let error = by_default(&long, "*").unwrap_err().to_string();
        assert!(error.contains("255"), "{error}");
        assert_eq!(by_default(&long, "*.db").unwrap(), Target::Base);
        // A long path may be renamed to a short name.
        assert_eq!(interleaf(by_default(&long, "aaa*=short")).0, "short");

        let names = Names::in_directory(Asked::ByDefault, "/data/dir".into());
        let error = names.target(b"a\xffb.db", &Rules::default()).unwrap_err().to_string();
        assert!(error.contains("UTF-8"), "{error}");
        let error = names.target(b"\xff", &Rules::parse("?=x").unwrap()).unwrap_err().to_string();
        assert!(error.contains("UTF-8"), "{error}");
        let rules = Rules::parse("*.sqlite").unwrap();
        assert_eq!(names.target(b"a\xffb.db", &rules).unwrap(), Target::Base);
        let explicit = Names::new(Asked::Explicitly).target(b"\xff", &rules);
        assert!(matches!(explicit, Err(Error::InvalidName { .. })));
    }

    #[test]
    fn the_full_path_of_a_full_path_is_itself_from_any_directory() {
        let here = Names::in_directory(Asked::ByDefault, "/here".into());
        let there = Names::in_directory(Asked::ByDefault, "/there".into());
        let rules = Rules::parse("/here/old/*=app,*").unwrap();
        for path in ["a.db", "./a.db", "old/../b@-2h", "old/x@-2h", "/c/./d", "a@b.com"] {
            let full = here.full_path(path).unwrap();
            assert_eq!(there.full_path(&full).unwrap(), full);
            let (first, again) = (
                interleaf(here.target(path.as_bytes(), &rules)),
                interleaf(there.target(full.as_bytes(), &rules)),
            );
            assert_eq!(first, again, "{path}");
        }
    }

    #[test]
    fn data_on_disk_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.db");
        assert!(!has_data(&file).unwrap());
        std::fs::write(&file, b"").unwrap();
        assert!(!has_data(&file).unwrap(), "an empty file holds nothing");
        assert!(!has_data(&file.join("x")).unwrap(), "a file is no directory");
        std::fs::write(&file, b"x").unwrap();
        assert!(has_data(&file).unwrap());
        assert!(!has_data(dir.path()).unwrap());
    }
}
