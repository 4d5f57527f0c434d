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
    let microseconds = u64::from(burst) * 1_000_000 / rate;
    let ticks = clock.ticks(microseconds);
    // The kernel tells of a longer time what 32 bits hold of it.
    let [.., a, b, c, d] = ticks.to_be_bytes();
    TokenBucket {
        rate,
        limit: u32::try_from(waiting).unwrap_or(u32::MAX),
        buffer: u32::from_be_bytes([a, b, c, d]),
        burst: u32::try_from(ticks).is_err().then_some(burst),
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
    let difference = found.buffer.wrapping_sub(wanted.buffer).cast_signed().unsigned_abs();
    (u64::from(difference) > slack(wanted))
        .then(|| format!("has a burst that lasts {} ticks, not {}", found.buffer, wanted.buffer))
}

fn bits(bytes: u64) -> u128 {
    u128::from(bytes) * 8
}

/// How far the kernel's own count of ticks can be from ours, which is used for long bursts: by one
/// microsecond, and by the precision with which it notes the rate, 31 bits.
fn slack(wanted: &TokenBucket) -> u64 {
    const TICKS_IN_MICROSECOND: u64 = 16;
    wanted.burst.map_or(0, |burst| {
        let microseconds = u64::from(burst) * 1_000_000 / wanted.rate;
        TICKS_IN_MICROSECOND + (microseconds >> 30) * TICKS_IN_MICROSECOND
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(rate: u64, burst: u32) -> TokenBucket {
        token_bucket(Limit { rate, burst }, 25, Clock::read().unwrap())
    }

    /// From `tc -d qdisc` and strace, after an ADD of the reference plugin.
    #[test]
    fn queues_are_those_of_the_reference_plugin() {
        let small = TokenBucket { rate: 125_000, limit: 103_125, buffer: 12_500_000, burst: None };
        assert_eq!(bucket(125_000, 100_000), small);
        let uneven = TokenBucket { rate: 375_000, limit: 109_375, buffer: 4_166_656, burst: None };
        assert_eq!(bucket(375_000, 100_000), uneven);
    }

    /// containerd sends the largest burst of 32 bits.
    #[test]
    fn long_bursts() {
        let limit = 31_250 + 536_870_911;
        let wrapped = TokenBucket {
            rate: 1_250_000,
            limit,
            // 429 496 728 microseconds are 6 710 886 375 ticks.
            buffer: 2_415_919_079,
            burst: Some(536_870_911),
        };
        assert_eq!(bucket(1_250_000, 536_870_911), wrapped);
        assert_eq!(bucket(125_000_000, 536_870_911).burst, None);
        assert_eq!(bucket(1 << 40, u32::MAX).limit, u32::MAX);
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

    proptest! {
        /// What the kernel computes from a long burst is found to be right.
        #[test]
        fn the_kernels_count_is_no_deviation(rate in 1_u64..1 << 33, burst: u32) {
            let wanted = bucket(rate, burst);
            // `psched_ratecfg_precompute` and `psched_l2t_ns`.
            let (mut factor, mut shift) = (1_000_000_000_u64, 0);
            while (factor / rate) & (1 << 31) == 0 && factor & (1 << 63) == 0 {
                factor <<= 1;
                shift += 1;
            }
            let nanoseconds = (u128::from(burst) * u128::from(factor / rate)) >> shift;
            let ticks = u32::try_from((nanoseconds >> 6) & u128::from(u32::MAX)).unwrap();
            let buffer = if wanted.burst.is_some() { ticks } else { wanted.buffer };
            prop_assert_eq!(deviation(&TokenBucket { buffer, ..wanted }, &wanted), None);
        }
    }
}
