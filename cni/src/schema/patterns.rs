//! Regular expressions of strings, in the syntax that JSON Schema and Rust have in common.

/// Six pairs separated by colons or dashes, or three groups of four digits separated by dots. The lowest bit
/// of the first byte is set in group addresses only.
pub(super) const UNICAST_MAC: &str = "^([0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}\
     |[0-9a-fA-F][02468aceACE](-[0-9a-fA-F]{2}){5}\
     |[0-9a-fA-F][02468aceACE][0-9a-fA-F]{2}(\\.[0-9a-fA-F]{4}){2})?$";

/// The name of an interface, except `.` and `..`.
pub(super) const INTERFACE: &str =
    r"^([^/:%\s.][^/:%\s]{0,14}|\.[^/:%\s.][^/:%\s]{0,13}|\.\.[^/:%\s]{1,13})$";

/// An identifier of the specification.
pub(super) const NAME: &str = "^[a-zA-Z0-9][a-zA-Z0-9_.-]*$";

/// The name of a file, except `.` and `..`.
pub(super) const FILE: &str = r"^([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+)$";

/// Three numbers separated by dots.
pub(super) const VERSION: &str = r"^[0-9]{1,9}(\.[0-9]{1,9}){2}$";

/// `true` or `false`.
pub(super) const TRUTH: &str = "^([tT][rR][uU][eE]|[fF][aA][lL][sS][eE])$";

/// Case-insensitive, as in the reference plugin.
pub(super) const PROTOCOL: &str = "^([tT][cC][pP]|[uU][dD][pP]|[sS][cC][tT][pP])$";

const V4: &str = r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const V4_PREFIX: &str = "(0{0,2}[0-9]|0?[12][0-9]|0?3[0-2])";
const V6_PREFIX: &str = "(0{0,2}[0-9]|0?[1-9][0-9]|1[01][0-9]|12[0-8])";

pub(super) fn address_or_nothing() -> String {
    format!("^({V4}|{})?$", v6())
}

pub(super) fn cidr() -> String {
    format!("^({V4}/{V4_PREFIX}|{}/{V6_PREFIX})$", v6())
}

pub(super) fn address_or_cidr() -> String {
    format!("^({V4}(/{V4_PREFIX})?|{}(/{V6_PREFIX})?)$", v6())
}

/// Eight groups, of which the last two may be an IPv4 address, and `::` for one or more of them.
fn v6() -> String {
    const GROUP: &str = "[0-9a-fA-F]{1,4}";
    let whole = format!("({GROUP}:){{7}}{GROUP}|({GROUP}:){{6}}{V4}");
    let shortened = (0..=7).map(|before: usize| {
        let head = match before {
            0 => String::new(),
            _ => format!("{GROUP}(:{GROUP}){{{}}}", before - 1),
        };
        match 7 - before {
            0 => format!("{head}::"),
            1 => format!("{head}::({GROUP})?"),
            room => {
                let (groups, with_v4) = (room - 1, room - 2);
                format!("{head}::(({GROUP}:){{0,{groups}}}{GROUP}|({GROUP}:){{0,{with_v4}}}{V4})?")
            }
        }
    });
    let all: Vec<String> = std::iter::once(whole).chain(shortened).collect();
    format!("({})", all.join("|"))
}
