//! What ADD is to change, as a plain value; and what that was before.

use std::collections::BTreeMap;

use attach::Pod;
use cni::{Failures, Mac, Success};
use kernel::rtnl::{Link, LinkChange};
use kernel::sysctl;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::sysctl::{Name, Sysctl, is_same};

/// What ADD is to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Settings of the namespace.
    pub sysctl: BTreeMap<Name, Sysctl>,
    /// Attributes of the interface.
    pub link: LinkSettings,
}

/// Attributes of an interface; `None` leaves one alone. A backup has them under these keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSettings {
    /// Its hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Whether it is promiscuous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promisc: Option<bool>,
    /// Its MTU in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether it takes all multicast packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allmulti: Option<bool>,
    /// How many packets its queue takes.
    #[serde(rename = "txQLen", skip_serializing_if = "Option::is_none")]
    pub tx_queue_len: Option<u32>,
}

/// How everything was that an ADD changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Attributes of the interface.
    pub link: LinkSettings,
    /// Which interface it was; `None` if there was none, or if the reference plugin made the backup.
    pub interface: Option<Identity>,
    /// Settings of the namespace.
    pub sysctl: BTreeMap<Name, Changed>,
}

/// Which interface a backup is about. A container can be given another one with the same name, also under the
/// same ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its index in the pod.
    pub index: u32,
    /// The index of a veth's other end, on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<u32>,
    /// The hardware address after the ADD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

/// A setting that an ADD changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What it was.
    pub before: String,
    /// What it became. If it is something else by now, somebody else is at it.
    pub set: String,
}

impl Wanted {
    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sysctl.is_empty() && self.link.is_empty()
    }

    /// The settings, for those who judge them by their names.
    pub fn sysctls(&self) -> impl Iterator<Item = &Sysctl> {
        self.sysctl.values()
    }

    /// Reads how everything is that is to be changed. Settings that have their value already are
    /// left out, and those that cannot be read.
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

    /// Changes everything: settings first, because some of them go with a small MTU.
    pub fn apply(&self, pod: &Pod, ifname: &str) -> Result<(), Error> {
        // Twice, because some take others along: net.ipv4.ip_forward those of all interfaces.
        pod.netns.enter(|| self.set().and_then(|()| self.set()))??;
        if self.link.is_empty() {
            return Ok(());
        }
        let index = look_up(pod, ifname)?.index;
        let failed = |source| Error::Link { ifname: ifname.to_owned(), source };
        pod.rtnl.set_link(index, self.link.change()).map_err(failed)
    }

    /// Sets the settings of the namespace that this thread is in, as far as they are not so yet: in the order
    /// of their names, because runtimes do not keep that of the configuration.
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

    /// A result that tells what the interface has become.
    #[must_use]
    pub fn told(&self, mut result: Success, ifname: &str) -> Success {
        let of_pod = |it: &&mut cni::Interface| it.name == ifname && !it.sandbox.is_empty();
        for interface in result.interfaces.iter_mut().filter(of_pod) {
            if let Some(mac) = self.link.mac {
                interface.mac = mac.to_string();
            }
            if let (Some(told), Some(mtu)) = (&mut interface.mtu, self.link.mtu) {
                *told = mtu;
            }
        }
        result
    }

    /// Finds the first thing that is not as wanted.
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
    /// Whether there is nothing to put back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.link.is_empty() && self.sysctl.is_empty()
    }

    /// Whether it is about this interface: if one was changed, neither its index nor the other end of a veth
    /// pair are others, and its hardware address is one that the ADD found or set.
    #[must_use]
    pub fn is_of(&self, link: Option<&Link>) -> bool {
        let (Some(identity), Some(link)) = (self.interface, link) else {
            return self.interface.is_none() && link.is_none();
        };
        let mac = link.mac.map(Mac);
        let is_known = mac == identity.mac || (mac.is_some() && mac == self.link.mac);
        (identity.index, identity.peer) == (link.index, link.peer) && is_known
    }

    /// What is to be put back in the end, if an `earlier` ADD has changed things before.
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

    /// Puts everything back, in reverse and as far as it is still there. If the interface is another one by
    /// now, nothing is put back: this is about an earlier one.
    pub fn restore(&self, pod: &Pod, ifname: &str) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        let look_up = || match self.interface {
            Some(identity) => pod.rtnl.link_by_index(identity.index),
            None => pod.rtnl.link_by_name(ifname),
        };
        let found = failures.try_to("look at the interface", || look_up().map_err(Error::from));
        if let Some(link) = found.flatten() {
            if self.interface.is_some() && !self.is_of(Some(&link)) {
                return failures.into_result();
            }
            for before in self.link.one_by_one().filter(|it| it.as_in(&link) != *it) {
                failures.try_to("put back", || {
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
            failures.try_to("put settings back", || pod.netns.enter(inside).map_err(Error::from));
        for error in entered.unwrap_or_default() {
            failures.try_to("put back", || Err::<(), _>(error));
        }
        failures.into_result()
    }
}

/// Does something with each item, and again with those that failed as long as that helps: some settings are
/// refused until another one has changed. Returns the errors that are left.
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
    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same attributes as the link has them.
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

    /// These, and from the others what is not among them.
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

    /// Each attribute alone, always five and in the same order.
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

    fn change(&self) -> LinkChange<'static> {
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

/// Reads a setting; `None` if it can be written only, as `net/ipv4/route/flush`, or has to be
/// written first, as `net/ipv6/conf/IFNAME/stable_secret`.
fn read(name: &Name) -> kernel::Result<Option<String>> {
    use Errno::{EACCES, EIO, EPERM};
    match sysctl::read(&name.parts()) {
        Err(error) if matches!(error.errno(), Some(EACCES | EPERM | EIO)) => Ok(None),
        value => value.map(Some),
    }
}

/// `None` if the link or the setting has gone.
fn if_there<T>(done: kernel::Result<T>) -> kernel::Result<Option<T>> {
    match done {
        Err(error) if error.is_not_found() => Ok(None),
        done => done.map(Some),
    }
}
