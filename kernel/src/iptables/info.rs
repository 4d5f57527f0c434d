//! Writes and reads the fields of the C structures of `x_tables` extensions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::nft::{Expr, Xt};

/// A C structure to write. Numbers have host byte order, as in `x_tables`.
pub(super) struct Info(Vec<u8>);

impl Info {
    pub(super) fn new(size: usize) -> Self {
        Self(vec![0; size])
    }

    pub(super) fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, at: usize, value: u8) {
        self.bytes(at, &[value]);
    }

    pub(super) fn u16(&mut self, at: usize, value: u16) {
        self.bytes(at, &value.to_ne_bytes());
    }

    pub(super) fn u32(&mut self, at: usize, value: u32) {
        self.bytes(at, &value.to_ne_bytes());
    }

    pub(super) fn into_match(self, name: &str, revision: u32) -> Expr {
        Expr::Match(Xt { name: name.into(), revision, info: self.0 })
    }

    pub(super) fn into_target(self, name: &str, revision: u32) -> Expr {
        Expr::Target(Xt { name: name.into(), revision, info: self.0 })
    }
}

/// A C structure to read.
#[derive(Clone, Copy)]
pub(super) struct View<'a>(pub(super) &'a [u8]);

impl View<'_> {
    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at + N)?.try_into().ok()
    }

    pub(super) fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub(super) fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_ne_bytes)
    }

    pub(super) fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_ne_bytes)
    }

    pub(super) fn be16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    pub(super) fn v4(self, at: usize) -> Option<IpAddr> {
        self.array::<4>(at).map(|octets| Ipv4Addr::from(octets).into())
    }

    pub(super) fn v6(self, at: usize) -> Option<IpAddr> {
        self.array::<16>(at).map(|octets| Ipv6Addr::from(octets).into())
    }

    /// The text up to the first zero.
    pub(super) fn text(self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&self.0[..end]).ok().map(Into::into)
    }
}
