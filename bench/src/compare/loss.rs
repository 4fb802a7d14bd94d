//! Measures the loss at offered rates, from low ones to rates above the capacity of a candidate, and the highest rate
//! without loss.
//!
//! Each candidate climbs a grid of rates until its loss is large. Then the step at which loss begins is halved until it is
//! small. Candidates take turns, window by window, each at its own rate.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::candidate::{CandidateKind, Role, start};
use super::lab::Lab;
use super::results::{Arrangement, Counted, LossCurve, LossPoint, Window, quantile};
use super::rules::Rules;
use super::window::Bench;
use crate::generator::{Profile, Spec};

/// The resolution of the measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Frames a second, ascending.
    pub rates: Vec<f64>,
    /// Length of a window.
    pub window: Duration,
    /// Windows for a rate, of which the median counts.
    pub windows: usize,
    /// The search ends when the ratio of the next lossy rate to the loss-free rate is at most this.
    pub finest: f64,
}

impl Settings {
    /// The settings of a full run: four minutes for each arrangement.
    pub fn full() -> Self {
        let rates = [0.1e6, 0.2e6, 0.4e6, 0.8e6, 1.6e6, 3.2e6, 6.4e6].into();
        Settings { rates, window: Duration::from_secs(1), windows: 3, finest: 1.1 }
    }

    /// The settings of a quick run: forty seconds for each arrangement.
    pub fn quick() -> Self {
        let rates = [0.2e6, 0.6e6, 1.8e6, 5.4e6].into();
        Settings { rates, window: Duration::from_millis(500), windows: 1, finest: 1.4 }
    }
}

/// Maximum loss of a rate that counts as loss-free. Virtual machines pause for milliseconds, in which the rings of veth
/// overflow. This alone causes a loss of a thousandth.
const LITTLE: f64 = 0.01;

/// Loss above which higher rates give no new information.
const HOPELESS: f64 = 0.6;

/// A candidate on the generator's core slows the generator down. If a higher requested rate increases the offered rate by
/// less than this factor, it is the last one.
const MORE: f64 = 1.1;

/// Unmeasured time before the first window.
const WARM_UP: Duration = Duration::from_millis(300);

/// Measures the curves of these candidates; [`CandidateKind::NftablesRps`] is useful only in [`Arrangement::S`]. `progress` is called
/// for every window.
///
/// # Errors
/// If a candidate does not start, or a window cannot be measured.
pub fn measure(
    arrangement: Arrangement,
    kinds: &[CandidateKind],
    settings: &Settings,
    mut progress: impl FnMut(&str) -> Result<()>,
) -> Result<Vec<LossCurve>> {
    let labs = kinds.iter().map(|_| Lab::new(arrangement)).collect::<Result<Vec<_>>>()?;
    let mut climbers: Vec<Climber<'_>> = kinds.iter().zip(&labs).map(|(kind, lab)| Climber::new(*kind, lab)).collect();
    loop {
        let rates: Vec<Option<f64>> = climbers.iter().map(|climber| next_rate(&climber.points, settings)).collect();
        if rates.iter().all(Option::is_none) {
            break;
        }
        let mut windows = vec![Vec::new(); climbers.len()];
        for _ in 0..settings.windows {
            for ((climber, rate), windows) in climbers.iter_mut().zip(&rates).zip(&mut windows) {
                let Some(rate) = *rate else { continue };
                if is_clear(windows) {
                    continue;
                }
                let name = format!("{} at {:.2} M a second", climber.kind, rate / 1e6);
                progress(&name)?;
                windows.push(climber.window(rate, settings.window).context(name)?);
            }
        }
        for ((climber, rate), windows) in climbers.iter_mut().zip(rates).zip(windows) {
            climber.points.extend(rate.map(|rate| point(rate, &windows)));
            climber.points.sort_by(|one, other| one.rate.total_cmp(&other.rate));
        }
    }
    let curve = |climber: Climber<'_>| LossCurve {
        arrangement,
        candidate: climber.kind.to_string(),
        loss_free: highest(loss_free(&climber.points)),
        points: climber.points,
    };
    Ok(climbers.into_iter().map(curve).collect())
}

/// A candidate and its next rate.
struct Climber<'lab> {
    kind: CandidateKind,
    lab: &'lab Lab,
    bench: Option<Bench<'lab>>,
    /// Ascending by rate.
    points: Vec<LossPoint>,
}

impl<'lab> Climber<'lab> {
    fn new(kind: CandidateKind, lab: &'lab Lab) -> Self {
        Climber { kind, lab, bench: None, points: Vec::new() }
    }

