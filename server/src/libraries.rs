//! Where the two shared libraries are: named by a variable, beside the program as a build
//! leaves them, or where `make install` puts them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use interleaf_store::url::StoreUrl;

/// Names another file than the installed preload library.
pub const PRELOAD_VARIABLE: &str = "INTERLEAF_PRELOAD";
/// Names another file than the installed extension.
pub const EXTENSION_VARIABLE: &str = "INTERLEAF_EXTENSION";

const PRELOAD: &str = "libinterleaf_preload.so";
const EXTENSION: &str = "libinterleaf.so";

/// The library for LD_PRELOAD.
///
/// # Errors
/// Where it is not there; the error says where it was looked for.
pub fn preload() -> anyhow::Result<PathBuf> {
    find(PRELOAD, PRELOAD_VARIABLE)
}

/// The loadable extension.
///
/// # Errors
/// Where it is not there; the error says where it was looked for.
pub fn extension() -> anyhow::Result<PathBuf> {
    find(EXTENSION, EXTENSION_VARIABLE)
}

/// This program.
///
/// # Errors
/// Where the system does not say.
pub fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("the path of this program")
}

fn find(file: &str, variable: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return std::path::absolute(&path)
            .ok()
            .filter(|path| path.is_file())
            .with_context(|| format!("{variable} is {}: no such file", path.display()));
    }
    let program = program()?;
    let places = places(&program, file);
    match places.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => {
            let looked: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
            bail!("{file} is not at {}; {variable} may name it", looked.join(" nor "))
        }
    }
}

fn places(program: &Path, file: &str) -> Vec<PathBuf> {
    let Some(bin) = program.parent() else { return Vec::new() };
    let mut places = vec![bin.join(file)];
    places.extend(bin.parent().map(|prefix| prefix.join("lib/interleaf").join(file)));
    places
}

/// A store URL that means the same in a process with another current directory.
///
/// # Errors
/// Where a path is relative and the current directory is gone.
pub fn absolute_store(url: &StoreUrl) -> anyhow::Result<StoreUrl> {
    let absolute = |path: &Path| {
        std::path::absolute(path).with_context(|| format!("the path {}", path.display()))
    };
    Ok(match url {
        StoreUrl::Directory(path) => StoreUrl::Directory(absolute(path)?),
        StoreUrl::Unix(path) => StoreUrl::Unix(absolute(path)?),
        StoreUrl::FoundationDb { cluster_file, prefix } => {
            StoreUrl::FoundationDb { cluster_file: absolute(cluster_file)?, prefix: prefix.clone() }
        }
        StoreUrl::Default | StoreUrl::Tcp(_) | StoreUrl::Tls(_) | StoreUrl::Memory => url.clone(),
    })
}

/// The value of `INTERLEAF_STORE` that means this store; `None` for the default one.
#[must_use]
pub fn store_variable(url: &StoreUrl) -> Option<String> {
    (*url != StoreUrl::Default).then(|| url.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_looked_for_beside_the_program_and_below_its_prefix() {
        assert_eq!(
            places(Path::new("/usr/local/bin/interleaf"), "x.so"),
            [PathBuf::from("/usr/local/bin/x.so"), "/usr/local/lib/interleaf/x.so".into()]
        );
    }

    #[test]
    fn relative_stores_become_absolute() {
        let url = absolute_store(&"dir:store".parse().unwrap()).unwrap().to_string();
        assert!(url.starts_with("dir:/") && url.ends_with("/store"), "{url}");
        assert_eq!(absolute_store(&StoreUrl::Memory).unwrap(), StoreUrl::Memory);
    }
}
