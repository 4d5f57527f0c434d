//! Lets packets of a pod, that an earlier plugin of the chain attached, through the firewall of the node.
//!
//! ADD computes what is needed as a plain value and adds what is missing of it in one batch; CHECK compares
//! the same value with what is there. What ADD makes carries the attachment's names, so DEL and GC find it
//! without namespace and result.

mod config;
mod error;
mod iptables;
mod owner;
mod pod;

pub use config::Config;
pub use error::Error;

use cni::{Call, Code, Network, Plugin, Success, ValidAttachments};
use kernel::Nfnetlink;
use kernel::nft::{Chain, Family};

use crate::config::Settings;
use crate::owner::{Garbage, Owner};
use crate::pod::Pod;

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Firewall;

impl Plugin for Firewall {
    const NAME: &'static str = "firewall";
    type Config = Config;

    fn validate(&self, network: &Network<Config>) -> Result<(), cni::Error> {
        network.config.settings().map(drop)
    }

    fn add(&self, call: &Call<Config>) -> Result<Success, cni::Error> {
        let result = call.previous_result()?;
        let settings = call.config().settings()?;
        let pod = Pod::of(call, result, &settings)?;
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        refuse_firewalld(&netlink, &settings)?;
        iptables::add(&netlink, &iptables::Plan::new(owner(call), &settings.admin_chain, &pod))?;
        Ok(result.clone())
    }

    fn check(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let result = call.previous_result()?;
        let settings = call.config().settings()?;
        let pod = Pod::of(call, result, &settings)?;
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        iptables::check(&netlink, &iptables::Plan::new(owner(call), &settings.admin_chain, &pod))?;
        Ok(())
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let result = call.network.prev_result.as_ref();
        let addresses = result.map(|result| pod::addresses(call, result)).unwrap_or_default();
        iptables::remove(&netlink, &owner(call), &addresses)?;
        Ok(())
    }

    fn gc(&self, network: &Network<Config>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        iptables::collect_garbage(&netlink, &Garbage::new(&network.name, valid))?;
        Ok(())
    }

    fn status(&self, network: &Network<Config>) -> Result<(), cni::Error> {
        let settings = network.config.settings()?;
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let status =
            refuse_firewalld(&netlink, &settings).and_then(|()| iptables::status(&netlink));
        status.map_err(|error| cni::Error { code: Code::NotAvailable, ..error.into() })
    }
}

/// Where firewalld runs, rules of iptables have to be asked for: its table has the last word.
fn refuse_firewalld(netlink: &Nfnetlink, settings: &Settings) -> Result<(), Error> {
    const VERDICTS: Chain<'_> =
        Chain { family: Family::Inet, table: "firewalld", name: "filter_FORWARD" };
    let runs = || Ok::<_, kernel::Error>(netlink.has_nf_tables()? && netlink.has_chain(VERDICTS)?);
    if !settings.iptables_by_name && runs()? { Err(Error::Firewalld) } else { Ok(()) }
}

fn owner(call: &Call<Config>) -> Owner {
    Owner::new(&call.network.name, call.container_id(), call.ifname())
}
