//! `schema write DIRECTORY` and `schema compare DIRECTORY`, run by `cargo xtask`.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let outcome = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", dir] => write(Path::new(dir)),
        ["compare", dir] => compare(Path::new(dir)),
        _ => Err("usage: schema write|compare DIRECTORY".to_owned()),
    };
    if let Err(why) = &outcome {
        eprintln!("schema: {why}");
    }
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write(dir: &Path) -> Result<(), String> {
    for file in schema::files() {
        let path = dir.join(&file.name);
        fs::write(&path, file.text)
            .map_err(|error| format!("write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn compare(dir: &Path) -> Result<(), String> {
    let stale = |file: &schema::File| {
        fs::read_to_string(dir.join(&file.name)).ok().as_ref() != Some(&file.text)
    };
    let stale: Vec<_> = schema::files().into_iter().filter(stale).map(|file| file.name).collect();
    if stale.is_empty() {
        return Ok(());
    }
    let (files, dir) = (stale.join(", "), dir.display());
    Err(format!("not what the types give: {files} in {dir}; run cargo xtask schema"))
}
