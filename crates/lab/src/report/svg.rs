//! How does a chart look in the guide? It is an SVG in the page's colours that also says in words what it shows.

use std::{fmt::Write, ops::Range};

use plotters::prelude::*;

use super::{escaped, number};
use crate::recorder::Series;

/// Each is a placeholder, replaced in the SVG by a colour of the page's style sheet.
const LINES: [RGBColor; 4] =
    [RGBColor(1, 0, 1), RGBColor(2, 0, 2), RGBColor(3, 0, 3), RGBColor(4, 0, 4)];
const SIZE: (u32, u32) = (720, 320);

/// The chart. If it cannot be drawn (no points, or none that is finite), a paragraph in words.
pub fn chart(series: &Series) -> String {
    let mut svg = String::new();
    let drawn = draw(series, &mut svg).is_ok();
    let words = escaped(&in_words(series));
    let title = escaped(&series.title);
    if !drawn || svg.is_empty() {
        return format!("<p>{title}: {words}</p>");
    }
    let (width, height) = SIZE;
    let head = format!(r#"<svg width="{width}" height="{height}" "#);
    let head_for_all = r#"<svg class="chart" role="img" "#;
    let mut svg = svg.replacen(&head, head_for_all, 1);
    if let Some(end) = svg.find('>') {
        svg.insert_str(end + 1, &format!("<title>{title}</title><desc>{words}</desc>"));
    }
    for (n, RGBColor(r, g, b)) in LINES.into_iter().enumerate() {
        svg = svg.replace(&format!("#{r:02X}{g:02X}{b:02X}"), &format!("var(--chart-{})", n + 1));
    }
    svg.replace("#000000", "currentColor")
}

fn draw(series: &Series, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let points = || series.lines.iter().flat_map(|line| &line.points).filter(|point| finite(point));
    let x = range(points().map(|&(x, _)| x)).ok_or("nothing to draw")?;
    let y = range(points().map(|&(_, y)| y)).ok_or("nothing to draw")?;
    // The axis begins at zero, or at the least value if that is negative: a cut axis exaggerates differences.
    let y = if y.start > 0.0 { 0.0..y.end } else { y };
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .margin_right(32)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .x_desc(&series.x)
        .y_desc(&series.y)
        .label_style(("sans-serif", 14))
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .draw()?;
    for (n, line) in series.lines.iter().enumerate() {
        let colour = LINES[n % LINES.len()];
        let points: Vec<_> = line.points.iter().copied().filter(finite).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(3)));
        // A dot for each measured point, unless the dots would overlap.
        if points.len() <= 40 {
            chart.draw_series(points.iter().map(|&at| Circle::new(at, 3, colour.filled())))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(("sans-serif", 14))
        .draw()?;
    root.present()?;
    Ok(())
}

fn finite(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

/// From the least to the greatest, and never empty.
fn range(values: impl Iterator<Item = f64> + Clone) -> Option<Range<f64>> {
    let low = values.clone().reduce(f64::min)?;
    let high = values.reduce(f64::max)?;
    let pad = if high > low { 0.0 } else { low.abs().max(1.0) * 0.1 };
    Some(low - pad..high + pad)
}

/// What the chart shows, for readers who cannot see it.
fn in_words(series: &Series) -> String {
    let mut words = format!("{} over {}.", series.y, series.x);
    for line in &series.lines {
        let mut ends = line.points.iter().filter(|point| finite(point));
        match (ends.clone().next(), ends.next_back()) {
            (Some(first), Some(last)) => {
                let (x1, y1, x2, y2) =
                    (number(first.0), number(first.1), number(last.0), number(last.1));
                let _ = write!(words, " {}: from {y1} at {x1} to {y2} at {x2}.", line.name);
            }
            _ => {
                let _ = write!(words, " {}: no points.", line.name);
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn a_chart_takes_the_pages_colours_and_says_what_it_shows() {
        let svg = chart(&example().series[0]);
        assert!(svg.starts_with(r#"<svg class="chart" role="img" viewBox="#), "{svg:.200}");
        assert!(svg.contains("<title>Squares &amp; &lt;more&gt;</title>"), "{svg:.300}");
        assert!(svg.contains("squares: from 1 at 1 to 9 at 3."), "{svg:.300}");
        assert!(svg.contains("var(--chart-1)") && svg.contains("currentColor"));
        assert!(!svg.contains("#000000") && !svg.contains("#010001"));
    }

    #[test]
    fn points_that_cannot_be_drawn_are_left_out() {
        let mut series = example().series.remove(0);
        series.lines[0].points = vec![(1.0, 2.0)];
        assert!(chart(&series).starts_with("<svg"), "a single point");
        series.lines[0].points = vec![(1.0, f64::NAN), (f64::INFINITY, 1.0), (2.0, 0.0)];
        assert!(chart(&series).starts_with("<svg"), "one that can be drawn");
        series.lines[0].points = vec![(1.0, f64::NAN)];
        assert!(chart(&series).starts_with("<p>"), "none that can be drawn");
        series.lines.clear();
        assert!(chart(&series).starts_with("<p>"), "no line");
    }
}
