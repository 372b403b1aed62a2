//! Which points a bench measures: a choice that takes some ten minutes, one for a minute, or every combination of what
//! was asked for.

use clap::Args;

use crate::frames::{Family, Frames, Transport};
use crate::point::{MAX_CONNECTIONS, Point, Traffic};

/// The axes. What is not given has its usual value; if none is given, the default choice is measured.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Axes (every combination of what is given)")]
pub struct Axes {
    /// What the packets are.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub traffic: Vec<Traffic>,
    /// Connections.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    pub connections: Vec<u32>,
    /// Transport protocols.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub transport: Vec<Transport>,
    /// Versions of IP.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub ip: Vec<Family>,
    /// Lengths of frames.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub frames: Vec<Frames>,
}

impl Axes {
    /// True if nothing was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { traffic, connections, transport, ip, frames } = self;
        traffic.is_empty()
            && connections.is_empty()
            && transport.is_empty()
            && ip.is_empty()
            && frames.is_empty()
    }

    /// The points, and those that cannot be measured with the reason.
    #[must_use]
    pub fn points(&self, quick: bool, base: &Point) -> (Vec<Point>, Vec<String>) {
        let all = match (self.is_empty(), quick) {
            (true, false) => usual(base),
            (true, true) => brief(base),
            (false, _) => self.product(base),
        };
        let (mut points, mut refused) = (Vec::new(), Vec::new());
        for point in all {
            match point.check() {
                Ok(()) => points.push(point),
                Err(reason) if !refused.contains(&reason) => refused.push(reason),
                Err(_) => {}
            }
        }
        (points, refused)
    }

    fn product(&self, base: &Point) -> Vec<Point> {
        fn or<T: Clone>(given: &[T], usual: T) -> Vec<T> {
            if given.is_empty() { vec![usual] } else { given.to_vec() }
        }
        let mut points = Vec::new();
        for traffic in or(&self.traffic, base.traffic) {
            for transport in or(&self.transport, base.transport) {
                for ip in or(&self.ip, base.ip) {
                    for frames in or(&self.frames, base.frames) {
                        for connections in or(&self.connections, base.connections) {
                            let point = base.clone();
                            points.push(Point { traffic, connections, transport, ip, frames, ..point });
                        }
                    }
                }
            }
        }
        points
    }
}

const K: u32 = 1000;
const M: u32 = 1_000_000;

/// Traffic, transport, IP, frames, and over how many connections.
type Line = (Traffic, Transport, Family, Frames, &'static [u32]);

/// The default choice.
fn usual(base: &Point) -> Vec<Point> {
    use Family::{V4, V6};
    use Frames::{Mix, Small};
    use Traffic::{Acl, Established, Forward, Harness, New, NewBeside};
    use Transport::{Tcp, Udp};
    const LINES: [Line; 12] = [
        (Harness, Udp, V4, Small, &[K, 100 * K, M, 10 * M]),
        (Harness, Udp, V4, Mix, &[K]),
        (Forward, Udp, V4, Small, &[K, 100 * K, M]),
        (Acl, Udp, V4, Small, &[K, 100 * K, M]),
        (Acl, Udp, V6, Small, &[K, 100 * K, M]),
        (Acl, Tcp, V6, Small, &[100 * K]),
        (Established, Udp, V4, Small, &[K, 100 * K, M, 10 * M]),
        (Established, Tcp, V4, Small, &[K, 100 * K, M]),
        (Established, Udp, V4, Mix, &[K, 100 * K, M]),
        (New, Udp, V4, Small, &[100 * K, M]),
        (New, Tcp, V4, Small, &[100 * K]),
        (NewBeside, Udp, V4, Small, &[M]),
    ];
    spread(base, &LINES)
}

/// One for a minute.
fn brief(base: &Point) -> Vec<Point> {
    use Traffic::{Acl, Established, Forward, Harness, New, NewBeside};
    let line = |traffic, connections: &'static [u32]| -> Line {
        (traffic, Transport::Udp, Family::V4, Frames::Small, connections)
    };
    spread(
        base,
        &[
            line(Harness, &[K]),
            line(Forward, &[K]),
            line(Acl, &[100 * K]),
            line(Established, &[K, 100 * K, M]),
            line(New, &[100 * K]),
            line(NewBeside, &[M]),
        ],
    )
}

fn spread(base: &Point, lines: &[Line]) -> Vec<Point> {
    let points = lines.iter().flat_map(|&(traffic, transport, ip, frames, connections)| {
        connections.iter().map(move |&connections| Point {
            traffic,
            connections,
            transport,
            ip,
            frames,
            ..base.clone()
        })
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_choices_can_be_measured_and_name_nothing_twice() {
        for quick in [false, true] {
            let (points, refused) = Axes::default().points(quick, &Point::default());
            assert_eq!(refused, [""; 0]);
            for (index, point) in points.iter().enumerate() {
                assert!(!points[..index].contains(point), "{point:?}");
            }
        }
        let (points, _) = Axes::default().points(false, &Point::default());
        for connections in [K, 100 * K, M, 10 * M] {
            let wanted = Point { connections, ..Point::default() };
            assert!(points.contains(&wanted), "established over {connections}");
        }
    }

    #[test]
    fn axes_that_are_given_are_combined_and_the_others_stay() {
        let axes = Axes {
            traffic: vec![Traffic::Acl, Traffic::Established],
            ip: vec![Family::V4, Family::V6],
            connections: vec![5, 7],
            ..Axes::default()
        };
        let base = Point { milliseconds: 3, lab: true, ..Point::default() };
        let (points, refused) = axes.points(true, &base);
        assert_eq!((points.len(), refused.len()), (6, 1), "translation is IPv4's");
        assert!(points.iter().all(|point| point.milliseconds == 3 && point.lab));
    }
}
