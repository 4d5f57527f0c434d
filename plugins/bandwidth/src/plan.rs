//! The queues for the limits, in the kernel's units.

use kernel::rtnl::{Clock, TokenBucket};

use crate::config::{Limit, Settings};

/// The queues that must exist; `None` for a direction without a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// For packets to the pod.
    pub(crate) ingress: Option<TokenBucket>,
    /// For packets from the pod.
    pub(crate) egress: Option<TokenBucket>,
}

impl Plan {
    pub(crate) fn new(settings: &Settings, clock: Clock) -> Self {
        let bucket = |limit| token_bucket(limit, settings.latency, clock);
        Self { ingress: settings.ingress.map(bucket), egress: settings.egress.map(bucket) }
    }

    /// A plan that limits both directions, with any limits.
    pub(crate) fn example(clock: Clock) -> Self {
        let bucket = Some(token_bucket(Limit { rate: 125_000, burst: 12_500 }, 25, clock));
        Self { ingress: bucket, egress: bucket }
    }
}

/// The queue has room for the bytes that leave in `latency` milliseconds, and for a burst.
///
/// Times are rounded down to microseconds, then to ticks, as in the reference plugin and tc.
fn token_bucket(limit: Limit, latency: u32, clock: Clock) -> TokenBucket {
    let Limit { rate, burst } = limit;
    let waiting = u128::from(rate) * u128::from(latency) / 1000 + u128::from(burst);
    let limit = u32::try_from(waiting).unwrap_or(u32::MAX);
    TokenBucket { rate, limit, buffer: buffer(rate, burst, clock) }
}

/// How many ticks a burst lasts. The kernel stores 32 bits, which is 274 seconds. Runtimes send longer bursts
/// to mean "no limit". A longer burst is cut as in the reference plugin, whose CHECK compares it, unless the
/// rest is too short for one packet.
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

/// The result of Go's conversion of a number to 32 bits. For larger numbers, it depends on the processor.
fn as_in_go(number: u128) -> u32 {
    if cfg!(target_arch = "x86_64") {
        let [.., a, b, c, d] = number.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    } else {
        u32::try_from(number).unwrap_or(u32::MAX)
    }
}

/// How a token bucket filter differs from the wanted one; `None` if it does not.
pub(crate) fn deviation(found: &TokenBucket, wanted: &TokenBucket) -> Option<String> {
    if found.rate != wanted.rate {
        let (found, wanted) = (bits(found.rate), bits(wanted.rate));
        return Some(format!("has a rate of {found} bit/s, not {wanted}"));
    }
    if found.limit != wanted.limit {
        return Some(format!("has room for {} bytes, not {}", found.limit, wanted.limit));
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
        // Here the number of microseconds also exceeds 32 bits.
        assert_eq!(bucket(12_500, BURST).buffer, 2_684_353_310);
        assert_eq!(bucket(125_000_000, BURST).buffer, 67_108_859);
        assert_eq!(bucket(1 << 40, u32::MAX).limit, u32::MAX);
    }

    /// At this rate, cutting would reduce half a gigabyte to 273 bytes.
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
        let text = "has room for 5 bytes, not 103125";
        assert_eq!(deviation(&limit, &wanted).as_deref(), Some(text));
        let burst = TokenBucket { buffer: wanted.buffer - 1, ..wanted };
        let text = "has a burst that lasts 12499999 ticks, not 12500000";
        assert_eq!(deviation(&burst, &wanted).as_deref(), Some(text));
    }
}
