//! The values that ADD sets and CHECK compares, and the values before the ADD, which DEL restores.

use std::collections::BTreeMap;

use attach::Pod;
use cni::{Failures, Mac, Success};
use kernel::rtnl::{Link, LinkChange};
use kernel::sysctl;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::sysctl::{Name, Sysctl, is_same};

/// The values that ADD sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Sysctls of the namespace.
    pub sysctl: BTreeMap<Name, Sysctl>,
    /// Attributes of the interface.
    pub link: LinkSettings,
}

/// Attributes of an interface. `None` does not change an attribute. A backup has the same keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSettings {
    /// The hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Whether the interface is promiscuous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promisc: Option<bool>,
    /// The MTU in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether the interface receives all multicast packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allmulti: Option<bool>,
    /// The length of the queue in packets.
    #[serde(rename = "txQLen", skip_serializing_if = "Option::is_none")]
    pub tx_queue_len: Option<u32>,
}

/// The values before an ADD, of what it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Attributes of the interface.
    pub link: LinkSettings,
    /// The interface; `None` if there was none, or if the reference plugin wrote the backup.
    pub interface: Option<Identity>,
    /// Sysctls of the namespace.
    pub sysctl: BTreeMap<Name, Changed>,
}

/// The identity of an interface. A container with the same ID can get another interface with the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The index in the pod.
    pub index: u32,
    /// The index of the other end of a veth pair, on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<u32>,
    /// The hardware address after the ADD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

/// A sysctl that an ADD changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The value before the ADD.
    pub before: String,
    /// The value that the ADD set. If the sysctl has another value, it was changed since.
    pub set: String,
}

impl Wanted {
    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sysctl.is_empty() && self.link.is_empty()
    }

    /// The sysctls.
    pub fn sysctls(&self) -> impl Iterator<Item = &Sysctl> {
        self.sysctl.values()
    }

    /// Reads the current values. Sysctls that already have the wanted value, or cannot be read, are left out.
    pub fn before(&self, pod: &Pod, ifname: &str, found: Option<&Link>) -> Result<Before, Error> {
        if found.is_none() && !self.link.is_empty() {
            return Err(Error::NoInterface(ifname.to_owned()));
        }
        let link = found.map(|link| self.link.as_in(link)).unwrap_or_default();
        let interface = found.map(|link| Identity {
            index: link.index,
            peer: link.peer,
            mac: self.link.mac.or(link.mac.map(Mac)),
        });
        let sysctl = pod.netns.enter(|| {
            let mut changes = BTreeMap::new();
            for (name, Sysctl { key, value }) in &self.sysctl {
                let no_such = |source| Error::NoSysctl { key: key.clone(), source };
                match read(name).map_err(no_such)? {
                    Some(before) if !is_same(value, &before) => {
                        changes.insert(name.clone(), Changed { before, set: value.clone() });
                    }
                    _ => {}
                }
            }
            Ok::<_, Error>(changes)
        })??;
        Ok(Before { link, interface, sysctl })
    }

    /// Sets all values, sysctls first, because a small MTU removes some of them.
    pub fn apply(&self, pod: &Pod, ifname: &str) -> Result<(), Error> {
        // Twice, because some sysctls change others: net.ipv4.ip_forward changes those of all interfaces.
        pod.netns.enter(|| self.set().and_then(|()| self.set()))??;
        if self.link.is_empty() {
            return Ok(());
        }
        let index = look_up(pod, ifname)?.index;
        let failed = |source| Error::Link { ifname: ifname.to_owned(), source };
        pod.rtnl.set_link(index, self.link.change()).map_err(failed)
    }

    /// Sets the sysctls of this thread's namespace that have another value, in the order of their names,
    /// because runtimes do not keep the order of the configuration.
    fn set(&self) -> Result<(), Error> {
        let set = |(name, Sysctl { value, .. }): &(&Name, &Sysctl)| {
            let set = || match read(name)? {
                Some(now) if is_same(value, &now) => Ok(()),
                _ => sysctl::set(&name.parts(), value),
            };
            set().map_err(|source| Error::Sysctl { name: name.to_string(), source })
        };
        in_passes(self.sysctl.iter().collect(), set).into_iter().next().map_or(Ok(()), Err)
    }

    /// The result with the new values of the interface.
    #[must_use]
    pub fn update(&self, mut result: Success, ifname: &str) -> Success {
        let of_pod = |it: &&mut cni::Interface| it.name == ifname && !it.sandbox.is_empty();
        for interface in result.interfaces.iter_mut().filter(of_pod) {
            if let Some(mac) = self.link.mac {
                interface.mac = mac.to_string();
            }
            if let (Some(previous), Some(mtu)) = (&mut interface.mtu, self.link.mtu) {
                *previous = mtu;
            }
        }
        result
    }

    /// Compares the kernel's values with the wanted ones.
    ///
    /// Errors: the first value that is missing or differs.
    pub fn compare(&self, pod: &Pod, ifname: &str) -> Result<(), Error> {
        pod.netns.enter(|| {
            self.sysctl.iter().try_for_each(|(name, Sysctl { value, .. })| {
                let object = format!("sysctl {name}");
                match read(name) {
                    Ok(Some(now)) if !is_same(value, &now) => {
                        let how = format!("is {now:?}, not {value:?}");
                        Err(attach::Error::changed(object, how).into())
                    }
                    Ok(_) => Ok::<_, Error>(()),
                    Err(error) if error.is_not_found() => {
                        Err(attach::Error::missing(object).into())
                    }
                    Err(source) => Err(Error::Sysctl { name: name.to_string(), source }),
                }
            })
        })??;
        if self.link.is_empty() {
            return Ok(());
        }
        let link = pod.rtnl.link_by_name(ifname)?;
        let missing = || attach::Error::missing(format!("interface {ifname} of the pod"));
        let now = self.link.as_in(&link.ok_or_else(missing)?);
        for (wanted, now) in self.link.one_by_one().zip(now.one_by_one()) {
            if wanted != now {
                let how = format!("has{}, not{}", now.change(), wanted.change());
                return Err(attach::Error::changed(format!("interface {ifname}"), how).into());
            }
        }
        Ok(())
    }
}

