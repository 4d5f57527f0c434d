//! The configuration's keys, and the limits that they set.

use cni::Error;
use serde::Deserialize;

/// The plugin's own keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The rate limit of packets to the pod, in bits per second. 0 for no limit.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Rate>"))]
    pub ingress_rate: Option<u64>,
    /// How many bits can enter the pod at once after a pause.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Burst>"))]
    pub ingress_burst: Option<u64>,
    /// The rate limit of packets from the pod, in bits per second. 0 for no limit.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Rate>"))]
    pub egress_rate: Option<u64>,
    /// How many bits can leave the pod at once after a pause.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Burst>"))]
    pub egress_burst: Option<u64>,
    /// How long packets are queued at most, in milliseconds. 25 by default.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_LATENCY)))]
    #[cfg_attr(feature = "schema", schemars(extend("default" = DEFAULT_LATENCY)))]
    pub latency: Option<u32>,
    /// The maximal burst of the runtime's limits, in bits. A larger burst is reduced to this value. 0 for no
    /// maximum.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Burst>"))]
    pub max_burst: Option<u64>,
    /// The values that the runtime adds.
    pub runtime_config: RuntimeConfig,
}

/// The values that the runtime adds to the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeConfig {
    /// The limits of this container. Ignored if the configuration has limits.
    pub bandwidth: Option<Limits>,
}

/// Limits as a runtime sends them. 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// As the key of the configuration.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Rate>"))]
    pub ingress_rate: Option<u64>,
    /// As the key of the configuration.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Burst>"))]
    pub ingress_burst: Option<u64>,
    /// As the key of the configuration.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Rate>"))]
    pub egress_rate: Option<u64>,
    /// As the key of the configuration.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Burst>"))]
    pub egress_burst: Option<u64>,
}

/// The validated configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The limit of packets to the pod.
    pub(crate) ingress: Option<Limit>,
    /// The limit of packets from the pod.
    pub(crate) egress: Option<Limit>,
    /// How long packets are queued at most, in milliseconds.
    pub(crate) latency: u32,
}

/// The limit of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Bytes per second.
    pub(crate) rate: u64,
    /// Bytes.
    pub(crate) burst: u32,
}

const DEFAULT_LATENCY: u32 = 25;
const MAX_LATENCY: u32 = 10_000;
/// Bits per byte: the kernel counts bytes.
const BITS: u64 = 8;
/// The largest burst in bits: the kernel stores its bytes in 32 bits.
const MAX_BURST: u64 = BITS * u32::MAX as u64 - 1;

#[cfg(feature = "schema")]
type Rate = cni::schema::ZeroOr<BITS, { u64::MAX }>;
#[cfg(feature = "schema")]
type Burst = cni::schema::ZeroOr<BITS, MAX_BURST>;

impl Config {
    /// Validates the values.
    ///
    /// Errors: code 7 for values that are not valid or contradict each other.
    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        let latency = self.latency.unwrap_or(DEFAULT_LATENCY);
        if !(1..=MAX_LATENCY).contains(&latency) {
            let why =
                format!("{latency} is not a valid latency; use 1 to {MAX_LATENCY} milliseconds");
            return Err(Error::invalid_key("latency", why));
        }
        let max_burst = self.max_burst.unwrap_or(0);
        if max_burst != 0 && !(BITS..=MAX_BURST).contains(&max_burst) {
            let why = format!("{max_burst} must be 0, or between {BITS} and {MAX_BURST} bits");
            return Err(Error::invalid_key("maxBurst", why));
        }
        let (limits, place) = self.limits();
        let direction = |keys: [&str; 2], rate: Option<u64>, burst: Option<u64>| {
            let keys = keys.map(|key| format!("{place}{key}"));
            limit(&keys, rate.unwrap_or(0), burst.unwrap_or(0))
        };
        let Limits { ingress_rate, ingress_burst, egress_rate, egress_burst } = limits;
        Ok(Settings {
            ingress: direction(["ingressRate", "ingressBurst"], ingress_rate, ingress_burst)?,
            egress: direction(["egressRate", "egressBurst"], egress_rate, egress_burst)?,
            latency,
        })
    }

    /// The limits that are used, and the prefix of their keys. If the configuration has any limit, even 0,
    /// the runtime's limits are ignored, also for the other direction.
    fn limits(&self) -> (Limits, &'static str) {
        match self.runtime_config.bandwidth {
            Some(limits) if !self.has_own_limits() => {
                (limits.reduced_to(self.max_burst.unwrap_or(0)), "runtimeConfig.bandwidth.")
            }
            _ => (self.own_limits(), ""),
        }
    }

    /// Whether the configuration has limits, so that the runtime's are ignored.
    pub(crate) fn has_own_limits(&self) -> bool {
        self.own_limits() != Limits::default()
    }

    fn own_limits(&self) -> Limits {
        Limits {
            ingress_rate: self.ingress_rate,
            ingress_burst: self.ingress_burst,
            egress_rate: self.egress_rate,
            egress_burst: self.egress_burst,
        }
    }
}

