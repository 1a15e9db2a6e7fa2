//! What Esker is meant to reach, as data, and whether it did.

use super::results::{Line, Results};

/// What a number of Esker's is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Against {
    /// The best of these engines on the same line.
    Best(&'static [&'static str]),
    /// Esker's own number on this line, of the same metric.
    Itself(Place),
    /// Nothing: the number itself is bounded.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, reached: f64) -> bool {
        match self {
            Bound::AtLeast(least) => reached >= least,
            Bound::AtMost(most) => reached <= most,
        }
    }

    /// Of two numbers the one that is harder to beat.
    fn harder(self, a: f64, b: f64) -> f64 {
        match self {
            Bound::AtLeast(_) => a.max(b),
            Bound::AtMost(_) => a.min(b),
        }
    }
}

/// A line of any table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub workload: &'static str,
    pub phase: &'static str,
    pub threads: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The tables it is asked for in.
    pub tables: &'static [&'static str],
    pub place: Place,
    /// The first of these that both have counts.
    pub metrics: &'static [&'static str],
    pub against: Against,
    pub bound: Bound,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Met,
    Missed,
    /// There is no number, of Esker or of whom it is held against.
    NotMeasured,
}

/// A target in one table, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub line: Line,
    pub metric: &'static str,
    /// What was asked for, in words.
    pub asked: String,
    pub reached: Option<f64>,
    /// The engine Esker was held against in the end.
    pub rival: Option<String>,
    pub verdict: Verdict,
}

/// Judges `target` in each table it is asked for, whether or not that was measured.
pub fn judge(target: &Target, results: &Results) -> Vec<Judged> {
    let judge_in = |table: &&str| {
        let line = target.place.of(table);
        let found = target.metrics.iter().find_map(|m| Some((*m, reached(target, m, results, &line)?)));
        let verdict = match &found {
            Some((_, (reached, _))) if target.bound.holds(*reached) => Verdict::Met,
            Some(_) => Verdict::Missed,
            None => Verdict::NotMeasured,
        };
        let metric = found.as_ref().map_or(target.metrics[0], |(metric, _)| metric);
        let (reached, rival) = found.map(|(_, found)| found).unzip();
        Judged { line, metric, asked: asked(target), reached, rival: rival.flatten(), verdict }
    };
    target.tables.iter().map(judge_in).collect()
}

impl Place {
    pub const fn new(workload: &'static str, phase: &'static str, threads: u32) -> Place {
        Place { workload, phase, threads }
    }

    fn of(self, table: &str) -> Line {
        Line::new(table, self.workload, self.phase, self.threads)
    }
}

/// The number that is bounded, and against whom.
fn reached(target: &Target, metric: &str, results: &Results, line: &Line) -> Option<(f64, Option<String>)> {
    let of = |line: &Line, engine: &str| Some(results.get(line, engine, metric)?.median);
    let own = of(line, "esker")?;
    let (base, rival) = match target.against {
        Against::Nothing => return Some((own, None)),
        Against::Itself(place) => (of(&place.of(&line.table), "esker")?, "itself".to_string()),
        Against::Best(engines) => {
            let known = engines.iter().filter_map(|engine| Some((of(line, engine)?, *engine)));
            let harder = |a: (f64, &'static str), b: (f64, &'static str)| {
                if target.bound.harder(a.0, b.0) == a.0 { a } else { b }
            };
            let (base, engine) = known.reduce(harder)?;
            (base, engine.to_string())
        }
    };
    (base != 0.0).then(|| (own / base, Some(rival)))
}

