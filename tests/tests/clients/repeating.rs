//! The preload library runs single statements again after a conflict.

use libtest_mimic::Trial;

use crate::support::{Outcome, World, contains, preload, sources};
use crate::trial;

pub fn trials() -> Vec<Trial> {
    vec![trial("preload_repeats_single_statements_only", &["python3"], repeats)]
}

fn repeats() -> Outcome {
    let world = World::new()?;
    let script = sources().join("repeating.py");
    let python = world.preloaded("python3")?.arg(script).arg(preload()).arg("library");
    contains(&python.succeed()?, "all as it must be")
}
