//! The queues in the kernel: made by ADD, compared by CHECK.

use attach::interfaces;
use cni::{Success, Undo};
use kernel::Rtnl;
use kernel::rtnl::{Link, Place, Qdisc, TokenBucket};

use crate::error::Error;
use crate::ifb::OwnIfb;
use crate::plan::{Plan, deviation};

/// Makes what a plan says, `host` being the node's end of the pod's veth pair; gives the ifb device
/// if one was needed. That is ready before anything is redirected to it.
pub(crate) fn apply<'a>(
    node: &'a Rtnl,
    host: &Link,
    ifb: &OwnIfb,
    plan: &Plan,
    undo: &mut Undo<'a>,
) -> Result<Option<Link>, Error> {
    let host_index = host.index;
    if let Some(bucket) = &plan.ingress {
        node.add_token_bucket(host_index, bucket)?;
        undo.on_error("delete the queue for what enters the pod", move || {
            Ok(node.delete_root_qdisc(host_index).map_err(Error::from)?)
        });
    }
    let Some(bucket) = &plan.egress else { return Ok(None) };
    ifb.create(node, host.mtu)?;
    let made = ifb.clone();
    undo.on_error("delete the ifb device", move || Ok(made.delete(node)?));
    let link = ifb.claim(node)?;
    node.add_token_bucket(link.index, bucket)?;
    node.add_ingress(host_index)?;
    undo.on_error("delete the redirection of what leaves the pod", move || {
        Ok(node.delete_ingress(host_index).map_err(Error::from)?)
    });
    node.redirect(host_index, link.index)?;
    Ok(Some(link))
}

/// Finds what is not as the plan says.
pub(crate) fn check(
    node: &Rtnl,
    host: &Link,
    ifb: &OwnIfb,
    plan: &Plan,
    result: &Success,
) -> Result<(), Error> {
    if let Some(bucket) = &plan.ingress {
        check_queue(&node.qdiscs(host.index)?, host, bucket)?;
    }
    let Some(bucket) = &plan.egress else { return Ok(()) };
    let link = ifb.find(node)?;
    if !link.up {
        return Err(attach::Error::changed(format!("ifb device {}", link.name), "is down").into());
    }
    interfaces::compare(result, &link, None)?;
    check_queue(&node.qdiscs(link.index)?, &link, bucket)?;
    if node.redirections(host.index)?.contains(&link.index) {
        return Ok(());
    }
    let what = format!("the filter that redirects what comes in by {} to {}", host.name, link.name);
    Err(attach::Error::missing(what).into())
}

fn check_queue(all: &[Qdisc], link: &Link, wanted: &TokenBucket) -> Result<(), Error> {
    let object = format!("queueing discipline tbf of {}", link.name);
    let root = all.iter().find(|it| it.place == Place::Root);
    let found = root.and_then(|root| root.token_bucket);
    let found = found.ok_or_else(|| attach::Error::missing(object.clone()))?;
    match deviation(&found, wanted) {
        Some(how) => Err(attach::Error::changed(object, how).into()),
        None => Ok(()),
    }
}
