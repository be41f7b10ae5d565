use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

const STORE: [u8; 16] = [7; 16];

fn board(dir: &std::path::Path) -> Board {
    Board::take(dir, STORE, 5, 0o600).unwrap()
}

fn reader(board: &Board) -> Reader {
    Reader::open(board.place(), STORE).unwrap().unwrap()
}

#[test]
fn what_is_shown_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = board(dir.path());
    let reader = reader(&board);
    let generation = board.place().generation;
    assert_eq!(reader.look(generation, 1), None, "not shown yet");
    board.show(1, 3);
    assert_eq!(reader.look(generation, 1), Some(Look { newest: 5, head: 3 }));
    board.show(1, 9);
    board.show_newest(9);
    assert!(board.shows(1));
    assert_eq!(reader.look(generation, 1), Some(Look { newest: 9, head: 9 }));
    board.hide(1);
    assert!(!board.shows(1));
    assert_eq!(reader.look(generation, 1), None);
}

#[test]
fn branch_zero_means_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = board(dir.path());
    board.show(0, 3);
    assert!(!board.shows(0));
    assert_eq!(reader(&board).look(board.place().generation, 0), None);
}

#[test]
fn whoever_takes_over_makes_readers_ask_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = board(dir.path());
    let reader = reader(&board);
    let generation = board.place().generation;
    board.show(1, 3);
    // As one who opens the directory for itself does.
    raise(dir.path()).unwrap();
    assert_eq!(reader.look(generation, 1), None);
    drop(board);
    let mut next = self::board(dir.path());
    assert!(next.place().same_file(reader.place()), "H4: one fixed file");
    assert!(next.place().generation > generation);
    let generation = next.place().generation;
    assert_eq!(reader.look(generation, 1), None, "cleared");
    next.show(1, 8);
    assert_eq!(reader.look(generation, 1), Some(Look { newest: 5, head: 8 }));
    let none = tempfile::tempdir().unwrap();
    raise(none.path()).unwrap();
    assert!(!none.path().join(FILE_NAME).exists());
}

#[test]
fn more_branches_than_slots_hide_each_other_and_never_lie() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = board(dir.path());
    let reader = reader(&board);
    let generation = board.place().generation;
    let branches = || 1..20_000u64;
    for branch in branches() {
        board.show(branch, branch + 1);
    }
    let seen = branches().filter_map(|b| Some((b, reader.look(generation, b)?.head)));
    let seen: Vec<_> = seen.collect();
    assert!(seen.len() > 3_000, "{} slots are used", seen.len());
    assert!(seen.iter().all(|&(branch, head)| head == branch + 1));
    let last = branches().last().unwrap();
    assert!(reader.look(generation, last).is_some(), "the newest is there");
}

#[test]
fn files_that_are_not_the_servers_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let board = board(dir.path());
    let place = board.place();
    assert!(Reader::open(place, [8; 16]).unwrap().is_none(), "another store's");
    let copy = dir.path().join("copy");
    std::fs::copy(&place.path, &copy).unwrap();
    let elsewhere = |path| Place { path, ..place.clone() };
    assert!(Reader::open(&elsewhere(copy), STORE).unwrap().is_none(), "a copy");
    assert!(Reader::open(&elsewhere(dir.path().join("none")), STORE).unwrap().is_none());
    assert!(Reader::open(&elsewhere(dir.path().into()), STORE).unwrap().is_none(), "a directory");
    let before = Place { boot: "another".into(), ..place.clone() };
    assert!(Reader::open(&before, STORE).unwrap().is_none(), "before the machine began anew");
}

#[test]
fn a_file_that_cannot_be_used_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    for rubbish in [Vec::new(), vec![1; 100], vec![1; 1 << 20]] {
        std::fs::write(&path, rubbish).unwrap();
        raise(dir.path()).unwrap();
        let mut board = board(dir.path());
        board.show(1, 2);
        assert!(reader(&board).look(board.place().generation, 1).is_some());
    }
}

#[test]
fn what_a_crash_left_of_a_new_file_goes() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let draft = dir.path().join(file::DRAFT_NAME);
    std::fs::write(&draft, vec![1; 1 << 20]).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut board = board(dir.path());
    board.show(1, 2);
    let reader = reader(&board);
    assert_eq!(reader.look(board.place().generation, 1), Some(Look { newest: 5, head: 2 }));
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [FILE_NAME]);
    let mode = std::fs::metadata(&board.place().path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// H2, with slots that change hands all the time.
#[test]
fn readers_beside_a_writer_see_no_head_that_was_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = board(dir.path());
    let generation = board.place().generation;
    // Enough that sets overflow, each branch's head telling whose it is.
    const BRANCHES: u64 = 6_000;
    let reader = reader(&board);
    let acknowledged = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for start in 1..3u64 {
            let (reader, acknowledged, done) = (&reader, &acknowledged, &done);
            scope.spawn(move || {
                let mut branch = start;
                while !done.load(Ordering::Relaxed) {
                    let newest = acknowledged.load(Ordering::Acquire);
                    if let Some(look) = reader.look(generation, branch) {
                        assert_eq!(look.head % BRANCHES, branch % BRANCHES, "another's head");
                        assert!(look.newest >= newest, "an acknowledged commit is seen");
                        // The branch's last commit up to the newest version read.
                        let last = look.newest - (look.newest + BRANCHES - branch) % BRANCHES;
                        assert!(look.head >= last, "{look:?} of {branch}");
                    }
                    branch = branch % (BRANCHES - 1) + 1;
                }
            });
        }
        for version in BRANCHES..BRANCHES * 60 {
            if version % BRANCHES != 0 {
                board.show(version % BRANCHES, version);
            }
            board.show_newest(version);
            acknowledged.store(version, Ordering::Release);
        }
        done.store(true, Ordering::Relaxed);
    });
}
