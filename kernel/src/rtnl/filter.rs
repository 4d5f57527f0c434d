//! The filter that redirects all packets that arrive on a link to another link (tc(8)).

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror,
    TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};

use super::Rtnl;
use super::qdisc::{INGRESS, index};
use crate::error::Result;

/// The priority of the filter, 1, and its packets: all (`ETH_P_ALL` in network byte order).
const FIRST_OF_ALL: u32 = 1 << 16 | (0x0003_u16.to_be() as u32);
/// The class that the reference plugins' filters give packets: `1:1`. It has no effect.
const CLASS: TcHandle = TcHandle { major: 1, minor: 1 };

impl Rtnl {
    /// Redirects all packets that arrive on a link to another link. The first link must have the queueing
    /// discipline `ingress`.
    pub fn redirect(&self, from: u32, to: u32) -> Result<()> {
        let message = RouteNetlinkMessage::NewTrafficFilter(redirect_message(from, to));
        let operation = || format!("redirect packets of link {from} to link {to}");
        self.change(message, NLM_F_CREATE | NLM_F_EXCL, operation)
    }

    /// The links to which all packets that arrive on a link are redirected.
    pub fn redirections(&self, link: u32) -> Result<Vec<u32>> {
        let mut get = TcMessage::with_index(index(link));
        get.header.parent = INGRESS;
        let operation = || format!("list filters of link {link}");
        let replies = self.dump(RouteNetlinkMessage::GetTrafficFilter(get), operation)?;
        Ok(replies.iter().filter_map(redirection).collect())
    }
}

pub(super) fn redirect_message(from: u32, to: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index(from));
    message.header.parent = INGRESS;
    message.header.info = FIRST_OF_ALL;

    // A key with an empty mask, which all packets match.
    let mut all = TcU32Selector::default();
    (all.flags, all.nkeys) = (TcU32SelectorFlags::Terminal, 1);
    all.keys.push(TcU32Key::default());

    let mut redirect = TcMirror::default();
    (redirect.eaction, redirect.ifindex) = (TcMirrorActionType::EgressRedir, to);
    redirect.generic.action = TcActionType::Stolen;
    let redirect = TcActionOption::Mirror(TcActionMirrorOption::Parms(redirect));
    let mut action = TcAction::default();
    action.attributes.push(TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()));
    action.attributes.push(TcActionAttribute::Options(vec![redirect]));

    message.attributes.push(TcAttribute::Kind(TcFilterU32::KIND.to_owned()));
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::U32(TcFilterU32Option::ClassId(CLASS)),
        TcOption::U32(TcFilterU32Option::Action(vec![action])),
        TcOption::U32(TcFilterU32Option::Selector(all)),
    ]));
    message
}

/// The link to which a filter redirects all packets, if it does.
fn redirection(reply: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = reply else {
        return None;
    };
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let takes_all = |selector: &TcU32Selector| selector.keys.iter().all(|key| key.mask == 0);
    let (mut all, mut to) = (false, None);
    for option in options {
        match option {
            TcOption::U32(TcFilterU32Option::Selector(selector)) => all = takes_all(selector),
            TcOption::U32(TcFilterU32Option::Action(actions)) => {
                to = actions.first().and_then(redirect_target);
            }
            _ => {}
        }
    }
    to.filter(|_| all && message.header.info == FIRST_OF_ALL)
}

fn redirect_target(action: &TcAction) -> Option<u32> {
    let options = action.attributes.iter().find_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    options?.iter().find_map(|option| match option {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))
            if mirror.eaction == TcMirrorActionType::EgressRedir =>
        {
            Some(mirror.ifindex)
        }
        _ => None,
    })
}
