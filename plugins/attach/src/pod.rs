//! The pod: its network namespace, and the interface that connects it.

mod interface;
mod routes;

pub use interface::{Dad, PodInterface};
pub use routes::Neighbours;

use std::io;
use std::net::IpAddr;
use std::path::Path;

use kernel::rtnl::Link;
use kernel::{Cause, Netns, Rtnl};

use crate::error::Error;

/// A pod's namespace, and a socket for its links.
#[derive(Debug)]
pub struct Pod {
    /// The namespace.
    pub netns: Netns,
    /// Its links, addresses and routes.
    pub rtnl: Rtnl,
}

impl Pod {
    /// Opens the namespace at the path of `CNI_NETNS`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let refused = |source| Error::Netns { path: path.to_owned(), source };
        let netns = Netns::open(path).map_err(refused)?;
        let rtnl = Rtnl::open_in(&netns).map_err(refused)?;
        Ok(Self { netns, rtnl })
    }

    /// Refuses an ADD of an interface that the pod has already. This must come before IPAM is asked: undoing
    /// the ADD would release the addresses of the interface that is there.
    pub fn refuse_second(&self, ifname: &str) -> Result<(), Error> {
        match self.rtnl.link_by_name(ifname)? {
            Some(_) => Err(Error::Attached { ifname: ifname.to_owned() }),
            None => Ok(()),
        }
    }

    /// An interface that must be there.
    ///
    /// Errors: [`Error::Changed`] if it is missing.
    pub fn interface(&self, ifname: &str) -> Result<Link, Error> {
        let link = self.rtnl.link_by_name(ifname)?;
        link.ok_or_else(|| Error::missing(format!("interface {ifname} of the pod")))
    }

    /// The addresses of an interface; none if it is missing.
    pub fn addresses_of(&self, ifname: &str) -> Result<Vec<IpAddr>, Error> {
        let Some(link) = self.rtnl.link_by_name(ifname)? else {
            return Ok(Vec::new());
        };
        let addresses = self.rtnl.addresses(link.index, None)?.into_iter();
        Ok(addresses.map(|address| address.network.ip()).collect())
    }

    /// Opens the namespace for a DEL: `None` if it has vanished, even if the file that it was mounted on is
    /// still there.
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
