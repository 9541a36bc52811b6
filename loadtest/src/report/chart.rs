//! Plots as SVG text: lines over time or over percentiles, and stacked bars. Every slice has a native tooltip, so the
//! page needs no script.
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 30.0;
/// Room for a row of names of marks.
const NAMES: f64 = 14.0;
/// Names that are nearer to each other stand in two rows.
const NAME_WIDTH: f64 = 18.0;
/// A mark that is shorter than this on paper is drawn as a line.
const THIN: f64 = 1.5;

/// How values become heights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// By decades.
    Log,
}

/// One curve: a gap where there is no value.
pub struct Line {
    /// Its class in the style sheet.
    pub class: &'static str,
    /// In the order of the axis.
    pub points: Vec<(f64, Option<f64>)>,
}

/// A bar of parts that stand on each other.
pub struct Bar {
    /// From where to where on the axis.
    pub span: (f64, f64),
    /// Class and height, from the bottom up.
    pub parts: Vec<(&'static str, f64)>,
}

/// Single values, each a dot or, where something went wrong, a cross.
pub struct Dots {
    /// Their class in the style sheet.
    pub class: &'static str,
    pub crosses: bool,
    pub points: Vec<(f64, f64)>,
}

/// A place on the axis, from where to where, and what is written above it.
#[derive(Clone)]
pub struct Mark {
    pub span: (f64, f64),
    pub name: String,
}

/// A plot.
pub struct Chart {
    pub height: f64,
    /// The end of the axis; it begins at 0.
    pub x_end: f64,
    /// Where to write what below the axis.
    pub x_ticks: Vec<(f64, String)>,
    pub scale: Scale,
    pub format: fn(f64) -> String,
    pub lines: Vec<Line>,
    pub bars: Vec<Bar>,
    pub dots: Vec<Dots>,
    pub marks: Vec<Mark>,
    /// What a pointer is told between two points of the axis.
    pub tips: Vec<((f64, f64), String)>,
    /// For those who do not see it.
    pub label: String,
}

impl Chart {
    /// The `<svg>` element.
    pub fn svg(&self) -> String {
        let (low, high) = self.range();
        let ticks = match self.scale {
            Scale::Linear => linear_ticks(high),
            Scale::Log => log_ticks(low, high, self.depth() / 18.0),
        };
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">",
            self.height, self.label
        );
        for tick in ticks {
            let y = self.y(tick, low, high);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                (self.format)(tick)
            );
        }
        self.marks(&mut out);
        for (x, text) in &self.x_ticks {
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                self.x(*x),
                self.height - 8.0
            );
        }
        self.bars.iter().for_each(|bar| self.bar(bar, high, &mut out));
        self.lines.iter().for_each(|line| self.line(line, low, high, &mut out));
        self.dots.iter().for_each(|dots| self.dots(dots, low, high, &mut out));
        for ((from, to), text) in &self.tips {
            let (left, right) = (self.x(*from), self.x(*to));
            let _ = write!(
                out,
                "<rect class=\"tip\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{text}</title></rect>",
                self.top(),
                (right - left).max(1.0),
                self.depth()
            );
        }
        out.push_str("</svg>");
        out
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        let lines = self.lines.iter().flat_map(|line| line.points.iter().filter_map(|(_, y)| *y));
        let dots = self.dots.iter().flat_map(|dots| dots.points.iter().map(|(_, y)| *y));
        let bars = self.bars.iter().map(|bar| bar.parts.iter().map(|(_, height)| height).sum());
        lines.chain(dots).chain(bars)
    }

    fn range(&self) -> (f64, f64) {
        let highest = self.values().fold(0.0, f64::max);
        match self.scale {
            Scale::Linear => {
                let step = linear_step(highest);
                (0.0, ((highest / step).ceil() * step).max(step))
            }
            Scale::Log => {
                let lowest = self.values().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
                let low = if lowest.is_finite() { log_floor(lowest) } else { 1.0 };
                (low, log_ceiling(highest.max(low * 2.0)))
            }
        }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.x_end.max(1e-9) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64, low: f64, high: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => value / high,
            Scale::Log => (value.max(low).ln() - low.ln()) / (high.ln() - low.ln()),
        };
        self.height - BOTTOM - share * self.depth()
    }

    fn top(&self) -> f64 {
        TOP + f64::from(self.rows().into_iter().max().map_or(0, |row| row + 1)) * NAMES
    }

    fn depth(&self) -> f64 {
        self.height - self.top() - BOTTOM
    }

    /// In which row, from the bottom up, the name of each mark stands.
    fn rows(&self) -> Vec<u8> {
        let mut before = (f64::NEG_INFINITY, 1);
        let row = |mark: &Mark| {
            let left = self.x(mark.span.0);
            let near = left - before.0 < NAME_WIDTH;
            before = (left, if near { 1 - before.1 } else { 0 });
            before.1
        };
        self.marks.iter().map(row).collect()
    }

    fn marks(&self, out: &mut String) {
        let top = self.top();
        for (Mark { span: (from, until), name }, row) in self.marks.iter().zip(self.rows()) {
            let (left, right) = (self.x(*from), self.x(*until));
            let width = (right - left).max(THIN);
            let _ = write!(
                out,
                "<rect class=\"mark\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>\
                 <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
                self.depth(),
                left + width / 2.0,
                top - 4.0 - f64::from(row) * NAMES
            );
        }
    }

    /// One path for all of them: a file with thousands stays small.
    fn dots(&self, dots: &Dots, low: f64, high: f64, out: &mut String) {
        let mut path = String::new();
        for (x, y) in &dots.points {
            let (x, y) = (self.x(*x), self.y(*y, low, high));
            let _ = match dots.crosses {
                true => write!(path, "M{:.1} {:.1}l6 6m-6 0l6-6", x - 3.0, y - 3.0),
                false => write!(path, "M{x:.1} {y:.1}h0"),
            };
        }
        let shape = if dots.crosses { "crosses" } else { "dots" };
        let _ = write!(out, "<path class=\"{shape} {}\" d=\"{path}\"/>", dots.class);
    }

    fn line(&self, line: &Line, low: f64, high: f64, out: &mut String) {
        let mut path = String::new();
        let mut pen_down = false;
        let mut alone = Vec::new();
        for (index, (x, value)) in line.points.iter().enumerate() {
            let Some(value) = value else {
                pen_down = false;
                continue;
            };
            let (x, y) = (self.x(*x), self.y(*value, low, high));
            let _ = write!(path, "{}{x:.1} {y:.1}", if pen_down { "L" } else { "M" });
            let next = line.points.get(index + 1).is_some_and(|(_, next)| next.is_some());
            if !pen_down && !next {
                alone.push((x, y));
            }
            pen_down = true;
        }
        let _ = write!(out, "<path class=\"line {}\" d=\"{path}\"/>", line.class);
        for (x, y) in alone {
            let _ =
                write!(out, "<circle class=\"dot {}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>", line.class);
        }
    }

    fn bar(&self, bar: &Bar, high: f64, out: &mut String) {
        let (left, right) = (self.x(bar.span.0), self.x(bar.span.1));
        let gap = if right - left > 4.0 { 1.0 } else { 0.0 };
        let mut below = 0.0;
        for (class, height) in bar.parts.iter().filter(|(_, height)| *height > 0.0) {
            let (top, bottom) = (self.y(below + height, 0.0, high), self.y(below, 0.0, high));
            let _ = write!(
                out,
                "<rect class=\"bar {class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                (right - left - gap).max(0.5),
                (bottom - top).max(1.0)
            );
            below += height;
        }
    }
}

