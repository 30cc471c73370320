//! The report's plots, as SVG that stands inside an HTML page. Pure.
//!
//! Each plot is drawn once, [`WIDTH`] units wide, and laid out so that it can be read from 340 pixels up: labels stand above
//! their marks or in a narrow column, never beside wide ones. Colours are from the palette of Okabe and Ito, which people
//! with any kind of colour blindness can tell apart, and differ in lightness for grey print.

use super::text::{clip, count};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width of every plot, in units of its view box.
const WIDTH: u32 = 480;
/// Most bars of one plot; the page says how many are left out.
pub(super) const MOST_BARS: usize = 120;
/// Figures beyond this are not drawn: no duration, rate or ratio of a report is, and axes of such a size are useless.
const MOST: f64 = 1e12;

const INK: RGBColor = RGBColor(0x1a, 0x1a, 0x1a);
const SOFT: RGBColor = RGBColor(0x55, 0x55, 0x55);
const GRID: RGBColor = RGBColor(0xdd, 0xe0, 0xe4);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
const GREY: RGBColor = RGBColor(0x5c, 0x5c, 0x5c);
const PALE: RGBColor = RGBColor(0xb4, 0xbb, 0xc2);

/// Why a plot was not drawn.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlotError {
    /// There is nothing to draw.
    #[error("no figures")]
    Empty,
    /// A figure is negative, not finite or beyond what is drawn.
    #[error("figure {0} is outside 0 to {MOST:e}")]
    Range(f64),
    /// The plotting library failed.
    #[error("plotting library: {0}")]
    Draw(String),
}

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for PlotError {
    fn from(error: DrawingAreaErrorKind<E>) -> PlotError {
        PlotError::Draw(error.to_string())
    }
}

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A drawn plot: the inside of an `svg` element and its height; the width is [`WIDTH`].
pub(super) struct Plot {
    /// The elements.
    pub(super) body: String,
    /// `0 0 width height`.
    pub(super) view_box: String,
}

/// Runs `draw` on an area of this height and takes off the `svg` element that plotters puts around: it has a fixed size
/// and a namespace, and the page's own has neither.
fn plot(
    height: u32,
    draw: impl FnOnce(&Root<'_>) -> Result<(), PlotError>,
) -> Result<Plot, PlotError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&root)?;
        root.present()?;
    }
    let body = svg
        .split_once('>')
        .and_then(|(_, rest)| rest.rsplit_once("</svg>"))
        .map(|(body, _)| body.to_owned())
        .ok_or_else(|| PlotError::Draw("no svg element".to_owned()))?;
    Ok(Plot {
        body,
        view_box: format!("0 0 {WIDTH} {height}"),
    })
}

/// A text style; sizes are those of the SVG text (plotters divides by 1.24).
fn text<'a>(size: f64, color: &'a RGBColor, horizontal: HPos) -> TextStyle<'a> {
    TextStyle::from(("sans-serif", size * 1.24).into_font())
        .color(color)
        .pos(Pos::new(horizontal, VPos::Center))
}

/// The band that a call falls into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Band {
    /// The kernel allows it by itself.
    Allow,
    /// The daemon is asked.
    Ask,
    /// The kernel denies it.
    Deny,
    /// The policy does not say.
    None,
}

impl Band {
    const fn color(self) -> RGBColor {
        match self {
            Band::Allow => BLUE,
            Band::Ask => ORANGE,
            Band::Deny => GREY,
            Band::None => PALE,
        }
    }
}

/// One bar: a call and how often it was made.
pub(super) struct Bar<'a> {
    /// The call.
    pub(super) label: &'a str,
    /// How often.
    pub(super) value: u64,
    /// Its band, for the colour.
    pub(super) band: Band,
}

