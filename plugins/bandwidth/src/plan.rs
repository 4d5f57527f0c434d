//! The queues that limits come to, in the kernel's units.

use kernel::rtnl::{Clock, TokenBucket};

use crate::config::{Limit, Settings};

/// What is to be there; `None` for what is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// For what enters the pod.
    pub(crate) ingress: Option<TokenBucket>,
    /// For what leaves the pod.
    pub(crate) egress: Option<TokenBucket>,
}

impl Plan {
    pub(crate) fn new(settings: &Settings, clock: Clock) -> Self {
        let bucket = |limit| token_bucket(limit, settings.latency, clock);
        Self { ingress: settings.ingress.map(bucket), egress: settings.egress.map(bucket) }
    }

    /// Both directions limited, it does not matter to what.
    pub(crate) fn example(clock: Clock) -> Self {
        let bucket = Some(token_bucket(Limit { rate: 125_000, burst: 12_500 }, 25, clock));
        Self { ingress: bucket, egress: bucket }
    }
}

/// As many bytes can wait as leave in `latency` milliseconds, and a burst on top.
///
/// Times are cut to microseconds, then to ticks, as the reference plugin and tc do it.
fn token_bucket(limit: Limit, latency: u32, clock: Clock) -> TokenBucket {
    let Limit { rate, burst } = limit;
    let waiting = u128::from(rate) * u128::from(latency) / 1000 + u128::from(burst);
    let limit = u32::try_from(waiting).unwrap_or(u32::MAX);
    TokenBucket { rate, limit, buffer: buffer(rate, burst, clock) }
}

/// How many ticks a burst lasts. 32 bits hold 274 seconds of them, and less than what runtimes send for
/// no limit at all; of a longer burst they keep what the reference plugin's would, whose CHECK compares it,
/// unless no packet could get through.
fn buffer(rate: u64, burst: u32, clock: Clock) -> u32 {
    const LARGEST_PACKET: u64 = 1 << 16;
    let ticks = |bytes: u64, cut: fn(u128) -> u32| {
        let microseconds = cut(u128::from(bytes) * 1_000_000 / u128::from(rate));
        cut(clock.ticks(microseconds.into()))
    };
    let longest = |time| u32::try_from(time).unwrap_or(u32::MAX);
    let (whole, kept) = (ticks(burst.into(), longest), ticks(burst.into(), as_in_go));
    if kept < whole && kept < ticks(LARGEST_PACKET, longest) { whole } else { kept }
}

/// What Go makes of a number that 32 bits do not hold: that depends on the processor.
fn as_in_go(number: u128) -> u32 {
    if cfg!(target_arch = "x86_64") {
        let [.., a, b, c, d] = number.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    } else {
        u32::try_from(number).unwrap_or(u32::MAX)
    }
}

/// In which way a token bucket filter is not the one that is wanted.
pub(crate) fn deviation(found: &TokenBucket, wanted: &TokenBucket) -> Option<String> {
    if found.rate != wanted.rate {
        let (found, wanted) = (bits(found.rate), bits(wanted.rate));
        return Some(format!("has a rate of {found} bit/s, not {wanted}"));
    }
    if found.limit != wanted.limit {
        return Some(format!("lets {} bytes wait, not {}", found.limit, wanted.limit));
    }
    (found.buffer != wanted.buffer)
        .then(|| format!("has a burst that lasts {} ticks, not {}", found.buffer, wanted.buffer))
}

fn bits(bytes: u64) -> u128 {
    u128::from(bytes) * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: u64, burst: u32) -> TokenBucket {
        token_bucket(Limit { rate, burst }, 25, Clock::read().unwrap())
    }

    /// From `tc -d qdisc` and strace, after an ADD of the reference plugin.
    #[test]
    fn queues_are_those_of_the_reference_plugin() {
        let small = TokenBucket { rate: 125_000, limit: 103_125, buffer: 12_500_000 };
        assert_eq!(bucket(125_000, 100_000), small);
        let uneven = TokenBucket { rate: 375_000, limit: 109_375, buffer: 4_166_656 };
        assert_eq!(bucket(375_000, 100_000), uneven);
    }

    /// containerd sends the largest burst of 32 bits.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn long_bursts_are_those_of_the_reference_plugin() {
        const BURST: u32 = u32::MAX / 8;
        let limit = 31_250 + BURST;
        let cut = TokenBucket { rate: 1_250_000, limit, buffer: 2_415_919_079 };
        assert_eq!(bucket(1_250_000, BURST), cut);
        // Here microseconds have no room, either.
        assert_eq!(bucket(12_500, BURST).buffer, 2_684_353_310);
        assert_eq!(bucket(125_000_000, BURST).buffer, 67_108_859);
        assert_eq!(bucket(1 << 40, u32::MAX).limit, u32::MAX);
    }

    /// At this rate, the time that 273 bytes take would be left of half a gigabyte's.
    #[test]
    fn a_long_burst_lets_packets_through() {
        assert_eq!(bucket(1_953_124, u32::MAX / 8).buffer, u32::MAX);
    }

    #[test]
    fn deviations_are_named() {
        let wanted = bucket(125_000, 100_000);
        assert_eq!(deviation(&wanted, &wanted), None);
        let rate = TokenBucket { rate: 250_000, ..wanted };
        let text = "has a rate of 2000000 bit/s, not 1000000";
        assert_eq!(deviation(&rate, &wanted).as_deref(), Some(text));
        let limit = TokenBucket { limit: 5, ..wanted };
        let text = "lets 5 bytes wait, not 103125";
        assert_eq!(deviation(&limit, &wanted).as_deref(), Some(text));
        let burst = TokenBucket { buffer: wanted.buffer - 1, ..wanted };
        let text = "has a burst that lasts 12499999 ticks, not 12500000";
        assert_eq!(deviation(&burst, &wanted).as_deref(), Some(text));
    }
}
