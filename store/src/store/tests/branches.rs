//! Reads, begins and commits through parents.

use super::common::{Db, filled, mem_store, soon};
use crate::api::Backend;
use crate::error::Error;
use crate::types::Version;

#[test]
fn a_branch_sees_its_parent_up_to_where_it_left_it() {
    let store = mem_store();
    let main = Db::open(&store, "app");
    let first = main.put(&[(1, 1), (2, 2), (3, 3)]);
    main.put(&[(2, 20)]);
    let child = main.on_branch(store.create_branch(main.open.branch, first, soon()).unwrap());
    main.put(&[(3, 30)]);

    let begun = child.begin().begun;
    assert_eq!((begun.head, begun.allocation.pages.0), (first, 3));
    assert_eq!(child.bytes(&[1, 2, 3]), [1, 2, 3]);
    child.put(&[(1, 11), (4, 44)]);
    assert_eq!(child.bytes(&[1, 2, 3, 4]), [11, 2, 3, 44]);
    assert_eq!(main.bytes(&[1, 2, 3, 4]), [1, 20, 30, 0]);
    // The branch at a version of its parent's.
    let old = child.read_at(first, &[1, 2, 3, 4]).unwrap();
    assert_eq!(super::common::first_bytes(&old), [1, 2, 3, 0]);
}

#[test]
fn what_the_parent_commits_does_not_conflict_with_a_branch() {
    let store = mem_store();
    let main = Db::open(&store, "app");
    let first = main.put(&[(1, 1), (2, 2)]);
    let child = main.on_branch(store.create_branch(main.open.branch, first, soon()).unwrap());
    let mut tx = child.begin();
    tx.read(1);
    tx.write(2, filled(9));
    main.put(&[(1, 5), (2, 6), (3, 7)]);
    let reply = tx.commit().unwrap();
    assert_eq!(reply.previous, [Some(first)], "the head was still the parent's");
}

#[test]
fn a_shrink_hides_the_parents_pages_and_growing_again_does_not_bring_them_back() {
    let store = mem_store();
    let main = Db::open(&store, "app");
    let first = main.put(&[(1, 1), (2, 2), (3, 3), (4, 4)]);
    let child = main.on_branch(store.create_branch(main.open.branch, first, soon()).unwrap());
    let mut tx = child.begin();
    tx.write(1, filled(10));
    tx.shrink(2);
    let small = tx.commit().unwrap().version;
    let mut tx = child.begin();
    tx.write(5, filled(50));
    tx.commit().unwrap();
    assert_eq!(child.bytes(&[1, 2, 3, 4, 5]), [10, 2, 0, 0, 50]);
    let at_small = child.read_at(small, &[2, 3, 4, 5]).unwrap();
    assert_eq!(super::common::first_bytes(&at_small), [2, 0, 0, 0]);
    assert!(at_small[1..].iter().all(|page| page.version == Version::ZERO));
}

#[test]
fn a_branch_of_a_dropped_database_reads_on() {
    let store = mem_store();
    let main = Db::open(&store, "app");
    let first = main.put(&[(1, 1), (2, 2)]);
    let child = main.on_branch(store.create_branch(main.open.branch, first, soon()).unwrap());
    store.drop_database(&super::common::name("app"), soon()).unwrap();
    assert_eq!(child.bytes(&[1, 2]), [1, 2]);
    assert!(matches!(main.try_begin(None), Err(Error::NotFound { .. })));
}

#[test]
fn branches_of_missing_dropped_and_pruned_parents_are_refused() {
    let store = mem_store();
    let main = Db::open(&store, "app");
    let first = main.put(&[(1, 1)]);
    let second = main.put(&[(1, 2)]);
    let create = |branch, version| store.create_branch(branch, version, soon());
    let nobody = crate::types::BranchId::from_bytes([9; 8]);
    assert!(matches!(create(nobody, first), Err(Error::NotFound { .. })));
    let late = Version::new(second.commit() + 100, 0);
    assert!(matches!(create(main.open.branch, late), Err(Error::InvalidRequest { .. })));
    store.raise_watermark(main.open.branch, second, soon()).unwrap();
    assert!(matches!(create(main.open.branch, first), Err(Error::Pruned { .. })));
    store.drop_database(&super::common::name("app"), soon()).unwrap();
    assert!(matches!(create(main.open.branch, second), Err(Error::NotFound { .. })));
}
