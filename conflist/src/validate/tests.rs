//! Tests of `validate`: broken files, and the examples, which have no mistakes.

#![allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use expect_test::{expect, expect_file};
use proptest::prelude::*;

use super::*;

/// A directory of networks and plugins, removed with the value.
struct Dir(PathBuf);

impl Dir {
    /// Adds a program for each known plugin; none is run.
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("conflist-validate-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = Self(env::temp_dir().join(name));
        fs::create_dir_all(dir.0.join("bin")).unwrap();
        for kind in Schema::types(false).chain(Schema::types(true)) {
            let program = dir.0.join("bin").join(kind);
            symlink("/bin/true", program).unwrap();
        }
        dir
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    fn bin(&self) -> [PathBuf; 1] {
        [self.0.join("bin")]
    }

    /// The findings without the directory's name.
    fn reported(&self, findings: &[Finding]) -> String {
        let lines: Vec<String> = findings.iter().map(|finding| format!("{finding}\n")).collect();
        lines.concat().replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_examples_have_no_mistake() {
    let dir = Dir::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = files::networks(&examples).unwrap();
    assert_eq!(files.len(), 6);
    for path in files {
        let mut findings = file(&path, &dir.bin());
        findings.retain(|finding| finding.severity > Severity::Hint);
        assert_eq!(dir.reported(&findings), "");
        assert!(files::load(&path).is_ok());
    }
}

/// Each file of `tests/validate` has its findings in a `.txt` file.
#[test]
fn mistakes() {
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validate");
    let mut seen = 0;
    for entry in fs::read_dir(documents).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            continue;
        }
        // Alone, because a second file with the network's name is a mistake, too.
        let dir = Dir::new();
        let name = path.file_name().unwrap().to_str().unwrap();
        let copy = dir.write(name, &fs::read_to_string(&path).unwrap());
        let reported = dir.reported(&file(&copy, &dir.bin()));
        expect_file![path.with_extension("txt")].assert_eq(&reported);
        seen += 1;
    }
    assert_eq!(seen, 27);
}

#[test]
fn the_network_of_a_name() {
    let dir = Dir::new();
    let list = |name: &str, key: &str| {
        format!(
            "{{\"name\": {name:?}, \"cniVersion\": \"1.0.0\",\n{key:?}: [{{\"type\": \"bridge\"}}]}}"
        )
    };
    let reported = |name: &str| match network(&dir.0, name, &dir.bin()) {
        Ok(findings) => dir.reported(&findings),
        Err(error) => crate::with_causes(&error).replace(&dir.0.display().to_string(), "DIR"),
    };
    dir.write("10-a.conflist", &list("a", "plugins"));
    dir.write("20-a.conflist", &list("a", "plugins"));
    dir.write("30-b.conflist", &list("b", "plugin"));
    dir.write("a/extra.conf", r#"{"type": "tuning", "mtuu": 1}"#);
    dir.write("b/extra.conf", r#"{"type": "tuning"}"#);
    expect![[r#"
        a/extra.conf:1: warning: key "mtuu": unknown; did you mean "mtu"?
        20-a.conflist:1: warning: key "name": "a" is also the network of 10-a.conflist, which comes first and is used
    "#]].assert_eq(&reported("a"));
    expect![[r#"
        30-b.conflist:2: warning: key "plugin": unknown; did you mean "plugins"?
        b/extra.conf:1: error: key "type": tuning needs the result of another plugin, so it must not be the first
    "#]].assert_eq(&reported("b"));
    expect![[r#"no file in DIR has network "c""#]].assert_eq(&reported("c"));
    dir.write("40.conflist", "{");
    dir.write("50.conflist", "{\n\"nam\": \"c\"}");
    expect![[r#"
        40.conflist:1: error: not JSON: EOF while parsing an object (column 1)
        50.conflist:1: error: key "name": missing; the name of the network, which must be unique on the node
        50.conflist:1: warning: key "cniVersion": missing; plugins then use 0.1.0
        50.conflist:1: error: key "plugins": missing; a network must have at least one plugin
        50.conflist:2: warning: key "nam": unknown; did you mean "name"?
    "#]]
    .assert_eq(&reported("c"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_text_panics(
        keys in proptest::collection::vec(
            ("(type|ipam|ranges|subnet|plugins|capabilities|vlanTrunk|name|sysctl)",
             r#"(\{\}|\[\]|\[\[\{"subnet":"::/0"\}\]\]|"[a-z.:/0-9]{0,9}"|-?[0-9]{1,40}|null|\[\{\}\])"#),
            0..6),
    ) {
        let members: Vec<String> = keys.iter().map(|(k, v)| format!("{k:?}:{v}")).collect();
        let object = format!("{{{}}}", members.join(","));
        let dir = Dir::new();
        for text in [
            object.clone(),
            format!(r#"{{"name":"n","plugins":[{object}]}}"#),
            format!(r#"{{"name":"n","plugins":[{{"type":"bridge","ipam":{object}}}]}}"#),
            format!(
                r#"{{"name":"n","plugins":[{{"type":"bridge","ipam":{{"type":"host-local","ranges":[[{object}]]}}}}]}}"#
            ),
        ] {
            for name in ["n.conflist", "n.conf"] {
                let _ = file(&dir.write(name, &text), &dir.bin());
            }
        }
    }
}