impl Limits {
    /// The same limits with bursts of at most `max_burst` bits, but at least as many as the kernel accepts.
    fn reduced_to(self, max_burst: u64) -> Self {
        if max_burst == 0 {
            return self;
        }
        let reduced = |rate: Option<u64>, burst: Option<u64>| {
            let most = max_burst.max(shortest_burst(rate.unwrap_or(0)));
            burst.map(|burst| burst.min(most))
        };
        Self {
            ingress_burst: reduced(self.ingress_rate, self.ingress_burst),
            egress_burst: reduced(self.egress_rate, self.egress_burst),
            ..self
        }
    }
}

impl Settings {
    /// Whether there is no limit.
    pub(crate) fn is_empty(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}

/// The limit for the values of two keys, in bits.
fn limit(keys: &[String; 2], rate: u64, burst: u64) -> Result<Option<Limit>, Error> {
    let [rate_key, burst_key] = keys;
    if rate == 0 && burst == 0 {
        return Ok(None);
    }
    let too_small = |key: &str, value: u64| {
        let why = format!("{value} is less than 8 bits, which is one byte; use 0 for no limit");
        Error::invalid_key(key, why)
    };
    let without = |key: &str, other: &str| {
        Error::invalid_key(key, format!("is missing or 0, but {other:?} is set; set both"))
    };
    if burst == 0 {
        return Err(without(burst_key, rate_key));
    }
    if rate == 0 {
        return Err(without(rate_key, burst_key));
    }
    if rate < BITS {
        return Err(too_small(rate_key, rate));
    }
    if burst < BITS {
        return Err(too_small(burst_key, burst));
    }
    let bytes = u32::try_from(burst / BITS).ok().filter(|_| burst <= MAX_BURST);
    let burst = bytes.ok_or_else(|| {
        Error::invalid_key(burst_key, format!("{burst} is too large; use at most {MAX_BURST} bits"))
    })?;
    let least = shortest_burst(rate);
    if u64::from(burst) < least / BITS {
        let why = format!("lasts less than a microsecond at this rate; use at least {least} bits");
        return Err(Error::invalid_key(burst_key, why));
    }
    Ok(Some(Limit { rate: rate / BITS, burst }))
}

/// The smallest burst for a rate, in bits. The kernel gets the time that a burst lasts, and refuses less than
/// a microsecond.
fn shortest_burst(rate: u64) -> u64 {
    (rate / BITS).div_ceil(1_000_000) * BITS
}

#[cfg(test)]
mod tests {
    use cni::Code;
    use serde_json::{Value, json};

    use super::*;

    fn settings(config: &Value) -> Result<Settings, Error> {
        cni::json::read::<Config>(config)?.settings()
    }

    #[track_caller]
    fn refused(config: &Value, key: &str, expected: &str) {
        let error = settings(config).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig, "{error}");
        for text in [format!("{key:?}"), expected.to_owned()] {
            assert!(error.msg.contains(&text), "{config}: {error}");
        }
    }

    #[test]
    fn bits_become_bytes() {
        let config = json!({
            "ingressRate": 1_000_000, "ingressBurst": 800_000,
            "egressRate": 2_000_007, "egressBurst": 15,
        });
        let expected = Settings {
            ingress: Some(Limit { rate: 125_000, burst: 100_000 }),
            egress: Some(Limit { rate: 250_000, burst: 1 }),
            latency: 25,
        };
        assert_eq!(settings(&config).unwrap(), expected);
        for none in [json!({}), json!({"ingressRate": 0, "egressBurst": 0, "latency": 50})] {
            assert!(settings(&none).unwrap().is_empty());
        }
    }

