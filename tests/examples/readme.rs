//! rusqlite (bundled or system SQLite) and interleaf-vfs, no shared library needed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = interleaf_vfs::config::Config::from_env()?;
    interleaf_vfs::register(interleaf_vfs::sqlite_api!(rusqlite::ffi), &config)?;
    let shop = rusqlite::Connection::open("file:shop?vfs=interleaf")?;
    let n: i64 = shop.query_row("SELECT count(*) FROM orders", [], |row| row.get(0))?;
    println!("{n} orders");
    Ok(())
}
