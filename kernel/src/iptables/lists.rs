//! Lists of addresses (`-s 192.0.2.1,198.51.100.0/24`). iptables makes one rule for each address.

use super::{ArgumentError, Rule, parse_matches};
use crate::family::Family;

/// Adds arguments to `rule` as [`parse_matches`] does, but accepts lists of addresses: returns one rule for
/// each address, in the order of iptables.
pub fn parse_rules(
    rule: &Rule,
    family: Family,
    arguments: &[String],
) -> Result<Vec<Rule>, ArgumentError> {
    let all = expand(arguments)?;
    all.iter().map(|arguments| parse_matches(rule.clone(), family, arguments)).collect()
}

/// Replaces each list by one of its addresses, in all combinations.
fn expand(arguments: &[String]) -> Result<Vec<Vec<String>>, ArgumentError> {
    let (mut all, mut negated) = (vec![Vec::new()], false);
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let value = if option == "!" { None } else { rest.next() };
        let (is_address, text) =
            (OPTIONS.contains(&option.as_str()), value.map(String::as_str).unwrap_or_default());
        if negated && is_address && text.contains(',') {
            return Err(ArgumentError::BadValue {
                argument: format!("! {option}"),
                value: text.to_owned(),
                expected: "one address or network (iptables does not accept \"!\" before a list)",
            });
        }
        let values: Vec<&str> = if is_address { text.split(',').collect() } else { vec![text] };
        let with = |before: &Vec<String>, one: &str| {
            let mut now = before.clone();
            now.push(option.clone());
            now.extend(value.map(|_| one.to_owned()));
            now
        };
        all = all.iter().flat_map(|before| values.iter().map(|one| with(before, one))).collect();
        negated = option == "!";
    }
    Ok(all)
}

const OPTIONS: [&str; 6] = ["-s", "--source", "--src", "-d", "--destination", "--dst"];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<Vec<String>, String> {
        let arguments: Vec<String> = arguments.split_whitespace().map(Into::into).collect();
        let rules = parse_rules(&Rule::default(), Family::V4, &arguments);
        rules
            .map(|rules| rules.iter().map(ToString::to_string).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn one_rule_for_each_address() {
        assert_eq!(parse("").unwrap(), [""]);
        assert_eq!(parse("-i eth0 ! -s 192.0.2.1").unwrap(), ["! -s 192.0.2.1/32 -i eth0"]);
        assert_eq!(
            parse("-s 192.0.2.1,192.0.2.2 -i eth0 -d 198.51.100.1,198.51.100.0/24").unwrap(),
            [
                "-s 192.0.2.1/32 -d 198.51.100.1/32 -i eth0",
                "-s 192.0.2.1/32 -d 198.51.100.0/24 -i eth0",
                "-s 192.0.2.2/32 -d 198.51.100.1/32 -i eth0",
                "-s 192.0.2.2/32 -d 198.51.100.0/24 -i eth0",
            ]
        );
        assert_eq!(
            parse("-m comment --comment a,b ! -i eth0").unwrap(),
            ["! -i eth0 -m comment --comment \"a,b\""]
        );
    }

    #[test]
    fn what_iptables_refuses() {
        let why = parse("! -s 192.0.2.1,192.0.2.2").unwrap_err();
        assert!(why.contains("\"! -s\" must be one address or network"), "{why}");
        let why = parse("-s 192.0.2.1,").unwrap_err();
        assert!(why.contains("argument \"-s\" must be an address or network, not \"\""), "{why}");
        assert!(parse("-s").unwrap_err().contains("has no value"));
    }
}
