//! Pictures of figures, as SVG: lines over an axis, and bars in time. As much as the page needs, and no more.

use std::{fmt::Write, fs, path::PathBuf};

/// Colours that people who see few of them tell apart (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];
const WIDTH: f64 = 860.0;

/// Figures that depend on another.
pub struct Curves<'a> {
    /// What it shows.
    pub title: &'a str,
    /// What the figures depend on.
    pub across: &'a str,
    /// What they count.
    pub up: &'a str,
    /// Whose, and where its points are.
    pub curves: Vec<(&'a str, Vec<(f64, f64)>)>,
}

impl Curves<'_> {
    /// Draws it to a file of that name, where somebody has asked for pictures. Nothing is drawn of what has no two points.
    pub fn draw(&self, name: &str) {
        const HEIGHT: f64 = 400.0;
        let (left, right, top, bottom) = (70.0, 280.0, 50.0, 55.0);
        if self.curves.iter().all(|(_, points)| points.len() < 2) {
            return;
        }
        let points = || self.curves.iter().flat_map(|(_, points)| points);
        let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
        let (widest, step) = (most(|point| point.0), step(most(|point| point.1)));
        let highest = (most(|point| point.1) / step).ceil() * step;
        let x = |value: f64| left + value / widest * (WIDTH - left - right);
        let y = |value: f64| HEIGHT - bottom - value / highest * (HEIGHT - top - bottom);
        let mut svg = String::new();
        text(&mut svg, left, 25.0, "start", "bold", self.title);
        text(&mut svg, left, 42.0, "start", "normal", self.up);
        text(&mut svg, (left + WIDTH - right) / 2.0, HEIGHT - 12.0, "middle", "normal", self.across);
        for mark in 0..=(highest / step).round() as u32 {
            let value = f64::from(mark) * step;
            line(&mut svg, (left, y(value)), (WIDTH - right, y(value)), "#dddddd");
            text(&mut svg, left - 8.0, y(value) + 4.0, "end", "normal", &plain(value));
        }
        let mut marks: Vec<f64> = points().map(|point| point.0).collect();
        marks.sort_unstable_by(f64::total_cmp);
        marks.dedup();
        for value in marks {
            line(&mut svg, (x(value), HEIGHT - bottom), (x(value), HEIGHT - bottom + 5.0), "#333333");
            text(&mut svg, x(value), HEIGHT - bottom + 18.0, "middle", "normal", &plain(value));
        }
        line(&mut svg, (left, HEIGHT - bottom), (WIDTH - right, HEIGHT - bottom), "#333333");
        for (at, ((name, points), colour)) in self.curves.iter().zip(COLOURS).enumerate() {
            let path: Vec<String> =
                points.iter().map(|(across, up)| format!("{:.1},{:.1}", x(*across), y(*up))).collect();
            let path = path.join(" ");
            let _ =
                writeln!(svg, "<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>");
            for (across, up) in points {
                let _ = writeln!(
                    svg,
                    "<circle cx='{:.1}' cy='{:.1}' r='3.5' fill='{colour}'/>",
                    x(*across),
                    y(*up)
                );
            }
            let height = top + 10.0 + 20.0 * at as f64;
            let _ = writeln!(
                svg,
                "<rect x='{}' y='{}' width='12' height='12' fill='{colour}'/>",
                WIDTH - right + 15.0,
                height - 10.0
            );
            text(&mut svg, WIDTH - right + 33.0, height, "start", "normal", name);
        }
        write(name, HEIGHT, &svg);
    }
}