impl Before {
    /// Whether there is nothing to restore.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.link.is_empty() && self.sysctl.is_empty()
    }

    /// Whether the values are those of `link`: the index and the other end of a veth pair are the same, and
    /// the hardware address is one that the ADD found or set. If there was no interface, `link` must be
    /// `None`.
    #[must_use]
    pub fn is_of(&self, link: Option<&Link>) -> bool {
        let (Some(identity), Some(link)) = (self.interface, link) else {
            return self.interface.is_none() && link.is_none();
        };
        let mac = link.mac.map(Mac);
        let is_known = mac == identity.mac || (mac.is_some() && mac == self.link.mac);
        (identity.index, identity.peer) == (link.index, link.peer) && is_known
    }

    /// The values that a DEL must restore, if an `earlier` ADD has also changed values.
    #[must_use]
    pub fn after(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier else { return self.clone() };
        let link = earlier.link.or(self.link);
        let mut all = Self { link, sysctl: self.sysctl.clone(), ..*self };
        for (name, Changed { before, set }) in &earlier.sysctl {
            let set = all.sysctl.get(name).map_or(set, |later| &later.set).clone();
            all.sysctl.insert(name.clone(), Changed { before: before.clone(), set });
        }
        all
    }

    /// Restores the values of what still exists, in reverse order. If the interface is a different one, no
    /// value is restored.
    pub fn restore(&self, pod: &Pod, ifname: &str) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        let look_up = || match self.interface {
            Some(identity) => pod.rtnl.link_by_index(identity.index),
            None => pod.rtnl.link_by_name(ifname),
        };
        let found = failures.try_to("read the interface", || look_up().map_err(Error::from));
        if let Some(link) = found.flatten() {
            if self.interface.is_some() && !self.is_of(Some(&link)) {
                return failures.into_result();
            }
            for before in self.link.one_by_one().filter(|it| it.as_in(&link) != *it) {
                failures.try_to("restore", || {
                    let failed = |source| Error::Link { ifname: ifname.to_owned(), source };
                    if_there(pod.rtnl.set_link(link.index, before.change())).map_err(failed)
                });
            }
        }
        let restore = |(name, changed): &(&Name, &Changed)| {
            let failed = |source| Error::Sysctl { name: name.to_string(), source };
            changed.restore(name).map_err(failed)
        };
        let inside = || in_passes(self.sysctl.iter().rev().collect(), restore);
        let entered =
            failures.try_to("restore sysctls", || pod.netns.enter(inside).map_err(Error::from));
        for error in entered.unwrap_or_default() {
            failures.try_to("restore", || Err::<(), _>(error));
        }
        failures.into_result()
    }
}

