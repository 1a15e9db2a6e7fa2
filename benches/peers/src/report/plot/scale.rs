//! Axes: where a value lies, and which values are written beside them.

#[derive(Clone, Copy, Debug)]
pub struct Scale {
    log: bool,
    min: f64,
    max: f64,
    left: f64,
    right: f64,
}

impl Scale {
    /// From zero to a little more than the largest of `values`.
    pub fn linear(values: impl Iterator<Item = f64>, [left, right]: [f64; 2]) -> Scale {
        let max = values.filter(|v| v.is_finite()).fold(f64::MIN_POSITIVE, f64::max) * 1.08;
        Scale { log: false, min: 0.0, max, left, right }
    }

    /// A little more than all positive of `values`, in steps of equal ratios.
    pub fn log(values: impl Iterator<Item = f64>, [left, right]: [f64; 2]) -> Scale {
        let values: Vec<f64> = values.filter(|v| v.is_finite() && *v > 0.0).collect();
        let min = values.iter().copied().fold(f64::MAX, f64::min);
        let max = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let (min, max) = if values.is_empty() { (1.0, 1.0) } else { (min, max) };
        Scale { log: true, min: min / 1.35, max: max * 1.35, left, right }
    }

    pub fn at(self, value: f64) -> f64 {
        let part = match self.log {
            true => (value.max(self.min) / self.min).ln() / (self.max / self.min).ln(),
            false => (value - self.min) / (self.max - self.min),
        };
        self.left + part.clamp(0.0, 1.0) * (self.right - self.left)
    }

    /// Round numbers, as many as have room if each needs so much.
    pub fn ticks(self, room: f64) -> Vec<f64> {
        if self.log { self.decades(room) } else { self.steps() }
    }

    fn steps(self) -> Vec<f64> {
        let rough = self.max / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|by| by * power >= rough).unwrap_or(10.0) * power;
        (0..).map(|n| f64::from(n) * step).take_while(|at| *at <= self.max).collect()
    }

    fn decades(self, room: f64) -> Vec<f64> {
        let within = WITHIN.iter().map(|within| self.multiples(within));
        let fits = |ticks: &Vec<f64>| ticks.windows(2).all(|of| self.at(of[1]) - self.at(of[0]) >= room);
        let every = |nth: usize| self.multiples(&[1.0]).into_iter().step_by(nth).collect();
        within.chain((2..10).map(every)).find(fits).unwrap_or_default()
    }

    /// These times each power of ten.
    fn multiples(self, within: &[f64]) -> Vec<f64> {
        let first = self.min.log10().floor() as i32;
        let powers = (first..).map(|power| 10f64.powi(power)).take_while(|power| *power <= self.max);
        let all = powers.flat_map(|power| within.iter().map(move |by| by * power));
        all.filter(|at| (self.min..=self.max).contains(at)).collect()
    }
}

/// What may be written within a decade, the densest first.
const WITHIN: [&[f64]; 4] = [&[1.0, 1.5, 2.0, 3.0, 5.0, 7.0], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_zero_and_holds_everything() {
        let scale = Scale::linear([3.0, 9.5].into_iter(), [100.0, 500.0]);
        assert_eq!(scale.at(0.0), 100.0);
        assert!(scale.at(9.5) < 500.0 && scale.at(9.5) > 450.0);
        assert_eq!(scale.ticks(10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    }

    #[test]
    fn equal_ratios_are_equally_far_on_a_logarithmic_axis() {
        let scale = Scale::log([0.1, 10.0].into_iter(), [0.0, 100.0]);
        assert!((scale.at(1.0) - 50.0).abs() < 1e-9);
        let (a, b, c) = (scale.at(0.2), scale.at(0.4), scale.at(0.8));
        assert!((b - a - (c - b)).abs() < 1e-9);
    }

    #[test]
    fn as_many_ticks_as_have_room() {
        let scale = Scale::log([0.1, 10.0].into_iter(), [0.0, 100.0]);
        let tenths = |room| scale.ticks(room).iter().map(|at| (at * 10.0).round()).collect::<Vec<_>>();
        assert_eq!(tenths(11.0), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(tenths(15.0), [1.0, 3.0, 10.0, 30.0, 100.0]);
        assert_eq!(tenths(30.0), [1.0, 10.0, 100.0]);
        assert_eq!(tenths(60.0), [1.0, 100.0]);
    }

    #[test]
    fn nothing_to_show_is_no_harm() {
        for scale in
            [Scale::log([].into_iter(), [0.0, 1.0]), Scale::linear([f64::NAN].into_iter(), [0.0, 1.0])]
        {
            assert!((0.0..=1.0).contains(&scale.at(3.0)), "{scale:?}");
            assert!(scale.ticks(0.1).len() < 10);
        }
    }
}
