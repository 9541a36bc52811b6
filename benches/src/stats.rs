//! What rounds in pairs say: a mean, and the interval that holds the true one in 95 of 100 such measurements.

/// An estimate with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Where an interval lies against a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it keeps to the limit.
    Met,
    /// None of it does.
    Missed,
    /// The limit lies within it: more rounds, or a quieter machine, would tell.
    Open,
}

impl Verdict {
    /// For a table.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Met => "yes",
            Self::Missed => "no",
            Self::Open => "not decided",
        }
    }
}

impl Estimate {
    /// Whether it lies within `low..=high`.
    #[must_use]
    pub fn within(&self, low: f64, high: f64) -> Verdict {
        if self.low >= low && self.high <= high {
            Verdict::Met
        } else if self.high < low || self.low > high {
            Verdict::Missed
        } else {
            Verdict::Open
        }
    }
}

/// The geometric mean of ratios, by Student's t over their logarithms. None of fewer than two, or where one is not
/// positive.
#[must_use]
pub fn ratio(ratios: &[f64]) -> Option<Estimate> {
    if ratios.iter().any(|ratio| !ratio.is_finite() || *ratio <= 0.0) {
        return None;
    }
    let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
    let Estimate { value, low, high } = mean(&logs)?;
    Some(Estimate { value: value.exp(), low: low.exp(), high: high.exp() })
}

/// The mean by Student's t. None of fewer than two.
#[must_use]
pub fn mean(values: &[f64]) -> Option<Estimate> {
    if values.len() < 2 {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let half = t_975(values.len() - 1) * (squares / (count - 1.0) / count).sqrt();
    Some(Estimate { value: mean, low: mean - half, high: mean + half })
}

/// The value in the middle; the upper one of two.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The 97.5 % point of Student's t: exact for one and two degrees of freedom, else the expansion around the normal
/// one (Abramowitz and Stegun 26.7.5), which is 0.5 % off at three and better from there.
fn t_975(freedom: usize) -> f64 {
    const Z: f64 = 1.959_964;
    let n = freedom as f64;
    match freedom {
        0 => f64::INFINITY,
        1 => 12.706_2,
        2 => 4.302_65,
        _ => {
            let terms = [
                (Z.powi(3) + Z) / 4.0,
                (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0,
                (3.0 * Z.powi(7) + 19.0 * Z.powi(5) + 17.0 * Z.powi(3) - 15.0 * Z) / 384.0,
                (79.0 * Z.powi(9) + 776.0 * Z.powi(7) + 1482.0 * Z.powi(5) - 1920.0 * Z.powi(3) - 945.0 * Z)
                    / 92_160.0,
            ];
            terms.iter().rev().fold(0.0, |sum, term| (sum + term) / n) + Z
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_t_is_that_of_the_tables() {
        for (freedom, known) in [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042)] {
            let found = t_975(freedom);
            assert!((found / known - 1.0).abs() < 0.006, "{freedom}: {found}, not {known}");
        }
    }

    #[test]
    fn a_ratio_and_its_inverse_agree() {
        let ratios = [0.9, 1.0, 1.2, 1.1];
        let there = ratio(&ratios).unwrap();
        let back = ratio(&ratios.map(f64::recip)).unwrap();
        assert!((there.value * back.value - 1.0).abs() < 1e-9);
        assert!((there.low * back.high - 1.0).abs() < 1e-9);
        assert!(there.low < there.value && there.value < there.high);
        assert!(ratio(&[1.0]).is_none() && ratio(&[1.0, 0.0]).is_none());
    }

    #[test]
    fn a_known_mean() {
        // 1, 2, 3: standard error 1/√3, t of two degrees of freedom.
        let found = mean(&[1.0, 2.0, 3.0]).unwrap();
        assert!(
            (found.value - 2.0).abs() < 1e-9 && (found.high - 2.0 - 4.302_65 / 3_f64.sqrt()).abs() < 1e-6
        );
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn verdicts() {
        let of = |low, high| Estimate { value: 1.0, low, high }.within(0.95, 1.05);
        assert_eq!(of(0.96, 1.04), Verdict::Met);
        assert_eq!(of(0.94, 1.04), Verdict::Open);
        assert_eq!(of(1.06, 1.10), Verdict::Missed);
    }
}