/// Horizontal bars on a logarithmic axis that ends at `most` (so that several plots compare), at most [`MOST_BARS`].
pub(super) fn bars(rows: &[Bar<'_>], most: u64) -> Result<Plot, PlotError> {
    /// Where the axis begins: below 1, so that a call that was made once has a bar.
    const FROM: f64 = 0.7;
    const ROW: u32 = 18;
    const LEFT: u32 = 136;
    const RIGHT: u32 = 84;
    let rows = rows.get(..MOST_BARS).unwrap_or(rows);
    let n = u32::try_from(rows.len()).unwrap_or(u32::MAX); // at most MOST_BARS
    if n == 0 {
        return Err(PlotError::Empty);
    }
    plot(n * ROW + 44, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_left(LEFT)
            .margin_right(RIGHT)
            .margin_top(2)
            .x_label_area_size(40)
            .build_cartesian_2d(
                (FROM..(most.max(10) as f64 * 1.1)).log_scale(),
                0.0..f64::from(n),
            )?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(8)
            .x_label_formatter(&|value| short(*value))
            .x_label_style(text(11.5, &SOFT, HPos::Center))
            .x_desc("calls, logarithmic")
            .axis_desc_style(text(11.5, &SOFT, HPos::Center))
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (row, bar) in (0..n).rev().zip(rows) {
            let y = f64::from(row);
            let value = (bar.value as f64).max(FROM);
            chart.draw_series([Rectangle::new(
                [(FROM, y + 0.16), (value, y + 0.84)],
                bar.band.color().filled(),
            )])?;
            let (_, middle) = chart.backend_coord(&(1.0, y + 0.5));
            root.draw_text(
                &clip(bar.label, 20),
                &text(12.0, &INK, HPos::Right),
                (LEFT as i32 - 7, middle),
            )?;
            root.draw_text(
                &count(bar.value),
                &text(12.0, &SOFT, HPos::Right),
                (WIDTH as i32 - 2, middle),
            )?;
        }
        Ok(())
    })
}

/// `1000000` as `1M`: powers of ten on an axis.
fn short(value: f64) -> String {
    let (divided, unit) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    format!("{divided:.0}{unit}")
}

/// The three bands side by side, each as wide as it has calls.
pub(super) fn bands(allow: u64, ask: u64, deny: u64) -> Result<Plot, PlotError> {
    let parts = [
        (Band::Allow, allow, WHITE),
        (Band::Ask, ask, BLACK),
        (Band::Deny, deny, WHITE),
    ];
    let all = allow.saturating_add(ask).saturating_add(deny);
    if all == 0 {
        return Err(PlotError::Empty);
    }
    plot(46, |root| {
        let mut chart = ChartBuilder::on(root).build_cartesian_2d(0.0..all as f64, 0.0..1.0_f64)?;
        let mut from = 0.0;
        for (band, calls, ink) in parts {
            let to = from + calls as f64;
            chart.draw_series([Rectangle::new(
                [(from, 0.0), (to, 1.0)],
                band.color().filled(),
            )])?;
            let (left, middle) = chart.backend_coord(&(from, 0.5));
            let (right, _) = chart.backend_coord(&(to, 0.5));
            if right - left > 26 {
                root.draw_text(
                    &count(calls),
                    &text(14.0, &ink, HPos::Center),
                    (left.midpoint(right), middle),
                )?;
            }
            from = to;
        }
        Ok(())
    })
}

/// One line of an interval plot.
pub(super) struct Line {
    /// What it is.
    pub(super) label: String,
    /// Its figures in words, at the right.
    pub(super) value: String,
    /// The median.
    pub(super) median: f64,
    /// 10th and 90th percentile.
    pub(super) spread: Option<(f64, f64)>,
    /// The 95 % interval of the median.
    pub(super) interval: Option<(f64, f64)>,
    /// Single measurements.
    pub(super) dots: Vec<f64>,
    /// True for what the report is about, false for what it is compared with.
    pub(super) ours: bool,
}

