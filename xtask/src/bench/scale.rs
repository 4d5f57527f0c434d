//! `cargo xtask bench --scale`: measures how the number of pods affects the next pod and connections.
//!
//! Nodes with few pods and with many exist at the same time and are measured alternately, because a
//! machine behaves differently after a thousand pods.

use std::fmt::Write;

use super::Place;
use super::site::Site;
use crate::command::Failure;

const BACKENDS: [&str; 2] = ["iptables", "nftables"];
/// The numbers of pods, including the measured one.
const SIZES: [u16; 2] = [10, 1000];

/// Measures and returns the table.
pub(super) fn measure(rounds: usize, places: &[Place; 2]) -> Result<String, Failure> {
    let mut text =
        format!("\n{:10} {:24} {:>5} {:>9} {:>9} {:>7}\n", "", "", "pods", "ours", "go", "ratio");
    for backend in BACKENDS {
        let mut sites = Vec::new();
        for size in SIZES {
            for place in places {
                eprintln!("Adding {size} pods, {backend}, {}", place.0);
                sites.push(Site::new(place, backend, size)?);
            }
        }
        eprintln!("Measuring, {backend} ({rounds} rounds)");
        // The first round resolves neighbours and fills caches; it is not measured.
        for round in 0..=rounds {
            let mut turn: Vec<_> = sites.iter_mut().collect();
            if round % 2 == 1 {
                turn.reverse();
            }
            for site in turn {
                site.round()?;
            }
            if round == 0 {
                for site in &mut sites {
                    site.measured = Default::default();
                }
            }
        }
        for (figure, what) in Site::FIGURES.iter().enumerate() {
            let of_size = sites.chunks_mut(places.len()).zip(SIZES);
            for (sites, pods) in of_size {
                let medians = sites.iter_mut().map(|site| median(&mut site.measured[figure]));
                let [ours, go] = medians.collect::<Vec<_>>()[..] else { continue };
                let ratio = ours / go;
                // Writing to a String cannot fail.
                let _ = writeln!(
                    text,
                    "{backend:10} {what:24} {pods:5} {ours:9.2} {go:9.2} {ratio:7.2}"
                );
            }
        }
    }
    Ok(text)
}

/// The median; 0 for an empty list.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
