//! Tests of whole chains: with fake plugins that record their calls, through the program, and with the real
//! cnitool.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]
#![allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

mod chain;
mod cnitool;
mod files;
mod gc;
mod kept;
mod program;
mod sandbox;
