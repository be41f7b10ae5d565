//! Tells a program's own call from one that SQLite makes to itself: `sqlite3_exec` calls
//! `sqlite3_step` through the same symbol that this library stands in front of, and so do
//! FTS5 and SQLite's other parts. Such inner calls go straight through.

use std::cell::Cell;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The outermost call of this thread, as long as it lives.
#[derive(Debug)]
pub struct Outermost(());

impl Outermost {
    /// `None` inside of another call.
    #[inline]
    pub fn enter() -> Option<Self> {
        INSIDE.with(|inside| if inside.replace(true) { None } else { Some(Self(())) })
    }
}

impl Drop for Outermost {
    #[inline]
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(false));
    }
}

/// Marks the time that a program's own callback runs: what it calls is the program's own
/// call again.
#[derive(Debug)]
pub struct InCallback(bool);

impl InCallback {
    /// From now until the guard is dropped. A callback that leaves by longjmp never drops
    /// it, nor the guard of the call it left: this thread is then outside, as it should be.
    pub fn enter() -> Self {
        Self(INSIDE.with(|inside| inside.replace(false)))
    }
}

impl Drop for InCallback {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_call_gets_a_guard() {
        let outer = Outermost::enter().expect("nothing runs yet");
        assert!(Outermost::enter().is_none());
        {
            let _callback = InCallback::enter();
            let own = Outermost::enter().expect("a callback's call is the program's own");
            assert!(Outermost::enter().is_none());
            drop(own);
        }
        assert!(Outermost::enter().is_none(), "back inside of the outer call");
        drop(outer);
        assert!(Outermost::enter().is_some());
    }

    #[test]
    fn a_callback_that_never_returns_leaves_the_thread_outside() {
        std::mem::forget(Outermost::enter());
        std::mem::forget(InCallback::enter());
        assert!(Outermost::enter().is_some());
    }

    #[test]
    fn threads_are_apart() {
        let _outer = Outermost::enter().expect("nothing runs yet");
        std::thread::spawn(|| assert!(Outermost::enter().is_some())).join().unwrap();
    }
}
