//! Three kinds of pictures, drawn as SVG: bars, curves and ranges, in panels side by side.
//!
//! What a thing is called stands beside it, not in a legend. Colours are those of Okabe and Ito ("Color universal design",
//! 2008), which colour-blind people can tell apart; a candidate has the same one in all pictures.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A picture.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// Its name, without an ending.
    pub(super) file: &'static str,
    /// What is seen.
    pub(super) title: String,
    /// What the numbers are, in up to two lines.
    pub(super) subtitle: String,
    pub(super) panels: Panels,
}

/// Panels of one kind, in rows of two.
#[derive(Clone, Debug)]
pub(super) enum Panels {
    Bars(Vec<Bars>),
    Curves(Axes, Vec<Curves>),
    Ranges(Vec<Ranges>),
}

/// Candidates below each other, by one number.
#[derive(Clone, Debug)]
pub(super) struct Bars {
    pub(super) heading: String,
    /// The number at the right end, where longer bars are cut; panels in a row should have the same.
    pub(super) most: f64,
    pub(super) bars: Vec<Bar>,
}

#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    /// Where a line crosses the bar.
    pub(super) mark: f64,
    pub(super) label: String,
}

/// One number over another.
#[derive(Clone, Debug)]
pub(super) struct Curves {
    pub(super) heading: String,
    /// Names and points, ascending by the first number.
    pub(super) curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// What all panels of curves have in common.
#[derive(Clone, Debug)]
pub(super) struct Axes {
    pub(super) x: Axis,
    pub(super) y: Axis,
}

#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: &'static str,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) is_logarithmic: bool,
    pub(super) shown: fn(f64) -> String,
}

/// Candidates below each other, each from one number to another, on a logarithmic axis.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    pub(super) heading: String,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) ranges: Vec<(String, f64, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(34, 34, 34);
const FAINT: RGBColor = RGBColor(110, 110, 110);
const GRID: RGBColor = RGBColor(225, 225, 225);

const WIDTH: u32 = 1120;
const TITLE: u32 = 88;
const HEADING: u32 = 30;
/// Room for names: of candidates, to the left of bars or to the right of curves.
const NAMES: u32 = 136;
const BAR: u32 = 24;
const GAP: u32 = 14;
const CURVES: u32 = 400;

/// As the text of a file.
pub(super) fn svg(figure: &Figure) -> Result<String> {
    let heights: Vec<u32> = match &figure.panels {
        Panels::Bars(panels) => rows(panels, |panel| HEADING + BAR * panel.bars.len() as u32 + GAP),
        Panels::Curves(_, panels) => rows(panels, |_| CURVES),
        Panels::Ranges(panels) => rows(panels, |panel| HEADING + BAR * panel.ranges.len() as u32 + GAP),
    };
    let columns = if let Panels::Curves(_, panels) = &figure.panels { panels.len().min(2) as u32 } else { 2 };
    let mut text = String::new();
    {
        let size = (WIDTH, TITLE + heights.iter().sum::<u32>() + 10);
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE)?;
        write(&root, &figure.title, (20, 24), 18, &INK, HPos::Left, true)?;
        for (number, line) in figure.subtitle.lines().enumerate() {
            write(&root, line, (20, 48 + 19 * number as i32), 14, &FAINT, HPos::Left, false)?;
        }
        let mut top = TITLE;
        for (row, height) in heights.iter().enumerate() {
            for column in 0..columns {
                let width = (WIDTH - 20) / columns;
                let area = root.clone().shrink((10 + column * width, top), (width, *height));
                let index = row * 2 + column as usize;
                match &figure.panels {
                    Panels::Bars(panels) => panels.get(index).map(|panel| bars(&area, panel)),
                    Panels::Curves(axes, panels) => panels.get(index).map(|panel| curves(&area, axes, panel)),
                    Panels::Ranges(panels) => panels.get(index).map(|panel| ranges(&area, panel)),
                }
                .transpose()?;
            }
            top += height;
        }
        root.present()?;
    }
    Ok(text)
}

fn rows<T>(panels: &[T], height: impl Fn(&T) -> u32) -> Vec<u32> {
    panels.chunks(2).map(|row| row.iter().map(&height).max().unwrap_or_default()).collect()
}

