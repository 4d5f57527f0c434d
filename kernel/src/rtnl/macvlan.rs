//! The modes of macvlan links.

use netlink_packet_route::link::MacVlanMode;

/// What a macvlan link can reach on its parent (`enum macvlan_mode` in `include/uapi/linux/if_link.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacvlanMode {
    /// All macvlan links of the parent that are in this mode.
    #[default]
    Bridge,
    /// No other link of the parent.
    Private,
    /// Other links of the parent through a switch that sends frames back (802.1Qbg).
    Vepa,
    /// It is the only macvlan link of the parent, and the parent gets its hardware address.
    Passthru,
}

impl MacvlanMode {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::Bridge, Self::Private, Self::Vepa, Self::Passthru];

    /// The name that `ip link add type macvlan mode` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Passthru => "passthru",
        }
    }

    /// The mode of a number of the kernel; `None` for other modes.
    pub(super) fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| u32::from(MacVlanMode::from(*mode)) == number)
    }
}

impl From<MacvlanMode> for MacVlanMode {
    fn from(mode: MacvlanMode) -> Self {
        match mode {
            MacvlanMode::Bridge => Self::Bridge,
            MacvlanMode::Private => Self::Private,
            MacvlanMode::Vepa => Self::Vepa,
            MacvlanMode::Passthru => Self::Passthrough,
        }
    }
}
