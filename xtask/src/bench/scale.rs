//! `cargo xtask bench --scale`: what the pods that are there cost the next one, and its visitors.
//!
//! The pod that is measured comes last, with a hostPort; those before it are no more than portmap's
//! rules for them, which is all that the next one gets to feel.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::config::{V4, portmap_of, ptp};
use super::scenario::Step;
use super::{BenchError, Contender, Place};
use crate::command::Failure;
use crate::demo::machine::Machine;
use crate::demo::{NODE, join};

const BACKENDS: [&str; 2] = ["iptables", "nftables"];
/// How many pods there are, with the one that is measured.
const SIZES: [u16; 2] = [10, 1000];
const CONNECTIONS: u32 = 1000;
const HOST_PORT: u16 = 8080;
const POD_PORT: u16 = 80;
const FIRST_PORT: u16 = 20_000;

/// One size with one backend: what was measured of both, a pair a line.
struct Row {
    pods: u16,
    backend: &'static str,
    what: &'static str,
    ours: f64,
    go: f64,
}

/// A contender on a node with a cable to a machine outside.
struct Site {
    contender: Contender,
    outside: Machine,
    pod: Machine,
    pods: u16,
    adds: Vec<f64>,
    rates: Vec<f64>,
}

/// Measures, and returns the table.
pub(super) fn measure(
    rounds: usize,
    places: &[Place; 2],
    leases: &Path,
) -> Result<String, Failure> {
    let mut rows = Vec::new();
    for backend in BACKENDS {
        let [ours, go] = places;
        let mut sites = [Site::new(ours, leases)?, Site::new(go, leases)?];
        for size in SIZES {
            for site in &mut sites {
                eprintln!("Adding pods up to {size}, {backend}");
                site.fill(backend, size - 1)?;
            }
            eprintln!("Measuring with {size} pods, {backend} ({rounds} rounds)");
            for _ in 0..rounds {
                for site in &mut sites {
                    site.round(backend)?;
                }
            }
            let [ours, go] = &mut sites;
            let row = |what, ours, go| Row { pods: size, backend, what, ours, go };
            rows.push(row("ADD of portmap, ms", median(&mut ours.adds), median(&mut go.adds)));
            rows.push(row("connections/s", median(&mut ours.rates), median(&mut go.rates)));
        }
    }
    Ok(table(&rows))
}

impl Site {
    fn new(place: &Place, leases: &Path) -> Result<Self, Failure> {
        let contender = Contender::new(place, leases)?;
        let (outside, pod) = (Machine::new("outside")?, Machine::new("pod")?);
        join(&outside, &contender.node)?;
        Ok(Self { contender, outside, pod, pods: 0, adds: Vec::new(), rates: Vec::new() })
    }

    fn fill(&mut self, backend: &str, size: u16) -> Result<(), Failure> {
        let netns = self.pod.netns();
        for n in self.pods..size {
            let portmap = Step::of(portmap_of(backend, &[(FIRST_PORT + n, POD_PORT)]));
            let [high, low] = n.to_be_bytes();
            let address = format!("10.99.{high}.{low}/16");
            let request = portmap.request(&json!({"ips": [{"address": address}]}));
            self.contender.call("ADD", &portmap, &request, &format!("earlier-{n}"), &netns)?;
        }
        self.pods = size;
        Ok(())
    }

    /// A pod comes, is visited, and goes.
    fn round(&mut self, backend: &str) -> Result<(), Failure> {
        let ptp = Step::of(ptp(&self.contender.leases, &[V4]));
        let portmap = Step::of(portmap_of(backend, &[(HOST_PORT, POD_PORT)]));
        let (_, result) = self.call("ADD", &ptp, &Value::Null)?;
        let (took, result) = self.call("ADD", &portmap, &result)?;
        self.adds.push(took.as_secs_f64() * 1000.0);
        self.rates.push(self.visit()?);
        self.call("DEL", &portmap, &result)?;
        self.call("DEL", &ptp, &result)?;
        Ok(())
    }

    fn call(
        &self,
        command: &str,
        step: &Step,
        previous: &Value,
    ) -> Result<(Duration, Value), BenchError> {
        let netns = self.pod.netns();
        self.contender.call(command, step, &step.request(previous), "last", &netns)
    }

    /// Connections in a second, one after the other.
    fn visit(&self) -> Result<f64, BenchError> {
        let listener = self.pod.run(|| TcpListener::bind(("0.0.0.0", POD_PORT)));
        let listener = listener.map_err(BenchError::Visit)?;
        let server =
            thread::spawn(move || (0..CONNECTIONS).try_for_each(|_| listener.accept().map(drop)));
        let visits = self.outside.run(|| {
            let begin = Instant::now();
            let address = SocketAddr::from((NODE, HOST_PORT));
            (0..CONNECTIONS)
                .try_for_each(|_| {
                    TcpStream::connect_timeout(&address, Duration::from_secs(5)).map(drop)
                })
                .map(|()| begin.elapsed())
        });
        let took = visits.map_err(BenchError::Visit)?;
        // It has accepted all of them, or the visits had failed.
        let _ = server.join();
        Ok(f64::from(CONNECTIONS) / took.as_secs_f64())
    }
}

/// The median of what was measured since the last time.
fn median(values: &mut Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2).copied().unwrap_or_default();
    values.clear();
    middle
}

fn table(rows: &[Row]) -> String {
    let mut text =
        format!("\n{:>5} {:10} {:20} {:>9} {:>9} {:>7}\n", "pods", "", "", "ours", "go", "ratio");
    for Row { pods, backend, what, ours, go } in rows {
        let ratio = ours / go;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{pods:5} {backend:10} {what:20} {ours:9.2} {go:9.2} {ratio:7.2}");
    }
    text
}