/// What is left of the area below so many bars: another one in the row may have more.
fn below(area: &Area, bars: usize) -> u32 {
    area.dim_in_pixel().1.saturating_sub(HEADING + BAR * bars as u32)
}

fn bars(area: &Area, panel: &Bars) -> Result<()> {
    write(area, &panel.heading, (NAMES as i32, 14), 15, &INK, HPos::Left, true)?;
    let chart = ChartBuilder::on(area)
        .margin_top(HEADING)
        .margin_bottom(below(area, panel.bars.len()))
        .margin_left(NAMES)
        .margin_right(96)
        .build_cartesian_2d(0.0..panel.most, 0.0..panel.bars.len() as f64)?;
    let plane = chart.plotting_area();
    for (place, bar) in panel.bars.iter().rev().enumerate() {
        let middle = place as f64 + 0.5;
        let colour = colour(&bar.name);
        let end = bar.value.min(panel.most);
        plane.draw(&Rectangle::new([(0.0, middle - 0.36), (end, middle + 0.36)], colour.filled()))?;
        let is_cut = bar.value > panel.most;
        let mark = if is_cut { panel.most * 0.97 } else { bar.mark };
        // Across a bar that is cut, it is a slanted one.
        let slant = if is_cut { panel.most * 0.012 } else { 0.0 };
        let ends = [(mark - slant, middle - 0.4), (mark + slant, middle + 0.4)];
        plane.draw(&PathElement::new(ends, WHITE.stroke_width(if is_cut { 5 } else { 2 })))?;
        let (_, y) = within(area, chart.backend_coord(&(0.0, middle)));
        name(area, &bar.name, (NAMES as i32 - 8, y))?;
        let (x, _) = within(area, chart.backend_coord(&(end, middle)));
        write(area, &bar.label, (x + 6, y), 13, &INK, HPos::Left, is_ours(&bar.name))?;
    }
    Ok(())
}

fn curves(area: &Area, axes: &Axes, panel: &Curves) -> Result<()> {
    let Axes { x, y } = axes;
    let (xs, ys) = (x.least..x.most, y.least..y.most);
    match (x.is_logarithmic, y.is_logarithmic) {
        (true, true) => curves_on(area, axes, panel, xs.log_scale(), ys.log_scale()),
        (true, false) => curves_on(area, axes, panel, xs.log_scale(), ys),
        (false, true) => curves_on(area, axes, panel, xs, ys.log_scale()),
        (false, false) => curves_on(area, axes, panel, xs, ys),
    }
}

fn curves_on<X, Y>(area: &Area, axes: &Axes, panel: &Curves, x: X, y: Y) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    write(area, &panel.heading, (64, 14), 15, &INK, HPos::Left, true)?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(HEADING)
        .margin_right(NAMES)
        .x_label_area_size(52)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .x_desc(axes.x.label)
        .y_desc(axes.y.label)
        .x_label_formatter(&|value| (axes.x.shown)(*value))
        .y_label_formatter(&|value| (axes.y.shown)(*value))
        .x_labels(6)
        .y_labels(9)
        .label_style((FONT, 15).into_font().color(&FAINT))
        .axis_desc_style((FONT, 16).into_font().color(&FAINT))
        .draw()?;
    let mut ends = Vec::new();
    // Ours above all others.
    let (ours, others): (Vec<_>, Vec<_>) = panel.curves.iter().partition(|(name, _)| is_ours(name));
    for (name, points) in others.into_iter().chain(ours) {
        let colour = colour(name);
        let width = if is_ours(name) { 3 } else { 2 };
        chart.draw_series([PathElement::new(points.clone(), colour.stroke_width(width))])?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, width + 1, colour.filled())))?;
        if let Some(last) = points.last() {
            ends.push((within(area, chart.backend_coord(last)), name.as_str()));
        }
    }
    let (_, bottom) = within(area, chart.backend_coord(&(axes.x.least, axes.y.least)));
    for (at, name) in apart(ends, bottom) {
        write(area, name, (at.0 + 8, at.1), 13, &colour(name), HPos::Left, is_ours(name))?;
    }
    Ok(())
}