fn asked(target: &Target) -> String {
    let (words, number) = match target.bound {
        Bound::AtLeast(number) => ("at least", number),
        Bound::AtMost(number) => ("at most", number),
    };
    let of = match target.against {
        Against::Nothing => String::new(),
        Against::Itself(place) => format!("x its own {}", place.of("").name()),
        Against::Best([one]) => format!("x {one}"),
        Against::Best(several) => format!("x the best of {}", several.join(", ")),
    };
    format!("{words} {number}{of}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    const READS: Place = Place::new("readrandom", "settled", 1);
    const TWICE: Target = Target {
        tables: &["lz4", "none"],
        place: READS,
        metrics: &["ops_per_s"],
        against: Against::Best(&["rocksdb", "fjall"]),
        bound: Bound::AtLeast(2.0),
    };

    /// Numbers of `metric` for the line of READS in table `lz4`.
    fn results(metric: &str, of: &[(&str, f64)]) -> Results {
        let sample = |(engine, value): &(&str, f64)| Sample {
            table: "lz4".into(),
            workload: READS.workload.into(),
            phase: READS.phase.into(),
            threads: READS.threads,
            engine: engine.to_string(),
            round: 1,
            metric: metric.into(),
            value: *value,
        };
        Results::of(&of.iter().map(sample).collect::<Vec<_>>())
    }

    fn one(target: &Target, results: &Results) -> Judged {
        let mut all = judge(target, results);
        assert_eq!(all[1].verdict, Verdict::NotMeasured, "there are numbers in the first table only");
        all.remove(0)
    }

    #[test]
    fn the_better_of_the_peers_decides() {
        let judged =
            one(&TWICE, &results("ops_per_s", &[("esker", 60.0), ("rocksdb", 20.0), ("fjall", 40.0)]));
        assert_eq!(judged.verdict, Verdict::Missed);
        assert_eq!((judged.reached, judged.rival.as_deref()), (Some(1.5), Some("fjall")));
        let judged =
            one(&TWICE, &results("ops_per_s", &[("esker", 80.0), ("rocksdb", 40.0), ("fjall", 20.0)]));
        assert_eq!(judged.verdict, Verdict::Met);
        assert_eq!((judged.reached, judged.rival.as_deref()), (Some(2.0), Some("rocksdb")));
    }

    #[test]
    fn where_less_is_better_the_least_decides() {
        let target = Target { metrics: &["p999_us"], bound: Bound::AtMost(1.0), ..TWICE };
        let judged =
            one(&target, &results("p999_us", &[("esker", 12.0), ("rocksdb", 10.0), ("fjall", 40.0)]));
        assert_eq!((judged.verdict, judged.reached), (Verdict::Missed, Some(1.2)));
        assert_eq!(judged.rival.as_deref(), Some("rocksdb"));
    }

    #[test]
    fn a_peer_that_is_missing_leaves_the_other_and_no_peer_no_verdict() {
        let judged = one(&TWICE, &results("ops_per_s", &[("esker", 60.0), ("fjall", 20.0)]));
        assert_eq!((judged.verdict, judged.reached), (Verdict::Met, Some(3.0)));
        let judged = one(&TWICE, &results("ops_per_s", &[("esker", 60.0), ("lmdb", 1.0)]));
        assert_eq!((judged.verdict, judged.reached), (Verdict::NotMeasured, None));
        let judged = one(&TWICE, &results("ops_per_s", &[("fjall", 60.0)]));
        assert_eq!(judged.verdict, Verdict::NotMeasured);
    }

    #[test]
    fn the_first_metric_that_both_have_counts() {
        let target = Target { metrics: &["write_amp_own", "ops_per_s"], ..TWICE };
        let judged = one(&target, &results("ops_per_s", &[("esker", 60.0), ("fjall", 20.0)]));
        assert_eq!((judged.metric, judged.reached), ("ops_per_s", Some(3.0)));
        let judged = one(&target, &results("write_amp_own", &[("esker", 30.0), ("fjall", 20.0)]));
        assert_eq!((judged.metric, judged.reached), ("write_amp_own", Some(1.5)));
        let judged = one(&target, &results("p99_us", &[("esker", 30.0), ("fjall", 20.0)]));
        assert_eq!((judged.metric, judged.verdict), ("write_amp_own", Verdict::NotMeasured));
    }

    #[test]
    fn a_number_can_be_bounded_by_itself_and_against_another_line() {
        let most =
            Target { metrics: &["max_us"], against: Against::Nothing, bound: Bound::AtMost(20e3), ..TWICE };
        let judged = one(&most, &results("max_us", &[("esker", 19e3)]));
        assert_eq!((judged.verdict, judged.rival), (Verdict::Met, None));
        assert_eq!(judged.asked, "at most 20000");
        let same = Target { against: Against::Itself(READS), bound: Bound::AtMost(1.5), ..TWICE };
        let judged = one(&same, &results("ops_per_s", &[("esker", 5.0)]));
        assert_eq!((judged.verdict, judged.reached), (Verdict::Met, Some(1.0)));
    }

    #[test]
    fn what_is_asked_is_said_in_words() {
        assert_eq!(asked(&TWICE), "at least 2x the best of rocksdb, fjall");
        let target = Target { against: Against::Best(&["lmdb"]), ..TWICE };
        assert_eq!(asked(&target), "at least 2x lmdb");
    }
}
