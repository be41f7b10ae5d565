use std::os::unix::fs::PermissionsExt;

use super::*;

fn options() -> ConnectOptions {
    ConnectOptions { timeout: Duration::from_secs(5), autostart: false, ..Default::default() }
}

fn url(text: &str) -> StoreUrl {
    text.parse().unwrap()
}

#[test]
fn the_default_directory_is_absolute_or_refused() {
    let from = |data: Option<&str>, home: Option<&str>| {
        directory_from(data.map(Into::into), home.map(Into::into))
    };
    assert_eq!(from(Some("/data"), Some("/home/u")).unwrap(), Path::new("/data/interleaf"));
    let home = Path::new("/home/u/.local/share/interleaf");
    assert_eq!(from(None, Some("/home/u")).unwrap(), home);
    assert_eq!(from(Some(""), Some("/home/u")).unwrap(), home);
    let relative = from(Some("relative"), Some("/home/u")).unwrap_err();
    assert!(relative.to_string().starts_with("XDG_DATA_HOME is \"relative\""), "{relative}");
    assert!(matches!(from(None, None), Err(Error::InvalidSetting { .. })));
    assert!(matches!(from(None, Some("")), Err(Error::InvalidSetting { .. })));
}

#[test]
fn a_directory_is_created_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a/b");
    create_private(&inner).unwrap();
    create_private(&inner).unwrap();
    assert_eq!(inner.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(create_private(&dir.path().join("file")), Err(Error::Io { .. })));
}

#[test]
fn what_this_build_cannot_reach_is_said() {
    for text in ["tls://127.0.0.1", "tls://a:1,b:2"] {
        let error = connect(&url(text), &options()).err().unwrap();
        assert!(matches!(&error, Error::Unsupported { what } if what.contains(text)), "{error}");
    }
    let server = open_store(&url("tcp://127.0.0.1"), options().store()).err().unwrap();
    assert!(matches!(server, Error::InvalidRequest { .. }), "{server}");
}

#[test]
fn memory_is_one_store_a_process() {
    let deadline = options().env.deadline(Duration::from_secs(5));
    let id = |_| connect(&url("mem:"), &options()).unwrap().info(deadline).unwrap().store;
    assert_eq!(id(1), id(2));
}

#[test]
fn a_directory_is_opened_once_however_it_is_written_and_closed_with_its_last_user() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    // Not there yet, and named through a link.
    let above = dir.path().join("above");
    std::os::unix::fs::symlink(dir.path(), &above).unwrap();
    let plain = url(&format!("dir:{}", above.join("store").display()));
    let deadline = options().env.deadline(Duration::from_secs(5));
    let first = connect(&plain, &options()).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&store, &link).unwrap();
    let linked = url(&format!("dir:{}", link.display()));
    let second = connect(&linked, &options()).unwrap();
    let info = first.info(deadline).unwrap();
    assert_eq!(second.info(deadline).unwrap(), info);
    drop((first, second));
    // Closed cleanly: the same incarnation, and nobody holds the lock.
    let third = connect(&plain, &options()).unwrap();
    assert_eq!(third.info(deadline).unwrap(), info);
}
