//! When to look for a message for a while before sleeping until it comes.
//!
//! To wake a sleeping processor may take longer than all of the peer's work, so that a
//! message that comes soon is better looked for. Whether it comes soon is learnt: a look in
//! vain doubles how many waits go by without one (binary exponential backoff), a look that
//! found something begins anew.

use std::time::Duration;

/// How long to look.
pub const LOOK: Duration = Duration::from_micros(100);

/// Most waits without a look.
const MOST_SKIPPED: u32 = 64;

/// What was learnt of one kind of message on one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looks {
    /// Waits that go by without a look from now on.
    skip: u32,
    /// The same after the next look in vain.
    next: u32,
}

impl Looks {
    /// Whether to look in the wait that begins.
    pub const fn due(&mut self) -> bool {
        if self.skip == 0 {
            return true;
        }
        self.skip -= 1;
        false
    }

    /// What a look came to.
    pub fn looked(&mut self, found: bool) {
        if found {
            *self = Self::default();
        } else {
            self.skip = self.next.max(1);
            self.next = (self.skip * 2).min(MOST_SKIPPED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_in_vain_become_rare_and_one_that_finds_begins_anew() {
        let mut looks = Looks::default();
        let mut vain = 0;
        for _ in 0..1000 {
            if looks.due() {
                looks.looked(false);
                vain += 1;
            }
        }
        assert!((10..30).contains(&vain), "{vain}");
        while !looks.due() {}
        looks.looked(true);
        assert!(looks.due() && looks.due());
    }
}
