//! Names that are near to one that does not exist: most often a slip of the keyboard, or a bare
//! name where the database has a path's.

use anyhow::anyhow;
use interleaf_store::Error;
use interleaf_store::api::{Backend, DatabaseInfo};
use interleaf_store::types::DatabaseName;

use crate::context::Context;

/// Most names that are suggested.
const MAX_SUGGESTED: usize = 3;

/// Most changed characters between a name and a near one.
const MAX_DISTANCE: usize = 3;

/// A database by its name, or an error that suggests others.
///
/// # Errors
/// As [`Backend::describe`].
pub fn describe(
    context: &Context,
    backend: &dyn Backend,
    name: &DatabaseName,
) -> anyhow::Result<DatabaseInfo> {
    or_nearest(context, backend, name, backend.describe(name, context.deadline()))
}

/// Adds the names that are near to `name` where `result` says that it does not exist.
///
/// # Errors
/// That of `result`.
pub fn or_nearest<T>(
    context: &Context,
    backend: &dyn Backend,
    name: &DatabaseName,
    result: Result<T, Error>,
) -> anyhow::Result<T> {
    match result {
        Err(error @ Error::NotFound { .. }) => match suggestion(context, backend, name) {
            Some(suggestion) => Err(anyhow!("{error}{suggestion}")),
            None => Err(error.into()),
        },
        other => Ok(other?),
    }
}

/// `; did you mean "app.db"?`, where there is a name that is near and none that is equal.
pub fn suggestion(context: &Context, backend: &dyn Backend, name: &DatabaseName) -> Option<String> {
    let databases = backend.list(context.deadline()).inspect_err(|error| {
        // The error at hand says more than that it could not be embellished.
        tracing::debug!(%error, "no names to suggest");
    });
    let databases = databases.ok()?;
    let names: Vec<&str> = databases.iter().map(|info| info.name.as_str()).collect();
    let near: Vec<String> =
        nearest(name.as_str(), &names).iter().map(|name| format!("{name:?}")).collect();
    match near.split_last()? {
        (last, []) => Some(format!("; did you mean {last}?")),
        (last, others) => Some(format!("; did you mean {} or {last}?", others.join(", "))),
    }
}

/// The names nearest to `wanted`, best first; none where it is among them.
fn nearest<'a>(wanted: &str, names: &[&'a str]) -> Vec<&'a str> {
    if names.contains(&wanted) {
        return Vec::new();
    }
    // A WHEN with a slip in it is no part of the name that was meant.
    let before_at = wanted.rsplit_once('@').map(|(name, _)| name);
    let mut near: Vec<(usize, &str)> = names
        .iter()
        .filter_map(|name| {
            let bare = before_at.filter(|bare| bare == name).map(|_| 0);
            Some((bare.or_else(|| distance(wanted, name))?, *name))
        })
        .collect();
    near.sort_unstable();
    near.truncate(MAX_SUGGESTED);
    near.into_iter().map(|(_, name)| name).collect()
}

/// How far a name is from the one wanted; `None` for too far.
fn distance(wanted: &str, name: &str) -> Option<usize> {
    let (wanted, name) = (wanted.to_lowercase(), name.to_lowercase());
    if file_name(&wanted) == file_name(&name) {
        return Some(0);
    }
    let allowed = (wanted.chars().count() / 3).clamp(1, MAX_DISTANCE);
    Some(strsim::osa_distance(&wanted, &name)).filter(|&distance| distance <= allowed)
}

fn file_name(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_paths_are_near_and_other_names_are_not() {
        let names = ["app.db", "/srv/app/app.db", "orders", "a", "applications.db"];
        for (wanted, near) in [
            ("apq.db", &["app.db"][..]),
            ("pap.db", &["app.db"]),
            ("App.db", &["/srv/app/app.db", "app.db"]),
            ("./app.db", &["/srv/app/app.db", "app.db"]),
            ("order", &["orders"]),
            ("app.db@yesterday", &["app.db"]),
            ("me@example.com", &[]),
            ("invoices", &[]),
            ("orders", &[]),
        ] {
            assert_eq!(nearest(wanted, &names), near, "{wanted}");
        }
        let many = ["t1", "t2", "t3", "t4"];
        assert_eq!(nearest("t5", &many), ["t1", "t2", "t3"]);
    }
}