impl Line {
    fn figures(&self) -> impl Iterator<Item = f64> + '_ {
        let ends = self.spread.into_iter().chain(self.interval);
        ends.flat_map(|(low, high)| [low, high])
            .chain([self.median])
            .chain(self.dots.iter().copied())
    }
}

/// Where the axis of an interval plot begins, and what else stands in it.
pub(super) enum Axis {
    /// At zero: for seconds, rates and the like.
    FromZero,
    /// Around one, which is marked; with the spread of the A/A comparison shaded, when there is one.
    AroundOne(Option<(f64, f64)>),
}

/// Medians with their spreads, one line below the other.
pub(super) fn intervals(lines: &[Line], axis: &Axis, unit: &str) -> Result<Plot, PlotError> {
    const ROW: u32 = 46;
    let n = u32::try_from(lines.len().min(MOST_BARS)).unwrap_or(u32::MAX); // at most MOST_BARS
    if n == 0 {
        return Err(PlotError::Empty);
    }
    let (from, to) = range(lines, axis)?;
    // Ticks are about a seventh of the axis apart: as many decimals as tell them apart, at most four.
    let decimals = (1.3 - (to - from).log10()).ceil().clamp(0.0, 4.0) as usize;
    plot(n * ROW + 48, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_left(10)
            .margin_right(18)
            .margin_top(2)
            .x_label_area_size(42)
            .build_cartesian_2d(from..to, 0.0..f64::from(n))?;
        if let Axis::AroundOne(Some((low, high))) = *axis {
            chart.draw_series([Rectangle::new(
                [(low, 0.0), (high, f64::from(n))],
                GREY.mix(0.14).filled(),
            )])?;
        }
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(7)
            .x_label_formatter(&|value| format!("{value:.decimals$}"))
            .x_label_style(text(11.5, &SOFT, HPos::Center))
            .x_desc(unit)
            .axis_desc_style(text(11.5, &SOFT, HPos::Center))
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        if let Axis::AroundOne(_) = axis {
            chart.draw_series([PathElement::new(
                [(1.0, 0.0), (1.0, f64::from(n))],
                INK.stroke_width(1),
            )])?;
        }
        for (row, line) in (0..n).rev().zip(lines) {
            let y = f64::from(row) + 0.32;
            let color = if line.ours { BLUE } else { GREY };
            // Behind the line's texts: grid, shade and mark would run through them.
            chart.draw_series([Rectangle::new(
                [(from, y + 0.24), (to, y + 0.68)],
                WHITE.filled(),
            )])?;
            chart.draw_series(
                line.dots
                    .iter()
                    .map(|dot| Circle::new((*dot, y), 3, color.mix(0.55).stroke_width(1))),
            )?;
            if let Some((low, high)) = line.interval {
                chart.draw_series([Rectangle::new(
                    [(low, y - 0.11), (high, y + 0.11)],
                    color.mix(0.35).filled(),
                )])?;
            }
            if let Some((low, high)) = line.spread {
                chart.draw_series([
                    PathElement::new([(low, y), (high, y)], color.stroke_width(2)),
                    PathElement::new([(low, y - 0.1), (low, y + 0.1)], color.stroke_width(2)),
                    PathElement::new([(high, y - 0.1), (high, y + 0.1)], color.stroke_width(2)),
                ])?;
            }
            chart.draw_series([Circle::new((line.median, y), 5, color.filled())])?;
            let (_, above) = chart.backend_coord(&(from, f64::from(row) + 0.76));
            root.draw_text(
                &clip(&line.label, 36),
                &text(13.0, &INK, HPos::Left),
                (10, above),
            )?;
            root.draw_text(
                &line.value,
                &text(13.0, &INK, HPos::Right),
                (WIDTH as i32 - 18, above),
            )?;
        }
        Ok(())
    })
}

