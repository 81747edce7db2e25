//! plot: the last minutes of a figure as a small SVG.

use maud::{Markup, html};

/// The drawing's own units: the browser stretches it to its place.
const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 48.0;

/// Draws `values`, the oldest first and a tick apart, as an area; `slots` is how many fit.
pub(super) fn plot(values: &[f64], slots: usize, label: &str) -> Markup {
    let top = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let (line, area) = shapes(values, slots, top);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(label) {
            title { (label) }
            line.grid x1="0" x2=(WIDTH) y1=(HEIGHT - 0.5) y2=(HEIGHT - 0.5) {}
            @if top > 0.0 {
                path.area d=(area) {}
                path.line d=(line) {}
            }
        }
    }
}

/// The path of the line and that of the area below; the newest value stands at the right edge.
#[expect(clippy::cast_precision_loss, reason = "at most as many values as are kept")]
fn shapes(values: &[f64], slots: usize, top: f64) -> (String, String) {
    let step = WIDTH / (slots.max(2) - 1) as f64;
    let left = WIDTH - step * values.len().saturating_sub(1) as f64;
    // A pixel stays free at the top for the line's width.
    let y = |value: f64| HEIGHT - 1.0 - (value / top.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0) * (HEIGHT - 3.0);
    let points = values.iter().enumerate().map(|(at, value)| {
        let value = if value.is_finite() { *value } else { top };
        format!("{:.1},{:.1}", left + step * at as f64, y(value))
    });
    let points: Vec<String> = points.collect();
    let line = format!("M{}", points.join("L"));
    let area = format!("M{left:.1},{HEIGHT}L{}L{WIDTH},{HEIGHT}Z", points.join("L"));
    (line, area)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_stands_at_the_right_and_the_highest_at_the_top() {
        let (line, area) = shapes(&[0.0, 10.0, 5.0], 5, 10.0);
        assert_eq!(line, "M120.0,47.0L180.0,2.0L240.0,24.5");
        assert!(area.starts_with("M120.0,48L120.0,47.0L") && area.ends_with("L240,48Z"), "{area}");
    }

    #[test]
    fn nothing_and_infinity_are_drawn_without_harm() {
        assert!(!plot(&[], 60, "depth").into_string().contains("path"));
        assert!(!plot(&[0.0; 60], 60, "depth").into_string().contains("path"));
        let drawn = plot(&[1.0, f64::INFINITY, f64::NAN], 60, "a\"<b>").into_string();
        assert!(
            drawn.contains("a&quot;&lt;b&gt;") && !drawn.contains("NaN") && !drawn.contains("inf"),
            "{drawn}"
        );
    }
}
