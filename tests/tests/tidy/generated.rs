//! Generated code is what its source makes.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn messages_are_those_of_the_proto_files() {
    let proto = root().join("proxy/policy/proto");
    for of in ["policy", "operator"] {
        let out = tempfile::tempdir().expect("a temporary directory");
        let descriptors = protox::compile([proto.join(format!("tidegate/{of}/v1/{of}.proto"))], [&proto])
            .expect("the proto file compiles");
        tonic_prost_build::configure()
            .build_transport(false)
            .codec_path("crate::wire::codec::Codec")
            .out_dir(out.path())
            .compile_fds(descriptors)
            .expect("code is generated");
        let name = format!("tidegate.{of}.v1.rs");
        let made = std::fs::read_to_string(out.path().join(&name)).expect("the generated file");
        let kept = root().join("proxy/policy/src/wire").join(&name);
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            std::fs::write(&kept, &made).expect("the generated file is written");
        }
        let is = std::fs::read_to_string(&kept).unwrap_or_default();
        assert!(
            is == made,
            "{} is not what {of}.proto makes: run TIDEGATE_BLESS=1 cargo test -p tests --test tidy",
            kept.display()
        );
    }
}

#[test]
fn the_charts_definitions_are_those_of_the_types() {
    let folder = root().join("charts/tidegate/files/crds");
    let bless = std::env::var_os("TIDEGATE_BLESS").is_some();
    let remedy = "run TIDEGATE_BLESS=1 cargo test -p tests --test tidy";
    let made = resources::crd_files();
    for (name, text) in &made {
        let path = folder.join(name);
        if bless {
            std::fs::write(&path, text).expect("the definition is written");
        }
        let is = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(is == *text, "{} is not what the types make: {remedy}", path.display());
    }
    for entry in std::fs::read_dir(&folder).expect("the chart has definitions") {
        let name = entry.expect("a folder's entry can be read").file_name();
        let known = made.iter().any(|(made, _)| name == made.as_str());
        assert!(known, "{} holds {}, which no type makes: remove it", folder.display(), name.display());
    }
}
