//! Messages compared with captures of other programs.

use super::*;

const CAPTURES: &str = include_str!("../../../tests/data/dbus.txt");

#[track_caller]
fn capture(name: &str) -> Vec<u8> {
    let lines = CAPTURES.lines().filter_map(|line| line.split_once(' '));
    let hex = lines.into_iter().find(|(of, _)| *of == name).unwrap().1;
    let digits = (0..hex.len()).step_by(2);
    digits.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_call_is_the_same_as_of_another_program() {
    let method = Method {
        destination: "org.fedoraproject.FirewallD1",
        path: "/org/fedoraproject/FirewallD1",
        interface: "org.fedoraproject.FirewallD1.zone",
        name: "querySource",
    };
    let mut theirs = capture("querySource");
    theirs[2] |= NO_AUTO_START;
    assert_eq!(call(2, method, &["trusted", "10.88.0.2/32"]), theirs);
}

#[test]
fn answers_are_read() {
    let text = |text: &str| Value::String(text.to_owned());
    let firewalld = || Kind::Error("org.fedoraproject.FirewallD1.Exception".to_owned());
    let already = "ZONE_ALREADY_SET: '10.88.0.2/32' already bound to 'trusted'";
    for (name, kind, answers, value) in [
        ("name", Kind::Return, Some(1), text(":1.2")),
        ("signal", Kind::Other, None, text(":1.2")),
        ("zone", Kind::Return, Some(2), text("trusted")),
        ("error", firewalld(), Some(2), text(already)),
        ("truth", Kind::Return, Some(2), Value::Boolean(true)),
    ] {
        let bytes = capture(name);
        let rest = rest_length(bytes.first_chunk().unwrap());
        assert_eq!(rest, Some(bytes.len() - FIXED), "{name}");
        assert_eq!(Message::parse(&bytes), Some(Message { kind, answers, value }), "{name}");
    }
}

#[test]
fn messages_that_are_cut_or_changed_are_read_or_refused() {
    for name in ["name", "signal", "error", "truth"] {
        let whole = capture(name);
        for end in 0..whole.len() {
            assert_eq!(Message::parse(&whole[..end]), None, "{name}, {end} bytes");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = Message::parse(&bytes);
                let _ = rest_length(bytes.first_chunk().unwrap());
            }
        }
    }
}

#[test]
fn a_message_that_is_too_long_is_refused() {
    let mut fixed: [u8; FIXED] = capture("truth").first_chunk().copied().unwrap();
    fixed[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(rest_length(&fixed), None);
    fixed[0] = b'x';
    assert_eq!(rest_length(&fixed), None);
}
