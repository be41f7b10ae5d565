//! Randomness that can be had again.

use interleaf_store::env::Env;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// A generator whose seed is printed; `INTERLEAF_SEED` sets it.
#[must_use]
pub fn seeded(what: &str) -> StdRng {
    let seed = match std::env::var("INTERLEAF_SEED") {
        Ok(text) => text.parse().expect("INTERLEAF_SEED is a number"),
        Err(_) => u64::from_be_bytes(Env::system().random().expect("the system's randomness")),
    };
    println!("{what}: to repeat, set INTERLEAF_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