    /// As containerd sends them.
    #[test]
    fn runtimes_send_the_names_of_go_fields() {
        let limits = json!({
            "IngressRate": 0, "IngressBurst": 0, "EgressRate": 8_000_000, "EgressBurst": u32::MAX,
        });
        let found = settings(&json!({"runtimeConfig": {"bandwidth": limits}})).unwrap();
        assert_eq!(found.ingress, None);
        assert_eq!(found.egress, Some(Limit { rate: 1_000_000, burst: 536_870_911 }));
    }

    #[test]
    fn the_runtimes_limits_are_ignored_if_the_configuration_has_any() {
        let runtime = json!({"bandwidth": {"egressRate": 8000, "egressBurst": 8000}});
        let both = json!({
            "ingressRate": 80, "ingressBurst": 80, "latency": 100, "runtimeConfig": runtime,
        });
        let found = settings(&both).unwrap();
        assert_eq!(found.ingress, Some(Limit { rate: 10, burst: 10 }));
        assert_eq!((found.egress, found.latency), (None, 100));
        let none = json!({"ingressRate": 0, "runtimeConfig": runtime});
        assert!(settings(&none).unwrap().is_empty());
        let not_a_limit = json!({"latency": 100, "ingressRate": null, "runtimeConfig": runtime});
        assert_eq!(settings(&not_a_limit).unwrap().egress, Some(Limit { rate: 1000, burst: 1000 }));
    }

    #[test]
    fn wrong_values_are_named() {
        refused(&json!({"ingressRate": 8000}), "ingressBurst", "\"ingressRate\" is set");
        refused(&json!({"egressBurst": 8000}), "egressRate", "\"egressBurst\" is set");
        refused(&json!({"egressRate": 7, "egressBurst": 8000}), "egressRate", "7 is less than");
        refused(&json!({"egressRate": 8000, "egressBurst": 7}), "egressBurst", "7 is less than");
        let short = json!({"egressRate": 100_000_000_008_u64, "egressBurst": 100_000});
        refused(&short, "egressBurst", "use at least 100008 bits");
        refused(&json!({"egressRate": "1M"}), "egressRate", "\"1M\"");
        refused(&json!({"egressRate": -1}), "egressRate", "-1");
        refused(&json!({"latency": 0}), "latency", "1 to 10000 milliseconds");
        refused(&json!({"latency": 10_001}), "latency", "1 to 10000 milliseconds");
        let runtime = json!({"runtimeConfig": {"bandwidth": {"IngressRate": 8000}}});
        refused(&runtime, "runtimeConfig.bandwidth.ingressBurst", "set both");
    }

    /// Runtimes that get no burst send the largest number.
    #[test]
    fn bursts_of_runtimes_can_be_reduced() {
        let limits = |rate: u64, burst: u64| json!({"ingressRate": rate, "ingressBurst": burst});
        let burst = |max_burst: u64, limits: Value| {
            let runtime = json!({"bandwidth": limits});
            let config = json!({"maxBurst": max_burst, "runtimeConfig": runtime});
            settings(&config).unwrap().ingress.unwrap().burst
        };
        let most = u64::from(u32::MAX);
        assert_eq!(burst(8_000_000, limits(10_000_000, most)), 1_000_000);
        assert_eq!(burst(8_000_000, limits(10_000_000, 800)), 100);
        assert_eq!(burst(0, limits(10_000_000, most)), u32::MAX / 8);
        // Smaller bursts are not possible at this rate.
        assert_eq!(burst(8, limits(100_000_000_000, most)), 12_500);
        // The configuration's own burst is not reduced.
        let mut own = limits(10_000_000, most);
        own["maxBurst"] = json!(8);
        assert_eq!(settings(&own).unwrap().ingress.unwrap().burst, u32::MAX / 8);
        for wrong in [7, 34_359_738_360_u64] {
            refused(&json!({"maxBurst": wrong}), "maxBurst", "must be 0, or between 8 and");
        }
    }

    #[test]
    fn the_largest_burst() {
        let config = |burst: u64| json!({"ingressRate": 8, "ingressBurst": burst});
        let most = 8 * u64::from(u32::MAX) - 1;
        let burst = settings(&config(most)).unwrap().ingress.map(|limit| limit.burst);
        assert_eq!(burst, Some(u32::MAX - 1));
        refused(&config(most + 1), "ingressBurst", "at most 34359738359 bits");
    }
}
