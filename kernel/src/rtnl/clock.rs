//! The clock of queueing disciplines.

use std::fs;
use std::io;

use crate::error::{Error, Result};

/// Converts times to ticks. All kernels since 2.6.31 have 15.625 ticks in a microsecond, but tc(8) asks the
/// kernel nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Ticks in `per` microseconds.
    ticks: u64,
    per: u64,
}

const PATH: &str = "/proc/net/psched";

impl Clock {
    /// Reads the kernel's description.
    pub fn read() -> Result<Self> {
        let operation = || format!("read {PATH}");
        let text = fs::read_to_string(PATH).map_err(|error| Error::new(operation(), error))?;
        let no_clock = || {
            let why = format!("{:?} does not describe a clock", text.trim_end());
            Error::new(operation(), io::Error::new(io::ErrorKind::InvalidData, why))
        };
        Self::parse(&text).ok_or_else(no_clock)
    }

    /// Reads three numbers: nanoseconds in a microsecond, nanoseconds in a tick, and the resolution of the
    /// clock, which scales both.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace();
        let mut number = || numbers.next().and_then(|word| u32::from_str_radix(word, 16).ok());
        let (in_microsecond, in_tick, resolution) = (number()?, number()?, number()?);
        let ticks = u64::from(in_microsecond) * u64::from(resolution);
        let per = u64::from(in_tick) * 1_000_000;
        (ticks > 0 && per > 0).then_some(Self { ticks, per })
    }

    /// The ticks in a number of microseconds.
    #[must_use]
    pub fn ticks(&self, microseconds: u64) -> u128 {
        u128::from(microseconds) * u128::from(self.ticks) / u128::from(self.per)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_all_kernels() {
        let clock = Clock::parse("000003e8 00000040 000f4240 3b9aca00\n").unwrap();
        assert_eq!(clock.ticks(16), 250);
        assert_eq!(clock.ticks(1), 15);
        assert_eq!(clock.ticks(u64::MAX), u128::from(u64::MAX) * 125 / 8);
        assert_eq!(Clock::read().unwrap(), clock);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "000003e8 00000040", "000003e8 00000000 000f4240", "x y z"] {
            assert_eq!(Clock::parse(text), None, "{text}");
        }
    }
}