/// What happened one after the other, as bars in time: what ended, when it began and when it ended, in seconds.
pub fn bars(name: &str, title: &str, spans: &[(String, f64, f64)]) {
    let (left, right, top, each) = (400.0, 70.0, 45.0, 22.0);
    let end = spans.iter().map(|span| span.2).fold(0.0, f64::max);
    if end <= 0.0 {
        return;
    }
    let step = step(end);
    let x = |value: f64| left + value / end * (WIDTH - left - right);
    let bottom = top + each * spans.len() as f64;
    let mut svg = String::new();
    text(&mut svg, 12.0, 25.0, "start", "bold", title);
    for mark in 0..=(end / step).floor() as u32 {
        let value = f64::from(mark) * step;
        line(&mut svg, (x(value), top), (x(value), bottom), "#dddddd");
        text(&mut svg, x(value), bottom + 18.0, "middle", "normal", &format!("{} s", plain(value)));
    }
    for (at, (what, from, to)) in spans.iter().enumerate() {
        let above = top + each * at as f64;
        text(&mut svg, left - 10.0, above + 15.0, "end", "normal", what);
        let _ = writeln!(
            svg,
            "<rect x='{:.1}' y='{:.1}' width='{:.1}' height='{}' fill='{}'/>",
            x(*from),
            above + 3.0,
            // What took no time that can be seen is seen to have been there.
            (x(*to) - x(*from)).max(1.0),
            each - 6.0,
            COLOURS[0]
        );
        text(&mut svg, x(*to) + 6.0, above + 15.0, "start", "normal", &format!("{:.3}", to - from));
    }
    write(name, bottom + 30.0, &svg);
}

/// Figures of several, as bars side by side for each thing; the axis has its ones marked, as they are ratios.
pub fn bars_by_name(name: &str, title: &str, names: &[&str], things: &[(String, Vec<f64>)]) {
    let (left, right, top, each) = (340.0, 70.0, 70.0, 16.0);
    let end = things.iter().flat_map(|(_, ratios)| ratios).fold(1.0f64, |most, ratio| most.max(*ratio));
    if things.is_empty() {
        return;
    }
    let x = |value: f64| left + value / end * (WIDTH - left - right);
    let group = each * names.len() as f64 + 10.0;
    let bottom = top + group * things.len() as f64;
    let mut svg = String::new();
    text(&mut svg, 12.0, 25.0, "start", "bold", title);
    for (at, (who, colour)) in names.iter().zip(COLOURS).enumerate() {
        let across = 12.0 + 120.0 * at as f64;
        let _ = writeln!(svg, "<rect x='{across}' y='36' width='12' height='12' fill='{colour}'/>");
        text(&mut svg, across + 18.0, 47.0, "start", "normal", who);
    }
    line(&mut svg, (x(1.0), top - 5.0), (x(1.0), bottom), "#333333");
    text(&mut svg, x(1.0), bottom + 15.0, "middle", "normal", "1");
    for (at, (what, ratios)) in things.iter().enumerate() {
        let above = top + group * at as f64;
        text(&mut svg, left - 10.0, above + group / 2.0, "end", "normal", what);
        for (number, (ratio, colour)) in ratios.iter().zip(COLOURS).enumerate() {
            let y = above + each * number as f64;
            let _ = writeln!(
                svg,
                "<rect x='{left}' y='{:.1}' width='{:.1}' height='{}' fill='{colour}'/>",
                y,
                (x(*ratio) - left).max(1.0),
                each - 3.0
            );
            text(&mut svg, x(*ratio) + 6.0, y + 11.0, "start", "normal", &format!("{ratio:.2}"));
        }
    }
    write(name, bottom + 25.0, &svg);
}

/// A round number, of which some five reach as far as `most`.
fn step(most: f64) -> f64 {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|times| times * power)
        .into_iter()
        .find(|step| step * 5.0 >= most)
        .unwrap_or(most)
}

/// A number on an axis, without the zeros behind it.
fn plain(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<line x1='{:.1}' y1='{:.1}' x2='{:.1}' y2='{:.1}' stroke='{colour}'/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, weight: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}' font-weight='{weight}'>{words}</text>"
    );
}

/// A ground of its own: pages are dark, too.
fn write(name: &str, height: f64, inside: &str) {
    let Some(directory) = std::env::var_os("HUSK_PICTURES").map(PathBuf::from) else { return };
    let svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' \
         font-family='sans-serif' font-size='12' fill='#222222'>\n<rect width='100%' height='100%' fill='white'/>\n{inside}</svg>\n"
    );
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join(name).with_extension("svg"), svg).expect("it can be written");
    println!("![{name}](benchmarks/{name}.svg)\n");
}

#[cfg(test)]
mod tests {
    use super::step;

    #[test]
    fn steps_are_round_and_some_five_of_them_reach_the_top() {
        for (most, wanted) in [(1.0, 0.2), (4.9, 1.0), (5.1, 2.0), (0.03, 0.01), (800.0, 200.0), (0.0, 0.2)] {
            assert!((step(most) - wanted).abs() < 1e-9, "{most}: {}", step(most));
        }
    }
}