    fn window(&mut self, rate: f64, duration: Duration) -> Result<Window> {
        let spec = Spec { frame_bytes: Some(60), rate: Some(rate as u64), duration, ..Spec::new(Profile::Flow) };
        let mut bench = match self.bench.take() {
            Some(bench) => bench,
            None => {
                let mut bench = Bench::new(self.lab, start(self.kind, self.lab, &Rules::default(), Role::Forward)?);
                bench.window(&Spec { duration: WARM_UP, ..spec.clone() })?;
                bench
            }
        };
        let window = bench.window(&spec)?;
        // A candidate that never sleeps would use the core of the others between its turns.
        if self.kind != CandidateKind::SmallestSpinning {
            self.bench = Some(bench);
        }
        Ok(window)
    }
}

/// Whether two windows agree that a rate is loss-free, so that another window cannot change the result.
fn is_clear(windows: &[Window]) -> bool {
    windows.len() >= 2 && windows.iter().all(|window| lost(window) <= LITTLE)
}

/// The part of a window's frames that did not arrive.
fn lost(window: &Window) -> f64 {
    if window.offered == 0 { 0.0 } else { 1.0 - window.forwarded as f64 / window.offered as f64 }
}

fn point(rate: f64, windows: &[Window]) -> LossPoint {
    let median = |figure: &dyn Fn(&Window) -> f64| quantile(&windows.iter().map(figure).collect::<Vec<_>>(), 0.5);
    LossPoint {
        rate,
        offered: median(&|window| window.offered as f64 / window.seconds.max(0.001)),
        forwarded: median(&|window| window.rate(Counted::Forwarded)),
        loss: median(&lost),
    }
}

/// The next rate after these points: the next one of the grid while its loss is small, then one between the last loss-free
/// rate and the first lossy one. `None` if these are close enough.
fn next_rate(points: &[LossPoint], settings: &Settings) -> Option<f64> {
    let last = points.last();
    let is_held_back = matches!(points, [.., before, last] if last.offered < before.offered * MORE);
    let is_hopeless = last.is_some_and(|point| point.loss > HOPELESS) || is_held_back;
    let next = settings.rates.iter().find(|rate| last.is_none_or(|point| point.rate < **rate));
    if let Some(rate) = next.filter(|_| !is_hopeless) {
        return Some(*rate);
    }
    let first_lost = loss_free(points).len();
    let (low, high) = (points.get(first_lost.checked_sub(1)?)?.rate, points.get(first_lost)?.rate);
    (high > low * settings.finest).then(|| (low * high).sqrt())
}

/// The points below the first lossy one.
fn loss_free(points: &[LossPoint]) -> &[LossPoint] {
    points.split(|point| point.loss > LITTLE).next().unwrap_or_default()
}

/// The highest offered rate without loss. It can be lower than the requested rate.
fn highest(points: &[LossPoint]) -> f64 {
    points.iter().map(|point| point.offered).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All points of a candidate with this capacity, with a generator with this limit.
    fn climb(bears: f64, offers: f64) -> Vec<LossPoint> {
        let settings = Settings::full();
        let mut points = Vec::new();
        while let Some(rate) = next_rate(&points, &settings) {
            let offered = rate.min(offers);
            let forwarded = offered.min(bears);
            points.push(LossPoint { rate, offered, forwarded, loss: 1.0 - forwarded / offered });
            points.sort_by(|one, other| one.rate.total_cmp(&other.rate));
            assert!(points.len() < 20, "it ends");
        }
        points
    }

    fn borne(bears: f64, offers: f64) -> f64 {
        highest(loss_free(&climb(bears, offers)))
    }

    #[test]
    fn the_loss_free_rate_is_found_between_the_rates_of_the_grid() {
        for bears in [0.13e6, 0.5e6, 1.24e6, 5e6] {
            let found = borne(bears, 1e9);
            assert!((bears / 1.1..=bears * 1.02).contains(&found), "{found} of {bears}");
        }
    }

    #[test]
    fn what_cannot_be_offered_is_not_borne() {
        assert_eq!(borne(1e9, 0.95e6), 0.95e6);
    }

    #[test]
    fn the_grid_bounds_what_is_found() {
        assert_eq!(borne(1e3, 1e9), 0.0);
        assert_eq!(borne(1e9, 1e9), 6.4e6);
    }

    #[test]
    fn nobody_climbs_on_without_hope() {
        let last = |bears, offers| climb(bears, offers).last().map(|point| point.rate);
        assert_eq!(last(0.1e6, 1e9), Some(0.4e6));
        assert_eq!(last(0.5e6, 1e9), Some(1.6e6));
        assert_eq!(last(1e9, 0.5e6), Some(1.6e6));
    }

    #[test]
    fn points_are_medians() {
        let window = |offered, forwarded| Window {
            seconds: 0.5,
            offered,
            decided: 0,
            forwarded,
            lost: [].into(),
            cores: Vec::new(),
        };
        let windows = [window(100, 100), window(100, 25), window(100, 75)];
        assert_eq!(point(200.0, &windows), LossPoint { rate: 200.0, offered: 200.0, forwarded: 150.0, loss: 0.25 });
        assert!(is_clear(&[window(1000, 1000), window(1000, 995)]));
        assert!(!is_clear(&windows) && !is_clear(&windows[..1]));
    }
}