/// Moves names down until there is a line's height between them, and up again from below the bottom.
fn apart(mut names: Vec<((i32, i32), &str)>, bottom: i32) -> Vec<((i32, i32), &str)> {
    const LINE: i32 = 15;
    names.sort_by_key(|((_, y), _)| *y);
    for index in 1..names.len() {
        let least = names[index - 1].0.1 + LINE;
        names[index].0.1 = names[index].0.1.max(least);
    }
    let mut most = bottom;
    for ((_, y), _) in names.iter_mut().rev() {
        *y = (*y).min(most);
        most = *y - LINE;
    }
    names
}

fn ranges(area: &Area, panel: &Ranges) -> Result<()> {
    write(area, &panel.heading, (NAMES as i32, 14), 15, &INK, HPos::Left, true)?;
    let chart = ChartBuilder::on(area)
        .margin_top(HEADING)
        .margin_bottom(below(area, panel.ranges.len()))
        .margin_left(NAMES)
        .margin_right(110)
        .build_cartesian_2d((panel.least..panel.most).log_scale(), 0.0..panel.ranges.len() as f64)?;
    let plane = chart.plotting_area();
    for (place, (candidate, from, to)) in panel.ranges.iter().rev().enumerate() {
        let middle = place as f64 + 0.5;
        let colour = colour(candidate);
        plane.draw(&PathElement::new([(panel.least, middle), (panel.most, middle)], GRID))?;
        plane.draw(&PathElement::new([(*from, middle), (*to, middle)], colour.stroke_width(4)))?;
        plane.draw(&Circle::new((*from, middle), 6, colour.filled()))?;
        let end = PathElement::new([(*to, middle - 0.25), (*to, middle + 0.25)], colour.stroke_width(3));
        plane.draw(&end)?;
        let (x, y) = within(area, chart.backend_coord(&(*to, middle)));
        name(area, candidate, (NAMES as i32 - 8, y))?;
        write(
            area,
            &format!("{} – {} µs", digits(*from), digits(*to)),
            (x + 8, y),
            13,
            &INK,
            HPos::Left,
            is_ours(candidate),
        )?;
    }
    Ok(())
}

fn digits(microseconds: f64) -> String {
    let decimals = if microseconds < 99.5 { 1 } else { 0 };
    format!("{microseconds:.decimals$}")
}

/// A point of the picture as one of the area.
fn within(area: &Area, (x, y): (i32, i32)) -> (i32, i32) {
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}

fn name(area: &Area, name: &str, at: (i32, i32)) -> Result<()> {
    write(area, name, at, 13, &INK, HPos::Right, is_ours(name))
}

/// Text whose middle is as high as the point.
fn write(
    area: &Area,
    text: &str,
    at: (i32, i32),
    size: u32,
    colour: &RGBColor,
    at_point: HPos,
    bold: bool,
) -> Result<()> {
    // The backend makes text smaller by this, as if the size were a line's height.
    let size = f64::from(size) * 1.24;
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let style = (FONT, size, style).into_font().color(colour).pos(Pos::new(at_point, VPos::Center));
    area.draw(&Text::new(text, at, style))?;
    Ok(())
}

fn is_ours(name: &str) -> bool {
    name == "knockplane"
}

fn colour(name: &str) -> RGBColor {
    match name {
        "knockplane" => RGBColor(213, 94, 0),
        "smallest" => RGBColor(86, 180, 233),
        "smallest-spinning" => RGBColor(0, 114, 178),
        "nftables" => RGBColor(0, 158, 115),
        "nftables-rps" => RGBColor(230, 159, 0),
        "nftables-bridge" => RGBColor(204, 121, 167),
        "knockd" => RGBColor(0, 0, 0),
        _ => RGBColor(150, 150, 150),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_a_line_apart() {
        let names = || vec![((0, 50), "c"), ((0, 10), "a"), ((0, 12), "b")];
        let placed = apart(names(), 100);
        assert_eq!(placed, [((0, 10), "a"), ((0, 25), "b"), ((0, 50), "c")]);
        assert_eq!(apart(names(), 30), [((0, 0), "a"), ((0, 15), "b"), ((0, 30), "c")]);
    }
}
