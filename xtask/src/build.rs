//! `cargo xtask build`: builds one static file for each plugin.

use std::fs;
use std::path::PathBuf;

use crate::command::{self, Failure, cargo, command, read};
use crate::paths::{dist, target_dir};
use crate::workspace::{Member, members};

/// Builds all programs and lists them with their sizes.
pub(crate) fn run() -> Result<(), Failure> {
    for binary in build_all()? {
        let size = fs::metadata(&binary).map_err(Failure::file("examine", &binary))?.len();
        println!("{:>6} KiB  {}", size.div_ceil(1024), binary.display());
    }
    Ok(())
}

/// Builds all shipped programs into [`dist`].
pub(crate) fn build_all() -> Result<Vec<PathBuf>, Failure> {
    let shipped: Vec<_> = members()?.into_iter().filter(Member::is_shipped).collect();
    let host = host()?;
    // Only for the target: a procedural macro is a shared object and cannot be static. A program
    // without relocations starts faster.
    let flags = format!(
        r#"target.{host}.rustflags=["-Ctarget-feature=+crt-static","-Crelocation-model=static"]"#
    );
    let mut build = cargo(["build", "--release", "--locked", "--bins"]);
    build.args(["--target", &host, "--config", &flags]).env_remove("RUSTFLAGS");
    for member in &shipped {
        build.args(["--package", &member.name]);
    }
    command::run(&mut build)?;

    let target = target_dir();
    let dist = dist();
    fs::create_dir_all(&dist).map_err(Failure::file("create", &dist))?;
    let mut binaries = Vec::new();
    for program in shipped.iter().flat_map(|member| &member.programs) {
        let made = target.join(&host).join("release").join(program);
        let placed = dist.join(program);
        // The file of a running program cannot be written, but it can be replaced.
        let fresh = dist.join(format!(".{program}.new"));
        fs::copy(&made, &fresh).map_err(Failure::file("copy", &made))?;
        fs::rename(&fresh, &placed).map_err(Failure::file("rename", &fresh))?;
        binaries.push(placed);
    }
    for binary in &binaries {
        let content = fs::read(binary).map_err(Failure::file("read", binary))?;
        if !is_static(&content) {
            return Err(Failure::Dynamic(binary.clone()));
        }
    }
    Ok(binaries)
}

/// The target triple of this machine.
fn host() -> Result<String, Failure> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = read(&mut command(rustc, ["-vV"]))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.unwrap_or_default().to_owned())
}

/// Whether this is a 64-bit little-endian ELF file without `PT_INTERP`, which names a dynamic loader.
/// The offsets are those of `Elf64_Ehdr` and `Elf64_Phdr` in elf(5).
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let types = || -> Option<Vec<u64>> {
        let table = usize::try_from(number(32, 8)?).ok()?;
        let size = usize::try_from(number(54, 2)?).ok()?;
        let count = usize::try_from(number(56, 2)?).ok()?;
        (0..count).map(|n| number(table + n * size, 4)).collect()
    };
    let asks_for_none = |types: Vec<u64>| !types.contains(&PT_INTERP);
    elf.starts_with(b"\x7fELF\x02\x01") && types().is_some_and(asks_for_none)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, followed by one program header of the given type.
    fn elf(program_header: u8) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = program_header;
        elf
    }

    #[test]
    fn an_interpreter_means_dynamic() {
        assert!(is_static(&elf(1)));
        assert!(!is_static(&elf(3)));
    }

    #[test]
    fn what_is_no_elf_file_is_not_called_static() {
        assert!(!is_static(b"#!/bin/sh"));
        assert!(!is_static(&elf(1)[..60]));
    }
}
