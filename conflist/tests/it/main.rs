//! Tests of whole chains: with plugins that only write down what they were told, through the
//! program, and beside the real cnitool.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]
#![allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

mod chain;
mod cnitool;
mod files;
mod gc;
mod kept;
mod program;
mod sandbox;
