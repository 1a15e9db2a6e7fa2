//! Random scripts at tiny sizes against the model, and the same scripts under other circumstances
//! against each other.
//!
//! `ESKER_SEEDS=a..b` runs other seeds than the few fixed ones, `ESKER_OPS=n` more calls per seed.

use super::random::{script, setup};
use super::shrink::run;
use crate::model::random::{ops, seeds};
use crate::rng::Rng;

#[test]
fn every_boundary_is_met() {
    for seed in seeds(24) {
        let mut rng = Rng::new(seed);
        let setup = setup(&mut rng);
        let script = script(&mut rng, ops(250), true);
        run(&format!("seed {seed}"), &setup, &script);
    }
}

/// What a script answers does not depend on options or on when background work is done.
#[test]
fn options_and_timing_change_no_answer() {
    for seed in seeds(6) {
        let mut rng = Rng::new(!seed);
        let script = script(&mut rng, ops(200), false);
        let answers = |rng: &mut Rng, variant: usize| {
            let setup = setup(rng);
            run(&format!("seed {seed}, variant {variant}"), &setup, &script)
        };
        let first = answers(&mut rng, 0);
        for variant in 1..4 {
            assert_eq!(answers(&mut rng, variant), first, "seed {seed}: variant {variant} answers otherwise");
        }
    }
}
