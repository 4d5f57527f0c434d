//! The pod's network namespace.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use kernel::{Cause, Netns, Rtnl};

use crate::error::Error;

/// A pod's namespace, and the way to its links.
#[derive(Debug)]
pub struct Pod {
    /// The namespace.
    pub netns: Netns,
    /// Its links, addresses and routes.
    pub rtnl: Rtnl,
}

impl Pod {
    /// Opens the namespace that `CNI_NETNS` leads to.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let refused = |source| Error::Netns { path: path.to_owned(), source };
        let netns = Netns::open(path).map_err(refused)?;
        let rtnl = Rtnl::open_in(&netns).map_err(refused)?;
        Ok(Self { netns, rtnl })
    }

    /// Refuses an ADD of an interface that the pod has, before IPAM is asked: undoing that would
    /// release the addresses of the one that is there.
    pub fn refuse_second(&self, ifname: &str) -> Result<(), Error> {
        match self.rtnl.link_by_name(ifname)? {
            Some(_) => Err(Error::Attached { ifname: ifname.to_owned() }),
            None => Ok(()),
        }
    }

    /// The addresses of an interface; none if it is not there.
    pub fn addresses_of(&self, ifname: &str) -> Result<Vec<IpAddr>, Error> {
        let Some(link) = self.rtnl.link_by_name(ifname)? else {
            return Ok(Vec::new());
        };
        let addresses = self.rtnl.addresses(link.index, None)?.into_iter();
        Ok(addresses.map(|address| address.network.ip()).collect())
    }

    /// As [`Pod::open`], for a DEL: `None` if the namespace has vanished, even if the file is
    /// still there that it was mounted on.
    pub fn open_if_there(path: Option<&Path>) -> Result<Option<Self>, Error> {
        let Some(path) = path else {
            return Ok(None);
        };
        match Self::open(path) {
            Err(Error::Netns { source, .. }) if vanished(&source) => Ok(None),
            opened => opened.map(Some),
        }
    }
}

fn vanished(error: &kernel::Error) -> bool {
    let no_namespace = matches!(
        &error.cause,
        Cause::Io(error) if matches!(
            error.kind(),
            io::ErrorKind::InvalidInput
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::InvalidFilename
        )
    );
    error.is_not_found() || no_namespace
}