/// Both ends of an interval plot's axis, a little beyond every figure in it.
fn range(lines: &[Line], axis: &Axis) -> Result<(f64, f64), PlotError> {
    let fixed: Vec<f64> = match axis {
        Axis::FromZero => vec![0.0],
        Axis::AroundOne(band) => band
            .iter()
            .flat_map(|(low, high)| [*low, *high])
            .chain([0.98, 1.02])
            .collect(),
    };
    let (mut from, mut to) = (f64::INFINITY, 0.0_f64);
    for figure in lines.iter().flat_map(Line::figures).chain(fixed) {
        if !(0.0..=MOST).contains(&figure) {
            return Err(PlotError::Range(figure));
        }
        from = from.min(figure);
        to = to.max(figure);
    }
    let edge = ((to - from) * 0.06).max(1e-6);
    Ok(match axis {
        Axis::FromZero => (0.0, to + edge),
        Axis::AroundOne(_) => (from - edge, to + edge),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(median: f64) -> Line {
        Line {
            label: "<b>&".to_owned(),
            value: "\"x\"".to_owned(),
            median,
            spread: Some((median, median)),
            interval: None,
            dots: vec![median],
            ours: true,
        }
    }

    #[test]
    fn figures_that_cannot_be_drawn_are_refused() {
        for wrong in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let lines = [line(1.0), line(wrong)];
            for axis in [Axis::FromZero, Axis::AroundOne(None)] {
                assert!(
                    matches!(intervals(&lines, &axis, ""), Err(PlotError::Range(_))),
                    "{wrong}"
                );
            }
        }
        let band = Axis::AroundOne(Some((0.9, f64::NAN)));
        assert!(intervals(&[line(1.0)], &band, "").is_err());
        assert!(matches!(
            intervals(&[], &Axis::FromZero, ""),
            Err(PlotError::Empty)
        ));
        assert!(matches!(bars(&[], 1), Err(PlotError::Empty)));
        assert!(matches!(bands(0, 0, 0), Err(PlotError::Empty)));
    }

    #[test]
    fn extremes_are_drawn() {
        for median in [0.0, 1e-9, 1.0, MOST] {
            assert!(
                intervals(&[line(median)], &Axis::FromZero, "s").is_ok(),
                "{median}"
            );
            assert!(
                intervals(&[line(median)], &Axis::AroundOne(None), "s").is_ok(),
                "{median}"
            );
        }
        for value in [0, 1, u64::MAX] {
            let bar = Bar {
                label: "read",
                value,
                band: Band::Ask,
            };
            assert!(bars(&[bar], value).is_ok(), "{value}");
        }
        assert!(bands(u64::MAX, 1, u64::MAX).is_ok());
    }

    #[test]
    fn texts_are_escaped_and_the_outer_element_is_gone() {
        let plot = intervals(&[line(1.0)], &Axis::FromZero, "<i>").expect("drawn");
        assert!(plot.body.contains("&lt;b&gt;&amp;"));
        assert!(plot.body.contains("&lt;i&gt;"));
        for wrong in ["<b>", "<i>", "<svg", "</svg", "xmlns", "http"] {
            assert!(!plot.body.contains(wrong), "{wrong}");
        }
    }

    /// Longer bars for larger counts, and the same length per factor of ten.
    #[test]
    fn bars_are_logarithmic() {
        let rows = [1_000_000, 1_000, 1].map(|value| Bar {
            label: "call",
            value,
            band: Band::Allow,
        });
        let plot = bars(&rows, 1_000_000).expect("drawn");
        let widths: Vec<f64> = plot
            .body
            .lines()
            .filter(|line| line.starts_with("<rect"))
            .filter_map(|line| {
                line.split_once(" width=\"")?
                    .1
                    .split_once('"')?
                    .0
                    .parse()
                    .ok()
            })
            .collect();
        let [million, thousand, one] = widths[..] else {
            panic!("{widths:?}")
        };
        assert!(one > 0.0);
        assert!(
            ((million - thousand) - (thousand - one)).abs() <= 2.0,
            "{widths:?}"
        );
    }
}
