//! Sees to it that the bundled SQLite is built as `interleaf import` needs it.

const VARIABLE: &str = "LIBSQLITE3_FLAGS";
const FLAG: &str = "SQLITE_ENABLE_DBPAGE_VTAB";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let flags = std::env::var(VARIABLE).unwrap_or_default();
    if !flags.contains(FLAG) {
        println!(
            "cargo::error={VARIABLE} lacks -D{FLAG}: build within the workspace, whose \
             .cargo/config.toml sets it, or add it to your own"
        );
    }
}
