//! `cargo xtask bench --rates`: measures how fast packets enter and leave a pod that has limits.
//!
//! bandwidth limits the bits of whole frames, with the Ethernet header; iperf3 counts the bytes in TCP
//! segments that arrive. The headers are added here.

use std::fmt::Write;
use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use ::tests::NODE;
use serde_json::Value;

use super::config::{V4, bandwidth, ptp};
use super::error::BenchError;
use super::scale::median;
use super::scenario::Step;
use super::{Contender, Place};
use crate::command::Failure;

/// The namespace of the pod.
const POD: &str = "pod";
/// The limits, in Mbit/s.
const ASKED: [u32; 2] = [10, 1000];
/// The burst: what passes in this many milliseconds at the limit.
const BURST: u64 = 80;
const DIRECTIONS: [&str; 2] = ["into the pod", "out of the pod"];
/// The headers of Ethernet, IPv4, and TCP with timestamps.
const HEADERS: f64 = 14.0 + 20.0 + 32.0;
/// In seconds. When counting starts, the burst is used up and TCP has reached its rate.
const WARM_UP: &str = "2";
const COUNTED: &str = "5";
/// How often the client tries until the server listens, and the pause between two tries.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Measures and returns the table.
pub(super) fn measure(rounds: usize, places: &[Place; 2]) -> Result<String, Failure> {
    let mut text = format!(
        "\n{:14} {:>9}   {:>38}   {:>38}\n",
        "Mbit/s", "asked", "ours, median (all runs)", "go, median (all runs)"
    );
    for asked in ASKED {
        let [ours, go] = places;
        let mut pods = [Pod::new(ours, asked)?, Pod::new(go, asked)?];
        for round in 0..rounds {
            eprintln!("Measuring {asked} Mbit/s (round {} of {rounds})", round + 1);
            for direction in 0..DIRECTIONS.len() {
                for pod in &mut pods {
                    let rate = pod.rate(direction)?;
                    pod.rates[direction].push(rate);
                }
            }
        }
        for (direction, name) in DIRECTIONS.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name:14} {asked:9}");
            for pod in &mut pods {
                let _ = write!(text, "   {:>38}", summary(&mut pod.rates[direction], asked));
            }
            text.push('\n');
        }
    }
    Ok(text)
}

/// A pod with limits, in which an iperf3 server listens.
struct Pod {
    contender: Contender,
    address: String,
    server: Child,
    /// The rates measured in each direction, in Mbit/s.
    rates: [Vec<f64>; 2],
}

impl Pod {
    fn new(place: &Place, asked: u32) -> Result<Self, Failure> {
        let contender = Contender::new(place);
        contender.world.add_netns(POD);
        let rate = u64::from(asked) * 1_000_000;
        let chain = [ptp(&[V4]), bandwidth(rate, rate * BURST / 1000)];
        let mut result = Value::Null;
        for step in chain.map(Step::of) {
            let request = step.request(&result);
            result = contender.call("ADD", &step, &request, POD, POD)?.1;
        }
        let address = result["ips"][0]["address"].as_str().unwrap_or_default();
        let address = address.split('/').next().unwrap_or_default().to_owned();
        let mut server = Command::new("iperf3");
        server.arg("--server").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = contender.world.inside(POD, || server.spawn()).map_err(start)?;
        Ok(Self { contender, address, server, rates: Default::default() })
    }

    /// The rate on the link in Mbit/s, as the receiver counts it.
    fn rate(&self, direction: usize) -> Result<f64, BenchError> {
        let mut report = Value::Null;
        for _ in 0..TRIES {
            let output = self.client(direction).map_err(start)?;
            report = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if output.status.success() {
                break;
            }
            thread::sleep(PAUSE);
        }
        let received = report["end"]["sum_received"]["bits_per_second"].as_f64();
        let segment = report["start"]["tcp_mss_default"].as_f64().filter(|segment| *segment > 0.0);
        let (Some(received), Some(segment)) = (received, segment) else {
            return Err(BenchError::Iperf(report["error"].to_string()));
        };
        Ok(received * (segment + HEADERS) / segment / 1e6)
    }

    fn client(&self, direction: usize) -> io::Result<Output> {
        let mut client = Command::new("iperf3");
        client.args(["--json", "--omit", WARM_UP, "--time", COUNTED, "--client", &self.address]);
        if direction == 1 {
            client.arg("--reverse");
        }
        self.contender.world.inside(NODE, || client.output())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn start(error: io::Error) -> BenchError {
    BenchError::Start("iperf3".into(), error)
}

/// The median, its difference from the limit, and the extremes.
fn summary(rates: &mut [f64], asked: u32) -> String {
    let middle = median(rates);
    let off = (middle / f64::from(asked) - 1.0) * 100.0;
    let [least, .., most] = rates else { return format!("{middle:.2} {off:+.2} %") };
    format!("{middle:.2} {off:+.2} % ({least:.2} to {most:.2})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_the_median_and_how_far_it_is_off() {
        assert_eq!(summary(&mut [9.9, 10.2, 10.1], 10), "10.10 +1.00 % (9.90 to 10.20)");
        assert_eq!(summary(&mut [9.5], 10), "9.50 -5.00 %");
    }
}
