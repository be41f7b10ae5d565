//! What a commit stores, and what a read fetches.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use interleaf_tests::on_each_own_store;
use interleaf_tests::sql::{counter, one, one_row_per_leaf, run};
use interleaf_tests::store::{Kind, TestStore};
use interleaf_tests::worker;

on_each_own_store!(
    a_page_equal_in_two_versions_is_one_content_record,
    a_one_row_update_is_small,
    a_second_connection_of_a_warm_process_reads_nothing,
);

fn a_page_equal_in_two_versions_is_one_content_record(store: &TestStore) {
    let db = store.open("db");
    one_row_per_leaf(&db, "main", 10);
    // Most of the page changes, and its layout stays the same: a small change would be a
    // difference, and no content.
    let change = |letter: &str| {
        let pad = letter.repeat(3000);
        run(&db, &format!("UPDATE t SET pad = CAST('{pad}' AS BLOB) WHERE id = 5"));
    };
    change("a");
    let before = store.records();
    change("b");
    let other = store.records();
    assert_eq!(other.content, before.content + 1, "one page changed");
    change("a");
    let back = store.records();
    assert_eq!(back.content, other.content, "the page is what it was");
    assert_eq!(back.pages, before.pages + 2, "a record for each version");
    // Pages that SQLite writes without changing them are none.
    run(&db, "UPDATE t SET v = v WHERE id = 6");
    assert_eq!(store.records().pages, back.pages);
}

fn a_one_row_update_is_small(store: &TestStore) {
    // The page was written whole before: what is new is a difference, in all records.
    const LIMIT: u64 = 600;
    let db = store.open("db");
    one_row_per_leaf(&db, "main", 500);
    run(&db, "UPDATE t SET v = 1 WHERE id = 400");
    let before = store.records().bytes;
    run(&db, "UPDATE t SET v = 2 WHERE id = 400");
    let after = store.records().bytes;
    assert!(after > before && after - before <= LIMIT, "{before} -> {after}: limit {LIMIT}");
}

fn a_second_connection_of_a_warm_process_reads_nothing(store: &TestStore) {
    let first = store.open("db");
    one_row_per_leaf(&first, "main", 300);
    let scan = "SELECT count(*) FROM t WHERE length(pad) = 3000";
    assert_eq!(one::<i64>(&first, scan), 300);
    let second = store.open("db");
    assert_eq!(one::<i64>(&second, scan), 300);
    assert_eq!(counter(&second, "pages_read"), 0);
    assert!(counter(&second, "cache_hits") >= 300);
}

/// A process that knows nothing yet reads ahead in batches.
#[test]
fn a_cold_process_reads_in_batches() {
    const ROWS: u64 = 2_000;
    let store = TestStore::new(Kind::Server);
    one_row_per_leaf(&store.open("db"), "main", u32::try_from(ROWS).unwrap());
    let report = worker::sql(
        &store.uri("db"),
        &["SELECT count(*) FROM t WHERE length(pad) = 3000", "PRAGMA interleaf_stats"],
    );
    assert_eq!(report.answers.first().unwrap().value().as_u64(), Some(ROWS));
    let stats: serde_json::Value =
        serde_json::from_str(report.last().value().as_str().unwrap()).unwrap();
    let (pages, trips) =
        (stats["pages_read"].as_u64().unwrap(), stats["round_trips"].as_u64().unwrap());
    assert!(pages >= ROWS, "{stats}");
    assert!(trips * 10 <= pages, "{trips} round trips for {pages} pages");
}
