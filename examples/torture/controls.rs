//! `controls`: the twins of the other modes. A child that lies must be caught, one that does not must
//! not.

use crate::Outcome;
use crate::args::Args;
use crate::disk::Kind;
use crate::preload::{Calls, Library};
use crate::script::Truth;
use crate::work::Work;
use crate::writer::Lie;
use crate::{full, kill, power, preload, sim};
use std::error::Error;

/// A lie must be caught within so many cycles; an honest child must get through fewer.
const CYCLES: u64 = 40;
const HONEST: u64 = 8;

pub fn run(args: &Args) -> Outcome {
    let mut work = Work::new(args)?;
    let mut seen = Seen::default();
    hold_all(args, &work, &mut seen).map_err(|e| work.keep(e))?;
    println!("proof: controls: {} lies caught, {} honest twins passed", seen.caught, seen.passed);
    Ok(())
}

#[derive(Default)]
struct Seen {
    caught: u64,
    passed: u64,
}

fn hold_all(args: &Args, work: &Work, seen: &mut Seen) -> Outcome {
    let cycles = |must: bool| if must { CYCLES } else { HONEST };
    for (lie, must) in [(None, false), (Some(Lie::Ahead), true), (Some(Lie::Torn), true)] {
        let found = kill::cycles(args, work, cycles(must), lie).err();
        seen.hold(&format!("kill, {lie:?}"), must, found)?;
    }
    match Library::build(work.path()) {
        Err(e) => println!("skipped: controls of preload: {e}"),
        Ok(library) => {
            for (calls, must) in [(Calls::Work, false), (Calls::Lie, true)] {
                let found = preload::points(args, work, &library, cycles(must), calls).err();
                seen.hold(&format!("preload, calls that {calls:?}"), must, found)?;
            }
        }
    }
    match full::possible(work) {
        Err(e) => println!("skipped: controls of full: {e}"),
        Ok(()) => {
            for (lie, must) in [(None, false), (Some(Lie::Ahead), true)] {
                seen.hold(&format!("full, {lie:?}"), must, full::control(args, work, lie).err())?;
            }
        }
    }
    for kind in Kind::ALL {
        let name = kind.name();
        if let Err(e) = power::possible(work, kind) {
            println!("skipped: controls of power and sim on {name}: {e}");
            continue;
        }
        for (lie, must) in [(None, false), (Some(Lie::Durable), true)] {
            let found = power::cycles(args, work, kind, cycles(must), lie).err();
            seen.hold(&format!("power on {name}, {lie:?}"), must, found)?;
        }
        for (truth, must) in [(Truth::Honest, false), (Truth::NeverSyncs, true)] {
            let found = sim::cycles(args, work, kind, cycles(must), truth).err();
            seen.hold(&format!("sim on {name}, {truth:?}"), must, found)?;
        }
    }
    Ok(())
}

impl Seen {
    /// A lie must have been found, and nothing where there was none.
    fn hold(&mut self, what: &str, must: bool, found: Option<Box<dyn Error>>) -> Outcome {
        match found {
            None if must => return Err(format!("not caught: {what}").into()),
            None => self.passed += 1,
            Some(e) if !must => return Err(format!("{what}: found where nothing is wrong: {e}").into()),
            Some(e) => {
                let text = e.to_string();
                let first = text.lines().next().unwrap_or_default();
                println!("caught: {what}: {}", first.rsplit("): ").next().unwrap_or(first));
                self.caught += 1;
            }
        }
        Ok(())
    }
}
