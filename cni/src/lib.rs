//! The Container Network Interface specification, version 1.1.0, on the plugin's side.
//!
//! Nothing here asks the kernel for anything: it is the language that runtimes and plugins speak.

#![forbid(unsafe_code)]
