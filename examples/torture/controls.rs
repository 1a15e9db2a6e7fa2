//! `controls`: the twins of the other modes. A child that lies must be caught, one that does not must
//! not.

use crate::Outcome;
use crate::args::Args;
use crate::disk::Kind;
use crate::work::Work;
use crate::writer::Lie;
use crate::{kill, power};

/// A lie must be caught within so many cycles; an honest child must get through fewer.
const CYCLES: u64 = 40;
const HONEST: u64 = 8;

pub fn run(args: &Args) -> Outcome {
    let mut work = Work::new(args)?;
    let (mut caught, mut passed) = (0, 0);
    for (lie, must) in [(None, false), (Some(Lie::Ahead), true), (Some(Lie::Torn), true)] {
        let cycles = if must { CYCLES } else { HONEST };
        hold("kill", lie, kill::cycles(args, &work, cycles, lie).err()).map_err(|e| work.keep(e))?;
        *if must { &mut caught } else { &mut passed } += 1;
    }
    for kind in Kind::ALL {
        if let Err(e) = power::possible(&work, kind) {
            println!("skipped: controls of power on {}: {e}", kind.name());
            continue;
        }
        for (lie, must) in [(None, false), (Some(Lie::Durable), true)] {
            let cycles = if must { CYCLES } else { HONEST };
            let what = format!("power on {}", kind.name());
            hold(&what, lie, power::cycles(args, &work, kind, cycles, lie).err())
                .map_err(|e| work.keep(e))?;
            *if must { &mut caught } else { &mut passed } += 1;
        }
    }
    println!("proof: controls: {caught} lies caught, {passed} honest twins passed");
    Ok(())
}

/// What was found of a lie, or of none, must be what it should.
fn hold(what: &str, lie: Option<Lie>, found: Option<Box<dyn std::error::Error>>) -> Outcome {
    match (lie, found) {
        (None, None) => Ok(()),
        (None, Some(e)) => Err(format!("{what}: an honest child is accused: {e}").into()),
        (Some(lie), None) => Err(format!("{what}: the lie {lie:?} was not caught").into()),
        (Some(lie), Some(e)) => {
            let text = e.to_string();
            println!("{what}: the lie {lie:?} is caught: {}", text.rsplit("): ").next().unwrap_or(&text));
            Ok(())
        }
    }
}
