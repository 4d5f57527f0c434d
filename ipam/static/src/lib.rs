//! An IPAM plugin that assigns the addresses of the configuration, or those that the runtime requests.
//!
//! ADD returns the addresses. CHECK compares them with the result of the chain. The plugin stores nothing, so
//! DEL and GC do nothing.

mod config;

pub use config::{Address, Config, Plan};

use cni::{Call, Code, Environment, Error, Network, Plugin, Success, ValidAttachments};

/// The plugin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Static;

impl Plugin for Static {
    const NAME: &'static str = "static";
    type Config = Config;
    type Settings = Plan;

    fn settings(
        &self,
        network: &Network<Config>,
        environment: Option<&Environment>,
    ) -> Result<Plan, Error> {
        let args = Environment::args_of(environment);
        network.config.plan(network.version, &args)
    }

    fn add(&self, _: &Call<Config>, plan: &Plan) -> Result<Success, Error> {
        let ips = plan.addresses.iter().map(Address::ip_config).collect();
        Ok(Success {
            ips,
            routes: plan.routes.clone(),
            dns: plan.dns.clone(),
            ..Success::default()
        })
    }

    fn check(&self, call: &Call<Config>, plan: &Plan) -> Result<(), Error> {
        let result = call.previous_result()?;
        for wanted in &plan.addresses {
            let Address { key, address, gateway } = wanted;
            let why = match result.ips.iter().find(|ip| ip.address == *address) {
                None => format!("address {address} ({key}) is not in the result of the ADD"),
                Some(ip) if gateway.is_some() && ip.gateway != *gateway => {
                    let theirs = ip.gateway.map_or("not set".to_owned(), |ip| ip.to_string());
                    format!("the gateway of {address} ({key}) is {theirs} in the result of the ADD")
                }
                Some(_) => continue,
            };
            return Err(Error::new(Code::Changed, why));
        }
        Ok(())
    }

    fn del(&self, _: &Call<Config>) -> Result<(), Error> {
        Ok(())
    }

    fn gc(&self, _: &Network<Config>, _: &ValidAttachments) -> Result<(), Error> {
        Ok(())
    }

    /// An ADD with valid settings succeeds.
    fn status(&self, _: &Network<Config>, _: &Plan) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