/// Runs a step for each item, and again for those that failed, until no more succeed: the kernel refuses some
/// sysctls until another one has changed. Returns the remaining errors.
fn in_passes<T>(mut items: Vec<T>, mut step: impl FnMut(&T) -> Result<(), Error>) -> Vec<Error> {
    loop {
        let (before, mut errors) = (items.len(), Vec::new());
        items.retain(|item| match step(item) {
            Ok(()) => false,
            Err(error) => {
                errors.push(error);
                true
            }
        });
        if items.is_empty() || items.len() == before {
            return errors;
        }
    }
}

impl Changed {
    fn restore(&self, name: &Name) -> kernel::Result<()> {
        match if_there(read(name))?.flatten() {
            Some(now) if is_same(&self.set, &now) => {
                if_there(sysctl::set(&name.parts(), &self.before)).map(drop)
            }
            _ => Ok(()),
        }
    }
}

impl LinkSettings {
    /// Whether no attribute is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The link's values of the same attributes.
    #[must_use]
    pub fn as_in(&self, link: &Link) -> Self {
        Self {
            mac: self.mac.and(link.mac.map(Mac)),
            promisc: self.promisc.and(Some(link.promisc)),
            mtu: self.mtu.and(Some(link.mtu)),
            allmulti: self.allmulti.and(Some(link.allmulti)),
            tx_queue_len: self.tx_queue_len.and(Some(link.tx_queue_len)),
        }
    }

    /// These attributes, and those of `other` that are missing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            mac: self.mac.or(other.mac),
            promisc: self.promisc.or(other.promisc),
            mtu: self.mtu.or(other.mtu),
            allmulti: self.allmulti.or(other.allmulti),
            tx_queue_len: self.tx_queue_len.or(other.tx_queue_len),
        }
    }

    /// Five values with one attribute each, always in the same order.
    fn one_by_one(self) -> impl Iterator<Item = Self> {
        let Self { mac, promisc, mtu, allmulti, tx_queue_len } = self;
        let none = Self::default();
        [
            Self { mtu, ..none },
            Self { mac, ..none },
            Self { promisc, ..none },
            Self { allmulti, ..none },
            Self { tx_queue_len, ..none },
        ]
        .into_iter()
    }

    fn change(&self) -> LinkChange {
        LinkChange {
            mac: self.mac.map(|mac| mac.0),
            promisc: self.promisc,
            mtu: self.mtu,
            allmulti: self.allmulti,
            tx_queue_len: self.tx_queue_len,
            ..LinkChange::default()
        }
    }
}

fn look_up(pod: &Pod, ifname: &str) -> Result<Link, Error> {
    pod.rtnl.link_by_name(ifname)?.ok_or_else(|| Error::NoInterface(ifname.to_owned()))
}

/// Reads a sysctl; `None` if it can only be written (`net/ipv4/route/flush`), or must be written first
/// (`net/ipv6/conf/IFNAME/stable_secret`).
fn read(name: &Name) -> kernel::Result<Option<String>> {
    use Errno::{EACCES, EIO, EPERM};
    match sysctl::read(&name.parts()) {
        Err(error) if matches!(error.errno(), Some(EACCES | EPERM | EIO)) => Ok(None),
        value => value.map(Some),
    }
}

/// `None` if the link or the sysctl does not exist.
fn if_there<T>(done: kernel::Result<T>) -> kernel::Result<Option<T>> {
    match done {
        Err(error) if error.is_not_found() => Ok(None),
        done => done.map(Some),
    }
}
