//! Counts of durations in steps of a thirty-second: a percentile is known to 3 %.

use std::time::Duration;

#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    max: u64,
}

const STEPS: u32 = 32;

impl Histogram {
    pub fn new() -> Histogram {
        Histogram { counts: vec![0; (64 * STEPS) as usize], max: 0 }
    }

    pub fn add(&mut self, took: Duration) {
        let nanos = (took.as_nanos() as u64).max(u64::from(STEPS));
        let power = nanos.ilog2();
        let step = (nanos >> (power - STEPS.ilog2())) as u32 - STEPS;
        self.counts[(power * STEPS + step) as usize] += 1;
        self.max = self.max.max(nanos);
    }

    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(all, more)| *all += more);
        self.max = self.max.max(other.max);
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The least duration that `part` of all stayed below.
    pub fn percentile(&self, part: f64) -> Duration {
        let mut left = (self.counts.iter().sum::<u64>() as f64 * part).ceil() as u64;
        for (at, &count) in self.counts.iter().enumerate() {
            left = left.saturating_sub(count);
            if left == 0 {
                let (power, step) = (at as u32 / STEPS, at as u32 % STEPS);
                let end = (u64::from(STEPS + step) + 1) << power.saturating_sub(STEPS.ilog2());
                return Duration::from_nanos(end.min(self.max));
            }
        }
        self.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_a_thirty_second() {
        let (mut odd, mut all) = (Histogram::new(), Histogram::new());
        (1..=10_000).filter(|n| n % 2 == 1).for_each(|n| odd.add(Duration::from_micros(n)));
        (1..=10_000).filter(|n| n % 2 == 0).for_each(|n| all.add(Duration::from_micros(n)));
        all.merge(&odd);
        for part in [0.5, 0.99, 0.999] {
            let exact = part * 10_000.0;
            let micros = all.percentile(part).as_secs_f64() * 1e6;
            assert!((exact..exact * 1.032).contains(&micros), "{part}: {micros}");
        }
        assert_eq!(all.max(), Duration::from_millis(10));
    }
}
