//! A plot as SVG: lines over a logarithmic axis of connections. Plain text, as there is nothing in it but a grid, lines
//! and words.

use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;
/// Colours that people who see few of them can tell apart (Okabe and Ito), and dashes when they begin anew.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"];

/// A line, and its name in the legend.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Letters, digits and blanks.
    pub name: String,
    /// Connections, and cycles for each packet.
    pub points: Vec<(u32, f64)>,
}

/// The whole file. Lines without points are left out; without any line there is a grid alone.
#[must_use]
pub fn svg(title: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let first = decade(points().map(|point| point.0).min().unwrap_or(1000)).floor();
    let last = decade(points().map(|point| point.0).max().unwrap_or(10_000)).ceil().max(first + 1.0);
    let step = step(points().map(|point| point.1).fold(1.0, f64::max));
    let steps = (points().map(|point| point.1).fold(1.0, f64::max) / step).ceil();
    let x = |connections: u32| LEFT + (decade(connections) - first) / (last - first) * (WIDTH - LEFT - RIGHT);
    let y = |cycles: f64| HEIGHT - BOTTOM - cycles / (step * steps) * (HEIGHT - TOP - BOTTOM);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{title}</text>\n"
    );
    let right = WIDTH - RIGHT;
    let mut at = 0.0;
    while at <= steps {
        let (cycles, height) = (at * step, y(at * step));
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {height:.1}H{right}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{cycles:.0}</text>",
            LEFT - 8.0,
            height + 4.0
        );
        at += 1.0;
    }
    for (power, name) in (0..).zip(DECADES) {
        if (first..=last).contains(&f64::from(power)) {
            let place = x(10_u32.pow(power));
            let _ = writeln!(
                text,
                "<path d=\"M{place:.1} {TOP}V{}\" stroke=\"#ddd\"/>\
                 <text x=\"{place:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 20.0
            );
        }
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">connections</text>\n\
         <text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">cycles for each packet</text>",
        f64::midpoint(LEFT, right),
        HEIGHT - 16.0,
        f64::midpoint(TOP, HEIGHT - BOTTOM)
    );
    let mut legend = TOP + 8.0;
    for (index, line) in lines.iter().filter(|line| !line.points.is_empty()).enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let dash = if index < COLOURS.len() { "" } else { " stroke-dasharray=\"6 4\"" };
        let path: Vec<String> = line
            .points
            .iter()
            .map(|&(connections, cycles)| format!("{:.1} {:.1}", x(connections), y(cycles)))
            .collect();
        let _ = writeln!(
            text,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            path.join("L")
        );
        for &(connections, cycles) in &line.points {
            let _ = writeln!(
                text,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(connections),
                y(cycles)
            );
        }
        let _ = writeln!(
            text,
            "<path d=\"M{} {legend:.1}h24\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
             <text x=\"{}\" y=\"{:.1}\">{}</text>",
            right + 16.0,
            right + 46.0,
            legend + 4.0,
            line.name
        );
        legend += 20.0;
    }
    text.push_str("</svg>\n");
    text
}

/// Names of the powers of ten.
const DECADES: [&str; 9] = ["1", "10", "100", "1 k", "10 k", "100 k", "1 M", "10 M", "100 M"];

fn decade(connections: u32) -> f64 {
    f64::from(connections.max(1)).log10()
}

/// 1, 2 or 5 times a power of ten, so that some five to ten of them make `most`.
fn step(most: f64) -> f64 {
    let power = 10_f64.powf((most / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|factor| factor * power);
    steps.into_iter().find(|step| most / step <= 10.0).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_neither_few_nor_many() {
        for (most, wanted) in
            [(1.0, 0.1), (9.0, 1.0), (90.0, 10.0), (340.0, 50.0), (1200.0, 200.0), (10_000.0, 1000.0)]
        {
            assert!((step(most) - wanted).abs() < 1e-9, "{most}: {}", step(most));
        }
    }

    #[test]
    fn every_line_and_point_is_drawn_within_the_frame() {
        let line =
            |name: &str, points: &[(u32, f64)]| Line { name: name.to_owned(), points: points.to_vec() };
        let lines: Vec<Line> = (0..9)
            .map(|number| {
                line(&format!("line {number}"), &[(1000, 10.0), (10_000_000, 300.0 + f64::from(number))])
            })
            .chain([line("nothing", &[])])
            .collect();
        let text = svg("cycles", &lines);
        assert_eq!((text.matches("<circle").count(), text.matches("stroke-dasharray").count()), (18, 4));
        assert!(text.contains(">10 M<") && text.contains(">1 k<") && !text.contains(">100 M<"));
        assert!(!text.contains("nothing") && text.ends_with("</svg>\n"));
        for circle in text.lines().filter(|line| line.starts_with("<circle")) {
            let number = |key: &str| -> f64 {
                circle.split(key).nth(1).and_then(|rest| rest.split('"').next()).unwrap().parse().unwrap()
            };
            assert!((LEFT..=WIDTH - RIGHT).contains(&number("cx=\"")), "{circle}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&number("cy=\"")), "{circle}");
        }
        assert!(svg("nothing", &[]).contains(">10 k<"));
    }
}
