//! The queues in the kernel: how ADD makes them and CHECK compares them.

use attach::{link, undo_unless_refused};
use cni::{Success, Undo};
use kernel::Rtnl;
use kernel::rtnl::{Link, Place, Qdisc, TokenBucket};

use crate::error::Error;
use crate::ifb::OwnIfb;
use crate::plan::{Plan, deviation};

/// Makes the queues of a plan. `host` is the node's end of the pod's veth pair. Returns the ifb device, if
/// one is needed. It has its queue before packets are redirected to it.
pub(crate) fn apply<'a>(
    node: &'a Rtnl,
    host: &Link,
    ifb: &OwnIfb,
    plan: &Plan,
    undo: &mut Undo<'a>,
) -> Result<Option<Link>, Error> {
    let host_index = host.index;
    if let Some(bucket) = plan.ingress {
        let added = node.add_token_bucket(host_index, &bucket);
        let undo_it = move || delete_queue(node, host_index, &bucket);
        undo_unless_refused(undo, added, "delete the queue for packets to the pod", undo_it)?;
    }
    let Some(bucket) = &plan.egress else { return Ok(None) };
    let link = ifb.create(node, host.mtu, undo)?;
    node.add_token_bucket(link.index, bucket)?;
    let added = node.add_ingress(host_index);
    let undo_it = move || delete_ingress(node, host_index);
    undo_unless_refused(undo, added, "delete the redirection of packets from the pod", undo_it)?;
    node.redirect(host_index, link.index)?;
    Ok(Some(link))
}

/// Deletes the root queue of a link, if it is `bucket`.
fn delete_queue(node: &Rtnl, link: u32, bucket: &TokenBucket) -> Result<(), Error> {
    let all = node.qdiscs(link)?;
    let is_own = |it: &Qdisc| it.place == Place::Root && it.token_bucket == Some(*bucket);
    if all.iter().any(is_own) {
        node.delete_root_qdisc(link)?;
    }
    Ok(())
}

fn delete_ingress(node: &Rtnl, link: u32) -> Result<(), Error> {
    if node.qdiscs(link)?.iter().any(|it| it.place == Place::Ingress) {
        node.delete_ingress(link)?;
    }
    Ok(())
}

/// Compares the kernel with a plan.
///
/// Errors: the first queue, device or redirection that is missing or differs.
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
    link::compare(result, &link, None)?;
    check_queue(&node.qdiscs(link.index)?, &link, bucket)?;
    if node.redirections(host.index)?.contains(&link.index) {
        return Ok(());
    }
    let what = format!("the filter that redirects packets from {} to {}", host.name, link.name);
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
