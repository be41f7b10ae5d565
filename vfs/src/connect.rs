//! From a store URL to a backend.

use std::path::PathBuf;
use std::sync::Arc;

use interleaf_store::api::Backend;
use interleaf_store::env::Env;
use interleaf_store::url::StoreUrl;
use interleaf_store::{Error, Result, StoreOptions};
use interleaf_wire::ConnectOptions;

use crate::config::Config;

/// Connects to the store at `url`.
///
/// # Errors
/// Those of connecting.
pub fn connect(url: &StoreUrl, config: &Config) -> Result<Arc<dyn Backend>> {
    let options = ConnectOptions {
        env: Env::system(),
        timeout: config.timeout,
        autostart: config.autostart,
        server_binary: config.bin.clone(),
        beside: own_file(),
        memory_bytes: StoreOptions::default().memory_bytes,
        software: format!("interleaf-vfs {}", env!("CARGO_PKG_VERSION")),
    };
    interleaf_wire::connect(url, &options).map_err(|error| match error {
        Error::Timeout { after } => {
            Error::Unavailable { what: format!("{url}: no answer within {} ms", after.as_millis()) }
        }
        other => other,
    })
}

/// The file that this code was loaded from, beside which the program `interleaf` is looked
/// for: a library's own path where it is one, else the program's. `None` where the system
/// does not tell.
fn own_file() -> Option<PathBuf> {
    let here = (own_file as fn() -> Option<PathBuf>) as usize;
    file_at(&std::fs::read_to_string("/proc/self/maps").ok()?, here)
}

/// The file mapped at an address, by the text of `/proc/self/maps`.
fn file_at(maps: &str, address: usize) -> Option<PathBuf> {
    maps.lines().find_map(|line| {
        // address range, permissions, offset, device, inode, path
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let path = rest.get(rest.find('/')?..)?;
        (start..end).contains(&address).then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_this_code_is_this_program() {
        assert_eq!(own_file().unwrap(), std::env::current_exe().unwrap());
    }

    #[test]
    fn a_path_may_have_blanks_and_a_mapping_may_have_none() {
        let maps = "1000-2000 r-xp 00000000 00:00 0 \n\
                    2000-3000 r-xp 00000000 08:01 42      /opt/my libs/libinterleaf.so\n";
        assert_eq!(file_at(maps, 0x1500), None);
        assert_eq!(file_at(maps, 0x2000), Some("/opt/my libs/libinterleaf.so".into()));
        assert_eq!(file_at(maps, 0x3000), None);
    }
}