/// About six round marks from 0 to `end`, for an axis of seconds.
pub fn time_ticks(end: f64) -> Vec<(f64, String)> {
    let step = linear_step(end * 0.7).max(1.0);
    let steps = (end / step + 1e-9) as u32;
    (0..=steps).map(|n| f64::from(n) * step).map(|at| (at, format!("{at:.0} s"))).collect()
}

/// A round step of at least 1, so that about five lie in `high`: what is counted has no halves.
fn linear_step(high: f64) -> f64 {
    let raw = (high / 5.0).max(1.0);
    let decade = 10_f64.powf(raw.log10().floor());
    let of_ten = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|n| n * decade);
    of_ten.filter(|step| step.fract() == 0.0).find(|step| *step >= raw * 0.999).unwrap_or(10.0 * decade)
}

fn linear_ticks(high: f64) -> Vec<f64> {
    let step = linear_step(high);
    (0..=(high / step).round() as u32).map(|n| f64::from(n) * step).collect()
}

/// 1, 2, 5 in each decade, or the decades alone if that were more than `most`.
fn log_ticks(low: f64, high: f64, most: f64) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let of: &[f64] = if (high / low).log10() * 3.0 > most { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = decades.flat_map(|decade| of.iter().map(move |n| n * 10_f64.powi(decade)));
    all.filter(|tick| *tick >= low * 0.999 && *tick <= high * 1.001).collect()
}

fn log_floor(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|n| n * decade).find(|tick| *tick <= value).unwrap_or(decade)
}

fn log_ceiling(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|n| n * decade).find(|tick| *tick >= value).unwrap_or(decade * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(linear_ticks(100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(log_ticks(1.0, 100.0, 7.0), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(log_ticks(1.0, 100_000.0, 7.0).len(), 6);
        assert_eq!([linear_ticks(2.0), linear_ticks(0.0)], [vec![0.0, 1.0, 2.0], vec![0.0]]);
        for end in [1.0, 3.0, 9.0, 10.0, 30.0, 61.0, 600.0, 3_600.0] {
            let ticks = time_ticks(end);
            assert!((2..=10).contains(&ticks.len()), "{end}: {ticks:?}");
            assert!(ticks.iter().all(|(at, _)| *at <= end), "{end}: {ticks:?}");
        }
    }

    #[test]
    fn names_of_near_marks_stand_above_each_other_and_take_room_only_then() {
        let chart = |moments: &[f64]| Chart {
            height: 200.0,
            x_end: 100.0,
            x_ticks: Vec::new(),
            scale: Scale::Linear,
            format: |value| value.to_string(),
            lines: Vec::new(),
            bars: Vec::new(),
            dots: Vec::new(),
            marks: moments.iter().map(|at| Mark { span: (*at, *at), name: "1".to_owned() }).collect(),
            tips: Vec::new(),
            label: String::new(),
        };
        assert_eq!(chart(&[10.0, 11.0, 12.0, 50.0]).rows(), [0, 1, 0, 0]);
        let tops = [&[] as &[f64], &[10.0, 50.0], &[10.0, 11.0]].map(|moments| chart(moments).top());
        assert_eq!(tops, [TOP, TOP + NAMES, TOP + 2.0 * NAMES]);
    }

    #[test]
    fn ranges_hold_their_values() {
        for value in [0.02, 0.9, 1.0, 7.3, 99.0, 12_345.0] {
            assert!(log_floor(value) <= value && value <= log_ceiling(value) * 1.000_001, "{value}");
            assert!(log_ceiling(value) <= value * 2.6 && log_floor(value) >= value / 2.6, "{value}");
        }
    }
}
