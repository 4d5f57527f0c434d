//! Reading the captures in `tests/data`.

/// A captured command: what it sent, and what the kernel made of it.
pub(crate) struct Capture {
    pub(crate) command: &'static str,
    /// Message types of nf_tables, and nfgenmsg with attributes.
    pub(crate) sent: Vec<(u8, Vec<u8>)>,
    /// nfgenmsg and attributes of the rule, as listed.
    pub(crate) kernel: Vec<u8>,
}

impl Capture {
    /// The `NFT_MSG_NEWRULE` that was sent.
    pub(crate) fn new_rule(&self) -> &[u8] {
        let new_rule = self.sent.iter().find(|(kind, _)| *kind == 6);
        new_rule.map(|(_, payload)| payload.as_slice()).unwrap_or_default()
    }
}

pub(crate) fn captures(text: &'static str) -> Vec<Capture> {
    let mut out: Vec<Capture> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match (words.as_slice(), out.last_mut()) {
            (["$", ..], _) => {
                out.push(Capture { command: &line[2..], sent: Vec::new(), kernel: Vec::new() });
            }
            (["sent", kind, _flags, bytes], Some(capture)) => {
                capture.sent.push((kind.parse().unwrap(), hex(bytes)));
            }
            (["kernel", bytes], Some(capture)) => capture.kernel = hex(bytes),
            _ => {}
        }
    }
    out
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

/// The message without `NFTA_CHAIN_POLICY`. A new chain accepts without it, and a chain that is there keeps
/// its policy.
pub(crate) fn without_policy(payload: &[u8]) -> Vec<u8> {
    const ACCEPT: [u8; 8] = [8, 0, 5, 0, 0, 0, 0, 1];
    match payload.windows(ACCEPT.len()).position(|bytes| bytes == ACCEPT) {
        Some(at) => [&payload[..at], &payload[at + ACCEPT.len()..]].concat(),
        None => payload.to_vec(),
    }
}
