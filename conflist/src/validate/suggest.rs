//! Suggestions for misspelt words.

/// The candidate nearest to `text`, with at most one typing error in every three letters.
///
/// Two exchanged letters are one error; case does not matter.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = text.to_lowercase();
    let most = (lower.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger() {
        let keys = ["isGateway", "isDefaultGateway", "ipMasq", "ipMasqBackend", "mtu", "ipam"];
        for (text, expected) in [
            ("isGatway", Some("isGateway")),
            ("isgateways", Some("isGateway")),
            ("defaultGateway", Some("isDefaultGateway")),
            ("ipMaqs", Some("ipMasq")),
            ("mut", Some("mtu")),
            ("ipma", Some("ipam")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(text, keys), expected, "{text}");
        }
    }
}
